"""The time of a line that nobody has described, guessed from how programs usually write times.

In come the bytes of a plain line; out comes its time or none. Looked for at the line's start, after
a colour, an opening bracket, a quote, a syslog priority, `time=`, Redis' role or a level: ISO 8601
and RFC 3339, dates with the name of the month, klog, seconds to nanoseconds since 1970; in JSON at
a key for times within the first 4 KiB; in an access log in brackets within the first 128 bytes.
What can be read in two ways, as `01/02/2026`, is no time; a zone's letters other than UTC and GMT
say nothing.
"""

import numpy as np

from indexer.kernels import (
    BLANK,
    BRACE,
    COLON,
    EQUALS,
    OPENING,
    QUOTE,
    Bytes,
    compiled,
    memchr,
    starts_with,
    string_end,
)
from indexer.parse.dates import dated, day_first, klog, named, value_at
from indexer.parse.timestamp import NO_TIME

_JSON_BYTES = 4096
_BRACKET_BYTES = 128

_LESS, _GREATER, _SMALL_T, _SMALL_M, _ESCAPE = 60, 62, 116, 109, 27
_TS, _TIME = np.frombuffer(b"ts", np.uint8), np.frombuffer(b"time", np.uint8)
_PARTS = np.array([chr(byte) in " \t,:-|[]" for byte in range(256)])
_LEVEL, _LVL = np.frombuffer(b"level=", np.uint8), np.frombuffer(b"lvl=", np.uint8)
_MONGODB = np.frombuffer(b'{"t":{"$date":"', np.uint8)
_TIMESTAMP, _AT = np.frombuffer(b"timestamp", np.uint8), 64


@compiled
def _key_end(data: Bytes, at: int, end: int) -> int:
    """Return where the key for times ends that stands at ``at``; ``at`` if there is none."""
    if starts_with(data, at, end, _TS):
        return at + _TS.size
    first = at + 1 if at < end and data[at] == _AT else at
    if starts_with(data, first, end, _TIMESTAMP):
        return first + _TIMESTAMP.size
    return at + _TIME.size if starts_with(data, at, end, _TIME) else at


@compiled
def _json(data: Bytes, start: int, end: int, zone_s: int) -> int:
    """Read the value of a key for times in a line of JSON."""
    if starts_with(data, start, end, _MONGODB):
        return value_at(data, start + _MONGODB.size, end, zone_s)
    base = data.ctypes.data
    at, stop = start + 1, min(end, start + _JSON_BYTES)
    while at < stop:
        found = memchr(base + at, QUOTE, stop - at)
        if found == 0:
            return NO_TIME
        first = found - base + 1
        close = string_end(data, first, end)
        at = close + 1
        if _key_end(data, first, close) != close or close == first:
            continue
        value = at
        while value < end and (data[value] == BLANK or data[value] == COLON):
            value += 1
        if value < end and data[value] == QUOTE:
            value += 1
        time_ns = value_at(data, value, end, zone_s)
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
        value = _key_end(data, at, end)
        value = at + 1 if value == at else value
        if value < end and data[value] == EQUALS:
            at = value + 1
            if at < end and data[at] == QUOTE:
                at += 1
    return at


@compiled
def guessed_time(data: Bytes, start: int, end: int, zone_s: int, read_ns: int) -> int:
    """Return the time (ns since 1970) of a line, NO_TIME if it has none.

    Times without a zone are ``zone_s`` seconds east of UTC.
    """
    if start < end and data[start] == BRACE:
        return _json(data, start, end, zone_s)
    at = _opened(data, start, end)
    if at + 10 > end:
        return NO_TIME
    if 48 <= data[at] <= 57:
        time_ns = value_at(data, at, end, zone_s)
        if time_ns == NO_TIME:
            time_ns = dated(data, _after_role(data, at, end), end, zone_s)
    else:
        time_ns = klog(data, at, end, zone_s, read_ns)
        if time_ns == NO_TIME:
            time_ns = named(data, at, end, zone_s, read_ns)
        if time_ns == NO_TIME:
            time_ns = dated(data, _after_level(data, at, end), end, zone_s)
    return time_ns if time_ns != NO_TIME else _bracketed(data, start, end, zone_s)
