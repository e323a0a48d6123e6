"""Lines of the container runtime into columns, whole buffers at a time.

In come the bytes of many pieces (what trimming left of each range) and what is known about their
edges; out go rows in the order of the bytes. Each line is a row or joined into one, whatever it
holds: a line that cannot be read is kept whole and says so.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.kernels import CONTINUES, parse_pieces
from indexer.level import find_levels

__all__ = ["CONTINUES", "DATA_BYTES_MAX", "Pieces", "Rows", "parse"]

DATA_BYTES_MAX = 1 << 30
"""The most bytes of one call: offsets of messages have 32 bits."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """What is known about n pieces of one buffer.

    ``open_before`` is a bit set (1 stdout, 2 stderr): an event of that output began before the
    piece. ``torn_before``: the piece starts inside a line. ``previous_time_ns`` is the time of the
    line before the piece, 0 if unknown, CONTINUES if it is the last line of the piece before.
    """

    starts: NDArray[np.int64]  # n + 1: where each begins in the buffer, and the end of the last
    open_before: NDArray[np.uint8]
    torn_before: NDArray[np.bool_]
    previous_time_ns: NDArray[np.int64]
    read_time_ns: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """m rows in the order of the bytes, and what n pieces hold.

    A row's ``offset`` is that of its first line, from the start of its piece. ``partial``: the row
    is the head, the tail or the middle of an event or a line. ``raw`` is null where the message's
    bytes are UTF-8; elsewhere ``message`` has U+FFFD in place of what is none. In each piece
    ``lines == rows + joined``; its times are 0 if it has no rows.
    """

    piece: NDArray[np.int32]
    time_ns: NDArray[np.int64]
    time_source: NDArray[np.int8]  # index into schema.TIME_SOURCES
    output: NDArray[np.int8]  # index into schema.OUTPUTS
    level: NDArray[np.int8]  # index into schema.LEVELS
    offset: NDArray[np.int64]
    partial: NDArray[np.bool_]
    message: pa.StringArray
    raw: pa.BinaryArray
    # n each
    lines: NDArray[np.int64]
    rows: NDArray[np.int64]
    joined: NDArray[np.int64]
    first_time_ns: NDArray[np.int64]
    last_time_ns: NDArray[np.int64]


def parse(data: bytes, pieces: Pieces) -> Rows:
    """Parse the lines `<RFC 3339 time> <stdout|stderr> <tag> <message>` of all pieces.

    A line without such a head, with a date that does not exist or a time that 64 bits of
    nanoseconds since 1970 cannot hold, is malformed: its output is unknown and its time that of
    the line before it. A leap second counts as the last nanosecond before it, digits of a fraction
    after the ninth are cut. Fragments (``P``) are joined with what follows of their output up to
    the first line that is none; of a malformed line the collector's reading decides, so that a
    cut by the collector never changes a row. Raises ValueError if ``data`` is too long.
    """
    if len(data) >= DATA_BYTES_MAX:
        raise ValueError(f"{len(data)} bytes in one parse, the most is {DATA_BYTES_MAX - 1}")
    source = np.frombuffer(data, np.uint8)
    n = len(pieces.read_time_ns)
    most = data.count(b"\n") + n
    line_row, line_start, line_end = np.empty((3, most), np.int64)
    time_ns, offset = np.empty((2, most), np.int64)
    time_source, output = np.empty((2, most), np.int8)
    partial, invalid = np.empty((2, most), np.bool_)
    piece = np.empty(most, np.int32)
    offsets = np.empty(most + 1, np.int32)
    # Arrow's pool keeps its pages: fresh ones from the system cost more than the parse.
    text = np.frombuffer(pa.allocate_buffer(len(data)), np.uint8)
    lines, counts, first, last = np.empty((4, n), np.int64)
    m = parse_pieces(
        source, pieces.starts, pieces.open_before, pieces.torn_before,
        pieces.previous_time_ns, pieces.read_time_ns, line_row, line_start, line_end,
        time_ns, time_source, output, offset, partial, piece, offsets, text, invalid,
        lines, counts, first, last,
    )  # fmt: skip
    offsets = offsets[: m + 1]
    level = np.empty(m, np.int8)
    find_levels(text, offsets, level)
    message, raw = _strings(text, offsets, np.flatnonzero(invalid[:m]))
    return Rows(
        piece[:m], time_ns[:m], time_source[:m], output[:m], level, offset[:m], partial[:m],
        message, raw, lines, counts, lines - counts, first, last,
    )  # fmt: skip


def compile_kernels() -> None:
    """Compile the kernels into their cache, so that no later start has to."""
    one = np.ones(1, np.int64)
    flags = (one.astype(np.uint8), one.astype(np.bool_))
    line = b"2026-01-01T00:00:00Z stdout F compiled\n"
    parse(line, Pieces(np.array([0, len(line)]), *flags, one, one))


def _strings(
    text: NDArray[np.uint8], offsets: NDArray[np.int32], invalid: NDArray[np.intp]
) -> tuple[pa.StringArray, pa.BinaryArray]:
    """Return ``message`` and ``raw``; ``invalid`` are the rows whose bytes are no UTF-8."""
    m = len(offsets) - 1
    if not len(invalid):
        body = pa.py_buffer(text[: offsets[-1]])
        message = pa.StringArray.from_buffers(m, pa.py_buffer(offsets), body)
        return message, pa.nulls(m, pa.binary())
    raws = [text[offsets[row] : offsets[row + 1]].tobytes() for row in invalid]
    replaced = [raw.decode("utf-8", "replace").encode() for raw in raws]
    parts: list[bytes | memoryview] = []
    at = 0
    for row, new in zip(invalid, replaced, strict=True):
        parts += (text[at : offsets[row]].data, new)
        at = offsets[row + 1]
    parts.append(text[at : offsets[-1]].data)
    sizes = np.diff(offsets).astype(np.int64)
    sizes[invalid] = [len(new) for new in replaced]
    message = pa.StringArray.from_buffers(m, _offsets(sizes), pa.py_buffer(b"".join(parts)))
    kept = np.zeros(m, np.int64)
    kept[invalid] = [len(raw) for raw in raws]
    valid = np.zeros(m, np.bool_)
    valid[invalid] = True
    bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bits, _offsets(kept), pa.py_buffer(b"".join(raws))]
    return message, pa.BinaryArray.from_buffers(pa.binary(), m, buffers)


def _offsets(sizes: NDArray[np.int64]) -> pa.Buffer:
    ends = np.cumsum(sizes)
    if len(ends) and ends[-1] >= 1 << 31:
        raise ValueError(f"{ends[-1]} bytes of messages in one parse after replacement")
    return pa.py_buffer(np.concatenate(([0], ends)).astype(np.int32))
