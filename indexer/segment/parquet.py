"""How our Parquet is written: row groups, pages, encodings, and the statistics for the Delta log.

Columns of SEGMENT_SCHEMA go in, an ordinary Parquet file comes out that any reader takes. What is
chosen here was measured; deploy/FORMAT.md describes the result.
"""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from indexer.schema import SEGMENT_SCHEMA
from indexer.times import format_microseconds

ROW_GROUP_ROWS = 65_536
ROW_GROUP_BYTES = 32 << 20
# One page a column: zstd starts anew at each, and Arrow joins what it read of several. An index of
# pages would say no more than the footer.
_PAGE_BYTES = 2 * ROW_GROUP_BYTES
FRESH_ZSTD_LEVEL = 2  # of most logs as small as 3 and 4, for less; from 5 on at four times the cost
_NUMBERS_ZSTD_LEVEL_MIN = 6  # they are few bytes to search, and steps of offsets repeat

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


def parquet_writer(sink: pa.NativeFile, zstd_level: int, rows: int) -> Any:
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
    return format_microseconds(bound)
