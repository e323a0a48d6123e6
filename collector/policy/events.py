"""Where the events of a range are: its lines, their messages, and which lines are one event.

A range goes in as it was read; out come its lines as matches of one pattern per format, found
whole or only where a finder says that something may be, and the knots: stretches in which events
of several lines are open. Anywhere between two lines outside of a knot the range may be cut.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from collector.wire.range import STDERR, STDOUT, Range

Line = re.Match[bytes]
"""A line with its newline. Groups: ``head`` (None: the whole line is the message), ``output``,
``fragment`` (not None: the event goes on in a later line), ``message``.
"""

# The string ends before an escaped newline at its end, which Docker puts behind each whole line.
_DOCKER_TEXT = rb'(?:[^"\\\n]|\\(?!n")[^\n])*+'
_LINES = {
    # As in range.py: the first blank lies within 64 bytes, and P counts with a blank or a colon.
    "cri": re.compile(
        rb"(?!\Z)(?P<head>[^ \n]{0,63} (?P<output>stdout|stderr) "
        rb"(?:(?:F|(?P<fragment>P)(?=[ :]))(?::[^ \n]*)?(?: |(?=\n|\Z)))?)?(?P<message>[^\n]*)\n?"
    ),
    "docker": re.compile(
        rb'(?!\Z)(?P<head>\{"log":"(?=' + _DOCKER_TEXT
        + rb'(?:\\n|(?P<fragment>))","stream":"(?P<output>stdout|stderr)"))?'
        + rb"(?P<message>(?(head)" + _DOCKER_TEXT + rb"|[^\n]*))[^\n]*\n?"
    ),
    "plain": re.compile(
        rb"(?!\Z)(?P<head>)(?P<output>(?!))?(?P<fragment>(?!))?(?P<message>[^\n]*)\n?"
    ),
}  # fmt: skip
_OUTPUTS = {b"stdout": STDOUT, b"stderr": STDERR}


@dataclass(frozen=True, slots=True)
class Finder:
    """Patterns of which one matches wherever a line may be of interest.

    None of them crosses a newline. Each stands behind the text that all it finds starts with,
    which may be empty. ``folded``: they are searched in lower case; ``characters``: in UTF-8.
    """

    patterns: tuple[tuple[bytes, Any], ...]
    """Of ``re`` or of RE2, which have the same methods."""
    folded: bool = False
    characters: bool = False


_STRAY = re.compile("[\udc80-\udcff]")


def readable(data: bytes) -> bytes:
    """Return bytes that are UTF-8, as many: each that belongs to no character is DEL there."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return _STRAY.sub("\x7f", data.decode("utf-8", "surrogateescape")).encode()
    return data


def _hits(text: bytes, prefix: bytes, pattern: Any, start: int, end: int) -> Iterator[int]:
    """Yield where the pattern matches; a place in each line where it does is among them."""
    if not prefix:
        while start < end and (found := pattern.search(text, start, end)):
            yield found.start()
            start = text.find(b"\n", found.start(), end) + 1 or end
        return
    # The search of `bytes` is several times as fast as that of `re` for the same text.
    while (hit := text.find(prefix, start, end)) >= 0:
        if pattern.match(text, hit, end):
            yield hit
            start = text.find(b"\n", hit, end) + 1 or end
        else:
            start = hit + 1


@dataclass(slots=True)
class Event:
    """Lines of one output that are one row; ``rule`` is the one that drops it, if any."""

    output: bytes | None
    lines: list[Line] = field(default_factory=list)
    rule: str = ""

    @property
    def message(self) -> bytes:
        """The messages of all lines as one."""
        return b"".join(line["message"] for line in self.lines)


@dataclass(slots=True)
class Knot:
    """A stretch ``[start, end)`` in which an event of several lines is open at each newline.

    ``whole``: no event of it began before the range or goes on after it.
    """

    start: int
    whole: bool
    end: int = 0
    events: list[Event] = field(default_factory=list)

    @property
    def dropped(self) -> bool:
        """Whether rules drop all of it; then, and only then, may it be cut out."""
        return self.whole and all(event.rule for event in self.events)


class Events:
    """The events of one range."""

    def __init__(self, taken: Range) -> None:
        """Look for knots; lines outside of them are looked for when asked for."""
        self.taken = taken
        self.data = taken.data
        self._pattern = _LINES[taken.format]
        self.head = self.data.find(b"\n") + 1 if taken.torn_before else 0
        if taken.torn_before and not self.head:
            self.head = len(self.data)
        self.end = max(self.data.rfind(b"\n") + 1, self.head)
        """Behind the last newline: what is torn at either side is never dropped."""
        self.knots = self._knots() if taken.open_before or self._may_be_split() else []
        at, stretches = self.head, []
        for knot in self.knots:
            stretches.append((at, knot.start))
            at = knot.end
        stretches.append((at, len(self.data)))
        self.stretches = [(start, end) for start, end in stretches if start < end]
        """Where each line is an event, between the knots."""

    @cached_property
    def _lower(self) -> bytes:
        return self.data.lower()

    @cached_property
    def _readable(self) -> bytes:
        return readable(self.data)

    def lines(self, finder: Finder | None) -> Iterator[Line]:
        """Yield the lines outside of knots in which the finder finds something; None: all.

        Lines may come in any order, each once.
        """
        for start, end in self.stretches:
            if finder is None:
                yield from self.lines_of(start, end)
            else:
                yield from self._found(finder, start, end)

    def lines_of(self, start: int, end: int) -> Iterator[Line]:
        """Return the lines of ``[start, end)`` in order; both are where a line starts or ends."""
        return self._pattern.finditer(self.data, start, end)

    def _found(self, finder: Finder, start: int, end: int) -> Iterator[Line]:
        data, match = self.data, self._pattern.match
        text = self._lower if finder.folded else self._readable if finder.characters else data
        seen: set[int] = set()
        for prefix, pattern in finder.patterns:
            at = start
            for hit in _hits(text, prefix, pattern, start, end):
                begin = data.rfind(b"\n", at, hit) + 1 or at
                line = match(data, begin, end)
                if line is None:
                    break
                at = line.end()
                if begin not in seen:
                    seen.add(begin)
                    yield line

    def _may_be_split(self) -> bool:
        if self.taken.format == "docker":
            return self.data.count(b'\\n","stream":"') < self.taken.lines
        data = self.data
        return self.taken.format == "cri" and (b" stdout P" in data or b" stderr P" in data)

    def _knots(self) -> list[Knot]:
        before = self.taken.open_before
        opened = {o: Event(o) for o, bit in _OUTPUTS.items() if before & bit}
        knot = Knot(0, whole=False, events=list(opened.values())) if opened else None
        found = []
        for line in self._pattern.finditer(self.data, self.head):
            output, split = line["output"], line["fragment"] is not None
            if knot is None:
                if not split:
                    continue
                knot = Knot(line.start(), whole=True)
            event = opened.pop(output, None) if output else None
            if event is None:
                event = Event(output)
                knot.events.append(event)
            event.lines.append(line)
            if split:
                opened[output] = event
            elif not opened:
                knot.end = line.end()
                knot.whole &= knot.end <= self.end
                found.append(knot)
                knot = None
        if knot is not None:
            knot.end, knot.whole = len(self.data), False
            found.append(knot)
        return found
