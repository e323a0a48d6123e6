"""Gaps, streams and the state of the pipeline, as the ledger of one version has them.

A snapshot and a scope go in, models of the answer come out; nothing is read from storage.
"""

from collections.abc import Mapping

import numpy as np

from indexer.ledger.totals import BYTES, FILES, FIRST, LAST, OPEN, ROWS, Place
from indexer.object_names import is_coverage, logs_folder
from indexer.query.scope import Scope
from indexer.table.damage import Damage
from indexer.times import HOUR_NS, format_optional, format_time
from query_api.completeness.progress import (
    describe,
    nodes_in_scope,
    progress_of,
    progress_of_node,
)
from query_api.completeness.replica import Snapshot
from query_api.completeness.statement import gap_view
from query_api.completeness.streams import streams_in_scope
from query_api.completeness.verdict import Trouble, judge
from query_api.questions.answer import (
    DamagedView,
    Gaps,
    NodeView,
    PartitionView,
    Status,
    StreamList,
    StreamView,
)
from query_api.questions.parameters import GapParameters

_NEW_GAP_NS = 24 * HOUR_NS  # so long does a gap count as trouble that goes on


def list_gaps(
    snapshot: Snapshot,
    scope: Scope,
    asked: GapParameters,
    cluster: str,
    damaged: Mapping[str, Damage],
) -> Gaps:
    """Return the gaps of a scope in each state, the latest found first.

    A damaged segment that may hold rows of the scope makes it incomplete.
    """
    folder = logs_folder(cluster)
    planned = {segment.name for segment in snapshot.segments.plan(scope)}
    failed = {folder + name: damaged[name].fault for name in damaged if name in planned}
    here = {name: damaged[name] for name in damaged if name in planned or is_coverage(name)}
    nodes = nodes_in_scope(snapshot.marks, scope)
    found = [
        gap
        for gap in snapshot.gaps
        if gap.touches(scope, nodes)
        and (not asked.type or gap.type in asked.type)
        and (not asked.state or gap.state in asked.state)
    ]
    found.sort(key=lambda gap: (-gap.found_ns, gap.id))
    return Gaps(
        gaps=[gap_view(gap, cluster) for gap in found[: asked.limit]],
        total=len(found),
        damaged=_damaged_views(here, cluster),
        completeness=judge(snapshot, scope, cluster, Trouble(failed)),
        version=snapshot.version,
        from_=None if asked.from_ is None else format_time(scope.from_ns),
        to=format_time(scope.to_ns),
    )


def _damaged_views(damaged: Mapping[str, Damage], cluster: str) -> list[DamagedView]:
    folder = logs_folder(cluster)
    return [
        DamagedView(object=folder + name, fault=each.fault, found_at=format_time(each.found_ns))
        for name, each in sorted(damaged.items())
    ]


def list_streams(snapshot: Snapshot, scope: Scope, limit: int, cluster: str) -> StreamList:
    """Return the streams that have, or may have, lines in the scope."""
    ledger = snapshot.ledger
    totals = ledger.totals
    marks = snapshot.marks
    progress = progress_of(marks, nodes_in_scope(marks, scope), scope)
    lost: dict[Place, int] = {}
    for gap in snapshot.gaps:
        if gap.file is not None and gap.harms:
            place = (gap.file.node, gap.file.stream)
            lost[place] = lost.get(place, 0) + (gap.size_bytes or 0)
    rows = np.flatnonzero(streams_in_scope(ledger, scope)).tolist()
    rows.sort(key=lambda row: (totals.places[row][1], totals.places[row][0]))
    return StreamList(
        streams=[
            _stream_view(
                totals.places[row],
                totals.numbers[row].tolist(),
                lost.get(totals.places[row], 0),
                progress.until_ns.get(totals.places[row][0]) or None,
                cluster,
            )
            for row in rows[:limit]
        ],
        total=len(rows),
        completeness=judge(snapshot, scope, cluster, Trouble()),
        version=snapshot.version,
    )


def _stream_view(
    place: Place, numbers: list[int], missing_bytes: int, until_ns: int | None, cluster: str
) -> StreamView:
    node, stream = place
    return StreamView(
        cluster=cluster,
        node=node,
        **stream.fields(),
        files=numbers[FILES],
        first_time=format_optional(numbers[FIRST] or None),
        last_time=format_optional(numbers[LAST] or None),
        rows=numbers[ROWS],
        bytes=numbers[BYTES],
        missing_bytes=missing_bytes,
        ended=not numbers[OPEN],
        complete_until=format_optional(until_ns),
    )


def show_status(
    snapshot: Snapshot, cluster: str, program: str, now_ns: int, damaged: Mapping[str, Damage]
) -> Status:
    """Return how far each node and each partition is, and what is missing."""
    ledger = snapshot.ledger
    everything = Scope(-(2**63), 2**63 - 1, {})
    waited_for = snapshot.marks.until_ns
    progress = [progress_of_node(ledger, node, everything) for node in waited_for]
    progress.sort(key=lambda each: (each.complete_until_ns or 0, each.node))
    errors: dict[str, dict[str, None]] = {}
    partitions: dict[str, set[int]] = {}
    for (node, _), entry in ledger.nodes.items():
        blind = map(describe, entry.blind_spots)
        errors.setdefault(node, {}).update(dict.fromkeys([*entry.errors, *blind]))
        partitions.setdefault(node, set()).update(entry.partitions)
    open_gaps = sum(gap.harms for gap in snapshot.gaps)
    new_gaps = any(gap.harms and now_ns - gap.found_ns < _NEW_GAP_NS for gap in snapshot.gaps)
    bounds = snapshot.segments.time_bounds_ns
    return Status(
        healthy=not new_gaps and not damaged and all(each.complete_until_ns for each in progress),
        cluster=cluster,
        version=snapshot.version,
        everyline=program,
        now=format_time(now_ns),
        nodes=[
            NodeView(
                node=each.node,
                complete_until=format_optional(each.complete_until_ns),
                lag_ms=each.complete_until_ns
                and max(0, (now_ns - each.complete_until_ns) // 10**6),
                held_back_by=each.why,
                partitions=sorted(partitions.get(each.node, ())),
                errors=list(errors.get(each.node, ())),
            )
            for each in progress
        ],
        partitions=[
            PartitionView(
                partition=number,
                topic=position.topic,
                generation=position.generation,
                position=position.end,
                last_record=format_time(position.last.created_ns) if position.last else None,
            )
            for number, position in sorted(ledger.positions.items())
        ],
        open_gaps=open_gaps,
        damaged=_damaged_views(damaged, cluster),
        segments=len(snapshot.segments),
        rows=snapshot.segments.rows,
        bytes=snapshot.segments.size_bytes,
        first_time=format_optional(bounds[0] if bounds else None),
        last_time=format_optional(bounds[1] if bounds else None),
    )
