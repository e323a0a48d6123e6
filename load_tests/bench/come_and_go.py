"""Nodes that come and go all day, for a month of commits: what a ledger keeps of them, and says.

A thousand nodes are there at any time, each for eight hours; half of them end in the middle of a
line. Each is retired an hour after its end. Nothing that is held may grow with the nodes that ever
were, and nobody may wait for one that is gone. Coverage is made as indexers would commit it.
"""

import gc
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psutil
import pyarrow as pa

from collector.wire.batch import Inventory, Seal, Seen
from indexer.ledger.ledger import Ledger
from indexer.query.scope import Scope
from indexer.table.coverage import (
    Balance,
    Control,
    Coverage,
    Expired,
    FileCover,
    LaneSpan,
    Note,
    Retired,
    Span,
    note_body,
)
from indexer.times import HOUR_NS
from query_api.completeness.replica import Snapshot
from query_api.completeness.verdict import Trouble, judge
from query_api.scan.plan import Segments

ALIVE, LIFE_HOURS, DAYS, ROWS_KEPT_DAYS = 1_000, 8, 30, 7
_BORN_AN_HOUR = ALIVE // LIFE_HOURS
_LINE_BYTES, _LINES_AN_HOUR = 100, 10
_HOUR_BYTES = _LINE_BYTES * _LINES_AN_HOUR
_START_HOUR = 500_000  # since 1970
_NAMESPACE = "shop"
_HELD = ("nodes", "marks", "files", "settled", "lanes", "totals", "retired", "gone", "going_on")
_WAITED_HOURS_MAX = 2  # an hour until the node is missed, and one until it is retired


