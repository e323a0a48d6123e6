"""All rows of a question, page by page of one version, with one verdict behind the last of them.

A plan goes in; tables of rows come out in order, of which no more than a page is held. What could
not be read in any page is in the verdict, and a page that took too long is the last one.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from query_api.completeness.replica import Snapshot
from query_api.completeness.verdict import Trouble
from query_api.questions.parameters import ExportParameters
from query_api.questions.search import Found, Prepared, Search
from query_api.scan.page import Page
from query_api.scan.segment import NO_ROWS

PAGE_ROWS = 50_000
"""So many rows are read at a time, or as many as ``page_bytes`` allows."""


class Export:
    """Rows of one question; they are taken once, and then the verdict."""

    def __init__(
        self, search: Search, asked: ExportParameters, latest: Snapshot, now_ns: int
    ) -> None:
        """Plan it; raises as ``Search.prepare`` does.

        Raises NotComplete if only a complete answer will do and the ledger says that it is none.
        """
        prepared = search.prepare_all(asked, latest, now_ns, PAGE_ROWS)
        self.prepared = replace(prepared, newest_first=asked.order == "desc")
        self._search = search
        self._page, self._trouble = Page(), Trouble()
        if asked.require and not asked.dry_run:
            search.demand(self.prepared)

    @property
    def no_rows(self) -> pa.Table:
        """What ``rows`` yields, without a row."""
        return NO_ROWS

    def header(self) -> dict[str, Any]:
        """Return what the plan knows."""
        return self._search.header(self.prepared)

    def rows(self) -> Iterator[pa.Table]:
        """Yield the rows (RESULT_SCHEMA), in order."""
        prepared: Prepared | None = self.prepared
        while prepared is not None:
            prepared = replace(prepared, began_s=self._search.monotonic())
            found = Found(prepared, trouble=self._trouble)
            # Whole, so that a client may take its time: the limit is of the reading alone.
            yield from list(self._search.rows(found))
            self._page.read += found.page.read
            self._page.gets += found.page.gets
            self._page.bytes += found.page.bytes
            self._page.left = found.page.left
            prepared = None if found.page.last is None else _behind(prepared, found.page.last)

    def last(self) -> dict[str, Any]:
        """Return verdict, hints and cost, once all rows were taken; raises NotComplete."""
        _, told_of = self._search.verdict_of(Found(self.prepared, self._page, self._trouble))
        return told_of


def _behind(prepared: Prepared, last: pa.Table) -> Prepared:
    """Return the plan of what comes behind a row."""
    [row] = last.select(["ns", "file_id", "epoch", "offset"]).to_pylist()
    ns, scope = row["ns"], prepared.scope
    if prepared.newest_first:
        scope = replace(scope, to_ns=min(scope.to_ns, ns + 1))
        planned = [each for each in prepared.planned if each.low_ns <= ns]
    else:
        scope = replace(scope, from_ns=max(scope.from_ns, ns))
        planned = [each for each in prepared.planned if each.high_ns >= ns]
    key = (ns, row["file_id"], row["epoch"], row["offset"])
    return replace(prepared, scope=scope, planned=planned, after=key)
