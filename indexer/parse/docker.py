"""Lines of Docker's json-file driver: `{"log":"…\\n","stream":"stdout",…,"time":"…"}`.

In come the bytes of a piece; out go its lines and rows and the unescaped text of `log`. A log
without a newline at its end is a fragment, joined with what follows of its output. A line that
Docker's own writer would not write is malformed and kept whole; which events it ends and begins is
decided by the collector's reading (`range._last_docker`), so that its cuts never change a row.
"""

import numpy as np

from indexer.kernels import (
    BACKSLASH,
    NEWLINE,
    QUOTE,
    Bytes,
    compiled,
    integer,
    memchr,
    memcpy,
    starts_with,
    string_end,
)
from indexer.parse.lines import (
    EARLIER,
    LINE,
    NO_EVENT,
    UNKNOWN_OUTPUT,
    Around,
    Columns,
    Lines,
    leave_open,
    open_events,
    place_malformed,
    set_time,
)
from indexer.parse.timestamp import TIME_BYTES_MAX, rfc3339

_LOG = np.frombuffer(b'{"log":"', np.uint8)
_STDOUT = np.frombuffer(b'","stream":"stdout"', np.uint8)
_STDERR = np.frombuffer(b'","stream":"stderr"', np.uint8)
_ATTRS = np.frombuffer(b',"attrs":{', np.uint8)
_TIME = np.frombuffer(b',"time":"', np.uint8)
_END = np.frombuffer(b'"}', np.uint8)
_CLOSING_BRACE = 125
_U, _N = 117, 110

# What stands for a byte after a backslash; 0: nothing does.
_ESCAPED = np.zeros(256, np.uint8)
for _letter, _byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_letter] = _byte


@compiled
def _hex(data: Bytes, at: int, end: int) -> int:
    """Return the number of the four hexadecimal digits at ``at``, else -1."""
    if at + 4 > end:
        return -1
    number = 0
    for i in range(at, at + 4):
        byte = integer(data[i])
        if 48 <= byte <= 57:
            digit = byte - 48
        elif 97 <= byte | 32 <= 102:
            digit = (byte | 32) - 87
        else:
            return -1
        number = number * 16 + digit
    return number


@compiled
def _put(text: Bytes, at: int, code: int) -> int:
    """Write a code point as UTF-8, a lone surrogate in the same way; return where it ends."""
    if code < 0x80:
        text[at] = code
        return at + 1
    if code < 0x800:
        text[at] = 0xC0 | (code >> 6)
        text[at + 1] = 0x80 | (code & 0x3F)
        return at + 2
    if code < 0x1_0000:
        text[at] = 0xE0 | (code >> 12)
        text[at + 1] = 0x80 | ((code >> 6) & 0x3F)
        text[at + 2] = 0x80 | (code & 0x3F)
        return at + 3
    text[at] = 0xF0 | (code >> 18)
    text[at + 1] = 0x80 | ((code >> 12) & 0x3F)
    text[at + 2] = 0x80 | ((code >> 6) & 0x3F)
    text[at + 3] = 0x80 | (code & 0x3F)
    return at + 4


@compiled
def _unescape(data: Bytes, at: int, end: int, text: Bytes, to: int) -> int:
    """Write what the JSON string ``data[at:end]`` stands for; return where it ends, else -1.

    It is never longer than the string.
    """
    source, target = data.ctypes.data, text.ctypes.data
    while at < end:
        found = memchr(source + at, BACKSLASH, end - at)
        slash = found - source if found != 0 else end
        memcpy(target + to, source + at, slash - at)
        to += slash - at
        if found == 0:
            return to
        at = slash + 2
        letter = integer(data[slash + 1])
        if letter != _U:
            if _ESCAPED[letter] == 0:
                return -1
            text[to] = _ESCAPED[letter]
            to += 1
            continue
        code = _hex(data, at, end)
        if code < 0:
            return -1
        at += 4
        pairs = 0xD800 <= code < 0xDC00 and at + 6 <= end
        if pairs and data[at] == BACKSLASH and data[at + 1] == _U:
            low = _hex(data, at + 2, end)
            if 0xDC00 <= low < 0xE000:
                code = 0x1_0000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                at += 6
        to = _put(text, to, code)
    return to


@compiled
def _is_ended(data: Bytes, first: int, close: int) -> bool:
    """Tell whether an escaped newline stands before ``close``, not a letter after a backslash."""
    if close <= first or data[close - 1] != _N:
        return False
    slash = close - 1
    while slash > first and data[slash - 1] == BACKSLASH:
        slash -= 1
    return (close - 1 - slash) % 2 == 1


