"""Events of several lines: a stack trace's rows point to the row that it began with.

In come the messages of a piece, row by row, and per output where its last event began and what it
is; out goes for each row the file offset of its event's first row. Only a line that nobody would
write alone continues an event, and only one of its own output:

- whatever is before it: a line that begins with two blanks or a tab and then no time, with
  ` --->`, `--- End of `, `Caused by: `, `Suppressed: `, `... 12 more`, `}`, `)` or `]`, or that is
  `Stack trace:` of PHP's;
- a traceback of Python's, or a group of them: its last line (`Error: text`), and what links it to
  the next one;
- a `panic: ` or `fatal error: ` of Go's: `goroutine 1 [running]:`, `runtime stack:`, functions,
  elided frames, registers, blank lines, `exit status 2`;
- `Stack trace:`: its numbered frames, and what links it to the next one.

Colours around a line, a carriage return behind it and a byte order mark before it do not count.
"""

import numpy as np

from indexer.kernels import (
    BLANK,
    COLON,
    OPENING,
    Bytes,
    Codes,
    Ints,
    Longs,
    compiled,
    integer,
    starts_with,
)
from indexer.parse.lines import UNKNOWN_OUTPUT, Columns, after_mark

STATE_SIZE = 5
"""Longs of a state: the last event's offset per output, what they are, the last line's time."""

_KINDS, PREVIOUS_NS = 3, 4
NO_STATE = (-1, -1, -1, 0, 0)
"""Nothing is known: -1 for an offset, 0 for a time."""

_KIND_BITS = 4
_KIND_MASK = (1 << _KIND_BITS) - 1
# What the last event of an output is: within a traceback, after its last line, between two that
# belong together, a Go panic, or numbered frames.
_ANY, _TRACEBACK, _RAISED, _BETWEEN, _PANIC, _NUMBERED = range(6)

_TAB, _RETURN, _ESCAPE, _DOT, _CLOSING_ROUND, _OPENING_ROUND = 9, 13, 27, 46, 41, 40
_HYPHEN, _HASH, _SEMICOLON, _SMALL_M = 45, 35, 59, 109


def _word(text: str) -> Codes:
    return np.frombuffer(text.encode(), np.uint8)


_TRACEBACK_WORD = _word("Traceback (most recent call last):")
_DURING = _word("During handling of the above exception, another exception occurred:")
_CAUSE = _word("The above exception was the direct cause of the following exception:")
_CAUSED, _SUPPRESSED, _INNER = _word("Caused by: "), _word("Suppressed: "), _word(" --->")
_PANIC_WORD, _FATAL, _GOROUTINE = _word("panic: "), _word("fatal error: "), _word("goroutine ")
_SIGNAL, _CREATED, _MORE = _word("[signal "), _word("created by "), _word(" more")
_GROUP = _word("  + Exception Group Traceback (most recent call last):")
_END_OF, _AGGREGATE = _word("--- End of "), _word("---> (Inner Exception #")
_ELIDED, _RUNTIME, _EXIT = (
    _word(" frames elided..."),
    _word("runtime stack:"),
    _word("exit status "),
)
_COUNTER = _word("PC=0x")
_STACK, _PHP_STACK, _LARAVEL = (
    _word("Stack trace:"),
    _word("PHP Stack trace:"),
    _word("[stacktrace]"),
)
_NEXT_ERROR, _PHP_FRAME, _THROWN = _word("Next "), _word("PHP   "), _word("  thrown in ")
_CLOSED = _word('"}')  # the JSON around a trace of Laravel's

# The first bytes of lines that may continue an event whatever it is, or begin a known one.
_SPECIAL = np.zeros(256, np.bool_)
_SPECIAL[list(b" \t})].-[CPSTpfg")] = True


@compiled
def _is_digit(text: Bytes, at: int, end: int) -> bool:
    return bool(at < end and 48 <= text[at] <= 57)


