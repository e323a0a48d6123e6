"""What of a range is sent: rules drop events, thin them out, slow them down and overwrite secrets.

A range as it was read goes in; out come pieces in its order that cover exactly its bytes, each
either a range that can be read alone or an ELIDED entry with its rule's name. Only whole events are
dropped, and every offset, count and CRC stays that of the bytes on disk.

What is open or torn at an edge of the range is always kept: so a piece never depends on how the
range before it was decided, and a replay that is cut elsewhere decides no worse.
"""

import json
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from collector.checksum import crc32
from collector.errors import SettingError
from collector.policy.events import Events, Knot, Line
from collector.policy.rules import Drop, DropLevels, RateLimit, Redact, Rule, read_rules
from collector.watched_files import WatchedFiles
from collector.wire.batch import Elided
from collector.wire.range import Range, Stream

K = TypeVar("K")
V = TypeVar("V")

_STREAMS_MOST = 8192
"""Streams whose rules are remembered, and whose budgets are; most nodes have far fewer."""

_log = logging.getLogger(__name__)

_Span = tuple[int, int, int, str]
"""Start and end in the range, lines, rule."""


class Policy:
    """The rules in force, and what they remember of each stream."""

    def __init__(self, path: Path | None, clock: Callable[[], int]) -> None:
        """Read the rules; raise SettingError if they cannot be used. ``clock`` gives ns.

        Without a path everything is kept.
        """
        self._path = path
        self._clock = clock
        self._file = WatchedFiles([path] if path else [])
        self._file.have_changed()
        self.rules: tuple[Rule, ...] = read_rules(path) if path else ()
        self.error = ""
        """Why the file as it is now is not in force; empty if it is."""
        self.reloads_failed = 0
        self._of_stream: dict[Stream, tuple[Rule, ...]] = {}
        self._budgets: dict[tuple[Stream, Rule], tuple[float, int]] = {}

    def reload(self) -> None:
        """Take up the file if it has changed; one that cannot be used is said once and left."""
        if self._path is None or not self._file.have_changed():
            return
        try:
            self.rules = read_rules(self._path)
        except SettingError as error:
            self.error = str(error)
            self.reloads_failed += 1
            _log.error("changed policy cannot be used; the old rules stay", extra={"error": error})
            return
        self.error = ""
        self._of_stream.clear()
        _log.info("policy in force", extra={"rules": len(self.rules)})

    def apply(self, stream: Stream, taken: Range) -> Sequence[Range | Elided]:
        """Return the pieces of a range, in its order, that cover exactly its bytes."""
        rules = self._of_stream.get(stream)
        if rules is None:
            rules = tuple(rule for rule in self.rules if rule.speaks_of(stream))
            _remember(self._of_stream, stream, rules)
        if not rules:
            return (taken,)
        events = Events(taken)
        dropped: dict[int, _Span] = {}
        for rule in rules:
            if isinstance(rule.action, RateLimit):
                self._limit(events, rule, rule.action, stream, dropped)
            elif not isinstance(rule.action, Redact):
                _drop(events, rule, rule.action, dropped)
        spans = list(_merged(events, dropped))
        if spans and spans[0][:2] == (0, len(taken.data)):
            return (_elided(taken, spans[0], crc32(taken.data, taken.crc_before)),)
        marks = sorted(
            mark
            for rule in rules
            if isinstance(rule.action, Redact)
            for mark in _marks(events, rule, rule.action, self._clock)
        )
        return tuple(_pieces(taken, spans, marks)) if spans or marks else (taken,)

    def _limit(
        self,
        events: Events,
        rule: Rule,
        limit: RateLimit,
        stream: Stream,
        dropped: dict[int, _Span],
    ) -> None:
        """Drop what is left of the range once the stream's budget is used up.

        What must be kept is charged as well, so that the rate holds over time.
        """
        now_ns = self._clock()
        budget, then_ns = self._budgets.get((stream, rule), (float(limit.burst_bytes), now_ns))
        budget += max(now_ns - then_ns, 0) / 1e9 * limit.bytes_per_s
        budget = min(budget, limit.burst_bytes) - _kept_anyway(events)
        for start, end, knot in _kept(events, rule.output, dropped):
            cut = start
            if end - start <= budget:
                cut = end
            elif knot is None and budget > 0:
                cut = max(events.data.rfind(b"\n", start, start + int(budget)) + 1, start)
            budget -= cut - start
            if cut == end:
                continue
            budget = min(budget, 0.0)
            if knot is None:
                lines = events.data.count(b"\n", cut, end)
                dropped[cut] = (cut, end, lines, rule.name)
            for event in knot.events if knot else ():
                if rule.output in (None, event.output):
                    event.rule = event.rule or rule.name
        _remember(self._budgets, (stream, rule), (budget, now_ns))


