"""The columns of the table ``logs``: what a row of a log line is.

Every segment has exactly these columns in this order; readers of other programs see the same.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collector import levels

TIME = pa.timestamp("us", tz="UTC")
"""The type of every column of times."""

_WORD = pa.dictionary(pa.int32(), pa.string())

PARTITION_COLUMNS = ("date", "hour")

OUTPUTS = ("stdout", "stderr", "unknown")
"""Values of ``output``; unknown is a line without a readable CRI header."""

LEVELS = (*levels.LEVELS, levels.UNKNOWN)
"""Values of ``level``, in order of weight."""

TIME_SOURCES = ("line", "previous", "read", "line-outside", "previous-outside", "read-outside")
"""Where ``time`` is from: the line, the line before it, or the collector's clock at reading.

``-outside``: the row is filed under the hour of its commit, since its own hour lies outside of
what the table accepts.
"""

SEGMENT_SCHEMA = pa.schema(
    [
        pa.field("time", TIME, nullable=False),
        pa.field("time_ns", pa.int16(), nullable=False),  # the last three digits
        pa.field("time_source", _WORD, nullable=False),
        pa.field("namespace", _WORD, nullable=False),
        pa.field("pod", _WORD, nullable=False),
        pa.field("container", _WORD, nullable=False),
        pa.field("pod_uid", _WORD, nullable=False),
        pa.field("restart", pa.int32(), nullable=False),
        pa.field("node", _WORD, nullable=False),
        pa.field("output", _WORD, nullable=False),
        pa.field("level", _WORD, nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("raw", pa.binary(), nullable=True),  # the bytes, where they are not UTF-8
        pa.field("partial", pa.bool_(), nullable=False),
        # Of the first line of its event; null, or its own, where a row is that line.
        pa.field("event_offset", pa.int64(), nullable=True),
        pa.field("file_id", pa.binary(16), nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
"""Columns of a segment's Parquet; ``date`` and ``hour`` stand in its path and in the Delta log."""

_WORDS = [field.name for field in SEGMENT_SCHEMA if pa.types.is_dictionary(field.type)]


def times_ns(rows: pa.Table) -> pa.ChunkedArray:
    """Return ``time`` and ``time_ns`` of rows as one, in nanoseconds since 1970."""
    us = rows.column("time").cast(pa.int64())
    return pc.add(pc.multiply(us, 1000), rows.column("time_ns").cast(pa.int64()))


def open_segment(file: Any, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Open the Parquet of a segment, so that its columns have the types of SEGMENT_SCHEMA.

    With the ``metadata`` of its footer that is not read again.
    """
    # What is to be read is held already: Arrow's own threads would only hand it over.
    return pq.ParquetFile(file, metadata=metadata, read_dictionary=_WORDS, pre_buffer=False)
