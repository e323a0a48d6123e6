"""Rows into segments: one immutable Parquet object for each hour that they touch.

In come the rows of a parse and whose they are; out go the bytes of Parquet objects and what the
Delta log says of each. The order of the rows stays, each row is in exactly one segment, and any
reader of Parquet can read what is written here, with or without a blob before the footer.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from indexer.parse.parse import Rows
from indexer.schema import HOUR_NS, LEVELS, OUTPUTS, SEGMENT_SCHEMA, TIME_SOURCES
from indexer.segment import token_filter
from indexer.segment.tokens import TokenFilterWriter

ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 32 << 20
HOURS_MAX = 512
"""Segments of one commit: whoever writes lines chooses their times, and each hour is an object.

The rows of further hours, those with the fewest rows, are filed under the hour of the commit.
"""
# One page a column: zstd starts anew at each, and Arrow joins what it read of several. An index of
# pages would say no more than the footer.
_PAGE_BYTES = 2 * ROW_GROUP_BYTES
FRESH_ZSTD_LEVEL = 2  # of most logs as small as 3 and 4, for less; from 5 on at four times the cost
_NUMBERS_ZSTD_LEVEL_MIN = 6  # they are few bytes to search, and steps of offsets repeat

_OUTSIDE = TIME_SOURCES.index("line-outside")  # added to the index of a source

_DELTA = ("time", "event_offset", "offset")
_REPEATED = [
    name for name in SEGMENT_SCHEMA.names
    if name not in (*_DELTA, "time_ns", "message", "raw", "partial")
]  # fmt: skip
# A dictionary of a thousand numbers makes ten bits of each, and pays only where there are many.
_TIME_NS_DICTIONARY_ROWS_MIN = 16_384

_STATS = ("time", "namespace", "pod", "container", "pod_uid", "node", "output", "level")
# Of the order of rows. A message's bounds prune nothing, and may be as long as the message.
_BOUNDED = [*_STATS, "file_id", "offset"]

_BLOB_KEY = "everyline."

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Chosen = slice | NDArray[np.intp]  # rows, in ascending order


@dataclass(frozen=True, slots=True)
class PieceHeader:
    """Whose bytes a piece is, and where in the file they start."""

    namespace: str
    pod: str
    container: str
    pod_uid: str
    restart: int
    node: str
    file_id: bytes
    epoch: int
    start: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet object of one hour; ``stats`` is the JSON for its add action in the Delta log."""

    date: str
    hour: int
    data: bytes
    rows: int
    raw_bytes: int  # of its messages
    min_time_us: int
    max_time_us: int
    stats: str


class SegmentWriter:
    """Writes one segment: row groups go in one after the other, the Parquet object comes out."""

    def __init__(self, zstd_level: int = FRESH_ZSTD_LEVEL) -> None:
        """Start an object without rows."""
        self._zstd_level = zstd_level
        self._sink = pa.BufferOutputStream()
        self._writer: Any = None
        self._tokens = TokenFilterWriter()

    def append(self, row_group: pa.Table) -> None:
        """Add rows (SEGMENT_SCHEMA, at least one) as one row group."""
        if self._writer is None:
            self._writer = _parquet_writer(self._sink, self._zstd_level, row_group.num_rows)
        # Segments of earlier versions have no nulls where the schema now allows them.
        row_group = row_group.cast(SEGMENT_SCHEMA)
        self._writer.write_table(row_group, row_group_size=row_group.num_rows)
        self._tokens.append(row_group.column("message"))

    def finish(self) -> bytes:
        """Return the object of at least one row group; nothing can be added to it any more."""
        if made := self._tokens.finish(self._sink.tell()):
            blob, place = made
            self._sink.write(blob)
            self._writer.add_key_value_metadata({token_filter.KEY: place.to_json()})
        self._writer.close()
        data: bytes = self._sink.getvalue().to_pybytes()
        return data


