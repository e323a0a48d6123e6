"""What an answer may be missing: complete, incomplete or unknown, and why.

A snapshot, the scope of a question and what its scan went through go in, the completeness
statement comes out. Loss makes incomplete; what nobody has vouched for yet is unknown, and only
what every node in scope has proved, up to the end of the question, is complete.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from indexer.ledger.entries import BlindSpot, FileEntry, NodeEntry
from indexer.ledger.ledger import Ledger
from indexer.query.scope import Scope
from indexer.times import format_optional, format_time
from query_api.completeness.gaps import Gap, file_in_scope
from query_api.completeness.removed import Removal, removals
from query_api.completeness.replica import Snapshot
from query_api.completeness.statement import (
    Completeness,
    HeldBack,
    RemovedView,
    Scan,
    Streams,
    gap_view,
)

GAPS_SHOWN = 100
"""How many gaps a statement lists; it gives the number of all, and ``/v1/gaps`` has them."""

_BLIND_TOLD = 10
_FROM_BEST = ("complete", "unknown", "incomplete")


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """How far a node is complete, None if nothing proves it; ``why`` says what holds it back."""

    node: str
    complete_until_ns: int | None
    partition: int | None
    why: str
    is_blind: bool = False  # by a blind spot


@dataclass(slots=True)
class Trouble:
    """What a scan could not do: segments that failed, and why it stopped early."""

    failed: dict[str, str] = field(default_factory=dict)  # name in the bucket -> why
    cut_off: str = ""


def nodes_in_scope(ledger: Ledger, scope: Scope) -> frozenset[str]:
    """Return the nodes that may hold lines of the scope: all, unless node or pod say better."""
    if wanted := scope.equals.get("node"):
        return frozenset(wanted)
    if scope.equals.get("pod"):
        found = {f.node for f in ledger.files.values() if file_in_scope(f, scope)}
        found.update(n.node for n in ledger.nodes.values() if any(blind_spots(n, scope)))
        if found:
            return frozenset(found)
    everybody = {node for node, _ in ledger.nodes}
    return frozenset(everybody.union(file.node for file in ledger.files.values()))


def progress_of_nodes(ledger: Ledger, nodes: Iterable[str], scope: Scope) -> list[NodeProgress]:
    """Return how far each node is complete, the one that holds back the others first.

    That is for lines of the scope: a blind spot holds back only whose files it may hide.
    """
    entries: dict[str, dict[int, NodeEntry]] = {}
    for (node, partition), entry in ledger.nodes.items():
        entries.setdefault(node, {})[partition] = entry
    progress = [_progress(node, entries.get(node, {}), scope) for node in nodes]
    return sorted(progress, key=lambda each: (each.complete_until_ns or 0, each.node))


def _progress(node: str, entries: dict[int, NodeEntry], scope: Scope) -> NodeProgress:
    if not entries:
        return NodeProgress(node, None, None, "no inventory of this node has arrived yet")
    for partition in sorted({p for entry in entries.values() for p in entry.partitions}):
        if partition not in entries:
            return NodeProgress(
                node, None, partition, "no inventory has arrived in this partition yet"
            )
    marks = (_mark(entry, scope) for entry in entries.values())
    return min(marks, key=lambda mark: (mark.complete_until_ns or 0, mark.partition))


def _mark(entry: NodeEntry, scope: Scope) -> NodeProgress:
    """Return how far one node is complete in one partition."""
    until_ns = entry.complete_until_ns
    why = entry.holds_back or (
        entry.errors[0] if entry.errors else "waiting for its next inventory"
    )
    spots = [spot for spot in blind_spots(entry, scope) if spot.since_ns < until_ns]
    if spots:
        spot = min(spots, key=lambda each: each.since_ns)
        until_ns, why = spot.since_ns, describe(spot)
    return NodeProgress(entry.node, until_ns or None, entry.partition, why, bool(spots))


def blind_spots(entry: NodeEntry, scope: Scope) -> Iterator[BlindSpot]:
    """Yield those of a node's blind spots in which lines of the scope may lie."""
    for spot in entry.blind_spots:
        names = zip(("namespace", "pod", "container"), spot.whose, strict=True)
        if all(not value or scope.allows(name, value) for name, value in names):
            yield spot


