"""Times of plain lines as somebody has described them: patterns like strptime's, by container.

In come two settings; out comes what a compiled kernel executes for each line. A pattern matches at
the line's start, after a leading `*` anywhere in its first 128 bytes; a blank stands for one or
more.
"""

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Self

import numpy as np
from numpy.typing import NDArray

from collector.errors import SettingError
from indexer.kernels import BLANK, Bytes, compiled, integer
from indexer.parse.dates import epoch, month_at, nearest_past, zone_at
from indexer.parse.timestamp import NO_TIME, days_since_1970, fraction, instant

GUESSED = -1
"""In place of a pattern's number: nobody has described the times of this container."""

_DIRECTIVES = "YymbdeHMSfzs"
_SIZE_MAX = 64
_SEARCH_BYTES = 128
# A program is a row of numbers: a byte stands for itself, these for a directive, 0 for the end.
_DIRECTIVE = 256
_ANYWHERE = 512

_YEAR, _SHORT_YEAR, _MONTH, _NAME, _DAY, _PADDED_DAY = (_DIRECTIVE + ord(c) for c in "Yymbde")
_HOUR, _MINUTE, _SECOND, _PART, _ZONE, _EPOCH = (_DIRECTIVE + ord(c) for c in "HMSfzs")
_ZERO, _NINE = 48, 57


@dataclass(frozen=True, slots=True)
class PlainTimes:
    """How the times of plain lines are read.

    ``programs`` has a row for each glob of a container, and one more, so that it is never empty.
    Times without a zone are ``zone_s`` seconds east of UTC.
    """

    zone_s: int = 0
    globs: tuple[str, ...] = ()
    programs: NDArray[np.int16] = field(default_factory=lambda: np.zeros((1, 1), np.int16))

    @classmethod
    def of(cls, formats: str, time_zone: str) -> Self:
        """Read `GLOB=PATTERN;…` and `UTC` or `+hh:mm`. Raises SettingError."""
        named = [each.partition("=") for each in formats.split(";") if each.strip()]
        if wrong := [glob for glob, _, pattern in named if not glob or not pattern]:
            raise SettingError(f"plain_time_formats has {wrong[0]!r}; write NAME=PATTERN")
        programs = np.zeros((len(named) + 1, _SIZE_MAX + 1), np.int16)
        for row, (_, _, pattern) in zip(programs, named, strict=False):
            codes = _program(pattern)
            row[: len(codes)] = codes
        return cls(_seconds_east(time_zone), tuple(glob.strip() for glob, _, _ in named), programs)

    def number_of(self, container: str) -> int:
        """Return the row of the first pattern for a container, else GUESSED."""
        matching = (i for i, glob in enumerate(self.globs) if fnmatchcase(container, glob))
        return next(matching, GUESSED)


GUESSING = PlainTimes()
"""Nothing is described: times are guessed, and are UTC without a zone."""


def _seconds_east(zone: str) -> int:
    if zone in ("UTC", "Z"):
        return 0
    east, stop = zone_at(np.frombuffer(zone.encode(), np.uint8), 0, len(zone.encode()), 1 << 20)
    if stop != len(zone.encode()) or east == 1 << 20:
        raise SettingError(f"plain_time_zone is {zone!r}; write UTC or +hh:mm")
    return int(east)


def _program(pattern: str) -> list[int]:
    """Compile a pattern. Raises SettingError."""
    anywhere, rest = pattern.startswith("*"), pattern.removeprefix("*")
    codes = [_ANYWHERE] if anywhere else []
    letters = iter(re.sub(" +", " ", rest).encode())
    for byte in letters:
        if byte != ord("%"):
            codes.append(byte)
            continue
        letter = chr(next(letters, 0))
        if letter != "%" and letter not in _DIRECTIVES:
            raise SettingError(f"plain_time_formats has %{letter} in {pattern!r}; known are "
                               + " ".join(f"%{each}" for each in _DIRECTIVES))  # fmt: skip
        codes.append(ord("%") if letter == "%" else _DIRECTIVE + ord(letter))
    has_day = {_DAY, _PADDED_DAY} & {*codes} and {_MONTH, _NAME} & {*codes}
    if not (_EPOCH in codes or (has_day and _HOUR in codes)):
        raise SettingError(f"plain_time_formats has {pattern!r}, which has no day, month and hour")
    if len(codes) > _SIZE_MAX:
        raise SettingError(
            f"plain_time_formats has {pattern!r}; the maximum is {_SIZE_MAX} characters"
        )
    return codes


@compiled
def _number(data: Bytes, at: int, end: int, digits: int) -> int:
    """Return the number that exactly so many digits are, else -1."""
    if at + digits > end:
        return -1
    number = 0
    for i in range(at, at + digits):
        if not _ZERO <= data[i] <= _NINE:
            return -1
        number = number * 10 + integer(data[i]) - 48
    return number


@compiled
def _matched(
    data: Bytes, at: int, end: int, program: Bytes, first: int, zone_s: int, read_ns: int
) -> int:
    """Return the time that the program finds from its step ``first`` on at ``at``, else NO_TIME."""
    year, month, day, hour, minute, second, nanos, east = -1, 0, 0, 0, 0, 0, 0, zone_s
    for step in range(first, program.size):
        code = program[step]
        if code == 0:
            break
        size = 2
        if code == BLANK:
            size = 0
            while at + size < end and data[at + size] == BLANK:
                size += 1
            if size == 0:
                return NO_TIME
        elif code < _DIRECTIVE:
            if at >= end or data[at] != code:
                return NO_TIME
            size = 1
        elif code == _EPOCH:
            return epoch(data, at, end)
        elif code == _ZONE:
            east, stop = zone_at(data, at, end, 1 << 20)
            size = stop - at
        elif code == _PART:
            nanos, stop = fraction(data, at, end)
            size = stop - at
        elif code == _NAME:
            month, size = month_at(data, at, end), 3
        else:
            if code == _YEAR:
                size = 4
            elif code == _PADDED_DAY and at < end and data[at] == BLANK:
                at, size = at + 1, 1
            elif code == _PADDED_DAY and _number(data, at, end, 2) < 0:
                size = 1
            number = _number(data, at, end, size)
            if number < 0:
                return NO_TIME
            if code == _YEAR:
                year = number
            elif code == _SHORT_YEAR:
                year = 2000 + number if number < 69 else 1900 + number
            elif code == _MONTH:
                month = number
            elif code in (_DAY, _PADDED_DAY):
                day = number
            elif code == _HOUR:
                hour = number
            elif code == _MINUTE:
                minute = number
            else:
                second = number
        at += size
    if east == 1 << 20:
        return NO_TIME
    if year < 0:
        return nearest_past(month, day, hour, minute, second, nanos, east, read_ns)
    return instant(days_since_1970(year, month, day), hour, minute, second, nanos, east)


@compiled
def described_time(
    data: Bytes, start: int, end: int, program: Bytes, zone_s: int, read_ns: int
) -> int:
    """Return the time (ns since 1970) of a line by its pattern, NO_TIME if it has none."""
    if program[0] != _ANYWHERE:
        return _matched(data, start, end, program, 0, zone_s, read_ns)
    for at in range(start, min(end, start + _SEARCH_BYTES)):
        time_ns = _matched(data, at, end, program, 1, zone_s, read_ns)
        if time_ns != NO_TIME:
            return time_ns
    return NO_TIME
