"""Asking for rows to be deleted: what a request means now, its storing, and how far it is.

A request goes in; out comes what it would remove, or an error where it names what no stream has
ever had. The keeper alone deletes. The command with a bucket and the service share all of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from collector.process import did_you_mean
from indexer.deletable import matcher, may_hold
from indexer.ledger.bring_up import bring_up
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.ledger.streams import StreamsTable
from indexer.query.scope import WORDS
from indexer.schema import times_ns
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Bucket
from indexer.table.request import Deletion, DeletionRequest, Requests, checked
from indexer.table.table import Table, live
from indexer.times import format_time
from query_api.errors import BadParameter

SAMPLES = 5


@dataclass(slots=True)
class Preview:
    """What a request would remove from the table as it is now, and a few rows of that."""

    rows: int = 0
    message_bytes: int = 0
    segments: int = 0  # that were looked into
    samples: list[dict[str, str]] = field(default_factory=list)


def preview(bucket: Bucket, cluster: str, request: DeletionRequest) -> Preview:
    """Return what a request would remove; it reads every segment that may hold such a row.

    Raises BadRequest, BadQuery, SegmentDamaged, and what a bucket and a table do.
    """
    table, fits, found = Table(bucket, cluster), matcher(checked(request)), Preview()
    for each in live(table.snapshot()):
        if not may_hold(each, request):
            continue
        found.segments += 1
        for rows in SegmentReader(bucket, table.folder + each.name, each.size).row_groups():
            kept = rows.filter(fits(rows))
            found.rows += len(kept)
            found.message_bytes += pc.sum(pc.binary_length(kept["message"])).as_py() or 0
            some = kept.slice(0, SAMPLES - len(found.samples))
            times = times_ns(some).to_pylist()
            for time_ns, row in zip(
                times, some.select(["pod", "message"]).to_pylist(), strict=True
            ):
                found.samples.append({"time": format_time(time_ns), **row})
    return found


def ask(bucket: Bucket, cluster: str, request: DeletionRequest) -> None:
    """Store a request; raise BadParameter if it names what no stream of the table has ever had."""
    checked(request)
    known = _known(bucket, cluster)
    for name, values in request.scope.equals.items():
        for value in values:
            if name in known and value not in known[name]:
                raise BadParameter(
                    f"no stream has ever had {name} {value!r}",
                    did_you_mean(value, known[name], "look at everyline streams"),
                )
    Requests(bucket, cluster).add(request)


def _known(bucket: Bucket, cluster: str) -> dict[str, set[str]]:
    """Return the values that streams have had, by column."""
    table = Table(bucket, cluster)
    streams = list(_state(bucket, cluster, table).totals.entries())
    history = StreamsTable(bucket, cluster).read()
    names = [name for name in WORDS if name != "level"]
    return {
        name: {*history[name].to_pylist(), *(str(getattr(each, name)) for each in streams)}
        for name in names
    }


def _state(bucket: Bucket, cluster: str, table: Table) -> Ledger:
    """Return the ledger of the newest version as far as it is not about single files."""
    return bring_up(LedgerTable(bucket, cluster).load_live([]), table, table.version())


def listed(bucket: Bucket, cluster: str) -> list[dict[str, Any]]:
    """Return every request, with the rows that have gone so far and whether it is done."""
    found = list(Requests(bucket, cluster).all())
    gone: dict[str, int] = {}
    if any(done is None for _, done in found):
        for entry in _state(bucket, cluster, Table(bucket, cluster)).deleted.values():
            gone[entry.request] = gone.get(entry.request, 0) + entry.rows
    return [_view(request, done, gone) for request, done in found]


def _view(
    request: DeletionRequest, done: Deletion | None, gone: Mapping[str, int]
) -> dict[str, Any]:
    scope = request.scope
    return {
        "id": request.id,
        "state": "done" if done else "open",
        "rows": done.rows if done else gone.get(request.id, 0),
        "requested": format_time(request.requested_ns),
        "done": format_time(done.done_ns) if done else None,
        "by": request.by,
        **{name: ",".join(scope.equals.get(name, ())) for name in WORDS},
        "from": format_time(request.from_ns),
        "to": format_time(request.to_ns),
        "query": request.query or request.text or request.regex,
        "reason": request.reason,
    }