@compiled
def _claims(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return the bit sets of outputs that the collector sees in a line and of those that go on.

    Where an output stands several times, the last one counts.
    """
    base = data.ctypes.data
    claims = opens = 0
    at = start
    while at < end:
        found = memchr(base + at, QUOTE, end - at)
        if found == 0:
            break
        at = found - base
        bit = 0
        if starts_with(data, at, end, _STDOUT):
            bit = 1
        elif starts_with(data, at, end, _STDERR):
            bit = 2
        claims |= bit
        opens = opens & ~bit if _is_ended(data, start, at) else opens | bit
        at += 1
    return claims, opens


@compiled
def _stamp(data: Bytes, at: int, end: int) -> tuple[int, bool]:
    """Return (ns, is the line as Docker writes it) from what stands between output and end."""
    if end - at < _TIME.size + _END.size or not starts_with(data, end - 2, end, _END):
        return 0, False
    first = end - 3
    while first > at and end - first <= TIME_BYTES_MAX + 3 and data[first] != QUOTE:
        first -= 1
    key = first + 1 - _TIME.size
    if key < at or not starts_with(data, key, end, _TIME):
        return 0, False
    if key != at:
        attrs = starts_with(data, at, key, _ATTRS) and data[key - 1] == _CLOSING_BRACE
        if not attrs or _claims(data, at, key)[0] != 0:
            return 0, False
    time_ns, stop = rfc3339(data, first + 1, end)
    return time_ns, stop == end - 2


@compiled
def _read(data: Bytes, start: int, end: int, text: Bytes, to: int) -> tuple[int, int, bool, int]:
    """Return (ns, output, goes on, end of the text) of a line; output 2 if malformed."""
    if not starts_with(data, start, end, _LOG):
        return 0, UNKNOWN_OUTPUT, False, to
    first = start + _LOG.size
    close = string_end(data, first, end)
    if starts_with(data, close, end, _STDOUT):
        out = 0
    elif starts_with(data, close, end, _STDERR):
        out = 1
    else:
        return 0, UNKNOWN_OUTPUT, False, to
    time_ns, whole = _stamp(data, close + _STDOUT.size, end)
    stop = _unescape(data, first, close, text, to) if whole else -1
    if stop < 0:
        return 0, UNKNOWN_OUTPUT, False, to
    ends = _is_ended(data, first, close)  # the last newline is the line's own
    return time_ns, out, not ends, stop - 1 if ends else stop


@compiled
def split_docker(
    data: Bytes,
    start: int,
    end: int,
    around: Around,
    row: int,
    lines: Lines,
    columns: Columns,
    text: Bytes,
) -> tuple[int, int, int]:
    """Split one piece; return its lines, the next free row and the time of the last line.

    Messages are written to ``text``, which has room for the whole piece: there the lines point.
    """
    source, target = data.ctypes.data, text.ctypes.data
    event = open_events(around.open_before)
    last_ns = around.previous_ns
    line = 0
    at, to = start, 0
    while at < end:
        found = memchr(source + at, NEWLINE, end - at)
        stop = found - source if found != 0 else end
        torn_here = around.torn and at == start
        time_ns, out, goes_on, to_end = 0, UNKNOWN_OUTPUT, False, to
        if not torn_here:
            time_ns, out, goes_on, to_end = _read(data, at, stop, text, to)
        here = row
        if out != UNKNOWN_OUTPUT:
            if event[out] >= 0:
                here = event[out]
            else:
                columns.time_ns[row], columns.time_source[row] = time_ns, LINE
                columns.output[row], columns.offset[row] = out, at - start
                columns.partial[row] = columns.tail[row] = event[out] == EARLIER
            event[out] = here if goes_on else NO_EVENT
            last_ns = time_ns if time_ns != 0 else 1  # 0 says that it is unknown
        else:
            memcpy(target + to, source + at, stop - at)
            to_end = to + stop - at
            claims, opens = (0, 0) if torn_here else _claims(data, at, stop)
            place_malformed(columns, event, row, at - start, torn_here, claims, opens)
            set_time(columns, row, last_ns, around.read_ns)
        row += here == row
        if found == 0:
            columns.partial[here] = True
        lines.row[line], lines.start[line], lines.end[line] = here, to, to_end
        line += 1
        at, to = stop + 1, to_end
    leave_open(columns, event)
    return line, row, last_ns
