"""Times as people and programs write them, to nanoseconds since 1970 and back.

A text goes in as RFC 3339, as a number since 1970 whose size tells its unit, or relative to now;
an integer comes out. What goes out to people is RFC 3339 in UTC with nine digits.
"""

import re
from datetime import UTC, datetime, timedelta

from query_api.errors import BadParameter

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HINT = "write 2026-01-31T08:30:00Z, a number since 1970 (s, ms, us or ns), -15m or now"
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,18}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_NUMBER = re.compile(r"(\d{1,19})(?:\.(\d{1,9}))?", re.ASCII)
_RELATIVE = re.compile(r"(?:now)?-(\d{1,9})(ms|s|m|h|d|w)", re.ASCII)
_UNITS_NS = {
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
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
        elif match := _RFC_3339.fullmatch(text):
            time_ns = _from_rfc_3339(match)
        else:
            raise ValueError("no form of a time that is known here")
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


def _from_rfc_3339(match: re.Match[str]) -> int:
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    whole = datetime.fromisoformat(f"{date}T{clock}{zone}") - _EPOCH
    return whole // timedelta(seconds=1) * 10**9 + int((fraction or "")[:9].ljust(9, "0"))


def format_time(time_ns: int) -> str:
    """Return RFC 3339 in UTC with nine digits; it sorts like the number."""
    seconds, fraction = divmod(time_ns, 10**9)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def format_optional(time_ns: int | None) -> str | None:
    """Return RFC 3339, or None for an unknown time."""
    return None if time_ns is None else format_time(time_ns)
