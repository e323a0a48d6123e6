"""The time of a line that nobody has described, guessed from how programs usually write times.

In come the bytes of a plain line; out comes its time or none. Looked for at the line's start, after
a colour, an opening bracket, a quote, a syslog priority, `time=`, Redis' role or a level: ISO 8601
and RFC 3339, dates with the name of the month, klog, seconds to nanoseconds since 1970; in JSON at
a key for times of the line's own within the first 4 KiB; in an access log in brackets within the
first 128 bytes. A whole number is a time only if it counts nothing and lies where its line may.
What can be read in two ways, as `01/02/2026`, is no time; a zone's letters other than UTC and GMT
say nothing.
"""

import numpy as np

from indexer.kernels import (
    BLANK,
    BRACE,
    CLOSING,
    COLON,
    EQUALS,
    OPENING,
    QUOTE,
    Bytes,
    compiled,
    integer,
    memchr,
    starts_with,
    string_end,
)
from indexer.parse.dates import (
    counts_something,
    dated,
    day_first,
    epoch,
    is_near,
    is_whole_number,
    klog,
    named,
)
from indexer.parse.timestamp import NO_TIME

_JSON_BYTES = 4096
_BRACKET_BYTES = 128

_LESS, _GREATER, _SMALL_T, _SMALL_M, _ESCAPE = 60, 62, 116, 109, 27
_TAB, _CLOSING_BRACE = 9, 125
_PARTS = np.array([chr(byte) in " \t,:-|[]" for byte in range(256)])
_LEVEL, _LVL = np.frombuffer(b"level=", np.uint8), np.frombuffer(b"lvl=", np.uint8)
_MONGODB = np.frombuffer(b'{"t":{"$date":"', np.uint8)

# Keys for times, in any case; of those in the second line a bare number may be a duration as well.
_KEYS = (
    "ts", "timestamp", "@timestamp",
    "time", "@t", "t", "datetime", "asctime", "date", "eventtime", "logtime",
)  # fmt: skip
_TIME_ONLY = 3
# A key is compared by its length and its last eight bytes, in lower case, as one number.
_LOWER = 0x2020_2020_2020_2020
_KEY_NUMBERS = np.array([int.from_bytes(key.encode()[-8:], "big") | _LOWER for key in _KEYS])
_KEY_SIZES = np.array([len(key) for key in _KEYS])
_KEY_MAX = max(map(len, _KEYS))


@compiled
def _key_at(data: Bytes, first: int, end: int) -> int:
    """Return which of _KEYS stands in ``[first, end)``, in any case; -1 if none does."""
    if not 0 < end - first <= _KEY_MAX:
        return -1
    number = 0
    for at in range(first, end):
        number = (number << 8) | integer(data[at])
    for key in range(_KEY_NUMBERS.size):
        if _KEY_NUMBERS[key] == number | _LOWER and _KEY_SIZES[key] == end - first:
            return key
    return -1


@compiled
def _value(
    data: Bytes, at: int, end: int, key: int, zone_s: int, read_ns: int, previous_ns: int
) -> int:
    """Read the value of a key for times: a text with a date and a clock, or a number."""
    if at + 10 > end:
        return NO_TIME
    if not 48 <= data[at] <= 57:
        return named(data, at, end, zone_s, read_ns)
    time_ns = dated(data, at, end, zone_s)
    if time_ns == NO_TIME:
        time_ns = epoch(data, at, end)
        if key >= _TIME_ONLY and time_ns != NO_TIME and is_whole_number(data, at, end):
            return time_ns if is_near(time_ns, previous_ns, read_ns) else NO_TIME
    return time_ns


@compiled
def _json(data: Bytes, start: int, end: int, zone_s: int, read_ns: int, previous_ns: int) -> int:
    """Read the value of the first key for times in a line of JSON that has one.

    Only the line's own keys count: what is nested speaks of something else.
    """
    if starts_with(data, start, end, _MONGODB):
        return dated(data, start + _MONGODB.size, end, zone_s)
    depth, at, stop = 0, start, min(end, start + _JSON_BYTES)
    while at < stop:
        byte = data[at]
        at += 1
        if byte in (BRACE, OPENING):
            depth += 1
        elif byte in (_CLOSING_BRACE, CLOSING):
            depth -= 1
        if byte != QUOTE:
            continue
        first = at
        close = string_end(data, first, end)
        at = close + 1
        if depth != 1:
            continue
        key = _key_at(data, first, close)
        if key < 0:
            continue
        value = at
        while value < end and (data[value] == BLANK or data[value] == _TAB):
            value += 1
        if value >= end or data[value] != COLON:  # a text, which is no key
            continue
        value += 1
        while value < end and (data[value] == BLANK or data[value] == _TAB):
            value += 1
        if value < end and data[value] == QUOTE:
            value += 1
        time_ns = _value(data, value, end, key, zone_s, read_ns, previous_ns)
        if time_ns != NO_TIME:
            return time_ns
    return NO_TIME


