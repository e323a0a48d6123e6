"""One search, from parameters to an answer, all of it from one version of the table.

Planning says at once what cannot be answered; scanning then never fails as a whole: what it could
not do is in the answer's completeness statement.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from indexer.errors import VersionGone
from indexer.times import format_time
from query_api.completeness.damage import Damages
from query_api.completeness.replica import Replica, Snapshot
from query_api.completeness.statement import Completeness, plain
from query_api.completeness.verdict import Trouble, judge, no_better_than
from query_api.errors import BadParameter, NotComplete
from query_api.language.terms import parse_query
from query_api.metrics import QueryMetrics
from query_api.questions.answer import Cost, plain_rows
from query_api.questions.parameters import SearchParameters
from query_api.scan.cursor import Cursor, read_cursor, write_cursor
from query_api.scan.page import Scans
from query_api.scan.plan import Planned
from query_api.scan.segment import Key, Scanned, ScanTask
from query_api.scope import Scope
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
class SearchResult:
    """What a search has found, as JSON shows it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)  # next, completeness, cost


class Search:
    """Answers searches over one replica; its methods may be called from any thread."""

    def __init__(
        self,
        settings: QuerySettings,
        replica: Replica,
        pool: Executor,
        width: int,
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
        self._scans = Scans(pool, width, replica.bucket, monotonic)
        self._metrics = metrics
        self._monotonic = monotonic

    def prepare(self, parameters: SearchParameters, now_ns: int) -> Prepared:
        """Return the plan of a search; raise BadQuery, BadParameter, TableError or VersionGone."""
        began_s = self._monotonic()
        self._check_limits(parameters)
        parse_query(parameters.query)
        scope = parameters.scope(now_ns)
        after, verdict = None, ""
        if parameters.cursor:
            cursor = read_cursor(parameters.cursor, parameters.question(), self._replica.secret)
            # A relative time has moved on since; the signature says that these were checked.
            scope = Scope(cursor.from_ns, cursor.to_ns, scope.equals)
            after = cursor.key
            snapshot, same_ledger = self._replica.at(cursor.version)
            verdict = "" if same_ledger else cursor.verdict
        else:
            snapshot = self._replica.latest()
        planned = snapshot.segments.plan(scope)
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

    def find(self, prepared: Prepared) -> SearchResult:
        """Scan and judge; raise NotComplete if only a complete answer will do.

        Raises VersionGone where a segment of a cursor's version has been vacuumed.
        """
        trouble = Trouble()
        gone: list[str] = []

        def failed(scanned: Scanned) -> None:
            trouble.failed[scanned.name] = scanned.error
            if scanned.missing:
                gone.append(scanned.error)
            if scanned.damaged or (scanned.missing and prepared.after is None):
                self._damages.note(scanned.name, scanned.error, self._clock_ns())

        parameters, limit = prepared.parameters, prepared.parameters.limit
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
            limit=limit + 1,  # one more tells whether there is another page
        )
        until_s = prepared.began_s + self._settings.query_timeout_ms / 1000
        page = self._scans.page(prepared.planned, task, until_s, failed)
        if gone and prepared.after is not None:
            version = prepared.snapshot.version
            raise VersionGone(f"segments of version {version} are gone; ask without a cursor")
        if page.left:
            trouble.cut_off = f"the time limit left {page.left} segment(s) unread"
            self._metrics.limit_reached.labels("query_timeout_ms").inc()
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
        self._metrics.scanned_bytes.inc(page.bytes)
        self._metrics.segments_failed.inc(len(trouble.failed))
        # Behind a page that was cut off a cursor would pass over rows that were never looked at.
        more = len(page.rows) > limit and not page.left
        shown = page.rows.slice(0, limit)
        last = {
            "next": self._cursor(prepared, shown, trouble, completeness) if more else None,
            "completeness": plain(completeness),
            "cost": plain(cost),
        }
        return SearchResult(plain_rows(shown), last)

    def _judged(self, prepared: Prepared, trouble: Trouble) -> Completeness:
        completeness = judge(prepared.snapshot, prepared.scope, self._settings.cluster, trouble)
        completeness = no_better_than(prepared.verdict, completeness)
        self._metrics.answers.labels(completeness.verdict).inc()
        if prepared.parameters.require == "complete" and completeness.verdict != "complete":
            raise NotComplete(completeness)
        return completeness

    def _cursor(
        self, prepared: Prepared, shown: pa.Table, trouble: Trouble, completeness: Completeness
    ) -> str:
        if trouble.failed:  # what could not be read for this page may well be read for the next
            found = judge(prepared.snapshot, prepared.scope, self._settings.cluster, Trouble())
            completeness = no_better_than(prepared.verdict, found)
        last = shown.slice(len(shown) - 1).select(["ns", "file_id", "epoch", "offset"])
        row = last.to_pylist()[0]
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