@compiled
def _has_time(text: Bytes, at: int, end: int) -> bool:
    """Tell whether a date or a time of day begins here, in a bracket or not."""
    if at < end and text[at] == OPENING:
        at += 1
    first = at
    while at < first + 4 and _is_digit(text, at, end):
        at += 1
    # A colon, a hyphen or a slash between two numbers.
    joined = at + 1 < end and (text[at] == COLON or text[at] == 45 or text[at] == 47)
    return bool(at >= first + 2 and joined and _is_digit(text, at + 1, end))


@compiled
def _is_indented(text: Bytes, at: int, end: int) -> bool:
    first = at
    while at < end and (text[at] == BLANK or text[at] == _TAB):
        at += 1
    if at in (first, end) or (at == first + 1 and text[first] == BLANK):
        return False
    return not _has_time(text, at, end)


@compiled
def _continues(text: Bytes, at: int, end: int) -> bool:
    """Tell whether a line continues whatever event is before it."""
    first = text[at]
    if first in (BLANK, _TAB):
        return _is_indented(text, at, end) or starts_with(text, at, end, _INNER)
    if first == 125 or first == _CLOSING_ROUND or first == 93:
        return True
    if first == _DOT:  # "... 12 more"
        dots = end - at > 9 and text[at + 1] == _DOT and text[at + 2] == _DOT
        return dots and _is_digit(text, at + 4, end) and starts_with(text, end - 5, end, _MORE)
    if first == _HYPHEN:
        return starts_with(text, at, end, _END_OF) or starts_with(text, at, end, _AGGREGATE)
    return starts_with(text, at, end, _CAUSED) or starts_with(text, at, end, _SUPPRESSED)


@compiled
def _is_error(text: Bytes, at: int, end: int) -> bool:
    """Tell whether a line is `pack.age.Error` or `pack.age.Error: text`, with a small letter."""
    small = False
    first = at
    while at < end:
        byte = integer(text[at])
        letter = 97 <= byte | 32 <= 122
        if not (letter or byte == 95 or (at > first and (byte == _DOT or 48 <= byte <= 57))):
            break
        small |= letter and byte >= 97
        at += 1
    return small and (at == end or text[at] == COLON)


@compiled
def _in_panic(text: Bytes, at: int, end: int) -> bool:
    """Tell whether a line belongs to the dump that follows Go's panic."""
    if at == end or starts_with(text, at, end, _GOROUTINE) or starts_with(text, at, end, _SIGNAL):
        return True
    if starts_with(text, at, end, _CREATED) or starts_with(text, at, end, _RUNTIME):
        return True
    if starts_with(text, at, end, _EXIT) or starts_with(text, at, end, _COUNTER):
        return True
    if text[at] == _DOT:  # "...16777182 frames elided..."
        elided = end - _ELIDED.size
        return elided > at and starts_with(text, elided, end, _ELIDED)
    if _is_register(text, at, end):
        return True
    if text[end - 1] != _CLOSING_ROUND:  # a function: no blank before its arguments
        return False
    while at < end and text[at] != BLANK:
        if text[at] == _OPENING_ROUND:
            return True
        at += 1
    return False


@compiled
def _is_register(text: Bytes, at: int, end: int) -> bool:
    """Tell whether a line is `rax    0x0`, as Go prints the registers after a signal."""
    first = at
    while at < min(end, first + 7) and text[at] != BLANK:
        at += 1
    name = at
    while at < min(end, first + 8) and text[at] == BLANK:
        at += 1
    number = at > name > first and at + 2 < end and text[at] == 48 and text[at + 1] == 120
    if not number:
        return False
    for digit in range(at + 2, end):  # noqa: SIM110 - a kernel knows no all()
        if not (48 <= text[digit] <= 57 or 97 <= text[digit] <= 102):
            return False
    return True


@compiled
def _is_numbered(text: Bytes, at: int, end: int) -> bool:
    """Tell whether a line belongs to numbered frames: `#0 /a.php(5): f()`, or what links two."""
    if at == end or starts_with(text, at, end, _NEXT_ERROR):
        return True
    if text[at] == _HASH:
        return _is_digit(text, at + 1, end)
    return starts_with(text, at, end, _PHP_FRAME) or starts_with(text, at, end, _CLOSED)