def describe(spot: BlindSpot) -> str:
    """Return a blind spot as a sentence."""
    return f"{'/'.join(spot.names)}: {spot.why}"


def harmful_gaps(snapshot: Snapshot, scope: Scope, nodes: frozenset[str]) -> list[Gap]:
    """Return the gaps that make an answer of this scope incomplete, the latest found first."""
    found = [gap for gap in snapshot.gaps if gap.harms and gap.touches(scope, nodes)]
    return sorted(found, key=lambda gap: (-gap.found_ns, gap.id))


def judge(snapshot: Snapshot, scope: Scope, cluster: str, trouble: Trouble) -> Completeness:
    """Return the completeness statement of an answer."""
    nodes = nodes_in_scope(snapshot.ledger, scope)
    progress = progress_of_nodes(snapshot.ledger, nodes, scope)
    gaps = harmful_gaps(snapshot, scope, nodes)
    holder = progress[0] if progress else None
    until_ns = holder.complete_until_ns if holder else None
    gone = removals(snapshot.ledger, scope)
    loss = _losses(gaps, gone, trouble)
    doubt = _doubts(holder, until_ns, scope) + _blind(snapshot.ledger, nodes, scope)
    return Completeness(
        verdict="incomplete" if loss else "unknown" if doubt else "complete",
        complete_until=format_optional(until_ns),
        held_back_by=HeldBack(node=holder.node, partition=holder.partition, why=holder.why)
        if holder
        else None,
        reasons=loss + doubt,
        gaps=[gap_view(gap, cluster) for gap in gaps[:GAPS_SHOWN]],
        gaps_total=len(gaps),
        removed=[_removed_view(each) for each in gone[:GAPS_SHOWN]],
        removed_total=len(gone),
        streams=_count_streams(snapshot.ledger, scope, progress, gaps),
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


def _removed_view(removal: Removal) -> RemovedView:
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


def _losses(gaps: Sequence[Gap], gone: Sequence[Removal], trouble: Trouble) -> list[str]:
    found = []
    if gaps:
        found.append(f"{len(gaps)} gap{'s' if len(gaps) > 1 else ''} in what was asked")
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


def _doubts(holder: NodeProgress | None, until_ns: int | None, scope: Scope) -> list[str]:
    if holder is None:
        return ["no node has reported yet"]
    if holder.is_blind:
        return []  # that is said by the blind spot
    if until_ns is None:
        return [f"node {holder.node}: {holder.why}"]
    if scope.to_ns > until_ns:
        return [f"after {format_time(until_ns)} lines of node {holder.node} may be on their way"]
    return []


def _blind(ledger: Ledger, nodes: frozenset[str], scope: Scope) -> list[str]:
    """Say whose files have not been seen, on which node and why."""
    entries = (entry for entry in ledger.nodes.values() if entry.node in nodes)
    spots = ((entry.node, spot) for entry in entries for spot in blind_spots(entry, scope))
    found = sorted({(node, describe(s)) for node, s in spots if s.since_ns < scope.to_ns})
    told = [f"node {node} does not read {what}" for node, what in found[:_BLIND_TOLD]]
    more = len(found) - len(told)
    return [*told, f"and {more} more that nodes do not read"] if more else told


def _count_streams(
    ledger: Ledger, scope: Scope, progress: Sequence[NodeProgress], gaps: Sequence[Gap]
) -> Streams:
    """Count streams whose lines may be in scope: covered and unknown ones, or with a gap."""
    until = {each.node: each.complete_until_ns for each in progress}
    gapped_files = {(gap.file.node, gap.file.stream) for gap in gaps if gap.file is not None}
    gapped_nodes = {node for gap in gaps if gap.file is None for node in gap.nodes or until}
    streams = {
        (file.node, file.stream)
        for file in ledger.files.values()
        if file_in_scope(file, scope) and _may_have_written(file, scope)
    }
    unknown = covered = 0
    for node, stream in streams:
        if (node, stream) in gapped_files or node in gapped_nodes:
            continue
        if scope.to_ns > (until.get(node) or 0):
            unknown += 1
        else:
            covered += 1
    return Streams(expected=len(streams), covered=covered, unknown=unknown)


def _may_have_written(file: FileEntry, scope: Scope) -> bool:
    return scope.overlaps(file.first_ns or None, file.last_ns if file.sealed else None)
