"""Lines of containers and programs into columns, whole buffers at a time.

In come the bytes of many pieces (what trimming left of each range) and what is known about their
edges; out go rows in the order of the bytes. Each line is a row or joined into one, whatever it
holds: a line that cannot be read is kept whole and says so.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from collector.wire.range import FORMATS
from indexer.kernels import Bytes, Codes, Flags, Ints, Longs, compiled, count_newlines
from indexer.parse.cri import split_cri
from indexer.parse.described_time import GUESSING, PlainTimes
from indexer.parse.docker import split_docker
from indexer.parse.events import PREVIOUS_NS, find_events
from indexer.parse.level import find_levels
from indexer.parse.lines import Around, Columns, Lines
from indexer.parse.messages import find_invalid, gather, replace_invalid
from indexer.parse.plain import split_plain

DATA_BYTES_MAX = 1 << 30
"""The most bytes of one call: offsets of messages have 32 bits."""

_CRI, _DOCKER, _PLAIN = (FORMATS.index(name) for name in ("cri", "docker", "plain"))


@dataclass(frozen=True, slots=True)
class Pieces:
    """What is known about n pieces of one buffer.

    ``open_before`` is a bit set (1 stdout, 2 stderr): an event of that output began before the
    piece. ``torn_before``: the piece starts inside a line. ``state_before`` is the state that
    parsing has left where the piece begins, NO_STATE if unknown; it does not count where the piece
    ``continues`` the one before it in its file.
    """

    starts: NDArray[np.int64]  # n + 1: where each begins in the buffer, and the end of the last
    file_start: NDArray[np.int64]  # where it begins in its file
    format: NDArray[np.int8]  # index into collector.range.FORMATS
    pattern: NDArray[
        np.int16
    ]  # of plain lines: row of PlainTimes.programs, GUESSED if there is none
    open_before: NDArray[np.uint8]
    torn_before: NDArray[np.bool_]
    continues: NDArray[np.bool_]
    state_before: NDArray[np.int64]  # n x STATE_SIZE
    read_time_ns: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """m rows in the order of the bytes, and what n pieces hold.

    A row's ``offset`` is that of its first line, from the start of its piece; ``event_offset`` is
    that of the first line of its event, from the start of its file. ``partial``: the row is the
    head, the tail or the middle of an event or a line. ``raw`` is null where the message's bytes
    are UTF-8; elsewhere ``message`` has U+FFFD in place of bytes that are not. In each piece
    ``lines == rows + joined``; its times are 0 if it has no rows.
    """

    piece: NDArray[np.int32]
    time_ns: NDArray[np.int64]
    time_source: NDArray[np.int8]  # index into schema.TIME_SOURCES
    output: NDArray[np.int8]  # index into schema.OUTPUTS
    level: NDArray[np.int8]  # index into schema.LEVELS
    offset: NDArray[np.int64]
    event_offset: NDArray[np.int64]
    partial: NDArray[np.bool_]
    message: pa.StringArray
    raw: pa.BinaryArray
    # n each
    lines: NDArray[np.int64]
    rows: NDArray[np.int64]
    joined: NDArray[np.int64]
    first_time_ns: NDArray[np.int64]
    last_time_ns: NDArray[np.int64]
    state_after: NDArray[np.int64]  # n x STATE_SIZE


@compiled
def _count_lines(data: Bytes, starts: Longs) -> tuple[int, int]:
    """Return the maximum number of lines of all pieces, and of one of them."""
    most = in_piece = 0
    for p in range(starts.size - 1):
        lines = count_newlines(data[starts[p] : starts[p + 1]]) + 1
        most, in_piece = most + lines, max(in_piece, lines)
    return most, in_piece


@compiled
def _parse_pieces(
    data: Bytes,
    starts: Longs,
    file_start: Longs,
    formats: Codes,
    pattern: Ints,
    open_before: Bytes,
    torn_before: Flags,
    continues: Flags,
    read_time_ns: Longs,
    programs: Ints,
    zone_s: int,
    unescaped: Bytes,
    lines: Lines,
    cursor: Longs,
    columns: Columns,
    level: Codes,
    event_offset: Longs,
    piece: Ints,
    invalid: Flags,
    offsets: Ints,
    text: Bytes,
    counts: Longs,
    states: Longs,
) -> int:
    """Parse every piece, one behind the other so that each stays in the CPU's cache.

    ``lines`` and ``cursor`` hold one piece at a time, arrays per row are filled from their start.
    ``counts`` has four rows a piece: lines, rows, first and last time; ``states`` has the states
    before it and gets those after it. Returns the number of rows.
    """
    offsets[0] = 0
    row = 0
    for p in range(starts.size - 1):
        if continues[p]:
            states[p] = states[p - 1]
        state, start, end = states[p], starts[p], starts[p + 1]
        around = Around(open_before[p], torn_before[p], state[PREVIOUS_NS], read_time_ns[p])
        source = data
        if formats[p] == _CRI:
            line, next_row, state[PREVIOUS_NS] = split_cri(
                data, start, end, around, row, lines, columns
            )
        elif formats[p] == _DOCKER:
            line, next_row, state[PREVIOUS_NS] = split_docker(
                data, start, end, around, row, lines, columns, unescaped
            )
            source = unescaped
        else:
            program = programs[pattern[p]] if pattern[p] >= 0 else programs[0][:0]
            line, next_row, state[PREVIOUS_NS] = split_plain(
                data, start, end, around, row, lines, columns, program, zone_s
            )
        gather(source, line, row, next_row, lines, offsets, cursor, text)
        find_invalid(text, offsets, row, next_row, invalid)
        find_levels(text, offsets, row, next_row, level)
        find_events(
            text, offsets, row, next_row, columns, formats[p] == _PLAIN, file_start[p], state,
            event_offset,
        )  # fmt: skip
        piece[row:next_row] = p
        counts[0, p], counts[1, p] = line, next_row - row
        counts[2, p] = columns.time_ns[row:next_row].min() if next_row > row else 0
        counts[3, p] = columns.time_ns[row:next_row].max() if next_row > row else 0
        row = next_row
    return row


def parse(data: bytes, pieces: Pieces, plain_times: PlainTimes = GUESSING) -> Rows:
    """Parse the lines of all pieces, each by its format.

    A line that its format does not know, with a date that does not exist or a time that 64 bits of
    nanoseconds since 1970 cannot hold, is malformed: its output is unknown and its time that of
    the line before it. A leap second counts as the last nanosecond before it, digits of a fraction
    after the ninth are cut. Fragments are joined with what follows of their output up to the first
    line that is malformed. Raises ValueError if ``data`` is too long.
    """
    if len(data) >= DATA_BYTES_MAX:
        raise ValueError(f"{len(data)} bytes in one parse, the maximum is {DATA_BYTES_MAX - 1}")
    n = len(pieces.read_time_ns)
    source = np.frombuffer(data, np.uint8)
    most, in_piece = _count_lines(source, pieces.starts)
    *places, cursor = np.empty((4, in_piece), np.int64)
    time_ns, offset, event_offset = np.empty((3, most), np.int64)
    time_source, output, opens, level = np.empty((4, most), np.int8)
    partial, tail, invalid = np.empty((3, most), np.bool_)
    columns = Columns(time_ns, time_source, output, opens, offset, partial, tail)
    piece = np.empty(most, np.int32)
    offsets = np.empty(most + 1, np.int32)
    # Arrow's pool keeps its pages: fresh ones from the system cost more than the parse.
    text = np.frombuffer(pa.allocate_buffer(len(data)), np.uint8)
    escaped = np.diff(pieces.starts)[pieces.format == _DOCKER]
    unescaped = np.empty(escaped.max(initial=0), np.uint8)
    counts, states = np.empty((4, n), np.int64), pieces.state_before.copy()
    m = _parse_pieces(
        source, pieces.starts, pieces.file_start, pieces.format,
        pieces.pattern, pieces.open_before, pieces.torn_before, pieces.continues,
        pieces.read_time_ns, plain_times.programs, plain_times.zone_s, unescaped,
        Lines(*places), cursor, columns, level, event_offset, piece, invalid, offsets, text,
        counts, states,
    )  # fmt: skip
    offsets = offsets[: m + 1]
    message, raw = _strings(text, offsets, np.flatnonzero(invalid[:m]))
    return Rows(
        piece[:m], time_ns[:m], time_source[:m], output[:m], level[:m], offset[:m],
        event_offset[:m], partial[:m], message, raw, counts[0], counts[1], counts[0] - counts[1],
        counts[2], counts[3], states,
    )  # fmt: skip


def _strings(
    text: NDArray[np.uint8], offsets: NDArray[np.int32], invalid: NDArray[np.intp]
) -> tuple[pa.StringArray, pa.BinaryArray]:
    """Return ``message`` and ``raw``; ``invalid`` are the rows whose bytes are not UTF-8."""
    m = len(offsets) - 1
    if not len(invalid):
        body = pa.py_buffer(text[: offsets[-1]])
        message = pa.StringArray.from_buffers(m, pa.py_buffer(offsets), body)
        return message, pa.nulls(m, pa.binary())
    kept = np.zeros(m, np.int64)
    kept[invalid] = np.diff(offsets)[invalid]
    raw = np.empty(kept.sum(), np.uint8)
    most = int(offsets[-1]) + 2 * len(raw)  # a byte becomes three at most
    if most >= 1 << 31:
        raise ValueError(f"{most} bytes of messages in one parse after replacement")
    body, starts = np.empty(most, np.uint8), np.empty(m + 1, np.int32)
    end = replace_invalid(text, offsets, invalid, body, starts, raw)
    message = pa.StringArray.from_buffers(m, pa.py_buffer(starts), pa.py_buffer(body[:end]))
    bits = pa.py_buffer(np.packbits(kept > 0, bitorder="little"))
    ends = np.concatenate(([0], np.cumsum(kept))).astype(np.int32)
    buffers = [bits, pa.py_buffer(ends), pa.py_buffer(raw)]
    return message, pa.BinaryArray.from_buffers(pa.binary(), m, buffers)
