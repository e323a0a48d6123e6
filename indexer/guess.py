"""The time of a line that nobody has described, guessed from how programs usually write times.

In come the bytes of a plain line; out comes its time or none. Looked for at the line's start, after
an opening bracket, a quote, a syslog priority or `time=`: ISO 8601 and RFC 3339, klog, syslog,
ctime, seconds to nanoseconds since 1970; in JSON at a key for times within the first 4 KiB; in an
access log in brackets within the first 128 bytes. A year that is missing is that of the nearest
past as seen from the time of reading.
"""

import numpy as np

from indexer.kernels import (
    BLANK,
    BRACE,
    COLON,
    COMMA,
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
from indexer.timestamp import (
    NO_DAY,
    NO_TIME,
    NS,
    days_since_1970,
    fraction,
    instant,
    two_digits,
    year_of,
)

_JSON_BYTES = 4096
_BRACKET_BYTES = 128
_DAY_NS = 86_400 * NS
# Numbers count as times from 2000 to 2100 only.
_SECONDS_MIN, _SECONDS_MAX = 946_684_800, 4_102_444_800

_DOT, _PLUS, _MINUS, _SLASH, _LESS, _GREATER = 46, 43, 45, 47, 60, 62
_CAPITAL_T, _SMALL_T, _CAPITAL_Z = 84, 116, 90
_MONTHS = np.frombuffer(b"janfebmaraprmayjunjulaugsepoctnovdec", np.uint8)
_DAYS = np.frombuffer(b"montuewedthufrisatsun", np.uint8)
_UTC, _GMT = np.frombuffer(b" UTC", np.uint8), np.frombuffer(b" GMT", np.uint8)
_TS, _TIME = np.frombuffer(b"ts", np.uint8), np.frombuffer(b"time", np.uint8)
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
def name_at(data: Bytes, at: int, end: int, names: Bytes) -> int:
    """Return the number (from 1) of the three letters at ``at`` among ``names``, else 0."""
    if at + 3 > end:
        return 0
    for i in range(0, names.size, 3):
        if (
            data[at] | 32 == names[i]
            and data[at + 1] | 32 == names[i + 1]
            and data[at + 2] | 32 == names[i + 2]
        ):
            return i // 3 + 1
    return 0


@compiled
def month_at(data: Bytes, at: int, end: int) -> int:
    """Return the month whose three letters stand at ``at``, else 0."""
    return name_at(data, at, end, _MONTHS)


@compiled
def zone_at(data: Bytes, at: int, end: int, zone_s: int) -> tuple[int, int]:
    """Return (seconds east of UTC, end) of the zone at ``at``, after a blank or none.

    Without one that is ``zone_s``.
    """
    if at < end and data[at] == _CAPITAL_Z:
        return 0, at + 1
    if starts_with(data, at, end, _UTC) or starts_with(data, at, end, _GMT):
        return 0, at + 4
    sign = at + 1 if at < end and data[at] == BLANK else at
    if sign + 3 > end or (data[sign] != _PLUS and data[sign] != _MINUS):
        return zone_s, at
    hours = two_digits(data, sign + 1)
    colon = sign + 3 < end and data[sign + 3] == COLON
    second = sign + 4 if colon else sign + 3
    minutes = two_digits(data, second) if second + 2 <= end else -1
    stop = second + 2
    if minutes < 0 and not colon and sign == at:
        minutes, stop = 0, second
    ends = stop >= end or not 48 <= data[stop] <= 57
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59 or not ends:
        return zone_s, at
    east = hours * 3600 + minutes * 60
    return (east if data[sign] == _PLUS else -east), stop


@compiled
def _clock(data: Bytes, at: int, end: int) -> tuple[int, int, int, int, int]:
    """Return (hour, minute, second, ns, end) of `15:04:05.000` at ``at``; the end is -1 if none."""
    none = (0, 0, 0, 0, -1)
    if at + 8 > end or data[at + 2] != COLON or data[at + 5] != COLON:
        return none
    hour, minute = two_digits(data, at), two_digits(data, at + 3)
    second = two_digits(data, at + 6)
    if (hour | minute | second) < 0:
        return none
    at += 8
    nanos = 0
    if at + 1 < end and (data[at] == _DOT or data[at] == COMMA) and 48 <= data[at + 1] <= 57:
        nanos, at = fraction(data, at + 1, end)
    return hour, minute, second, nanos, at


@compiled
def nearest_past(
    month: int, day: int, hour: int, minute: int, second: int, nanos: int, east: int, read_ns: int
) -> int:
    """Return the time in the latest year in which it lies at most a day after ``read_ns``."""
    newest = year_of(read_ns // _DAY_NS) + 1
    for year in range(newest, newest - 10, -1):
        days = days_since_1970(year, month, day)
        if days != NO_DAY:
            time_ns = instant(days, hour, minute, second, nanos, east)
            if time_ns == NO_TIME or time_ns <= read_ns + _DAY_NS:
                return time_ns
    return NO_TIME


@compiled
def _iso(data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Read `2026-01-02T15:04:05`, with a blank for the T or slashes in the date."""
    if at + 19 > end or data[at + 4] != data[at + 7]:
        return NO_TIME
    if data[at + 4] != _MINUS and data[at + 4] != _SLASH:
        return NO_TIME
    if data[at + 10] != _CAPITAL_T and data[at + 10] != BLANK:
        return NO_TIME
    century, year = two_digits(data, at), two_digits(data, at + 2)
    month, day = two_digits(data, at + 5), two_digits(data, at + 8)
    hour, minute, second, nanos, stop = _clock(data, at + 11, end)
    if (century | year | month | day) < 0 or stop < 0:
        return NO_TIME
    east, _ = zone_at(data, stop, end, zone_s)
    days = days_since_1970(century * 100 + year, month, day)
    return instant(days, hour, minute, second, nanos, east)


@compiled
def _day_first(data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Read `02/Jan/2026:15:04:05 +0100`, or with hyphens and a blank."""
    if at + 20 > end or data[at + 2] != data[at + 6]:
        return NO_TIME
    if data[at + 2] != _SLASH and data[at + 2] != _MINUS:
        return NO_TIME
    if data[at + 11] != COLON and data[at + 11] != BLANK:
        return NO_TIME
    day, month = two_digits(data, at), month_at(data, at + 3, end)
    century, year = two_digits(data, at + 7), two_digits(data, at + 9)
    hour, minute, second, nanos, stop = _clock(data, at + 12, end)
    if (day | century | year) < 0 or stop < 0:
        return NO_TIME
    east, _ = zone_at(data, stop, end, zone_s)
    days = days_since_1970(century * 100 + year, month, day)
    return instant(days, hour, minute, second, nanos, east)


@compiled
def _klog(data: Bytes, at: int, end: int, zone_s: int, read_ns: int) -> int:
    """Read `I0102 15:04:05.000000`."""
    letter = data[at]
    if at + 14 > end or data[at + 5] != BLANK:
        return NO_TIME
    if letter != 73 and letter != 87 and letter != 69 and letter != 70:
        return NO_TIME
    month, day = two_digits(data, at + 1), two_digits(data, at + 3)
    hour, minute, second, nanos, stop = _clock(data, at + 6, end)
    if month < 0 or day < 0 or stop < 0:
        return NO_TIME
    return nearest_past(month, day, hour, minute, second, nanos, zone_s, read_ns)


@compiled
def _syslog(data: Bytes, at: int, end: int, zone_s: int, read_ns: int) -> int:
    """Read `Jan  2 15:04:05`, or `Fri Jan  2 15:04:05 2026`."""
    if name_at(data, at, end, _DAYS) and at + 4 < end and data[at + 3] == BLANK:
        at += 4
    month = month_at(data, at, end)
    if month == 0 or at + 15 > end or data[at + 3] != BLANK or data[at + 6] != BLANK:
        return NO_TIME
    tens = 0 if data[at + 4] == BLANK else integer(data[at + 4]) - 48
    ones = integer(data[at + 5]) - 48
    hour, minute, second, nanos, stop = _clock(data, at + 7, end)
    if tens < 0 or tens > 3 or ones < 0 or ones > 9 or stop < 0:
        return NO_TIME
    day = tens * 10 + ones
    if stop + 5 <= end and data[stop] == BLANK:
        century, year = two_digits(data, stop + 1), two_digits(data, stop + 3)
        after = stop + 5 == end or not 48 <= data[stop + 5] <= 58
        if 19 <= century <= 21 and year >= 0 and after:
            days = days_since_1970(century * 100 + year, month, day)
            return instant(days, hour, minute, second, nanos, zone_s)
    return nearest_past(month, day, hour, minute, second, nanos, zone_s, read_ns)


@compiled
def epoch(data: Bytes, at: int, end: int) -> int:
    """Read the 10, 13, 16 or 19 digits of s, ms, us or ns since 1970, seconds with a part."""
    first, number = at, 0
    while at < end and at - first <= 19 and 48 <= data[at] <= 57:
        number = number * 10 + integer(data[at]) - 48
        at += 1
    digits = at - first
    if digits != 10 and digits != 13 and digits != 16 and digits != 19:
        return NO_TIME
    nanos = 0
    unit = NS if digits == 10 else 1_000_000 if digits == 13 else 1000 if digits == 16 else 1
    if digits == 10 and at + 1 < end and data[at] == _DOT and 48 <= data[at + 1] <= 57:
        nanos, at = fraction(data, at + 1, end)
    elif digits == 13 and at + 1 < end and data[at] == _DOT:
        at = fraction(data, at + 1, end)[1]
    if at < end and (data[at] >= 128 or 97 <= data[at] | 32 <= 122 or data[at] == _MINUS):
        return NO_TIME
    if at < end and (data[at] == _DOT or data[at] == 95):
        return NO_TIME
    per_second = NS // unit
    if not _SECONDS_MIN <= number // per_second < _SECONDS_MAX:
        return NO_TIME
    return int(number * unit + nanos)


@compiled
def _json(data: Bytes, start: int, end: int, zone_s: int) -> int:
    """Read the value of a key for times in a line of JSON."""
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
        time_ns = _value(data, value, end, zone_s)
        if time_ns != NO_TIME:
            return time_ns
    return NO_TIME


@compiled
def _value(data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Read a time that starts with a digit."""
    if at + 10 > end or not 48 <= data[at] <= 57:
        return NO_TIME
    if data[at + 4] == _MINUS or data[at + 4] == _SLASH:
        return _iso(data, at, end, zone_s)
    if data[at + 2] == _SLASH or data[at + 2] == _MINUS:
        return _day_first(data, at, end, zone_s)
    return epoch(data, at, end)


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
        time_ns = _day_first(data, at, end, zone_s)
        if time_ns != NO_TIME:
            return time_ns
    return NO_TIME


@compiled
def guessed_time(data: Bytes, start: int, end: int, zone_s: int, read_ns: int) -> int:
    """Return the time (ns since 1970) of a line, NO_TIME if it has none.

    Times without a zone are ``zone_s`` seconds east of UTC.
    """
    at = start
    if at < end and data[at] == BRACE:
        return _json(data, at, end, zone_s)
    if at < end and data[at] == _LESS:  # a syslog priority, and the version after it
        while at < end and at - start < 5 and data[at] != _GREATER:
            at += 1
        at += 1
        if at + 2 < end and data[at] == 49 and data[at + 1] == BLANK:
            at += 2
    elif at < end and (data[at] == OPENING or data[at] == QUOTE or data[at] == 40):
        at += 1
    if at + 10 > end:
        return NO_TIME
    if data[at] == _SMALL_T:
        value = _key_end(data, at, end)
        if value > at and value < end and data[value] == EQUALS:
            at = value + 1
            if at < end and data[at] == QUOTE:
                at += 1
    time_ns = _value(data, at, end, zone_s)
    if time_ns == NO_TIME and at < end:
        time_ns = _klog(data, at, end, zone_s, read_ns)
    if time_ns == NO_TIME and at < end:
        time_ns = _syslog(data, at, end, zone_s, read_ns)
    return time_ns if time_ns != NO_TIME else _bracketed(data, start, end, zone_s)