@compiled
def _after_role(data: Bytes, at: int, end: int) -> int:
    """Return what follows Redis' `1:M `, else ``at``."""
    first = at
    while at < min(end, first + 8) and 48 <= data[at] <= 57:
        at += 1
    role = at > first and at + 3 < end and data[at] == COLON and data[at + 2] == BLANK
    return at + 3 if role and 65 <= data[at + 1] <= 90 else first


@compiled
def _after_level(data: Bytes, at: int, end: int) -> int:
    """Return what follows a word in capitals and what parts it from a time, else ``at``."""
    first = at
    while at < min(end, first + 9) and 65 <= data[at] <= 90:
        at += 1
    word = at
    while word > first and at < min(end, word + 6) and _PARTS[data[at]]:
        at += 1
    return at if at > word else first


@compiled
def _bracketed(data: Bytes, start: int, end: int, zone_s: int) -> int:
    """Read the first `[02/Jan/2026:15:04:05 +0100]` within the first bytes."""
    base = data.ctypes.data
    at, stop = start, min(end, start + _BRACKET_BYTES)
    while at < stop:
        found = memchr(base + at, OPENING, stop - at)
        if found == 0:
            return NO_TIME
        at = found - base + 1
        time_ns = day_first(data, at, end, zone_s)
        if time_ns != NO_TIME:
            return time_ns
    return NO_TIME


@compiled
def _opened(data: Bytes, at: int, end: int) -> int:
    """Return what follows a colour, a syslog priority, a bracket or a quote, and a key for times.

    After a level the key of logfmt may be its second.
    """
    if at < end and data[at] == _ESCAPE:
        first = at
        while at < min(end, first + 12) and data[at] != _SMALL_M:
            at += 1
        at += 1
    first = at
    if at < end and data[at] == _LESS:  # a syslog priority, and the version after it
        while at < end and at - first < 5 and data[at] != _GREATER:
            at += 1
        at += 1
        if at + 2 < end and data[at] == 49 and data[at + 1] == BLANK:
            at += 2
    elif at < end and (data[at] == OPENING or data[at] == QUOTE or data[at] == 40):
        at += 1
    if starts_with(data, at, end, _LEVEL) or starts_with(data, at, end, _LVL):
        while at < end and data[at] != BLANK:
            at += 1
        at += 1
    if at < end and data[at] == _SMALL_T:
        value = at
        while value < min(end, at + _KEY_MAX) and data[value] != EQUALS:
            value += 1
        if value < end and data[value] == EQUALS and _key_at(data, at, value) >= 0:
            at = value + 1
            if at < end and data[at] == QUOTE:
                at += 1
    return at


@compiled
def _number(data: Bytes, at: int, end: int, read_ns: int, previous_ns: int) -> int:
    """Read a number since 1970 in text, where it could as well be what is spoken of."""
    time_ns = epoch(data, at, end)
    if time_ns == NO_TIME or not is_whole_number(data, at, end):
        return time_ns
    if counts_something(data, at, end):
        return NO_TIME
    unlikely = previous_ns != 0 and not is_near(time_ns, previous_ns, read_ns)
    return NO_TIME if unlikely else time_ns


@compiled
def guessed_time(
    data: Bytes, start: int, end: int, zone_s: int, read_ns: int, previous_ns: int
) -> int:
    """Return the time (ns since 1970) of a line, NO_TIME if it has none.

    Times without a zone are ``zone_s`` seconds east of UTC. ``previous_ns`` is the time of the
    line before it, 0 if unknown.
    """
    if start < end and data[start] == BRACE:
        return _json(data, start, end, zone_s, read_ns, previous_ns)
    at = _opened(data, start, end)
    if at + 10 > end:
        return NO_TIME
    if 48 <= data[at] <= 57:
        time_ns = dated(data, at, end, zone_s)
        if time_ns == NO_TIME:
            time_ns = _number(data, at, end, read_ns, previous_ns)
        if time_ns == NO_TIME:
            time_ns = dated(data, _after_role(data, at, end), end, zone_s)
    else:
        time_ns = klog(data, at, end, zone_s, read_ns)
        if time_ns == NO_TIME:
            time_ns = named(data, at, end, zone_s, read_ns)
        if time_ns == NO_TIME:
            time_ns = dated(data, _after_level(data, at, end), end, zone_s)
    return time_ns if time_ns != NO_TIME else _bracketed(data, start, end, zone_s)