def _remember(known: dict[K, V], key: K, value: V) -> None:
    known.pop(key, None)
    if len(known) >= _STREAMS_MOST:
        del known[next(iter(known))]
    known[key] = value


# ---- dropping ----------------------------------------------------------------------------------


def _drop(events: Events, rule: Rule, action: Drop, dropped: dict[int, _Span]) -> None:
    file_id, base = events.taken.file_id, events.taken.start
    escaped = events.taken.format == "docker" and isinstance(action, DropLevels)
    for line in events.lines(action.finder):
        start, end = line.span()
        if start in dropped or end > events.end or (rule.output and line["output"] != rule.output):
            continue
        message = _unescaped(line["message"]) if escaped else line["message"]
        if action.drops(message, file_id, base + start):
            dropped[start] = (start, end, 1, rule.name)
    for knot in events.knots:
        for event in knot.events if knot.whole else ():
            if event.rule or (rule.output and event.output != rule.output):
                continue
            message = _unescaped(event.message) if escaped else event.message
            if action.drops(message, file_id, base + event.lines[0].start()):
                event.rule = rule.name


def _unescaped(message: bytes) -> bytes:
    """Return what the container wrote; the level of JSON cannot be found between escapes."""
    if b"\\" not in message:
        return message
    try:
        text: str = json.loads(b'"%b"' % message)
    except ValueError:
        return message
    return text.encode("utf-8", "surrogatepass")


def _kept_anyway(events: Events) -> int:
    """Return how many bytes no rule can drop: what is torn or open at the edges."""
    lines = sum(max(min(end, events.end) - start, 0) for start, end in events.stretches)
    knots = sum(knot.end - knot.start for knot in events.knots if knot.whole)
    return len(events.data) - lines - knots


def _kept(
    events: Events, output: bytes | None, dropped: dict[int, _Span]
) -> list[tuple[int, int, Knot | None]]:
    """Return what a rule may still drop, in the order of the bytes."""
    found: list[tuple[int, int, Knot | None]] = []
    gone = deque(_in_order(dropped))
    for start, end in events.stretches:
        at, stop = start, min(end, events.end)
        while gone and gone[0][0] < stop:
            found.append((at, gone[0][0], None))
            at = gone.popleft()[1]
        found.append((at, stop, None))
    found = [each for each in found if each[0] < each[1]]
    if output:
        found = [
            (*line.span(), None)
            for start, end, _ in found
            for line in events.lines_of(start, end)
            if line["output"] == output
        ]
    knots = [knot for knot in events.knots if knot.whole and not knot.dropped]
    found += [(knot.start, knot.end, knot) for knot in knots if _has(knot, output)]
    return sorted(found, key=lambda each: each[0])


def _has(knot: Knot, output: bytes | None) -> bool:
    return output is None or any(event.output == output for event in knot.events)


def _in_order(dropped: dict[int, _Span]) -> Iterator[_Span]:
    """Yield what is dropped; a later rule's hits in what an earlier one dropped whole are not."""
    at = 0
    for start in sorted(dropped):
        if start >= at:
            yield dropped[start]
            at = dropped[start][1]


def _merged(events: Events, dropped: dict[int, _Span]) -> Iterator[_Span]:
    """Yield what is dropped, neighbours of one rule as one."""
    for knot in events.knots:
        if knot.dropped:
            for event in knot.events:
                for line in event.lines:
                    dropped[line.start()] = (*line.span(), 1, event.rule)
    start = end = lines = 0
    name = ""
    for span in _in_order(dropped):
        if span[0] == end and span[3] == name:
            end, lines = span[1], lines + span[2]
            continue
        if name:
            yield start, end, lines, name
        start, end, lines, name = span
    if name:
        yield start, end, lines, name


# ---- redaction ---------------------------------------------------------------------------------

_Mark = tuple[int, int, str, bool]
"""Start and end of bytes to overwrite in the range, rule, whether blanks among them stay."""

