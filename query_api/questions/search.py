"""One search, from parameters to an answer, all of it from one version of the table.

Planning says at once what cannot be answered; scanning then never fails as a whole: what it could
not do is in the answer's completeness statement.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from indexer.errors import VersionGone
from indexer.query.meant import EVER_NS
from indexer.query.needed import ANY_ROW, needed
from indexer.query.parse import parse_query
from indexer.query.scope import Scope
from indexer.query.tree import EVERYTHING, Query
from indexer.times import format_time
from query_api.completeness.damage import Damages
from query_api.completeness.replica import Replica, Snapshot
from query_api.completeness.statement import Completeness, plain
from query_api.completeness.verdict import Trouble, judge, no_better_than
from query_api.errors import BadParameter, NotComplete
from query_api.metrics import QueryMetrics
from query_api.questions.answer import Cost
from query_api.questions.histogram import STEPS_MAX, steps_of, told
from query_api.questions.names import expanded, hints_of, in_query, patterns_of, without
from query_api.questions.parameters import (
    AnsweredParameters,
    HistogramParameters,
    SearchParameters,
)
from query_api.questions.price import Most, at_most, plan_of, too_many_bytes, usd
from query_api.scan.count import Steps
from query_api.scan.cursor import Cursor, read_cursor, write_cursor
from query_api.scan.nearby import Near
from query_api.scan.outlines import Outlines
from query_api.scan.page import Page, Scan, Scans
from query_api.scan.plan import Planned
from query_api.scan.segment import Key, Scanned, ScanTask
from query_api.settings import QuerySettings

_TIME_LIMIT = "query_timeout_ms"
_ANY_ROW = ScanTask("", "", 0, *EVER_NS, (), EVERYTHING, False, None, 1, 1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A search that can be answered: version, scope and segments are known."""

    require: str
    snapshot: Snapshot
    asked: Scope
    scope: Scope  # without the patterns of names
    judged: Scope  # with the names that the patterns stand for
    query: Query  # with the patterns
    planned: list[Planned]
    most: Most
    began_s: float
    question: str = ""  # what two pages of it share
    newest_first: bool = True
    limit: int = 1
    after: Key | None = None
    is_old: bool = False  # whether its segments may have been vacuumed since
    verdict: str = ""  # of the first page's ledger, where another one judges


@dataclass(slots=True)
class Found:
    """What a search finds: first its rows, then what is known when they have all been taken."""

    prepared: Prepared
    page: Page = field(default_factory=Page)
    trouble: Trouble = field(default_factory=Trouble)
    gone: bool = False  # whether an object is no longer there
    limit: str = _TIME_LIMIT  # the setting that may cut it short


