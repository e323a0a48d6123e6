"""Dates and clocks as programs write them, each form from a place where it may stand.

In come bytes and a place; out comes a time or none. Without a zone it is that of the caller, and a
year that is missing is that of the nearest past as seen from the time of reading.
"""

import numpy as np

from indexer.kernels import BLANK, CLOSING, COLON, COMMA, Bytes, compiled, integer, starts_with
from indexer.parse.timestamp import (
    NO_DAY,
    NO_TIME,
    NS,
    days_since_1970,
    fraction,
    instant,
    two_digits,
    year_of,
)

_DAY_NS = 86_400 * NS
# Numbers count as times from 2000 to 2100 only.
_SECONDS_MIN, _SECONDS_MAX = 946_684_800, 4_102_444_800
# How far a number that is a time may lie before the time of the line before it, and before the
# time of reading where nothing else is known.
_BACK_NS, _YEAR_NS = 2 * _DAY_NS, 400 * _DAY_NS
_UNITS = np.array(
    [
        int.from_bytes(word, "big")
        for word in b"b kb mb gb tb kib mib gib tib byte bytes bit bits octets ns us ms s sec secs "
        b"second seconds minute minutes hour hours day days row rows record records line lines "
        b"item items file files key keys object objects event events message messages request "
        b"requests packet packets page pages block blocks time times count entry entries job jobs "
        b"task tasks user users hit hits".split()
        if len(word) <= 8
    ]
)

_DOT, _PLUS, _MINUS, _SLASH, _UNDERSCORE = 46, 43, 45, 47, 95
_CAPITAL_A, _CAPITAL_P, _CAPITAL_T, _CAPITAL_Z, _M = 65, 80, 84, 90, 77
_MONTHS = np.frombuffer(b"janfebmaraprmayjunjulaugsepoctnovdec", np.uint8)
_DAYS = np.frombuffer(b"montuewedthufrisatsun", np.uint8)
_UTC, _GMT = np.frombuffer(b"UTC", np.uint8), np.frombuffer(b"GMT", np.uint8)
_SMALL_T, _SMALL_Z = 116, 122
_WIDE_MINUS = np.frombuffer("\u2212".encode(), np.uint8)  # ISO 8601 prefers it to the hyphen


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

    ``Z``, ``UTC``, ``GMT``, ``+01:00``, ``+0100``, and ``UTC+01:00`` or ``GMT+1``; ``+01`` only
    directly behind the time. Without one that is ``zone_s``.
    """
    first = at + 1 if at < end and data[at] == BLANK else at
    if first < end and (data[first] == _CAPITAL_Z or data[first] == _SMALL_Z):
        whole = first + 1 == end or not _is_letter(data[first + 1])
        return (0, first + 1) if whole else (zone_s, at)
    is_named = starts_with(data, first, end, _UTC) or starts_with(data, first, end, _GMT)
    sign = first + 3 if is_named else first
    if is_named and sign < end and _is_letter(data[sign]):
        return zone_s, at
    east, stop = _offset(data, sign, end, is_named, is_named or first == at)
    if stop >= 0:
        return east, stop
    return (0, sign) if is_named else (zone_s, at)


@compiled
def _is_letter(byte: int) -> bool:
    return bool(97 <= byte | 32 <= 122)


@compiled
def _offset(data: Bytes, at: int, end: int, short: bool, bare: bool) -> tuple[int, int]:
    """Return (seconds, end) of a sign with hours and minutes at ``at``; the end is -1 if not there.

    ``short``: the hours may have one digit; ``bare``: there may be no minutes.
    """
    if at < end and (data[at] == _PLUS or data[at] == _MINUS):
        first = at + 1
    elif starts_with(data, at, end, _WIDE_MINUS):
        first = at + _WIDE_MINUS.size
    else:
        return 0, -1
    hours = two_digits(data, first) if first + 2 <= end else -1
    after = first + 2
    if hours < 0 and short and first < end and 48 <= data[first] <= 57:
        hours, after = integer(data[first]) - 48, first + 1
    colon = after < end and data[after] == COLON
    second = after + 1 if colon else after
    minutes = two_digits(data, second) if second + 2 <= end else -1
    stop = second + 2
    if minutes < 0 and bare and not colon:
        minutes, stop = 0, after
    ends = stop >= end or not 48 <= data[stop] <= 57
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59 or not ends:
        return 0, -1
    east = hours * 3600 + minutes * 60
    return (east if data[at] == _PLUS else -east), stop


@compiled
def _clock(data: Bytes, at: int, end: int) -> tuple[int, int, int, int, int]:
    """Return (hour, minute, second, ns, end) of `15:04:05.000` at ``at``; the end is -1 if none.

    An hour may have one digit, and AM or PM may follow.
    """
    none = (0, 0, 0, 0, -1)
    short = at + 1 < end and data[at + 1] == COLON
    minutes = at + 2 if short else at + 3
    if minutes + 5 > end or data[minutes - 1] != COLON or data[minutes + 2] != COLON:
        return none
    hour = integer(data[at]) - 48 if short else two_digits(data, at)
    minute, second = two_digits(data, minutes), two_digits(data, minutes + 3)
    if (hour | minute | second) < 0 or hour > 23:
        return none
    at = minutes + 5
    nanos = 0
    if at + 1 < end and (data[at] == _DOT or data[at] == COMMA) and 48 <= data[at + 1] <= 57:
        nanos, at = fraction(data, at + 1, end)
    if at + 3 <= end and data[at] == BLANK and data[at + 2] == _M and 1 <= hour <= 12:
        half = data[at + 1]
        ends = at + 3 == end or data[at + 3] == BLANK
        if ends and half in (_CAPITAL_A, _CAPITAL_P):
            hour = hour % 12 + (12 if half == _CAPITAL_P else 0)
            at += 3
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
def _at_clock(year: int, month: int, day: int, data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Return the time of a day at the clock and the zone that stand at ``at``."""
    hour, minute, second, nanos, stop = _clock(data, at, end)
    if stop < 0 or month < 1 or day < 1:
        return NO_TIME
    east, _ = zone_at(data, stop, end, zone_s)
    return instant(days_since_1970(year, month, day), hour, minute, second, nanos, east)


