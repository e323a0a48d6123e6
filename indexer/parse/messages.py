"""The bytes of messages: brought together in the order of rows, judged as UTF-8 and made it.

In come lines and where their messages stand; out go all messages of a piece behind each other, the
fragments of each joined, and which of them are not UTF-8. Of those, a text that is and their bytes.
"""

import numpy as np

from indexer.kernels import Bytes, Flags, Ints, Longs, compiled, integer, memcpy
from indexer.parse.lines import Lines

_REPLACEMENT = (0xEF, 0xBF, 0xBD)  # U+FFFD


@compiled
def gather(
    data: Bytes,
    line_count: int,
    first_row: int,
    last_row: int,
    lines: Lines,
    offsets: Ints,
    cursor: Longs,
    text: Bytes,
) -> None:
    """Copy the messages of lines and rows ``[first, last)`` behind each other, row by row."""
    source, target = data.ctypes.data, text.ctypes.data
    at = integer(offsets[first_row])
    if line_count == last_row - first_row:
        for line in range(line_count):
            size = lines.end[line] - lines.start[line]
            memcpy(target + at, source + lines.start[line], size)
            at += size
            offsets[first_row + line + 1] = at
        return
    cursor[: last_row - first_row] = 0
    for line in range(line_count):
        cursor[lines.row[line] - first_row] += lines.end[line] - lines.start[line]
    for row in range(first_row, last_row):
        size = cursor[row - first_row]
        cursor[row - first_row] = at
        at += size
        offsets[row + 1] = at
    for line in range(line_count):
        size = lines.end[line] - lines.start[line]
        here = lines.row[line] - first_row
        memcpy(target + cursor[here], source + lines.start[line], size)
        cursor[here] += size


@compiled
def _is_ascii(text: Bytes) -> bool:
    seen = np.uint8(0)
    for byte in text:
        seen |= byte
    return bool(seen < 128)


@compiled
def _sequence(text: Bytes, at: int, end: int) -> int:
    """Return the size of the character at ``at`` that is not ASCII, below 0 if there is none.

    Then it is the size of what began like one: of the "maximal subpart" for which the Unicode
    standard (3.9, after table 3-7) recommends one replacement.
    """
    lead = text[at]
    low, high = 0x80, 0xBF
    if 0xC2 <= lead <= 0xDF:
        more = 1
    elif 0xE0 <= lead <= 0xEF:
        more = 2
        if lead == 0xE0:
            low = 0xA0
        elif lead == 0xED:
            high = 0x9F
    elif 0xF0 <= lead <= 0xF4:
        more = 3
        if lead == 0xF0:
            low = 0x90
        elif lead == 0xF4:
            high = 0x8F
    else:
        return -1
    if at + 1 >= end or text[at + 1] < low or text[at + 1] > high:
        return -1
    for i in range(2, more + 1):
        if at + i >= end or text[at + i] < 0x80 or text[at + i] > 0xBF:
            return -i
    return more + 1


@compiled
def _is_utf8(text: Bytes) -> bool:
    at = 0
    while at < text.size:
        if text[at] < 0x80:
            at += 1
            continue
        size = _sequence(text, at, text.size)
        if size < 0:
            return False
        at += size
    return True


@compiled
def find_invalid(text: Bytes, offsets: Ints, first_row: int, last_row: int, invalid: Flags) -> None:
    """Say of rows ``[first_row, last_row)`` which are not UTF-8."""
    all_ascii = _is_ascii(text[offsets[first_row] : offsets[last_row]])
    for row in range(first_row, last_row):
        message = text[offsets[row] : offsets[row + 1]]
        invalid[row] = not all_ascii and not _is_ascii(message) and not _is_utf8(message)


@compiled
def replace_invalid(
    text: Bytes, offsets: Ints, invalid: Longs, message: Bytes, starts: Ints, raw: Bytes
) -> int:
    """Copy all messages with U+FFFD in place of what is no UTF-8, as ``bytes.decode`` has it.

    ``invalid`` are the rows that have such bytes; ``raw`` gets these as they are, one row behind
    the other. ``starts`` (of rows, and the end) are those in ``message``; the end is returned.
    """
    source, target, kept = text.ctypes.data, message.ctypes.data, raw.ctypes.data
    at = to = row = 0
    for bad in invalid:
        start, end = integer(offsets[bad]), integer(offsets[bad + 1])
        memcpy(target + to, source + at, start - at)
        memcpy(kept, source + start, end - start)
        kept += end - start
        while row <= bad:
            starts[row] = offsets[row] + to - at
            row += 1
        to += start - at
        at = start
        while at < end:
            size = _sequence(text, at, end) if text[at] >= 0x80 else 1
            if size < 0:
                message[to], message[to + 1], message[to + 2] = _REPLACEMENT
                to, at = to + 3, at - size
                continue
            for i in range(size):
                message[to + i] = text[at + i]
            to, at = to + size, at + size
    while row < offsets.size:
        starts[row] = offsets[row] + to - at
        row += 1
    memcpy(target + to, source + at, offsets[-1] - at)
    return int(to + offsets[-1] - at)
