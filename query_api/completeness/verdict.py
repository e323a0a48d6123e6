"""What an answer may be missing: complete, incomplete or unknown, and why.

A snapshot, the scope of a question and what its scan went through go in, the completeness
statement comes out. Loss makes incomplete; what nobody has vouched for yet is unknown, and only
what every node in scope has proved, up to the end of the question, is complete.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from indexer.ledger.ledger import Ledger
from indexer.query.scope import Scope
from indexer.times import format_optional, format_time
from query_api.completeness.progress import (
    NodeProgress,
    blind_spots,
    describe,
    nodes_in_scope,
    progress_of,
)
from query_api.completeness.removed import Removal, removals
from query_api.completeness.replica import Snapshot
from query_api.completeness.statement import (
    Completeness,
    HeldBack,
    RemovedView,
    Scan,
)
from query_api.completeness.streams import count_streams

GAPS_SHOWN = 100
"""How many gaps a statement lists; it gives the number of all, and ``/v1/gaps`` has them."""

_BLIND_TOLD = 10
_FROM_BEST = ("complete", "unknown", "incomplete")


@dataclass(slots=True)
class Trouble:
    """What a scan could not do: segments that failed, and why it stopped early."""

    failed: dict[str, str] = field(default_factory=dict)  # name in the bucket -> why
    cut_off: str = ""


def judge(snapshot: Snapshot, scope: Scope, cluster: str, trouble: Trouble) -> Completeness:
    """Return the completeness statement of an answer."""
    nodes = nodes_in_scope(snapshot.marks, scope)
    progress = progress_of(snapshot.marks, nodes, scope)
    gaps = snapshot.columns.harmful(scope, nodes)
    holder = progress.last
    until_ns = holder.complete_until_ns if holder else None
    gone = removals(snapshot.ledger, scope)
    loss = losses(len(gaps), gone, trouble)
    doubt = _doubts(holder, nodes, scope) + _blind(snapshot.ledger, nodes, scope)
    return Completeness(
        verdict="incomplete" if loss else "unknown" if doubt else "complete",
        complete_until=format_optional(until_ns),
        held_back_by=HeldBack(node=holder.node, partition=holder.partition, why=holder.why)
        if holder
        else None,
        reasons=loss + doubt,
        gaps=[snapshot.view(snapshot.gaps[at], cluster) for at in gaps[:GAPS_SHOWN]],
        gaps_total=len(gaps),
        removed=[removed_view(each) for each in gone[:GAPS_SHOWN]],
        removed_total=len(gone),
        streams=count_streams(snapshot.ledger, scope, progress, snapshot.columns, gaps),
        scan=Scan(
            segments_failed=len(trouble.failed),
            errors=list(trouble.failed.values())[:GAPS_SHOWN],
            cut_off=trouble.cut_off,
        ),
    )


def no_better_than(verdict: str, found: Completeness) -> Completeness:
    """Return what was found, with the verdict of an earlier ledger if that is worse; "": none.

    Rows that have come since are not in the version of a cursor, though the ledger has them.
    """
    if not verdict or _FROM_BEST.index(verdict) <= _FROM_BEST.index(found.verdict):
        return found
    reason = f"the version of the first page was {verdict}; ask without a cursor for the newest"
    return found.model_copy(update={"verdict": verdict, "reasons": [*found.reasons, reason]})


def removed_view(removal: Removal) -> RemovedView:
    return RemovedView(
        kind=removal.kind,
        namespace=removal.namespace,
        pod=removal.pod,
        container=removal.container,
        from_=format_time(removal.from_ns),
        to=format_time(removal.to_ns),
        rows=removal.rows,
        why=removal.why,
    )


def losses(gaps: int, gone: Sequence[Removal], trouble: Trouble) -> list[str]:
    found = []
    if gaps:
        found.append(f"{gaps} gap{'s' if gaps > 1 else ''} in what was asked")
    for kind, how in (("EXPIRED", "have expired"), ("DELETED", "were deleted on request")):
        if whose := sorted({each.namespace for each in gone if each.kind == kind}):
            more = f" and {len(whose) - 3} more" if len(whose) > 3 else ""
            found.append(f"rows of {', '.join(whose[:3])}{more} {how}")
    if trouble.failed:
        names = sorted(trouble.failed)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        found.append(f"{len(names)} segment(s) could not be read: {', '.join(names[:3])}{more}")
    if trouble.cut_off:
        found.append(trouble.cut_off)
    return found


def _doubts(holder: NodeProgress | None, nodes: Set[str], scope: Scope) -> list[str]:
    if holder is None:  # they have all gone for good, or there was none
        return [] if nodes else ["no node has reported yet"]
    until_ns = holder.complete_until_ns
    if holder.is_blind:
        return []  # that is said by the blind spot
    if until_ns is None:
        return [f"node {holder.node}: {holder.why}"]
    if scope.to_ns > until_ns:
        return [f"after {format_time(until_ns)} lines of node {holder.node} may be on their way"]
    return []


def _blind(ledger: Ledger, nodes: Set[str], scope: Scope) -> list[str]:
    """Say whose files have not been seen, on which node and why."""
    entries = (ledger.nodes[key] for key in ledger.blind if key[0] in nodes)
    spots = ((entry.node, spot) for entry in entries for spot in blind_spots(entry, scope))
    found = sorted({(node, describe(s)) for node, s in spots if s.since_ns < scope.to_ns})
    told = [f"node {node} does not read {what}" for node, what in found[:_BLIND_TOLD]]
    more = len(found) - len(told)
    return [*told, f"and {more} more that nodes do not read"] if more else told
