"""Times of lines: from digits to nanoseconds since 1970.

In come bytes and a place in them; out come a time and where it ends, or that there is none. A date
that does not exist and a time that 64 bits of nanoseconds cannot hold are none.
"""

from indexer.kernels import COLON, Bytes, compiled, integer

_PLUS, _MINUS, _DOT, _T, _Z = 43, 45, 46, 84, 90

# The longest time that the collector takes for one, when it looks for open events.
TIME_BYTES_MAX = 63
# Whole seconds since 1970 of which every nanosecond fits 64 bits: 1677-09-21 to 2262-04-11.
_SECONDS_MAX = 9_223_372_036
NS = 1_000_000_000
NO_DAY = -(1 << 62)
NO_TIME = -(1 << 63)
"""Stands for a time that could not be read."""


@compiled
def two_digits(data: Bytes, at: int) -> int:
    tens = integer(data[at]) - 48
    ones = integer(data[at + 1]) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1
    return int(tens * 10 + ones)


@compiled
def days_since_1970(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01; NO_DAY for a date that does not exist.

    Source of the arithmetic: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    """
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    longest = 31
    if month == 2:
        longest = 29 if leap else 28
    elif month == 4 or month == 6 or month == 9 or month == 11:
        longest = 30
    if month < 1 or month > 12 or day < 1 or day > longest:
        return NO_DAY
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@compiled
def fraction(data: Bytes, at: int, end: int) -> tuple[int, int]:
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
    if at + 6 > end or data[at + 3] != COLON or (data[at] != _PLUS and data[at] != _MINUS):
        return 0, -1
    hours = two_digits(data, at + 1)
    minutes = two_digits(data, at + 4)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return 0, -1
    east = hours * 3600 + minutes * 60
    return (east if data[at] == _PLUS else -east), at + 6


@compiled
def instant(days: int, hour: int, minute: int, second: int, nanos: int, east: int) -> int:
    """Return the ns since 1970, or NO_TIME; ``east`` is the zone's seconds east of UTC.

    A leap second has no number of its own: it is the end of the second before it.
    """
    if days == NO_DAY or hour < 0 or hour > 23 or minute < 0 or minute > 59:
        return NO_TIME
    if second < 0 or second > 60:
        return NO_TIME
    if second == 60:
        second, nanos = 59, NS - 1
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - east
    if seconds < -_SECONDS_MAX or seconds >= _SECONDS_MAX:
        return NO_TIME
    return seconds * NS + nanos


@compiled
def rfc3339(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return (ns since 1970, end of the time) of the RFC 3339 time at ``start``, else end -1."""
    if end - start < 20 or data[start + 4] != _MINUS or data[start + 7] != _MINUS:
        return 0, -1
    if data[start + 10] != _T or data[start + 13] != COLON or data[start + 16] != COLON:
        return 0, -1
    century = two_digits(data, start)
    year = two_digits(data, start + 2)
    month = two_digits(data, start + 5)
    day = two_digits(data, start + 8)
    hour = two_digits(data, start + 11)
    minute = two_digits(data, start + 14)
    second = two_digits(data, start + 17)
    if (century | year | month | day | hour | minute | second) < 0:
        return 0, -1
    days = days_since_1970(century * 100 + year, month, day)
    nanos, at = 0, start + 19
    if data[at] == _DOT:
        nanos, at = fraction(data, at + 1, end)
        if at == start + 20:
            return 0, -1
    east, at = _zone(data, at, end)
    if at < 0 or at - start > TIME_BYTES_MAX:
        return 0, -1
    time_ns = instant(days, hour, minute, second, nanos, east)
    return (time_ns, at) if time_ns != NO_TIME else (0, -1)


@compiled
def year_of(days: int) -> int:
    """Return the year of a day since 1970-01-01."""
    year = 1969 + days // (366 if days >= 0 else 365)
    while days_since_1970(year + 1, 1, 1) <= days:
        year += 1
    return year
