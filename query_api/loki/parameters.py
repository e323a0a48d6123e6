"""Loki's parameters, from texts to values: times, steps, limits, with Loki's own defaults.

Texts of a URL or a form go in. What is not known is passed over, as Loki does: its clients send
more than is asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from indexer.times import HOUR_NS, SECOND_NS, from_rfc_3339
from query_api.errors import BadParameter
from query_api.loki.parse import duration_ns

POINTS_MAX = 11_000
"""So many points may a series have."""

_LIMIT = 100
_STEPS = 250
_SECONDS_DIGITS = 10  # what has more is in nanoseconds
_FURTHEST = 2**62
_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_FRACTION = re.compile(r"([0-9]*)\.([0-9]*)", re.ASCII)

Given = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Points:
    """Points in time, all of them ``step_ns`` apart; one alone for an instant."""

    start_ns: int
    step_ns: int
    count: int

    @property
    def last_ns(self) -> int:
        """The last one."""
        return self.start_ns + (self.count - 1) * self.step_ns


def time_of(given: Given, name: str, otherwise_ns: int) -> int:
    """Return a time in nanoseconds since 1970; raise BadParameter."""
    text = given.get(name, "").strip()
    if not text:
        return otherwise_ns
    try:
        if _NUMBER.fullmatch(text):
            found = int(text) * (SECOND_NS if len(text) <= _SECONDS_DIGITS else 1)
        elif (fraction := _FRACTION.fullmatch(text)) and text != ".":
            found = int(fraction[1] or 0) * SECOND_NS + int(fraction[2][:9].ljust(9, "0"))
        else:
            found = from_rfc_3339(text)
        if not -_FURTHEST <= found <= _FURTHEST:
            raise ValueError("too far away")
    except ValueError as error:
        hint = "nanoseconds or seconds since 1970, or RFC 3339"
        raise BadParameter(f"{name}={text!r} is no time: {error}", hint) from error
    return found


def bounds_of(given: Given, now_ns: int, since_ns: int = HOUR_NS) -> tuple[int, int]:
    """Return ``start`` and ``end``; raise BadParameter."""
    end_ns = time_of(given, "end", now_ns)
    since = duration_of(given, "since", since_ns)
    start_ns = time_of(given, "start", end_ns - since)
    if end_ns < start_ns:
        raise BadParameter("end is before start", "swap them")
    return start_ns, end_ns


def duration_of(given: Given, name: str, otherwise_ns: int) -> int:
    """Return a duration in nanoseconds: seconds, or as ``5m``; raise BadParameter."""
    text = given.get(name, "").strip()
    if not text:
        return otherwise_ns
    try:
        found = duration_ns(text) or round(float(text) * SECOND_NS)
    except (ValueError, OverflowError):
        found = 0
    if not 0 < found <= _FURTHEST:
        raise BadParameter(f"{name}={text!r} is no duration", "seconds, or as 5m")
    return found


def limit_of(given: Given, name: str = "limit", otherwise: int = _LIMIT) -> int:
    """Return how many are asked for; raise BadParameter."""
    text = given.get(name, "").strip()
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit()) or not int(text[:18]):
        raise BadParameter(f"{name}={text!r} is no positive number", "")
    return int(text[:18])


def is_backward(given: Given) -> bool:
    """Return whether the newest come first; raise BadParameter."""
    direction = given.get("direction", "").strip().lower() or "backward"
    if direction not in ("backward", "forward"):
        raise BadParameter(f"direction={direction!r}", "backward or forward")
    return direction == "backward"


def points_of(given: Given, start_ns: int, end_ns: int) -> Points:
    """Return the points of a range; raise BadParameter."""
    seconds = max((end_ns - start_ns) // (_STEPS * SECOND_NS), 1)
    step_ns = duration_of(given, "step", seconds * SECOND_NS)
    count = (end_ns - start_ns) // step_ns + 1
    if count > POINTS_MAX:
        raise BadParameter(f"more than {POINTS_MAX:,} points in a series", "give a longer step")
    return Points(start_ns, step_ns, count)