@compiled
def _year_at(data: Bytes, at: int, end: int) -> int:
    """Return the year of four digits at ``at``, from 1900 to 2199, else 0."""
    if at + 4 > end or (at + 4 < end and 48 <= data[at + 4] <= 58):
        return 0
    century, year = two_digits(data, at), two_digits(data, at + 2)
    return century * 100 + year if 19 <= century <= 21 and year >= 0 else 0


@compiled
def _iso(data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Read `2026-01-02T15:04:05.000+01:00`, with a blank and the like, slashes or dots."""
    if at + 18 > end or data[at + 4] != data[at + 7]:
        return NO_TIME
    between = data[at + 10]
    if between not in (_CAPITAL_T, _SMALL_T, BLANK, _MINUS, _UNDERSCORE):
        return NO_TIME
    century, year = two_digits(data, at), two_digits(data, at + 2)
    month, day = two_digits(data, at + 5), two_digits(data, at + 8)
    if (century | year) < 0:
        return NO_TIME
    return _at_clock(century * 100 + year, month, day, data, at + 11, end, zone_s)


@compiled
def _compact(data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Read `20260102T150405Z`, or `20260102 15:04:05.000`, or with a hyphen."""
    century, year = two_digits(data, at), two_digits(data, at + 2)
    month, day = two_digits(data, at + 4), two_digits(data, at + 6)
    if at + 15 > end or (century | year | month | day) < 0:
        return NO_TIME
    year += century * 100
    if data[at + 8] == BLANK or data[at + 8] == _MINUS:
        return _at_clock(year, month, day, data, at + 9, end, zone_s)
    hour, minute = two_digits(data, at + 9), two_digits(data, at + 11)
    second, stop, nanos = two_digits(data, at + 13), at + 15, 0
    if data[at + 8] != _CAPITAL_T or (hour | minute | second) < 0:
        return NO_TIME
    if stop + 1 < end and (data[stop] == _DOT or data[stop] == COMMA):
        nanos, stop = fraction(data, stop + 1, end)
    east, _ = zone_at(data, stop, end, zone_s)
    return instant(days_since_1970(year, month, day), hour, minute, second, nanos, east)


@compiled
def day_first(data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Read `02/Jan/2026:15:04:05 +0100`, or with hyphens or blanks, or `02.01.2026 15:04:05`."""
    if at + 18 > end:
        return NO_TIME
    day = two_digits(data, at)
    if day < 0:  # RFC 5322 has `2 Jan`
        day, at = integer(data[at]) - 48, at - 1
    between = data[at + 2]
    if between == _DOT and data[at + 5] == _DOT and data[at + 10] == BLANK:
        month = two_digits(data, at + 3)
        return _at_clock(_year_at(data, at + 6, end), month, day, data, at + 11, end, zone_s)
    if data[at + 6] != between or (between != _SLASH and between != _MINUS and between != BLANK):
        return NO_TIME
    if data[at + 11] != COLON and data[at + 11] != BLANK:
        return NO_TIME
    century, year = two_digits(data, at + 7), two_digits(data, at + 9)
    if day > 31 or (century | year) < 0:
        return NO_TIME
    month = month_at(data, at + 3, end)
    return _at_clock(century * 100 + year, month, day, data, at + 12, end, zone_s)


@compiled
def klog(data: Bytes, at: int, end: int, zone_s: int, read_ns: int) -> int:
    """Read `I0102 15:04:05.000000`, or `I20260102 15:04:05.000000`."""
    letter = data[at]
    if at + 14 > end or (letter != 73 and letter != 87 and letter != 69 and letter != 70):
        return NO_TIME
    if data[at + 5] != BLANK:
        return _compact(data, at + 1, end, zone_s) if data[at + 9] == BLANK else NO_TIME
    month, day = two_digits(data, at + 1), two_digits(data, at + 3)
    hour, minute, second, nanos, stop = _clock(data, at + 6, end)
    if month < 0 or day < 0 or stop < 0:
        return NO_TIME
    return nearest_past(month, day, hour, minute, second, nanos, zone_s, read_ns)


@compiled
def named(data: Bytes, at: int, end: int, zone_s: int, read_ns: int) -> int:
    """Read `Jan  2 15:04:05`, `Fri Jan 2 15:04:05 UTC 2026`, `Jan 2, 2026 3:04:05 PM` and so on.

    Or, after the name of a day, what ``day_first`` reads.
    """
    has_day = name_at(data, at, end, _DAYS) and at + 5 < end
    if has_day:
        comma = data[at + 3] == COMMA
        if data[at + 3] == BLANK or (comma and data[at + 4] == BLANK):
            at += 5 if comma else 4
            if 48 <= data[at] <= 57:
                return day_first(data, at, end, zone_s)
    month = month_at(data, at, end)
    if month == 0 or at + 14 > end or data[at + 3] != BLANK:
        return NO_TIME
    at += 5 if data[at + 4] == BLANK else 4
    day = integer(data[at]) - 48
    if 48 <= data[at + 1] <= 57:
        day, at = two_digits(data, at), at + 1
    at += 1
    if day < 1 or day > 31:
        return NO_TIME
    if data[at] == COMMA:
        at += 1
    if at >= end or data[at] != BLANK:
        return NO_TIME
    year = _year_at(data, at + 1, end)
    if year != 0:
        return _at_clock(year, month, day, data, at + 6, end, zone_s)
    hour, minute, second, nanos, stop = _clock(data, at + 1, end)
    if stop < 0:
        return NO_TIME
    sign = stop + 1 < end and data[stop] == BLANK and data[stop + 1] in (_PLUS, _MINUS)
    east, stop = zone_at(data, stop + 1 if sign else stop, end, zone_s)
    before = letters = stop + 1
    while letters < min(end, stop + 7) and 65 <= data[letters] <= 90:
        letters += 1
    if letters > before:
        before = letters + 1 if data[min(letters, end - 1)] == BLANK else end
    if stop < end and data[stop] == BLANK:
        year = _year_at(data, before, end)
    behind = before + 4
    if year != 0 and not has_day and behind < end and data[behind] != CLOSING:
        year = 0  # syslog has none: it is a number of what is said
    if year != 0:
        return instant(days_since_1970(year, month, day), hour, minute, second, nanos, east)
    if sign:
        east = zone_s  # so is this
    return nearest_past(month, day, hour, minute, second, nanos, east, read_ns)


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
    if at < end and (data[at] == _DOT or data[at] == _UNDERSCORE or data[at] == _SLASH):
        return NO_TIME
    per_second = NS // unit
    if not _SECONDS_MIN <= number // per_second < _SECONDS_MAX:
        return NO_TIME
    return int(number * unit + nanos)


@compiled
def dated(data: Bytes, at: int, end: int, zone_s: int) -> int:
    """Read a date that starts with a digit, and its clock."""
    if at + 15 > end or not 48 <= data[at] <= 57:
        return NO_TIME
    if data[at + 4] == _MINUS or data[at + 4] == _SLASH or data[at + 4] == _DOT:
        return _iso(data, at, end, zone_s)
    if not 48 <= data[at + 2] <= 57 or data[at + 1] == BLANK:
        return day_first(data, at, end, zone_s)
    if data[at + 8] == _CAPITAL_T or data[at + 8] == BLANK or data[at + 8] == _MINUS:
        return _compact(data, at, end, zone_s)
    return NO_TIME


@compiled
def is_whole_number(data: Bytes, at: int, end: int) -> bool:
    """Tell whether digits stand at ``at`` that no fraction follows."""
    while at < end and 48 <= data[at] <= 57:
        at += 1
    return not (at + 1 < end and data[at] == _DOT and 48 <= data[at + 1] <= 57)


@compiled
def is_near(time_ns: int, previous_ns: int, read_ns: int) -> bool:
    """Tell whether a number may be a time: one that the lines around it make likely.

    ``previous_ns`` is the time of the line before, 0 if unknown. Numbers are also sizes, durations
    and ids; the longer the digits of one, the more often it lies between 2000 and 2100.
    """
    oldest = previous_ns - _BACK_NS if previous_ns != 0 else read_ns - _YEAR_NS
    return bool(oldest <= time_ns <= read_ns + _DAY_NS)


@compiled
def counts_something(data: Bytes, at: int, end: int) -> bool:
    """Tell whether digits stand at ``at`` and then what they count, as in `1073741824 bytes`."""
    while at < end and 48 <= data[at] <= 57:
        at += 1
    if at < end and data[at] == BLANK:
        at += 1
    size = number = 0
    while at < end and size <= 8 and _is_letter(data[at]):
        number = (number << 8) | integer(data[at] | 32)
        size, at = size + 1, at + 1
    if size == 0:
        return bool(at < end and data[at] == 37)  # per cent
    for i in range(_UNITS.size):  # noqa: SIM110 - a kernel knows no any()
        if _UNITS[i] == number:
            return True
    return False
