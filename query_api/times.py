"""Times as people and programs ask for them.

A text goes in as RFC 3339, as a part of it, as a day, as a time of today, as a number since 1970
whose size tells its unit, or relative to now; nanoseconds since 1970 come out. Where no zone is
named, a time is of UTC, as those of all answers are.
"""

import re

from indexer.times import DAY_NS, HOUR_NS, SECOND_NS, format_time, from_rfc_3339
from query_api.errors import BadParameter

_HINT = (
    "write 2026-01-31T08:30:00Z, 2026-01-31, 08:30 (of today, UTC), yesterday, -15m, now, or a "
    "number since 1970 (s, ms, us or ns)"
)
_DAY = re.compile(r"(\d{4})(?:-(\d\d))?(?:-(\d\d))?", re.ASCII)
_CLOCK = r"(\d\d:\d\d)(:\d\d(?:\.\d{1,9})?)?"
_OF_TODAY = re.compile(_CLOCK, re.ASCII)
_OF_A_DAY = re.compile(rf"(\d{{4}}-\d\d-\d\d)[ T]{_CLOCK}", re.ASCII)
_DAYS_AGO = {"today": 0, "yesterday": 1}
_NUMBER = re.compile(r"(\d{1,19})(?:\.(\d{1,9}))?", re.ASCII)
_RELATIVE = re.compile(r"(?:now)?-(\d{1,9})(ms|s|m|h|d|w)", re.ASCII)
_UNITS_NS = {
    "ms": 10**6,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": HOUR_NS,
    "d": DAY_NS,
    "w": 7 * DAY_NS,
}
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def parse_time(text: str, name: str, now_ns: int) -> int:
    """Return ``text`` in nanoseconds since 1970; raise BadParameter, which gives ``name``."""
    text = text.strip()
    if text == "now":
        return now_ns
    try:
        if match := _RELATIVE.fullmatch(text):
            time_ns = now_ns - int(match[1]) * _UNITS_NS[match[2]]
        elif text in _DAYS_AGO:
            time_ns = (now_ns // DAY_NS - _DAYS_AGO[text]) * DAY_NS
        elif match := _DAY.fullmatch(text):  # four digits are no second of 1970, but a year
            year, month, day = (part or "01" for part in match.groups())
            time_ns = from_rfc_3339(f"{year}-{month}-{day}T00:00:00Z")
        elif match := _OF_TODAY.fullmatch(text):
            time_ns = _at(format_time(now_ns)[:10], match[1], match[2])
        elif match := _OF_A_DAY.fullmatch(text):
            time_ns = _at(*match.groups())
        elif match := _NUMBER.fullmatch(text):
            time_ns = _from_number(int(match[1]), match[2] or "")
        else:
            time_ns = from_rfc_3339(text)
        if not _LOWEST <= time_ns <= _HIGHEST:
            raise ValueError("more than 292 years away from 1970")
    except ValueError as error:
        raise BadParameter(f"{name}={text!r} is no time: {error}", _HINT) from error
    return time_ns


def _at(day: str, minute: str, second: str | None) -> int:
    return from_rfc_3339(f"{day}T{minute}{second or ':00'}Z")


def _from_number(number: int, fraction: str) -> int:
    """Seconds have at most 11 digits, milliseconds 14, microseconds 17."""
    for most, unit_ns in ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3)):
        if number < most:
            return number * unit_ns + int(fraction.ljust(9, "0")) * unit_ns // 10**9
    return number
