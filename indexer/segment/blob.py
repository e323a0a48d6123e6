"""Bytes before the footer of a Parquet file without rows: how coverage is a member of the table.

A blob and its name go in, the bytes of an object come out, and back. Every reader of Parquet takes
such an object for an empty one.
"""

from collections.abc import Callable, Mapping

import pyarrow as pa

from indexer.segment.parquet import FRESH_ZSTD_LEVEL, parquet_writer

_BLOB_KEY = "everyline."


def write_blob(blob: bytes, name: str) -> bytes:
    """Return a Parquet object (SEGMENT_SCHEMA) without rows, with ``blob`` before the footer.

    The footer's metadata says under ``everyline.<name>`` where the blob stands (``offset,length``).
    """
    sink = pa.BufferOutputStream()
    with parquet_writer(sink, FRESH_ZSTD_LEVEL, rows=0) as writer:
        place = f"{sink.tell()},{len(blob)}"
        sink.write(blob)
        writer.add_key_value_metadata({_BLOB_KEY + name: place})
    data: bytes = sink.getvalue().to_pybytes()
    return data


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
