"""Retention by namespace: rows of hours that are older than their rule allows are removed.

The objects of a snapshot and rules go in. A segment whose rows have all expired is removed unread,
one with others is rewritten without them, and the same commit says which hours of which namespace
went: their bytes stay covered, so nothing that is sent again comes back.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from collector.errors import SettingError
from indexer.errors import IndexerError, NotBalanced
from indexer.keeper.exchange import LEFT_ALONE, batches, exchange
from indexer.keeper.fence import FencedTable
from indexer.keeper.footer import namespaces_of
from indexer.segment.rewrite import Rewritten, without
from indexer.table.coverage import Balance, Coverage, Expired
from indexer.table.table import Live
from indexer.times import HOUR_NS, hour_of


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """Rows of namespaces like ``pattern`` go once their hour has been over for ``hours``."""

    pattern: str
    hours: int

    def __str__(self) -> str:
        return f"{self.pattern}={self.hours}"


def parse_retention(text: str) -> tuple[RetentionRule, ...]:
    """Return the rules in ``NAMESPACE_GLOB=HOURS,…``; raise SettingError for anything else."""
    rules = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        pattern, _, hours = part.rpartition("=")
        if not pattern or not hours.isdecimal() or not int(hours):
            raise SettingError(f"retention {part!r} is not of the form NAMESPACE_GLOB=HOURS")
        rules.append(RetentionRule(pattern, int(hours)))
    return tuple(rules)


def rule_of(namespace: str, rules: Sequence[RetentionRule]) -> RetentionRule | None:
    """Return the first rule that speaks of a namespace; None: its rows are kept for ever."""
    return next((rule for rule in rules if fnmatchcase(namespace, rule.pattern)), None)


class Namespaces:
    """How many rows of which namespaces old segments have; each one is asked once."""

    def __init__(self) -> None:
        self._of: dict[str, list[Counter[str]]] = {}  # by row group

    def of(self, fenced: FencedTable, each: Live) -> Counter[str]:
        """Return the rows of a segment by namespace; raise SegmentDamaged if nobody can tell."""
        least, greatest = each.stats.get("namespace", (None, None))
        if least is not None and least == greatest and each.rows is not None:
            return Counter({least: each.rows})
        return sum(self.of_row_groups(fenced, each), Counter())

    def of_row_groups(self, fenced: FencedTable, each: Live) -> list[Counter[str]]:
        """Return the same for each of its row groups."""
        if each.name not in self._of:
            self._of[each.name] = namespaces_of(fenced.reader(each), each)
        return self._of[each.name]

    def keep(self, objects: Iterable[Live]) -> None:
        """Forget segments that are no longer there."""
        names = {each.name for each in objects}
        self._of = {name: found for name, found in self._of.items() if name in names}


def expire(
    fenced: FencedTable, rules: Sequence[RetentionRule], namespaces: Namespaces, now_ns: int
) -> Iterator[tuple[int, int, int]]:
    """Remove what the rules say; yield (hours done, hours to do, rows) as it goes.

    Raises PositionMoved if another keeper is at work; what keeps some segments from being rewritten
    is raised when all others are done.
    """
    if not rules:
        return
    objects = fenced.take()
    namespaces.keep(objects)
    shortest = min(rule.hours for rule in rules)
    hours: dict[int, list[Live]] = {}
    for each in objects:
        if each.date is not None and each.hour is not None:
            hour = hour_of(each.date, each.hour)
            if (hour + 1 + shortest) * HOUR_NS <= now_ns:
                hours.setdefault(hour, []).append(each)
    failed: IndexerError | None = None
    for done, hour in enumerate(sorted(hours)):
        whole: list[Live] = []
        parts: list[Live] = []
        over: dict[str, RetentionRule] = {}
        for each in hours[hour]:
            try:
                found = namespaces.of(fenced, each)
            except LEFT_ALONE as error:
                failed = failed or error
                continue
            gone = _over(found, rules, hour, now_ns)
            over |= gone
            if gone:
                (whole if gone.keys() == found.keys() else parts).append(each)
        expiry = _Expiry(fenced, namespaces, over, hour, now_ns)
        # Nothing of a whole one is read, so their sizes do not matter.
        for some in [whole, *batches(parts)]:
            try:
                rows = exchange(fenced, some, expiry.rewrite, expiry.marks, "an expiry")
            except LEFT_ALONE as error:
                failed = failed or error
                continue
            yield done + 1, len(hours), rows
    if failed is not None:
        raise failed


def _over(
    namespaces: Iterable[str], rules: Sequence[RetentionRule], hour: int, now_ns: int
) -> dict[str, RetentionRule]:
    """Return the namespaces whose time is over, with the rule that says so."""
    ruled = ((name, rule_of(name, rules)) for name in namespaces)
    return {
        name: rule for name, rule in ruled if rule and (hour + 1 + rule.hours) * HOUR_NS <= now_ns
    }


@dataclass(frozen=True, slots=True)
class _Expiry:
    """What goes from the segments of one hour."""

    fenced: FencedTable
    namespaces: Namespaces
    over: Mapping[str, RetentionRule]
    hour: int
    now_ns: int

    def rewrite(self, each: Live) -> Rewritten[Counter[str]]:
        """Return a segment without the rows whose time is over; what goes whole is not read."""
        found = self.namespaces.of(self.fenced, each)
        gone = self._gone(found)
        if gone == found:
            return Rewritten(b"", gone.total(), gone)
        groups = self.namespaces.of_row_groups(self.fenced, each)
        kept = [number for number, group in enumerate(groups) if self._gone(group) != group]
        unread = gone.total() - sum(self._gone(groups[number]).total() for number in kept)
        words = pa.array(sorted(self.over), pa.string())
        left = without(
            self.fenced.reader(each).row_groups(kept),
            lambda rows: pc.is_in(rows.column("namespace"), value_set=words),
            ["namespace"],
            "an expiry",
            unread,
        )
        if left.rows != gone.total():
            raise NotBalanced(
                f"an expiry does not balance, nothing was changed: {left.rows} rows of {each.name} "
                f"would go, {gone.total()} should"
            )
        return Rewritten(left.data, left.rows, gone)

    def _gone(self, found: Counter[str]) -> Counter[str]:
        return Counter({name: rows for name, rows in found.items() if name in self.over})

    def marks(self, dropped: Sequence[Counter[str]]) -> Coverage:
        """Return what tells readers which rows have gone."""
        rows = sum(dropped, Counter())
        expired = [
            Expired(name, self.hour, rows[name], str(self.over[name])) for name in sorted(rows)
        ]
        return Coverage(self.now_ns, [], [], [], [], [], Balance(), expired=expired)