def write_blob(blob: bytes, name: str) -> bytes:
    """Return a Parquet object (SEGMENT_SCHEMA) without rows, with ``blob`` before the footer.

    The footer's metadata says under ``everyline.<name>`` where the blob stands (``offset,length``).
    """
    sink = pa.BufferOutputStream()
    with _parquet_writer(sink, FRESH_ZSTD_LEVEL, rows=0) as writer:
        place = f"{sink.tell()},{len(blob)}"
        sink.write(blob)
        writer.add_key_value_metadata({_BLOB_KEY + name: place})
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _parquet_writer(sink: pa.NativeFile, zstd_level: int, rows: int) -> Any:
    """Return a writer of row groups of about ``rows``."""
    levels = dict.fromkeys(SEGMENT_SCHEMA.names, zstd_level)
    numbers = ("time_ns", "event_offset", "offset")
    levels |= dict.fromkeys(numbers, max(zstd_level, _NUMBERS_ZSTD_LEVEL_MIN))
    is_many = rows >= _TIME_NS_DICTIONARY_ROWS_MIN
    return pq.ParquetWriter(
        sink,
        SEGMENT_SCHEMA,
        compression="zstd",
        compression_level=levels,
        use_dictionary=[*_REPEATED, "time_ns"] if is_many else _REPEATED,
        column_encoding=dict.fromkeys(
            _DELTA if is_many else (*_DELTA, "time_ns"), "DELTA_BINARY_PACKED"
        ),
        write_statistics=_BOUNDED,
        store_schema=False,  # what Parquet's own does not say is in SEGMENT_SCHEMA
        data_page_size=_PAGE_BYTES,
        max_rows_per_page=ROW_GROUP_ROWS,
    )


def read_blob(
    metadata: Mapping[bytes, bytes] | None, name: str, read_range: Callable[[int, int], bytes]
) -> bytes:
    """Return the blob ``name`` of a Parquet object, empty if it has none.

    ``metadata`` is the key-value metadata of its footer, ``read_range(offset, length)`` reads it.
    """
    place = (metadata or {}).get((_BLOB_KEY + name).encode())
    if place is None:
        return b""
    offset, length = (int(number) for number in place.split(b","))
    return read_range(offset, length)


def build_segments(
    rows: Rows,
    pieces: Sequence[PieceHeader],
    commit_time_ns: int,
    window_ns: tuple[int | None, int],
) -> list[Segment]:
    """Return one segment for each hour of the rows, in the order of time.

    ``pieces`` are those of the parse, sorted by namespace, container, pod, file_id and start. A
    row whose time lies outside of ``window_ns`` (lowest or None, highest; both inclusive) goes to
    the hour of the commit, and its ``time_source`` says so.
    """
    sizes = np.diff(_offsets(rows.message))
    segments = []
    for hour, chosen, source in _by_hour(rows, commit_time_ns, window_ns):
        of_hour = sizes[chosen]
        writer = SegmentWriter()
        for start, end in row_group_bounds(of_hour):
            writer.append(_row_group(rows, pieces, _part(chosen, start, end), source))
        data = writer.finish()
        time_us = rows.time_ns[chosen] // 1000
        begin = _EPOCH + timedelta(hours=hour)
        segments.append(
            Segment(
                date=begin.date().isoformat(),
                hour=begin.hour,
                data=data,
                rows=len(of_hour),
                raw_bytes=int(of_hour.sum(dtype=np.int64)),
                min_time_us=int(time_us.min()),
                max_time_us=int(time_us.max()),
                stats=stats_of(pq.read_metadata(pa.BufferReader(data))),
            )
        )
    return segments


