"""Events of several lines: a stack trace's rows point to the row that it began with.

In come the messages of a piece, row by row, and per output where its last event began and what it
is; out goes for each row the file offset of its event's first row. Only a line that nobody would
write alone continues an event, and only one of its own output:

- whatever is before it: a line that begins with two blanks or a tab and then no time, with
  ` --->`, `Caused by: `, `Suppressed: `, `... 12 more`, `}`, `)` or `]`;
- a traceback of Python's: its last line (`Error: text`), and what links it to the next one;
- a `panic: ` of Go's: `goroutine 1 [running]:`, functions, blank lines.
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
from indexer.parse.lines import UNKNOWN_OUTPUT, Columns

STATE_SIZE = 5
"""Longs of a state: the last event's offset per output, what they are, the last line's time."""

_KINDS, PREVIOUS_NS = 3, 4
NO_STATE = (-1, -1, -1, 0, 0)
"""Nothing is known: -1 for an offset, 0 for a time."""

_KIND_BITS = 4
_KIND_MASK = (1 << _KIND_BITS) - 1
# What the last event of an output is: within a traceback, after its last line, between two that
# belong together, or a Go panic.
_ANY, _TRACEBACK, _RAISED, _BETWEEN, _PANIC = range(5)

_TAB, _DOT, _CLOSING_ROUND, _OPENING_ROUND = 9, 46, 41, 40


def _word(text: str) -> Codes:
    return np.frombuffer(text.encode(), np.uint8)


_TRACEBACK_WORD = _word("Traceback (most recent call last):")
_DURING = _word("During handling of the above exception, another exception occurred:")
_CAUSE = _word("The above exception was the direct cause of the following exception:")
_CAUSED, _SUPPRESSED, _INNER = _word("Caused by: "), _word("Suppressed: "), _word(" --->")
_PANIC_WORD, _FATAL, _GOROUTINE = _word("panic: "), _word("fatal error: "), _word("goroutine ")
_SIGNAL, _CREATED, _MORE = _word("[signal "), _word("created by "), _word(" more")

# The first bytes of lines that may continue an event whatever it is, or begin a known one.
_SPECIAL = np.zeros(256, np.bool_)
_SPECIAL[list(b" \t})].CSTpfg")] = True


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
    if starts_with(text, at, end, _CREATED):
        return True
    if text[end - 1] != _CLOSING_ROUND:  # a function: no blank before its arguments
        return False
    while at < end and text[at] != BLANK:
        if text[at] == _OPENING_ROUND:
            return True
        at += 1
    return False


@compiled
def _next(kind: int, text: Bytes, at: int, end: int) -> tuple[bool, int]:
    """Return whether a line continues the event before it, and what the event is after it."""
    if kind == _ANY and (at == end or not _SPECIAL[text[at]]):
        return False, _ANY
    if at < end and _continues(text, at, end):
        return True, kind
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
            continues, after = _next(kind, text, integer(offsets[row]), integer(offsets[row + 1]))
        if after != kind:
            state[_KINDS] += (after - kind) << shift
        if not continues or state[out] < 0:
            state[out] = offset
        event_offset[row] = state[out]
