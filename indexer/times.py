"""Times: nanoseconds since 1970 inside the project, and what else they are written as.

Numbers go in; datetimes, partitions of the table and text come out, or the other way round. A
datetime holds whole microseconds: what is below is cut off, never rounded, also before 1970.
"""

import re
from datetime import UTC, date, datetime, timedelta

SECOND_NS = 10**9
HOUR_NS = 3_600 * SECOND_NS
"""An hour in nanoseconds, as rows are filed by."""
DAY_NS = 24 * HOUR_NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_MICROSECOND = timedelta(microseconds=1)
_RFC_3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,18}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def to_datetime(time_ns: int) -> datetime:
    """Return a time in UTC, cut to the microsecond."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def from_datetime(time: datetime) -> int:
    """Return a time that knows its zone in nanoseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND * 1000


def hour_of(day: str, hour: int) -> int:
    """Return the hours since 1970 of a partition."""
    return (date.fromisoformat(day).toordinal() - _EPOCH_DAY) * 24 + hour


def partition_of(hour: int) -> tuple[str, int]:
    """Return day and hour of the partition that an hour since 1970 is."""
    begin = _EPOCH + timedelta(hours=hour)
    return begin.date().isoformat(), begin.hour


def format_time(time_ns: int) -> str:
    """Return RFC 3339 in UTC with nine digits; it sorts like the number."""
    seconds, fraction = divmod(time_ns, SECOND_NS)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def format_optional(time_ns: int | None) -> str | None:
    """Return RFC 3339, or None for an unknown time."""
    return None if time_ns is None else format_time(time_ns)


def format_microseconds(time_us: int) -> str:
    """Return RFC 3339 in UTC with six digits, as the Delta protocol has it."""
    return f"{_EPOCH + time_us * _MICROSECOND:%Y-%m-%dT%H:%M:%S.%fZ}"


def from_rfc_3339(text: str) -> int:
    """Return nanoseconds since 1970, further digits cut off; raise ValueError if it is no time."""
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise ValueError("no form of a time that is known here")
    date_, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    whole = datetime.fromisoformat(f"{date_}T{clock}{zone}")
    return from_datetime(whole) + int((fraction or "")[:9].ljust(9, "0"))