def _by_hour(
    rows: Rows, commit_time_ns: int, window_ns: tuple[int | None, int]
) -> Iterator[tuple[int, _Chosen, NDArray[np.int8]]]:
    """Yield (hours since 1970, rows of it in their order, time source of all rows)."""
    lowest, highest = window_ns
    times = rows.time_ns
    if not len(times):
        return
    low, high = int(times.min()), int(times.max())
    whole = slice(0, len(times))
    inside = (lowest is None or lowest <= low) and high <= highest
    if inside and low // HOUR_NS == high // HOUR_NS:
        yield low // HOUR_NS, whole, rows.time_source
        return
    outside = times > highest
    if lowest is not None:
        outside |= times < lowest
    hours = np.where(outside, commit_time_ns // HOUR_NS, times // HOUR_NS)
    found, counts = np.unique(hours, return_counts=True)
    if len(found) > HOURS_MAX:
        kept = found[np.argsort(-counts, kind="stable")[:HOURS_MAX]]
        outside |= ~np.isin(hours, kept)
        hours = np.where(outside, commit_time_ns // HOUR_NS, hours)
    source = rows.time_source + outside * np.int8(_OUTSIDE)
    order = np.argsort(hours, kind="stable")
    found, first = np.unique(hours[order], return_index=True)
    for hour, chosen in zip(found.tolist(), np.split(order, first[1:]), strict=True):
        contiguous = chosen[-1] - chosen[0] == len(chosen) - 1
        yield hour, slice(chosen[0], chosen[-1] + 1) if contiguous else chosen, source


def row_group_bounds(sizes: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of row groups: no more rows and bytes than allowed, at least one row.

    ``sizes`` are the bytes of each row's message.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    start = before = 0
    while start < len(sizes):
        fits = int(np.searchsorted(ends, before + ROW_GROUP_BYTES, "right"))
        end = min(max(fits, start + 1), start + ROW_GROUP_ROWS)
        yield start, end
        start, before = end, int(ends[end - 1])


def _part(chosen: _Chosen, start: int, end: int) -> _Chosen:
    if isinstance(chosen, slice):
        return slice(chosen.start + start, chosen.start + end)
    return chosen[start:end]


def _row_group(
    rows: Rows, pieces: Sequence[PieceHeader], chosen: _Chosen, source: NDArray[np.int8]
) -> pa.Table:
    piece = rows.piece[chosen]
    first = np.concatenate(([0], np.flatnonzero(np.diff(piece)) + 1))
    counts = np.diff(np.append(first, len(piece)))
    headers = [pieces[p] for p in piece[first].tolist()]

    def repeated(values: Iterable[int], dtype: type[np.integer[Any]]) -> NDArray[Any]:
        return np.repeat(np.fromiter(values, dtype, len(headers)), counts)

    def words(values: Iterable[str]) -> pa.DictionaryArray:
        codes: dict[str, int] = {}
        indices = repeated((codes.setdefault(word, len(codes)) for word in values), np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(codes, pa.string()))

    time_ns = rows.time_ns[chosen]
    time_us = time_ns // 1000
    offset = rows.offset[chosen] + repeated((h.start for h in headers), np.int64)
    event_offset = rows.event_offset[chosen]
    ids = pa.array([h.file_id for h in headers], pa.binary(16))
    columns = {
        "time": pa.array(time_us).view(pa.timestamp("us", tz="UTC")),
        "time_ns": (time_ns - time_us * 1000).astype(np.int16),
        "time_source": _coded(source[chosen], TIME_SOURCES),
        "namespace": words(h.namespace for h in headers),
        "pod": words(h.pod for h in headers),
        "container": words(h.container for h in headers),
        "pod_uid": words(h.pod_uid for h in headers),
        "restart": repeated((h.restart for h in headers), np.int32),
        "node": words(h.node for h in headers),
        "output": _coded(rows.output[chosen], OUTPUTS),
        "level": _coded(rows.level[chosen], LEVELS),
        "message": _taken(rows.message, chosen),
        "raw": _taken(rows.raw, chosen),
        "partial": rows.partial[chosen],
        "event_offset": pa.array(event_offset, mask=event_offset == offset),
        "file_id": ids.take(pa.array(repeated(range(len(headers)), np.int32))),
        "epoch": repeated((h.epoch for h in headers), np.int32),
        "offset": offset,
    }
    return pa.table(columns, schema=SEGMENT_SCHEMA)


def _coded(codes: NDArray[np.int8], words: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words))


def _taken(array: pa.Array, chosen: _Chosen) -> pa.Array:
    if isinstance(chosen, slice):
        return array.slice(chosen.start, chosen.stop - chosen.start)
    return array.take(pa.array(chosen))


def _offsets(array: pa.StringArray) -> NDArray[np.int32]:
    return np.frombuffer(array.buffers()[1], np.int32)[array.offset :][: len(array) + 1]


def stats_of(footer: pq.FileMetaData) -> str:
    """Return what the Delta log says of a segment, by the statistics in its footer.

    Strings are whole and times exact to the microsecond, so that no bound excludes a row. A column
    without bounds in a row group has none here.
    """
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    bounds: dict[str, tuple[str, str]] = {}
    for index, name in enumerate(SEGMENT_SCHEMA.names):
        if name in _STATS:
            found = [group.column(index).statistics for group in groups]
            if found and all(each is not None and each.has_min_max for each in found):
                low = min(each.min_raw for each in found)
                high = max(each.max_raw for each in found)
                bounds[name] = (_text(low), _text(high))
    stats = {
        "numRecords": footer.num_rows,
        "minValues": {name: low for name, (low, _) in bounds.items()},
        "maxValues": {name: high for name, (_, high) in bounds.items()},
        "nullCount": dict.fromkeys(bounds, 0),
    }
    return json.dumps(stats, separators=(",", ":"), ensure_ascii=False)


def _text(bound: int | bytes) -> str:
    """Return a time in microseconds or a word as the Delta protocol has it."""
    if isinstance(bound, bytes):
        return bound.decode()
    return f"{_EPOCH + timedelta(microseconds=bound):%Y-%m-%dT%H:%M:%S.%fZ}"
