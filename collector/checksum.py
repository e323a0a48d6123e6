"""The one checksum of the project: CRC-32, of bytes in files, batches and object names.

Bytes go in, a number comes out; a small file can carry its own in its first line, so that a
damaged one is told from a whole one before anything in it is believed.
"""

from isal import isal_zlib


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    """Return the running CRC-32 (zlib's polynomial) of ``data`` after ``before``."""
    return isal_zlib.crc32(data, before)


def with_checksum(head: bytes, body: bytes) -> bytes:
    """Return a file's content: a line of ``head`` and the CRC-32 of ``body``, then ``body``."""
    return head + b"%08x\n" % crc32(body) + body


def checked_body(head: bytes, data: bytes) -> bytes | None:
    """Return the body of what ``with_checksum`` made; None if it is damaged or has another head."""
    first, _, body = data.partition(b"\n")
    return body if first == head + b"%08x" % crc32(body) else None