@compiled
def _is(text: Bytes, at: int, end: int, word: Bytes) -> bool:
    return end - at == word.size and starts_with(text, at, end, word)


@compiled
def _next(kind: int, text: Bytes, at: int, end: int) -> tuple[bool, int]:
    """Return whether a line continues the event before it, and what the event is after it."""
    if kind == _ANY and (at == end or not _SPECIAL[text[at]]):
        return False, _ANY
    if starts_with(text, at, end, _GROUP):
        return kind == _BETWEEN, _RAISED
    if at < end and _continues(text, at, end):
        return True, _ANY if starts_with(text, at, end, _THROWN) else kind
    if _is(text, at, end, _STACK) or _is(text, at, end, _PHP_STACK) or _is(text, at, end, _LARAVEL):
        return True, _NUMBERED
    if kind == _NUMBERED and _is_numbered(text, at, end):
        return True, _NUMBERED
    if kind == _TRACEBACK and _is_error(text, at, end):
        return True, _RAISED
    if kind == _PANIC and _in_panic(text, at, end):
        return True, _PANIC
    if kind in (_RAISED, _BETWEEN):
        if at == end:
            return True, kind
        if starts_with(text, at, end, _DURING) or starts_with(text, at, end, _CAUSE):
            return True, _BETWEEN
    if starts_with(text, at, end, _TRACEBACK_WORD):
        return kind == _BETWEEN, _TRACEBACK
    if starts_with(text, at, end, _PANIC_WORD) or starts_with(text, at, end, _FATAL):
        return False, _PANIC
    if starts_with(text, at, end, _GOROUTINE) and text[end - 1] == COLON:
        return False, _PANIC
    return False, _ANY


@compiled
def _bare(text: Bytes, at: int, end: int) -> tuple[int, int]:
    """Return where a line starts and ends without what a terminal adds to it."""
    at = after_mark(text, at, end)
    while at + 1 < end and text[at] == _ESCAPE and text[at + 1] == OPENING:
        close = at + 2
        while close < end and not 64 <= text[close] <= 126:
            close += 1
        if close == end:
            break
        at = close + 1
    if at < end and text[end - 1] == _RETURN:
        end -= 1
    while end - at >= 3 and text[end - 1] == _SMALL_M:
        first = end - 2
        while first > at and (48 <= text[first] <= 57 or text[first] == _SEMICOLON):
            first -= 1
        if first == at or text[first] != OPENING or text[first - 1] != _ESCAPE:
            break
        end = first - 1
    if at < end and text[end - 1] == _RETURN:
        end -= 1
    return at, end


@compiled
def find_events(
    text: Bytes,
    offsets: Ints,
    first_row: int,
    last_row: int,
    columns: Columns,
    plain: bool,
    file_start: int,
    state: Longs,
    event_offset: Longs,
) -> None:
    """Fill ``event_offset`` of rows ``[first_row, last_row)``; ``state`` is moved on.

    Where a CRI or Docker line is malformed nobody knows what it is of: it is an event of its own,
    to which also the tails of those that it opens belong.
    """
    for row in range(first_row, last_row):
        out = columns.output[row]
        offset = file_start + columns.offset[row]
        if out == UNKNOWN_OUTPUT and not plain:
            event_offset[row] = offset
            for opened in range(UNKNOWN_OUTPUT):
                if columns.opens[row] & (1 << opened):
                    state[opened] = offset
                    state[_KINDS] &= ~(_KIND_MASK << (opened * _KIND_BITS))
            continue
        shift = out * _KIND_BITS
        kind = (state[_KINDS] >> shift) & _KIND_MASK
        if columns.tail[row]:
            continues, after = True, kind
        else:
            first, end = _bare(text, integer(offsets[row]), integer(offsets[row + 1]))
            continues, after = _next(kind, text, first, end)
        if after != kind:
            state[_KINDS] += (after - kind) << shift
        if not continues or state[out] < 0:
            state[out] = offset
        event_offset[row] = state[out]
