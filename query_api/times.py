"""Times as people and programs ask for them.

A text goes in as RFC 3339, as a number since 1970 whose size tells its unit, or relative to now;
nanoseconds since 1970 come out.
"""

import re

from indexer.times import DAY_NS, HOUR_NS, SECOND_NS, from_rfc_3339
from query_api.errors import BadParameter

_HINT = "write 2026-01-31T08:30:00Z, a number since 1970 (s, ms, us or ns), -15m or now"
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
        elif match := _NUMBER.fullmatch(text):
            time_ns = _from_number(int(match[1]), match[2] or "")
        else:
            time_ns = from_rfc_3339(text)
        if not _LOWEST <= time_ns <= _HIGHEST:
            raise ValueError("further from 1970 than 292 years")
    except ValueError as error:
        raise BadParameter(f"{name}={text!r} is no time: {error}", _HINT) from error
    return time_ns


def _from_number(number: int, fraction: str) -> int:
    """Seconds have at most 11 digits, milliseconds 14, microseconds 17."""
    for most, unit_ns in ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3)):
        if number < most:
            return number * unit_ns + int(fraction.ljust(9, "0")) * unit_ns // 10**9
    return number