@dataclass(slots=True)
class _Node:
    """A node with one file, and what has been said of it."""

    number: int
    hours: int = 0

    @property
    def name(self) -> str:
        return f"node-{self.number:06d}"

    @property
    def is_torn(self) -> bool:
        return bool(self.number % 2)

    @property
    def id(self) -> bytes:
        return (self.number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128)).to_bytes(16, "big")

    def cover(self, now_ns: int) -> FileCover:
        """Return an hour of lines."""
        end = (self.hours + 1) * _HOUR_BYTES
        times = (now_ns - HOUR_NS, now_ns)
        span = Span(end - _HOUR_BYTES, end, 1, _LINES_AN_HOUR, _LINES_AN_HOUR, *times)
        names = (_NAMESPACE, f"pod-{self.number}", f"uid-{self.number}", "main", 0)
        return FileCover(self.id, 0, 0, self.name, *names, [span])

    def notes(self, now_ns: int) -> Iterator[Control]:
        """Yield what its collector says behind these lines: a torn one has seen more at its end."""
        covered = (self.hours + 1) * _HOUR_BYTES
        is_last = self.hours + 1 == LIFE_HOURS
        size = covered + (_LINE_BYTES if is_last and self.is_torn else 0)
        if is_last and not self.is_torn:
            yield Seal(self.id, 0, size, size // _LINE_BYTES, 0, "deleted")
        seen = (Seen(self.id, 0, size, covered, covered),)
        yield Inventory(now_ns, (0,), self.hours == 0, seen, (), 0, (), None)


@dataclass(frozen=True, slots=True)
class Day:
    """What the ledger holds at the end of a day, and what it answers."""

    day: int
    nodes_ever: int
    held: Counter[str]
    memory_bytes: int
    fold_s: float  # of a commit of an hour
    waited_hours: float  # for the node that holds answers back, at the most since the day before
    verdict: str  # of a day, until as far as all is proved
    gaps: int  # of that day: retired nodes, and the lines that some did not end


def _hour(alive: Sequence[_Node], now_ns: int) -> Coverage:
    """Return what an hour brings."""
    notes, lanes = [], []
    for node in alive:
        run = b"run-" + node.id[:12]
        for sequence, entry in enumerate(node.notes(now_ns), 2 * node.hours):
            notes.append(Note(0, node.name, run, sequence, *note_body(entry)))
        numbers = (2 * node.hours, 2 * node.hours + 1)
        lanes.append(LaneSpan(0, node.name, run, *numbers, numbers[0], now_ns, now_ns))
    covers = [node.cover(now_ns) for node in alive]
    return Coverage(now_ns, [], lanes, covers, notes, [], Balance())


def _said(now_ns: int, retired: Sequence[str], expired_hour: int) -> Coverage:
    rows = _LINES_AN_HOUR * ALIVE
    expired = [Expired(_NAMESPACE, expired_hour, rows, f"*={24 * ROWS_KEPT_DAYS}")]
    gone = [Retired(name, "scaled down") for name in retired]
    return Coverage(now_ns, [], [], [], [], [], Balance(), expired, [], gone)


def _fold(ledger: Ledger, coverage: Coverage) -> float:
    began = time.perf_counter()
    ledger.apply(coverage, ledger.version + 1)
    ledger.leaving.clear()  # the keeper stores them
    return time.perf_counter() - began


def simulate(days: int = DAYS) -> Iterator[Day]:
    """Fold a month of such nodes; yield what the end of each day shows."""
    ledger = Ledger(settles=True)
    alive: deque[_Node] = deque()
    born, waited_hours, ended = 0, 0.0, list[str]()
    for turn in range(days * 24):
        now_ns = (_START_HOUR + turn) * HOUR_NS
        for _ in range(_BORN_AN_HOUR):
            alive.append(_Node(born))
            born += 1
        fold_s = _fold(ledger, _hour(alive, now_ns))
        expired_hour = _START_HOUR + turn - 24 * ROWS_KEPT_DAYS
        _fold(ledger, _said(now_ns + HOUR_NS // 2, ended, expired_hour))
        awaited = (mark.until_ns for mark in ledger.marks.values())
        waited_hours = max(waited_hours, (now_ns - min(awaited)) / HOUR_NS)
        ended = []
        for node in alive:
            node.hours += 1
        while alive and alive[0].hours == LIFE_HOURS:
            ended.append(alive.popleft().name)
        if turn % 24 == 23:
            yield _day(ledger, turn // 24 + 1, born, fold_s, waited_hours, now_ns)
            waited_hours = 0.0


def _day(
    ledger: Ledger, day: int, born: int, fold_s: float, waited_hours: float, now_ns: int
) -> Day:
    gc.collect()
    held = Counter({name: len(getattr(ledger, name)) for name in _HELD})
    snapshot = Snapshot(
        ledger.version, Segments(pa.table({"path": pa.array([], pa.string())})), ledger
    )
    to_ns = now_ns - _WAITED_HOURS_MAX * HOUR_NS
    scope = Scope(to_ns - 24 * HOUR_NS, to_ns, {})
    found = judge(snapshot, scope, "fleet", Trouble())
    memory = int(psutil.Process(os.getpid()).memory_info().rss)
    return Day(day, born, held, memory, fold_s, waited_hours, found.verdict, found.gaps_total)


def print_simulated(found: Sequence[Day]) -> None:
    """Print a Markdown table of some days, and whether anything waited for a node that is gone."""
    print(
        f"{ALIVE} nodes at any time, {_BORN_AN_HOUR} new ones an hour; half end within a line; "
        f"each is retired an hour after its end; rows are kept for {ROWS_KEPT_DAYS} days.\n"
    )
    heads = ("day", "nodes that ever were", *_HELD, "MB", "fold an hour ms", "waited h",
             "verdict of the day", "gaps")  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print(f"|{'---|' * len(heads)}")
    for each in found:
        if each.day in (1, 2, 5, 10, 15, 20, 25, 30):
            cells = (each.day, each.nodes_ever, *(each.held[name] for name in _HELD),
                     f"{each.memory_bytes / 1e6:.0f}", f"{each.fold_s * 1e3:.0f}",
                     f"{each.waited_hours:.1f}", each.verdict, each.gaps)  # fmt: skip
            print(f"| {' | '.join(map(str, cells))} |")
    print()
