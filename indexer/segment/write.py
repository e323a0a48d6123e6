"""Rows into segments: one immutable Parquet object for each hour that they touch.

In come the rows of a parse and whose they are; out go the bytes of Parquet objects and what the
Delta log says of each. The order of the rows stays, each row is in exactly one segment, and any
reader of Parquet can read what is written here, with or without a blob before the footer.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from collector.wire.range import Stream
from indexer.equal_runs import run_starts
from indexer.parse.parse import Rows
from indexer.schema import LEVELS, OUTPUTS, SEGMENT_SCHEMA, TIME, TIME_SOURCES
from indexer.segment import token_filter
from indexer.segment.parquet import (
    FRESH_ZSTD_LEVEL,
    ROW_GROUP_BYTES,
    ROW_GROUP_ROWS,
    parquet_writer,
    stats_of,
)
from indexer.segment.tokens import TokenFilterWriter
from indexer.store.checked_file import add_checksums
from indexer.times import HOUR_NS, partition_of

HOURS_MAX = 512
"""Segments of one commit: whoever writes lines chooses their times, and each hour is an object.

The rows of further hours, those with the fewest rows, are filed under the hour of the commit.
"""

_OUTSIDE = TIME_SOURCES.index("line-outside")  # added to the index of a source

_Chosen = slice | NDArray[np.intp]  # rows, in ascending order


@dataclass(frozen=True, slots=True)
class PieceHeader:
    """Whose bytes a piece is, and where in the file they start."""

    stream: Stream
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
        self._data = io.BytesIO()  # gives its bytes away without copying them
        self._sink = pa.PythonFile(self._data, "w")
        self._writer: Any = None
        self._tokens = TokenFilterWriter()

    def append(self, row_group: pa.Table) -> None:
        """Add rows (SEGMENT_SCHEMA, at least one) as one row group."""
        if self._writer is None:
            self._writer = parquet_writer(self._sink, self._zstd_level, row_group.num_rows)
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
        add_checksums(self._data)
        return self._data.getvalue()


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
        day, hour_of_day = partition_of(hour)
        segments.append(
            Segment(
                date=day,
                hour=hour_of_day,
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
    first = run_starts(piece)
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
        "time": pa.array(time_us).view(TIME),
        "time_ns": (time_ns - time_us * 1000).astype(np.int16),
        "time_source": _coded(source[chosen], TIME_SOURCES),
        "namespace": words(h.stream.namespace for h in headers),
        "pod": words(h.stream.pod for h in headers),
        "container": words(h.stream.container for h in headers),
        "pod_uid": words(h.stream.pod_uid for h in headers),
        "restart": repeated((h.stream.restart for h in headers), np.int32),
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
