"""Retention by namespace: rows of hours that are older than their rule allows are removed.

The objects of a snapshot and rules go in. A segment whose rows have all expired is removed, one
with others is rewritten without them, and the same commit says which hours of which namespace
went: their bytes stay covered, so nothing that is sent again comes back.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collector.errors import SettingError
from indexer.coverage import Balance, Coverage, Expired
from indexer.errors import IndexerError, SegmentDamaged
from indexer.fence import FencedTable
from indexer.rewrite import LEFT_ALONE, batches, exchange
from indexer.table import Live

_HOUR_NS = 3_600_000_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()


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


def hour_of(day: str, hour: int) -> int:
    """Return the hours since 1970 of a partition."""
    return (date.fromisoformat(day).toordinal() - _EPOCH_DAY) * 24 + hour


class Namespaces:
    """Which namespaces a segment has; each segment is read once for that, and only if it is old."""

    def __init__(self) -> None:
        self._of: dict[str, frozenset[str]] = {}

    def of(self, fenced: FencedTable, each: Live) -> frozenset[str]:
        """Return the namespaces of a segment's rows."""
        least, greatest = each.stats.get("namespace", (None, None))
        if least is not None and least == greatest:
            return frozenset((least,))
        if each.name not in self._of:
            data = pa.BufferReader(fenced.read(each))
            try:
                rows = pq.read_table(data, columns=["namespace"], use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise SegmentDamaged(f"segment {each.name} is damaged: {error}") from error
            self._of[each.name] = frozenset(pc.unique(rows.column("namespace")).to_pylist())
        return self._of[each.name]

    def keep(self, objects: Iterable[Live]) -> None:
        """Forget segments that are no longer there."""
        names = {each.name for each in objects}
        self._of = {name: found for name, found in self._of.items() if name in names}


def expire(
    fenced: FencedTable, rules: Sequence[RetentionRule], namespaces: Namespaces, now_ns: int
) -> Iterator[tuple[int, int, int]]:
    """Remove what the rules say; yield (hours done, hours to do, rows) after each commit.

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
            if (hour + 1 + shortest) * _HOUR_NS <= now_ns:
                hours.setdefault(hour, []).append(each)
    failed: IndexerError | None = None
    for done, hour in enumerate(sorted(hours)):
        readable = []
        for each in hours[hour]:
            try:
                namespaces.of(fenced, each)
                readable.append(each)
            except LEFT_ALONE as error:
                failed = failed or error
        for some in batches(readable):
            try:
                over = _over(fenced, some, rules, namespaces, hour, now_ns)
                rows = _expire_hour(fenced, some, over, namespaces, hour, now_ns) if over else 0
            except LEFT_ALONE as error:
                failed = failed or error
                continue
            if over:
                yield done + 1, len(hours), rows
    if failed is not None:
        raise failed


def _over(
    fenced: FencedTable,
    segments: Sequence[Live],
    rules: Sequence[RetentionRule],
    namespaces: Namespaces,
    hour: int,
    now_ns: int,
) -> dict[str, RetentionRule]:
    """Return the namespaces in these segments whose time is over, with the rule that says so."""
    found = {name for each in segments for name in namespaces.of(fenced, each)}
    ruled = ((name, rule_of(name, rules)) for name in found)
    return {
        name: rule for name, rule in ruled if rule and (hour + 1 + rule.hours) * _HOUR_NS <= now_ns
    }


def _expire_hour(
    fenced: FencedTable,
    segments: Sequence[Live],
    over: Mapping[str, RetentionRule],
    namespaces: Namespaces,
    hour: int,
    now_ns: int,
) -> int:
    words = pa.array(sorted(over), pa.string())

    def drops(rows: pa.Table) -> pa.Array:
        return pc.is_in(rows.column("namespace"), value_set=words)

    def marks(dropped: Sequence[pa.Table]) -> Coverage:
        counts: dict[str, int] = dict.fromkeys(over, 0)
        for rows in dropped:
            for count in pc.value_counts(rows.column("namespace").combine_chunks()).to_pylist():
                counts[count["values"]] += count["counts"]
        expired = [Expired(name, hour, counts[name], str(over[name])) for name in sorted(over)]
        return Coverage(now_ns, [], [], [], [], [], Balance(), expired=expired)

    touched = [each for each in segments if namespaces.of(fenced, each) & over.keys()]
    return exchange(fenced, touched, drops, ["namespace"], marks, "an expiry")
