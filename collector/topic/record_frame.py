"""Records in files: framed, checked by CRC, and safe once fsynced.

A record and its headers go in as one frame; out come whole frames, whatever a crash or a bad disk
has left between them. The local topic and the collector's spool keep their records this way.
"""

import struct
from collections.abc import Iterator

import msgspec

from collector.checksum import crc32
from collector.topic.interface import Headers, Record

_MAGIC = b"ELF1"
# magic, CRC-32 of all that follows, position, bytes of headers, bytes of value
_FRAME = struct.Struct("<4sIQII")
_CRC_FROM = 8  # the CRC covers the frame from its position on
FRAME_BYTES_MIN = _FRAME.size


def frame(position: int, headers: Headers, value: bytes) -> bytes:
    """Return the frame of a record."""
    packed = msgspec.msgpack.encode([list(header) for header in headers])
    head = _FRAME.pack(_MAGIC, 0, position, len(packed), len(value))
    crc = crc32(value, crc32(packed, crc32(head[_CRC_FROM:])))
    return b"".join((_MAGIC, crc.to_bytes(4, "little"), head[_CRC_FROM:], packed, value))


def parse(data: bytes, at: int) -> tuple[Record, int] | None:
    """Return the record framed at ``at`` and where the frame ends; None if it is torn."""
    if len(data) - at < _FRAME.size:
        return None
    magic, crc, position, headers_bytes, value_bytes = _FRAME.unpack_from(data, at)
    end = at + _FRAME.size + headers_bytes + value_bytes
    if magic != _MAGIC or end > len(data):
        return None
    view = memoryview(data)[at:end]
    if crc32(view[_CRC_FROM:]) != crc:
        return None
    value = at + _FRAME.size + headers_bytes
    headers = msgspec.msgpack.decode(
        view[_FRAME.size : _FRAME.size + headers_bytes], type=list[tuple[str, bytes]]
    )
    return Record(position, data[value:end], tuple(headers)), end


def stretches(data: bytes, at: int = 0) -> Iterator[tuple[Record | None, int, int]]:
    """Yield each whole frame and each damaged stretch from ``at`` on: where it starts and ends.

    A damaged stretch has no record.
    """
    damaged = at
    while at < len(data):
        parsed = parse(data, at)
        if parsed is None:
            found = data.find(_MAGIC, at + 1)
            at = found if found >= 0 else len(data)
            continue
        if damaged < at:
            yield None, damaged, at
        yield parsed[0], at, parsed[1]
        at = damaged = parsed[1]
    if damaged < at:
        yield None, damaged, at


def frames(data: bytes, at: int = 0) -> Iterator[tuple[Record, int]]:
    """Yield each whole frame from ``at`` on, with its end; damaged bytes in between are skipped."""
    for record, _, end in stretches(data, at):
        if record is not None:
            yield record, end