_FOUND_UNTIMED = 256
_MESSAGE_NS = 1_000_000_000

_BLACK = re.compile(rb"[^ ]")
_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)")


def _marks(events: Events, rule: Rule, action: Redact, clock: Callable[[], int]) -> Iterator[_Mark]:
    """Yield what a rule overwrites. It sees the bytes as they are on disk."""
    docker = events.taken.format == "docker"
    head = events.data[: events.head].rstrip(b"\n")
    if rule.output is None:
        for start, end in _found(action, head, clock):
            yield start, end, rule.name, False
    singles = ([line] for line in events.lines(action.pattern.finder))
    split = (event.lines for knot in events.knots for event in knot.events)
    for lines in chain(singles, split):
        if not lines or (rule.output and lines[0]["output"] != rule.output):
            continue
        message = lines[0]["message"] if len(lines) == 1 else b"".join(x["message"] for x in lines)
        for start, end in _found(action, message, clock):
            if docker:
                start, end = _of_whole_escapes(message, start, end)
            for first, last in _on_disk(lines, start, end):
                # A line without a head must not get one by what is overwritten: its first blank
                # stays the first.
                yield first, last, rule.name, lines[0]["head"] is None


def _found(action: Redact, message: bytes, clock: Callable[[], int]) -> Iterator[tuple[int, int]]:
    """Yield what to overwrite of a message; all that is left of it once that takes too long.

    A pattern may look to a message's end each time it is found, as ``a(.*b)?`` does.
    """
    began_ns = clock()
    for found, (start, end) in enumerate(action.pattern.spans(message, action.group), 1):
        if start < end:
            yield start, end
        if not found % _FOUND_UNTIMED and clock() - began_ns > _MESSAGE_NS:
            _log.warning("a rule finds too much in one message; overwriting the rest of it")
            yield max(end, 0), len(message)
            return


def _of_whole_escapes(message: bytes, start: int, end: int) -> tuple[int, int]:
    """Return the span without a half of an escape at its ends: the line stays JSON."""
    for escape in _ESCAPE.finditer(message):
        first, last = escape.span()
        start = first if first < start < last else start
        end = last if first < end < last else end
    return start, end


def _on_disk(lines: Sequence[Line], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield where bytes ``[start, end)`` of an event's message are in the range."""
    at = 0
    for line in lines:
        first, last = line.span("message")
        begin, stop = max(start - at, 0), min(end - at, last - first)
        if begin < stop:
            yield first + begin, first + stop
        at += last - first


# ---- pieces ------------------------------------------------------------------------------------


def _pieces(
    taken: Range, spans: Sequence[_Span], marks: Sequence[_Mark]
) -> Iterator[Range | Elided]:
    disk, shown = memoryview(taken.data), taken.data
    if marks:
        shown = _overwritten(taken.data, marks)
    at, crc, lines, mark = 0, taken.crc_before, taken.lines, 0
    for span in (*spans, None):
        start = span[0] if span else len(disk)
        if at < start:
            names: dict[str, None] = {}
            while mark < len(marks) and marks[mark][0] < start:
                if marks[mark][0] >= at:
                    names[marks[mark][2]] = None
                mark += 1
            after = crc32(disk[at:start], crc)
            count = taken.data.count(b"\n", at, start) if span else lines
            lines -= count
            yield replace(
                taken,
                start=taken.start + at,
                data=shown[at:start],
                lines=count,
                crc_before=crc,
                open_before=0 if at else taken.open_before,
                open_after=0 if span else taken.open_after,
                torn_before=taken.torn_before and not at,
                redacted=", ".join(names),
                crc_after=after if names else None,
            )
            crc = after
        if span:
            at = span[1]
            crc = crc32(disk[start:at], crc)
            lines -= span[2]
            yield _elided(taken, span, crc)


def _overwritten(data: bytes, marks: Sequence[_Mark]) -> bytes:
    shown = bytearray(data)
    for start, end, _, blanks_stay in marks:
        black = _BLACK.sub(b"*", data[start:end]) if blanks_stay else b"*" * (end - start)
        shown[start:end] = black
    return bytes(shown)


def _elided(taken: Range, span: _Span, crc_after: int) -> Elided:
    start, end, lines, rule = span
    return Elided(
        taken.file_id,
        taken.epoch,
        taken.start + start,
        taken.start + end,
        lines,
        crc_after,
        rule,
    )
