"""Compiled kernels of the parser: lines of bytes in, columns out.

In come the bytes of many pieces and arrays that say where each begins; out go arrays per row and
the gathered bytes of all messages. No kernel raises or reads outside of its piece. A kernel calls
only kernels of its own file, since numba judges by that file whether a cached one is still good.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

_PACKAGE_CACHE = Path(__file__).parent / "__pycache__"


def _writable(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _own_temporary(parent: Path) -> Path:
    """Return a folder for this user alone: cached kernels are code, nobody else may write them."""
    directory = parent / f"everyline-{os.geteuid()}"
    if _writable(directory):
        found = directory.lstat()
        own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return directory
    return Path(tempfile.mkdtemp(prefix="everyline-", dir=parent))


def cache_directory(environ: Mapping[str, str], package: Path = _PACKAGE_CACHE) -> Path:
    """Return where compiled kernels are kept: the first place that can be written.

    In order: ``NUMBA_CACHE_DIR``, ``EVERYLINE_CACHE``, ``package``, ``~/.cache/everyline`` and a
    folder of the user's own in the temporary directory.
    """
    named = (environ.get("NUMBA_CACHE_DIR"), environ.get("EVERYLINE_CACHE"), str(package))
    home = environ.get("HOME")
    cache = str(Path(home, ".cache", "everyline")) if home else None
    for directory in (*named, cache):
        if directory and _writable(Path(directory)):
            return Path(directory)
    return _own_temporary(Path(tempfile.gettempdir()))


# Set when numba is imported, so not in its types.
numba.config.CACHE_DIR = str(cache_directory(os.environ))  # type: ignore[attr-defined]

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(function: _Kernel) -> _Kernel:
    """Compile at the first call, for all later processes; the interpreter is free meanwhile."""
    return cast(_Kernel, numba.njit(cache=True, nogil=True)(function))


# The C library's own, several times faster than a compiled loop. Named, not by address, so that a
# cached kernel finds them again.
memchr: Any = types.ExternalFunction("memchr", types.intp(types.intp, types.intc, types.uintp))
_memcpy: Any = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.uintp))

# In a kernel every integer is numba's, so mypy is not told what the arrays hold.
Bytes = NDArray[Any]  # uint8
Codes = NDArray[Any]  # int8
Ints = NDArray[Any]  # int32
Longs = NDArray[Any]  # int64
Flags = NDArray[Any]  # bool
integer: Any = np.int64
"""Widens a byte: unsigned numbers would turn what is reckoned with them unsigned or a float."""

# Indices into schema.OUTPUTS and schema.TIME_SOURCES.
_UNKNOWN_OUTPUT = 2
_LINE, _PREVIOUS, _READ = 0, 1, 2

_NEWLINE, _BLANK, _QUOTE, _PLUS, _MINUS, _DOT = 10, 32, 34, 43, 45, 46
_COLON, _EQUALS, _OPENING, _BACKSLASH, _CLOSING = 58, 61, 91, 92, 93
_F, _P, _T, _Z, _BRACE = 70, 80, 84, 90, 123

# The longest time that the collector takes for one, when it looks for open events.
CONTINUES = -1  # instead of a previous time: the piece follows the one before it in its file
_TIME_BYTES_MAX = 63
# Whole seconds since 1970 of which every nanosecond fits 64 bits: 1677-09-21 to 2262-04-11.
_SECONDS_MAX = 9_223_372_036
_NS = 1_000_000_000


@compiled
def _two_digits(data: Bytes, at: int) -> int:
    tens = integer(data[at]) - 48
    ones = integer(data[at + 1]) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1
    return int(tens * 10 + ones)


@compiled
def _days(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01; -2^62 for a date that does not exist.

    Source of the arithmetic: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    """
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    longest = 31
    if month == 2:
        longest = 29 if leap else 28
    elif month == 4 or month == 6 or month == 9 or month == 11:
        longest = 30
    if month < 1 or month > 12 or day < 1 or day > longest:
        return -(1 << 62)
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@compiled
def _fraction(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return (ns, end of the digits) of the digits from ``at``; digits after the ninth go."""
    nanos = 0
    scale = 100_000_000
    while at < end and 48 <= data[at] <= 57:
        nanos += (integer(data[at]) - 48) * scale
        scale //= 10
        at += 1
    return nanos, at


@compiled
def _zone(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return (seconds east of UTC, end of the zone); the end is -1 if there is no zone."""
    if at < end and data[at] == _Z:
        return 0, at + 1
    if at + 6 > end or data[at + 3] != _COLON or (data[at] != _PLUS and data[at] != _MINUS):
        return 0, -1
    hours = _two_digits(data, at + 1)
    minutes = _two_digits(data, at + 4)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return 0, -1
    east = hours * 3600 + minutes * 60
    return (east if data[at] == _PLUS else -east), at + 6


@compiled
def _time(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return (ns since 1970, end of the time) of the RFC 3339 time at ``start``, else end -1."""
    if end - start < 20 or data[start + 4] != _MINUS or data[start + 7] != _MINUS:
        return 0, -1
    if data[start + 10] != _T or data[start + 13] != _COLON or data[start + 16] != _COLON:
        return 0, -1
    century = _two_digits(data, start)
    year = _two_digits(data, start + 2)
    month = _two_digits(data, start + 5)
    day = _two_digits(data, start + 8)
    hour = _two_digits(data, start + 11)
    minute = _two_digits(data, start + 14)
    second = _two_digits(data, start + 17)
    if (century | year | month | day | hour | minute | second) < 0:
        return 0, -1
    days = _days(century * 100 + year, month, day)
    if days == -(1 << 62) or hour > 23 or minute > 59 or second > 60:
        return 0, -1
    nanos, at = 0, start + 19
    if data[at] == _DOT:
        nanos, at = _fraction(data, at + 1, end)
        if at == start + 20:
            return 0, -1
    east, at = _zone(data, at, end)
    if at < 0 or at - start > _TIME_BYTES_MAX:
        return 0, -1
    if second == 60:  # a leap second has no number of its own: the end of the one before it
        second, nanos = 59, _NS - 1
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - east
    if seconds < -_SECONDS_MAX or seconds >= _SECONDS_MAX:
        return 0, -1
    return seconds * _NS + nanos, at


@compiled
def _output_word(data: Bytes, blank: int, end: int) -> int:
    """Return the output (0, 1) whose word stands between two blanks at ``blank``, else 2."""
    if blank + 8 > end or data[blank] != _BLANK or data[blank + 7] != _BLANK:
        return _UNKNOWN_OUTPUT
    if data[blank + 1] != 115 or data[blank + 2] != 116 or data[blank + 3] != 100:  # "std"
        return _UNKNOWN_OUTPUT
    a, b, c = data[blank + 4], data[blank + 5], data[blank + 6]
    if a == 111 and b == 117 and c == 116:  # "out"
        return 0
    if a == 101 and b == 114 and c == 114:  # "err"
        return 1
    return _UNKNOWN_OUTPUT


@compiled
def _header(data: Bytes, start: int, end: int) -> tuple[int, int, bool, int]:
    """Return (ns, output, goes on, start of the message) of a CRI line; output 2 if malformed."""
    nanos, blank = _time(data, start, end)
    if blank < 0:
        return 0, _UNKNOWN_OUTPUT, False, start
    output = _output_word(data, blank, end)
    tag = blank + 8
    if output == _UNKNOWN_OUTPUT or tag >= end or (data[tag] != _F and data[tag] != _P):
        return 0, _UNKNOWN_OUTPUT, False, start
    goes_on = data[tag] == _P
    at = tag + 1
    if at < end and data[at] == _COLON:
        while at < end and data[at] != _BLANK:
            at += 1
    elif (at == end and goes_on) or (at < end and data[at] != _BLANK):
        return 0, _UNKNOWN_OUTPUT, False, start
    return nanos, output, goes_on, min(at + 1, end)


@compiled
def _claimed_output(data: Bytes, start: int, end: int) -> int:
    """Return the output that the collector sees in a malformed line (``range._line_tag``)."""
    for at in range(start, min(end, start + _TIME_BYTES_MAX + 1)):
        if data[at] == _BLANK:
            return _output_word(data, at, end)
    return _UNKNOWN_OUTPUT


@compiled
def _split_piece(
    data: Bytes,
    start: int,
    end: int,
    tails: int,
    torn: bool,
    previous_ns: int,
    read_ns: int,
    line: int,
    row: int,
    line_row: Longs,
    line_start: Longs,
    line_end: Longs,
    time_ns: Longs,
    time_source: Codes,
    output: Codes,
    offset: Longs,
    partial: Flags,
) -> tuple[int, int]:
    """Split one piece into lines and rows; return the next free line and row."""
    base = data.ctypes.data
    event = np.full(2, -1, np.int64)  # per output the row of its open event
    last_ns = previous_ns  # 0: unknown, here as at the border
    at = start
    while at < end:
        found = memchr(base + at, _NEWLINE, end - at)
        stop = found - base if found != 0 else end
        torn_here = torn and at == start
        nanos, out, goes_on, message = 0, _UNKNOWN_OUTPUT, False, at
        if not torn_here:
            nanos, out, goes_on, message = _header(data, at, stop)
        joins = out != _UNKNOWN_OUTPUT and event[out] >= 0
        here = event[out] if joins else row
        if not joins:
            offset[row] = at - start
            output[row] = out
            partial[row] = torn_here
            row += 1
            if out != _UNKNOWN_OUTPUT:
                time_ns[here], time_source[here] = nanos, _LINE
            elif last_ns != 0:
                time_ns[here], time_source[here] = last_ns, _PREVIOUS
            else:
                time_ns[here], time_source[here] = read_ns, _READ
        if out != _UNKNOWN_OUTPUT:
            last_ns = nanos
            event[out] = here if goes_on else -1
            if tails & (1 << out):
                partial[here] = True
                tails &= ~(1 << out)
        elif not torn_here:
            # The collector takes such a line for one of this output and may cut behind it, so it
            # ends the event here too: a row must not depend on where its file was cut.
            claimed = _claimed_output(data, at, stop)
            if claimed != _UNKNOWN_OUTPUT:
                tails &= ~(1 << claimed)
                if event[claimed] >= 0:
                    partial[event[claimed]] = True
                    event[claimed] = -1
        if found == 0:
            partial[here] = True
        line_row[line], line_start[line], line_end[line] = here, message, stop
        line += 1
        at = stop + 1
    for out in range(2):
        if event[out] >= 0:
            partial[event[out]] = True
    return line, row


@compiled
def _gather(
    data: Bytes,
    lines: tuple[int, int],
    rows: tuple[int, int],
    line_row: Longs,
    line_start: Longs,
    line_end: Longs,
    offsets: Ints,
    cursor: Longs,
    text: Bytes,
) -> None:
    """Copy the messages of one piece behind each other in the order of rows, fragments joined."""
    source, target = data.ctypes.data, text.ctypes.data
    at = integer(offsets[rows[0]])
    if lines[1] - lines[0] == rows[1] - rows[0]:
        for line in range(lines[0], lines[1]):
            size = line_end[line] - line_start[line]
            _memcpy(target + at, source + line_start[line], size)
            at += size
            offsets[rows[0] + line - lines[0] + 1] = at
        return
    cursor[rows[0] : rows[1]] = 0
    for line in range(lines[0], lines[1]):
        cursor[line_row[line]] += line_end[line] - line_start[line]
    for row in range(rows[0], rows[1]):
        size = cursor[row]
        cursor[row] = at
        at += size
        offsets[row + 1] = at
    for line in range(lines[0], lines[1]):
        size = line_end[line] - line_start[line]
        _memcpy(target + cursor[line_row[line]], source + line_start[line], size)
        cursor[line_row[line]] += size


@compiled
def _is_ascii(text: Bytes) -> bool:
    seen: Any = np.uint8(0)
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
def parse_pieces(
    data: Bytes,
    starts: Longs,
    open_before: Bytes,
    torn_before: Flags,
    previous_time_ns: Longs,
    read_time_ns: Longs,
    line_row: Longs,
    line_start: Longs,
    line_end: Longs,
    time_ns: Longs,
    time_source: Codes,
    output: Codes,
    offset: Longs,
    partial: Flags,
    piece: Ints,
    offsets: Ints,
    text: Bytes,
    invalid: Flags,
    lines: Longs,
    rows: Longs,
    first_time_ns: Longs,
    last_time_ns: Longs,
) -> int:
    """Parse every piece, one behind the other so that each stays in the CPU's cache.

    The arrays from ``line_row`` to ``invalid`` are filled from their start and have room for one
    entry a line (``offsets`` one more, ``text`` for all of ``data``); the last four have one a
    piece. Returns the number of rows.
    """
    offsets[0] = 0
    cursor = np.empty(line_row.size, np.int64)
    line = row = 0
    for p in range(starts.size - 1):
        previous_ns = previous_time_ns[p]
        if previous_ns == CONTINUES:
            previous_ns = time_ns[row - 1] if row else 0
        next_line, next_row = _split_piece(
            data, starts[p], starts[p + 1], open_before[p], torn_before[p],
            previous_ns, read_time_ns[p], line, row, line_row, line_start, line_end,
            time_ns, time_source, output, offset, partial,
        )  # fmt: skip
        spans = ((line, next_line), (row, next_row))
        _gather(data, *spans, line_row, line_start, line_end, offsets, cursor, text)
        ascii_only = _is_ascii(text[offsets[row] : offsets[next_row]])
        for r in range(row, next_row):
            piece[r] = p
            invalid[r] = not ascii_only and not _is_utf8(text[offsets[r] : offsets[r + 1]])
        lines[p], rows[p] = next_line - line, next_row - row
        first_time_ns[p] = time_ns[row:next_row].min() if next_row > row else 0
        last_time_ns[p] = time_ns[row:next_row].max() if next_row > row else 0
        line, row = next_line, next_row
    return row
