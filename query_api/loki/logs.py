"""A query of logs: the lines of a span of time, by stream, with what may be missing of them.

A query and bounds go in; one page of lines comes out in the order of the table, which is the same
in both directions and between two pages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from query_api.loki.answer import query_answer, streams_of
from query_api.loki.asking import Asking
from query_api.loki.meaning import COLUMN_OF, LABELS, LEVEL, meaning_of
from query_api.loki.syntax import LogQuery
from query_api.questions.search import Found

_ROWS_AT_ONCE = 256


def logs(
    asking: Asking,
    query: LogQuery,
    bounds: tuple[int, int],
    *,
    limit: int,
    newest_first: bool,
    categorized: bool,
) -> dict[str, Any]:
    """Return the lines of ``[start, end)``; raise BadQuery, BadParameter or NotComplete."""
    meaning = meaning_of(query, asking.cluster, asking.latest.ledger.totals)
    scope = asking.scope(*bounds, meaning.equals)
    scope = replace(scope, to_ns=asking.end_ns(scope))
    search = asking.search
    found = Found(
        search.plan(
            scope, meaning.tree, asking.latest,
            require=asking.require, newest_first=newest_first, limit=limit,
        )
    )  # fmt: skip
    tables = list(search.rows(found))
    completeness, told = search.verdict_of(found)
    lines = (line for table in tables for line in lines_of(table, query, asking.cluster))
    return query_answer(
        "streams",
        streams_of(lines, categorized),
        [(completeness, told["cost"])],
        categorized=categorized,
        lines=sum(map(len, tables)),
        is_cut=found.page.is_cut_by_bytes,
    )


def lines_of(
    table: pa.Table, query: LogQuery, cluster: str
) -> Iterator[tuple[Mapping[str, str], Mapping[str, str], int, str]]:
    """Yield rows (RESULT_SCHEMA) as lines: labels of the stream, of the line, time, text."""
    shown = [name for name in LABELS if query.shows(name)]
    for batch in table.to_batches(_ROWS_AT_ONCE):
        for row in batch.to_pylist():
            labels = {
                name: cluster if name == "cluster" else str(row[COLUMN_OF[name]]) for name in shown
            }
            of_line = {LEVEL: row["level"]} if query.shows(LEVEL) else {}
            yield labels, of_line, row["ns"], row["message"]
