"""One search, from parameters to an answer, all of it from one version of the table.

Planning says at once what cannot be answered; scanning then never fails as a whole: what it could
not do is in the answer's completeness statement.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from indexer.errors import VersionGone
from indexer.query.needed import needed
from indexer.query.parse import parse_query
from indexer.query.scope import Scope
from indexer.times import format_time
from query_api.completeness.damage import Damages
from query_api.completeness.replica import Replica, Snapshot
from query_api.completeness.statement import Completeness, plain
from query_api.completeness.verdict import Trouble, judge, no_better_than
from query_api.errors import BadParameter, NotComplete
from query_api.metrics import QueryMetrics
from query_api.questions.answer import Cost
from query_api.questions.parameters import SearchParameters
from query_api.scan.cursor import Cursor, read_cursor, write_cursor
from query_api.scan.outlines import Outlines
from query_api.scan.page import Page, Scans
from query_api.scan.plan import Planned
from query_api.scan.segment import Key, Scanned, ScanTask
from query_api.settings import QuerySettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """A search that can be answered: version, scope and segments are known."""

    parameters: SearchParameters
    snapshot: Snapshot
    scope: Scope
    planned: list[Planned]
    after: Key | None
    verdict: str  # of the first page's ledger, where another one judges; else empty
    began_s: float


@dataclass(slots=True)
class Found:
    """What a search finds: first its rows, then what is known when they have all been taken."""

    prepared: Prepared
    page: Page = field(default_factory=Page)
    trouble: Trouble = field(default_factory=Trouble)


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
        self._scans = Scans(
            pool, settings.store_reads, scan_threads, replica.bucket, self._outlines, monotonic
        )
        self._metrics = metrics
        self._monotonic = monotonic

    def prepare(self, parameters: SearchParameters, latest: Snapshot, now_ns: int) -> Prepared:
        """Return the plan of a search; raise BadQuery, BadParameter, TableError or VersionGone.

        It is answered from ``latest``, or from the version that its cursor names.
        """
        began_s = self._monotonic()
        self._check_limits(parameters)
        tokens = needed(parse_query(parameters.query))
        scope = parameters.scope(now_ns)
        snapshot, after, verdict = latest, None, ""
        if parameters.cursor:
            cursor = read_cursor(parameters.cursor, parameters.question(), self._replica.secret)
            # A relative time has moved on since; the signature says that these were checked.
            scope = Scope(cursor.from_ns, cursor.to_ns, scope.equals)
            after = cursor.key
            snapshot, same_ledger = self._replica.at(cursor.version)
            verdict = "" if same_ledger else cursor.verdict
        planned = self._outlines.sift(snapshot.segments.plan(scope), tokens)
        return Prepared(parameters, snapshot, scope, planned, after, verdict, began_s)

    def _check_limits(self, parameters: SearchParameters) -> None:
        limits = (
            ("rows_max", "limit", parameters.limit, self._settings.rows_max),
            ("query_characters", "query", len(parameters.query), self._settings.query_characters),
        )
        for setting, name, given, most in limits:
            if given > most:
                self._metrics.limit_reached.labels(setting).inc()
                raise BadParameter(
                    f"{name} is {given}, the maximum is {most}", f"setting {setting}"
                )

    def header(self, prepared: Prepared) -> dict[str, Any]:
        """Return what the plan knows before anything is read."""
        considered = len(prepared.snapshot.segments)
        return {
            "version": prepared.snapshot.version,
            "from": format_time(prepared.scope.from_ns),
            "to": format_time(prepared.scope.to_ns),
            "plan": {
                "segments_considered": considered,
                "segments_pruned": considered - len(prepared.planned),
                "bytes_at_most": sum(segment.size_bytes for segment in prepared.planned),
            },
        }

    def rows(self, found: Found) -> Iterator[pa.Table]:
        """Yield the rows (RESULT_SCHEMA), in order, as they are found.

        Raises VersionGone where a segment of a cursor's version has been vacuumed.
        """
        prepared, gone = found.prepared, []

        def failed(scanned: Scanned) -> None:
            found.trouble.failed[scanned.name] = scanned.error
            if scanned.missing:
                gone.append(scanned.error)
            if scanned.damaged or (scanned.missing and prepared.after is None):
                self._damages.note(scanned.name, scanned.error, self._clock_ns())

        parameters = prepared.parameters
        task = ScanTask(
            bucket=self._settings.bucket,
            name=self._replica.table.folder,
            size_bytes=0,
            from_ns=prepared.scope.from_ns,
            to_ns=prepared.scope.to_ns,
            equals=tuple(prepared.scope.equals.items()),
            query=parameters.query,
            newest_first=parameters.order == "desc",
            after=prepared.after,
            limit=parameters.limit,
            page_bytes=self._settings.page_bytes,
        )
        until_s = prepared.began_s + self._settings.query_timeout_ms / 1000
        yield from self._scans.rows(prepared.planned, task, until_s, failed, found.page)
        if gone and prepared.after is not None:
            version = prepared.snapshot.version
            raise VersionGone(f"segments of version {version} are gone; ask without a cursor")

    def last(self, found: Found) -> dict[str, Any]:
        """Return what the last record says, once all rows were taken: cursor, verdict, cost.

        Raises NotComplete if only a complete answer will do.
        """
        prepared, page, trouble = found.prepared, found.page, found.trouble
        if page.left:
            trouble.cut_off = f"the time limit left {page.left} segment(s) unread"
            self._metrics.limit_reached.labels("query_timeout_ms").inc()
        if page.is_cut_by_bytes:
            self._metrics.limit_reached.labels("page_bytes").inc()
        completeness = self._judged(prepared, trouble)
        cost = Cost(
            segments_considered=len(prepared.snapshot.segments),
            segments_pruned=len(prepared.snapshot.segments) - len(prepared.planned),
            segments_read=page.read,
            gets=page.gets,
            bytes=page.bytes,
            ms=round((self._monotonic() - prepared.began_s) * 1000, 1),
        )
        self._metrics.gets.inc(page.gets)
        self._metrics.outline_bytes.set(self._outlines.held_bytes)
        self._metrics.scanned_bytes.inc(page.bytes)
        self._metrics.segments_failed.inc(len(trouble.failed))
        return {
            "next": self._next(prepared, page.last, trouble, completeness),
            "completeness": plain(completeness),
            "cost": plain(cost),
        }

    def _judged(self, prepared: Prepared, trouble: Trouble) -> Completeness:
        completeness = judge(prepared.snapshot, prepared.scope, self._settings.cluster, trouble)
        completeness = no_better_than(prepared.verdict, completeness)
        self._metrics.answers.labels(completeness.verdict).inc()
        if prepared.parameters.require == "complete" and completeness.verdict != "complete":
            raise NotComplete(completeness)
        return completeness

    def _next(
        self,
        prepared: Prepared,
        last: pa.Table | None,
        trouble: Trouble,
        completeness: Completeness,
    ) -> str | None:
        """Return the cursor behind a page's last row; None if no more come."""
        if last is None:
            return None
        if trouble.failed:  # what could not be read for this page may well be read for the next
            found = judge(prepared.snapshot, prepared.scope, self._settings.cluster, Trouble())
            completeness = no_better_than(prepared.verdict, found)
        [row] = last.select(["ns", "file_id", "epoch", "offset"]).to_pylist()
        self._replica.pin(prepared.snapshot)
        scope = prepared.scope
        return write_cursor(
            Cursor(
                prepared.snapshot.version,
                (row["ns"], row["file_id"], row["epoch"], row["offset"]),
                prepared.parameters.question(),
                scope.from_ns,
                scope.to_ns,
                completeness.verdict,
            ),
            self._replica.secret,
        )
