"""What is in the objects of a bucket: coverage, a segment, a part of the ledger.

An object goes in by ranges, or whole where it is small; what its own readers find in it comes out,
one item after the other. Whatever cannot be decoded is said.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import CoverageError, SegmentDamaged
from indexer.ledger.rows import LEDGER_SCHEMA, entry_of
from indexer.schema import SEGMENT_SCHEMA
from indexer.segment import token_filter
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Bucket
from indexer.table.coverage import Coverage, from_object, note_entry
from query_api.command.inspect_items import Item, fields_of, line_text
from query_api.errors import NotReadable

_COVERAGE_KEY = b"everyline.coverage"
_SHOWN = ("time", "namespace", "pod", "container", "level", "output", "file_id", "offset")
_ROWS_AT_ONCE = 4096
_NEXT = "take it from a copy of the bucket; CLUSTER/scrub/ names what else storage has damaged"


def _coverage(bucket: Bucket, name: str, lines: bool, position: int | None) -> Iterator[Item]:
    try:
        commits = from_object(bucket.get(name))
    except CoverageError as error:
        raise NotReadable(
            f"holds no coverage: {error}; one with rows is a segment, for a damaged one {_NEXT}"
        ) from error
    for commit in commits:
        yield from _commit(commit)


def _commit(commit: Coverage) -> Iterator[Item]:
    yield "commit", {"version": commit.version, "committed_ns": commit.committed_ns}
    yield "balance", {**fields_of(commit.balance), "holds": commit.balance.holds}
    yield from (("position", fields_of(each)) for each in commit.positions)
    yield from (("lane", fields_of(each)) for each in commit.lanes)
    spans = []
    for file in commit.files:
        about = fields_of(file)
        spans += [{"file_id": file.file_id, **span} for span in about.pop("spans")]
        yield "file", {**about, "spans": len(file.spans)}
    yield from (("span", each) for each in spans)
    for note in commit.notes:
        about = fields_of(note)
        del about["body"]
        yield "note", {**about, "entry": fields_of(note_entry(note))}
    yield from (("jump", fields_of(each)) for each in commit.jumps)
    yield from (("expired", fields_of(each)) for each in commit.expired)
    yield from (("deleted", fields_of(each)) for each in commit.deleted)


# -- segments --------------------------------------------------------------------------------------


def _segment(bucket: Bucket, name: str, lines: bool, position: int | None) -> Iterator[Item]:
    size = bucket.size(name)
    with _decoding():
        segment = SegmentReader(bucket, name, size)
        footer = segment.footer
        if footer.schema.names != SEGMENT_SCHEMA.names:
            raise NotReadable("is Parquet without the columns of a segment; try another kind")
        known = footer.metadata or {}
        if any(key.startswith(_COVERAGE_KEY) for key in known):
            raise NotReadable("is a coverage object; inspect it as coverage")
        about = {"bytes": size, "rows": footer.num_rows, "row_groups": footer.num_row_groups}
        yield "segment", {**about, "written_by": footer.created_by}
        yield "filter", _filter(known)
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        for number, group in enumerate(groups):
            yield "row_group", {"number": number, **_row_group(group)}
        for index, column in enumerate(SEGMENT_SCHEMA.names):
            chunks = [group.column(index) for group in groups]
            stored = sum(chunk.total_compressed_size for chunk in chunks)
            raw = sum(chunk.total_uncompressed_size for chunk in chunks)
            yield "column", {"name": column, "bytes": stored, "uncompressed_bytes": raw}
        if lines:
            yield from _rows(segment)


def _filter(known: Mapping[bytes, bytes]) -> dict[str, Any]:
    if token_filter.KEY not in known:
        return {"tokens": "no filter"}
    try:
        place = token_filter.Place.from_json(known[token_filter.KEY])
    except ValueError as error:
        return {"tokens": f"cannot be used, and excludes nothing: {error}"}
    return {name: getattr(place, name) for name in (*place.__slots__, "blocks_bytes")}


def _row_group(group: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": group.num_rows, "uncompressed_bytes": group.total_byte_size}
    for name in ("time", "namespace", "pod"):
        bounds = group.column(SEGMENT_SCHEMA.names.index(name)).statistics
        is_known = bounds is not None and bounds.has_min_max
        found[f"first_{name}"] = str(bounds.min) if is_known else None
        found[f"last_{name}"] = str(bounds.max) if is_known else None
    return found


def _rows(segment: SegmentReader) -> Iterator[Item]:
    for number in segment.numbers:
        for rows in segment.columns(number, [*_SHOWN, "message", "raw"]).to_batches(_ROWS_AT_ONCE):
            for row in rows.to_pylist():
                raw, message = row.pop("raw"), row.pop("message")
                text = message if raw is None else line_text(raw)
                yield "line", {**row, "time": row["time"].isoformat(), "message": text}


# -- the ledger ------------------------------------------------------------------------------------


def _ledger(bucket: Bucket, name: str, lines: bool, position: int | None) -> Iterator[Item]:
    data = bucket.get(name)
    with _decoding():
        parquet = pq.ParquetFile(pa.BufferReader(data))
        if parquet.schema_arrow.names != LEDGER_SCHEMA.names:
            raise NotReadable("is Parquet without the columns of the ledger; try another kind")
        yield "ledger", {"bytes": len(data), "rows": parquet.metadata.num_rows}
        columns = ["kind", "version", "entry"]
        for rows in parquet.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
            for row in rows.to_pylist():
                yield row["kind"], {"version": row["version"], **_entry(row["kind"], row["entry"])}


def _entry(kind: str, body: bytes) -> dict[str, Any]:
    try:
        entry = entry_of(kind, body)
    except (KeyError, msgspec.MsgspecError) as error:
        raise NotReadable(
            f"has an entry of the kind {kind!r} that cannot be read: {error!r}; it is damaged or "
            "of a newer version"
        ) from error
    return fields_of(entry) if isinstance(entry, msgspec.Struct) else {"value": entry}


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except (SegmentDamaged, pa.ArrowException, OSError) as error:
        raise NotReadable(f"is damaged, or no Parquet: {error}; {_NEXT}") from error


READERS = {"coverage": _coverage, "segment": _segment, "ledger": _ledger}
"""By kind: (bucket, name in it, whether to show lines, position or None) -> items."""