class Search:
    """Answers searches over one replica; its methods may be called from any thread."""

    def __init__(
        self,
        settings: QuerySettings,
        replica: Replica,
        pool: Executor,
        scan_threads: int,
        metrics: QueryMetrics,
        damages: Damages,
        clock_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """Take what all searches have in common."""
        self._damages = damages
        self._clock_ns = clock_ns
        self._settings = settings
        self._replica = replica
        self._outlines = Outlines(settings.outline_bytes)
        self.scans = Scans(
            pool, settings.store_reads, scan_threads, replica.bucket, self._outlines, monotonic
        )
        self._metrics = metrics
        self.monotonic = monotonic

    def prepare(self, parameters: SearchParameters, latest: Snapshot, now_ns: int) -> Prepared:
        """Return the plan of a search; raise BadQuery, BadParameter, TableError or VersionGone.

        It is answered from ``latest``, or from the version that its cursor names.
        """
        began_s = self.monotonic()
        self.check_limit("rows_max", "limit", parameters.limit)
        scope = parameters.scope(now_ns)
        snapshot, after, verdict = latest, None, ""
        if parameters.cursor:
            cursor = read_cursor(parameters.cursor, parameters.question(), self._replica.secret)
            # A relative time has moved on since; the signature says that these were checked.
            scope = Scope(cursor.from_ns, cursor.to_ns, scope.equals)
            after = cursor.key
            snapshot, same_ledger = self._replica.at(cursor.version)
            verdict = "" if same_ledger else cursor.verdict
        prepared = self._prepared(parameters, scope, snapshot, began_s)
        return replace(
            prepared,
            question=parameters.question(),
            newest_first=parameters.order == "desc",
            limit=parameters.limit,
            after=after,
            is_old=after is not None,
            verdict=verdict,
        )

    def prepare_all(
        self, parameters: AnsweredParameters, latest: Snapshot, now_ns: int, limit: int = 1
    ) -> Prepared:
        """Return the plan of a question about all rows that match; raises as ``prepare`` does."""
        began_s = self.monotonic()
        prepared = self._prepared(parameters, parameters.scope(now_ns), latest, began_s)
        return replace(prepared, limit=limit)

    def _prepared(
        self,
        asked: AnsweredParameters,
        scope: Scope,
        snapshot: Snapshot,
        began_s: float,
    ) -> Prepared:
        self.check_limit("query_characters", "query", len(asked.query))
        patterns = patterns_of(scope)
        judged = expanded(scope, snapshot.ledger.totals)
        query, rows = in_query(parse_query(asked.query), patterns), without(scope, patterns)
        planned, most = self._planned(rows, query, snapshot, is_bounded=not asked.dry_run)
        return Prepared(asked.require, snapshot, scope, rows, judged, query, planned, most, began_s)

    def _planned(
        self, scope: Scope, query: Query, snapshot: Snapshot, *, is_bounded: bool = True
    ) -> tuple[list[Planned], Most]:
        """Return the segments of a question, and what they take; raise BadParameter."""
        tokens = needed(query)
        planned = self._outlines.sift(snapshot.segments.plan(scope), tokens)
        most = at_most(planned, by_filter=tokens != ANY_ROW)
        if is_bounded and 0 < self._settings.plan_bytes_max < most.bytes:
            self._metrics.limit_reached.labels("plan_bytes_max").inc()
            raise too_many_bytes(self._settings, most)
        return planned, most

    def plan(
        self,
        scope: Scope,
        query: Query,
        latest: Snapshot,
        *,
        require: str = "",
        newest_first: bool = True,
        limit: int = 1,
    ) -> Prepared:
        """Return the plan of a question whose scope has no patterns; raise BadParameter."""
        self.check_limit("rows_max", "limit", limit)
        planned, most = self._planned(scope, query, latest)
        return Prepared(
            require, latest, scope, scope, scope, query, planned, most, self.monotonic(),
            newest_first=newest_first, limit=limit,
        )  # fmt: skip

    def check_limit(self, setting: str, name: str, given: int) -> None:
        """Raise BadParameter for a number that is above a setting."""
        most = getattr(self._settings, setting)
        if given > most:
            self._metrics.limit_reached.labels(setting).inc()
            raise BadParameter(f"{name} is {given}, the maximum is {most}", f"setting {setting}")

    def histogram(
        self, parameters: HistogramParameters, latest: Snapshot, now_ns: int
    ) -> dict[str, Any]:
        """Return how many rows match, step by step; raises as ``prepare`` and ``last`` do."""
        if parameters.steps > STEPS_MAX:
            raise BadParameter(f"steps is {parameters.steps}, the maximum is {STEPS_MAX}", "")
        prepared = self.prepare_all(parameters, latest, now_ns)
        if parameters.dry_run:
            return self.dry_run(prepared)
        scope, found = prepared.asked, Found(prepared)
        steps = steps_of(scope, parameters.steps, parameters.by)
        counts = self.counts(found, steps)
        return {**told(counts, steps, scope), **self.ending(found)}

    def ending(self, found: Found) -> dict[str, Any]:
        """Return what an answer without pages says of itself; raises NotComplete."""
        _, told_of = self.verdict_of(found)
        return {**told_of, **_bounds(found.prepared)}

    def each(
        self, found: Found, scan_of: Callable[[ScanTask], Scan], setting: str
    ) -> Iterator[pa.Table]:
        """Yield what a scan makes of each planned segment, the newest first.

        It is cut short after the time of a setting.
        """
        prepared, found.limit = found.prepared, setting
        first_s = prepared.began_s + getattr(self._settings, setting) / 1_000
        yield from self.scans.each(
            prepared.planned, self._task(prepared), scan_of, (first_s, self._until_s(prepared)),
            partial(self._failed, found), found.page,
        )  # fmt: skip

    def counts(self, found: Found, steps: Steps) -> pa.Table:
        """Return how many rows match (COUNTS), step by step."""
        prepared = found.prepared
        return self.scans.counts(
            prepared.planned, self._task(prepared), steps, self._until_s(prepared),
            partial(self._failed, found), found.page,
        )  # fmt: skip

    def near(
        self, planned: list[Planned], scope: Scope, near: Near, trouble: Trouble, page: Page
    ) -> pa.Table:
        """Return the rows (RESULT_SCHEMA) around a place of a file; never fails as a whole."""
        task = replace(_ANY_ROW, bucket=self._settings.bucket, name=self._replica.table.folder,
                       equals=tuple(scope.equals.items()))  # fmt: skip
        until_s = self.monotonic() + self._settings.query_timeout_ms / 1000
        failed = partial(self.failed, trouble, is_old=False)
        rows = self.scans.near(planned, task, near, until_s, failed, page)
        if page.left:
            self._note_left(trouble, page)
        return rows

    def _note_left(self, trouble: Trouble, page: Page, limit: str = _TIME_LIMIT) -> None:
        how = "unread" if limit == _TIME_LIMIT else "unread, or read in part"
        trouble.cut_off = f"the time limit left {page.left} segment(s) {how}"
        self._metrics.limit_reached.labels(limit).inc()

    def header(self, prepared: Prepared) -> dict[str, Any]:
        """Return what the plan knows before anything is read."""
        considered = len(prepared.snapshot.segments)
        return {**_bounds(prepared), "plan": plan_of(self._settings, considered, prepared.most)}

    def dry_run(self, prepared: Prepared) -> dict[str, Any]:
        """Return the answer of a question that is not to be answered."""
        return {**self.header(prepared), "hints": _hints(prepared)}

    def rows(self, found: Found) -> Iterator[pa.Table]:
        """Yield the rows (RESULT_SCHEMA), in order, as they are found.

        Raises VersionGone where a segment of a cursor's version has been vacuumed.
        """
        prepared = found.prepared
        task, until_s = self._task(prepared), self._until_s(prepared)
        failed = partial(self._failed, found)
        yield from self.scans.rows(prepared.planned, task, until_s, failed, found.page)
        if found.gone and prepared.is_old:
            version = prepared.snapshot.version
            raise VersionGone(f"segments of version {version} are gone; ask without a cursor")

    def _failed(self, found: Found, scanned: Scanned) -> None:
        found.gone |= scanned.missing
        self.failed(found.trouble, scanned, is_old=found.prepared.is_old)

    def failed(self, trouble: Trouble, scanned: Scanned, *, is_old: bool) -> None:
        """Note a segment that could not be read; what is gone is no damage if it is of old."""
        trouble.failed[scanned.name] = scanned.error
        if scanned.damaged or (scanned.missing and not is_old):
            self._damages.note(scanned.name, scanned.error, self._clock_ns())

    def _until_s(self, prepared: Prepared) -> float:
        return prepared.began_s + self._settings.query_timeout_ms / 1000

    def _task(self, prepared: Prepared) -> ScanTask:
        return ScanTask(
            bucket=self._settings.bucket,
            name=self._replica.table.folder,
            size_bytes=0,
            from_ns=prepared.scope.from_ns,
            to_ns=prepared.scope.to_ns,
            equals=tuple(prepared.scope.equals.items()),
            query=prepared.query,
            newest_first=prepared.newest_first,
            after=prepared.after,
            limit=prepared.limit,
            page_bytes=self._settings.page_bytes,
        )

    def last(self, found: Found) -> dict[str, Any]:
        """Return what the last record says once all rows were taken: ``verdict_of``, a cursor."""
        completeness, told_of = self.verdict_of(found)
        return {"next": self._next(found, completeness), **told_of}

    def verdict_of(self, found: Found) -> tuple[Completeness, dict[str, Any]]:
        """Return the verdict, once all was read; and what is said of it, hints and cost.

        Raises NotComplete if only a complete answer will do.
        """
        prepared, page, trouble = found.prepared, found.page, found.trouble
        if page.left:
            self._note_left(trouble, page, found.limit)
        if page.is_cut_by_bytes:
            self._metrics.limit_reached.labels("page_bytes").inc()
        completeness = self._judged(prepared, trouble)
        considered = len(prepared.snapshot.segments)
        cost = self.cost(considered, len(prepared.planned), page, trouble, prepared.began_s)
        return completeness, {
            "completeness": plain(completeness),
            "hints": _hints(prepared),
            "cost": plain(cost),
        }

    def cost(
        self, considered: int, planned: int, page: Page, trouble: Trouble, began_s: float
    ) -> Cost:
        """Return what an answer took, and count it."""
        self._metrics.gets.inc(page.gets)
        self._metrics.outline_bytes.set(self._outlines.held_bytes)
        self._metrics.scanned_bytes.inc(page.bytes)
        self._metrics.segments_failed.inc(len(trouble.failed))
        return Cost(
            segments_considered=considered,
            segments_pruned=considered - planned,
            segments_read=page.read,
            gets=page.gets,
            bytes=page.bytes,
            ms=round((self.monotonic() - began_s) * 1000, 1),
            usd=usd(self._settings, page.gets, page.bytes),
        )

    def demand(self, prepared: Prepared) -> None:
        """Raise NotComplete where the ledger alone says that an answer is not complete."""
        found = judge(prepared.snapshot, prepared.judged, self._settings.cluster, Trouble())
        if found.verdict != "complete":
            raise NotComplete(found)

    def _judged(self, prepared: Prepared, trouble: Trouble) -> Completeness:
        completeness = judge(prepared.snapshot, prepared.judged, self._settings.cluster, trouble)
        completeness = no_better_than(prepared.verdict, completeness)
        self._metrics.answers.labels(completeness.verdict).inc()
        if prepared.require == "complete" and completeness.verdict != "complete":
            raise NotComplete(completeness)
        return completeness

    def _next(self, found: Found, completeness: Completeness) -> str | None:
        """Return the cursor behind a page's last row; None if no more come."""
        prepared, last = found.prepared, found.page.last
        if last is None:
            return None
        if found.trouble.failed:  # what could not be read now may well be read for the next page
            judged = judge(prepared.snapshot, prepared.judged, self._settings.cluster, Trouble())
            completeness = no_better_than(prepared.verdict, judged)
        [row] = last.select(["ns", "file_id", "epoch", "offset"]).to_pylist()
        self._replica.pin(prepared.snapshot)
        scope = prepared.scope
        return write_cursor(
            Cursor(
                prepared.snapshot.version,
                (row["ns"], row["file_id"], row["epoch"], row["offset"]),
                prepared.question,
                scope.from_ns,
                scope.to_ns,
                completeness.verdict,
            ),
            self._replica.secret,
        )


def _bounds(prepared: Prepared) -> dict[str, Any]:
    return {
        "version": prepared.snapshot.version,
        "from": format_time(prepared.scope.from_ns),
        "to": format_time(prepared.scope.to_ns),
    }


def _hints(prepared: Prepared) -> list[str]:
    return list(hints_of(prepared.asked, prepared.snapshot.ledger.totals))
