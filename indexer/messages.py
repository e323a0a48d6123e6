"""The bytes of messages: brought together in the order of rows, and judged as UTF-8.

In come lines and where their messages stand; out go all messages of a piece behind each other, the
fragments of each joined, and which of them are no UTF-8.
"""

import numpy as np

from indexer.kernels import Bytes, Flags, Ints, Lines, Longs, compiled, integer, memcpy


@compiled
def gather(
    data: Bytes,
    first_line: int,
    last_line: int,
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
    if last_line - first_line == last_row - first_row:
        for line in range(first_line, last_line):
            size = lines.end[line] - lines.start[line]
            memcpy(target + at, source + lines.start[line], size)
            at += size
            offsets[first_row + line - first_line + 1] = at
        return
    cursor[: last_row - first_row] = 0
    for line in range(first_line, last_line):
        cursor[lines.row[line] - first_row] += lines.end[line] - lines.start[line]
    for row in range(first_row, last_row):
        size = cursor[row - first_row]
        cursor[row - first_row] = at
        at += size
        offsets[row + 1] = at
    for line in range(first_line, last_line):
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
def _is_utf8(text: Bytes) -> bool:
    """Tell whether the bytes are well formed after table 3-7 of the Unicode standard."""
    at, end = 0, text.size
    while at < end:
        lead = text[at]
        if lead < 0x80:
            at += 1
            continue
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
            return False
        if at + more >= end or text[at + 1] < low or text[at + 1] > high:
            return False
        for i in range(at + 2, at + more + 1):
            if text[i] < 0x80 or text[i] > 0xBF:
                return False
        at += more + 1
    return True


@compiled
def find_invalid(text: Bytes, offsets: Ints, first_row: int, last_row: int, invalid: Flags) -> None:
    """Say of rows ``[first_row, last_row)`` which are no UTF-8."""
    all_ascii = _is_ascii(text[offsets[first_row] : offsets[last_row]])
    for row in range(first_row, last_row):
        message = text[offsets[row] : offsets[row + 1]]
        invalid[row] = not all_ascii and not _is_ascii(message) and not _is_utf8(message)
