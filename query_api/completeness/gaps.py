"""The gaps in a ledger: what should be there and is not, one by one, less what has come since.

A ledger goes in, gaps come out: lost bytes of files, numbers missing in lanes, positions of the
topic that were passed over. Nothing here depends on a clock or on a question; a gap's id stays the
same from version to version.
"""

import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from indexer.ledger.entries import (
    LOST_TOPIC,
    NODE_RETIRED,
    FileEntry,
    FileKey,
    JumpEntry,
    LaneEntry,
    LaneHole,
    Lost,
    RetiredEntry,
)
from indexer.ledger.intervals import holes, united
from indexer.ledger.ledger import Ledger
from indexer.query.scope import Scope

LOST = "LOST"  # proved
UNKNOWN = "UNKNOWN"  # an end that nobody has seen: there may be more, or nothing
RECOVERED = "RECOVERED"  # it has come since
STATES = (LOST, UNKNOWN, RECOVERED)

STAMP_SLACK_NS = 1_000_000_000
"""How far outside of what bounds a loss in time its lines may be stamped: a runtime stamps a line
before it writes it, and each output for itself; a scan takes a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that is missing, with the bounds and the proof that are known.

    ``start`` and ``end`` are bytes of the file, ``positions`` ``[first, end)`` of the partition,
    ``batches`` the first and the last missing number of a run. ``nodes`` are those whose lines may
    be in it, None for any. ``explained``: a full inventory has since named the bytes, so that
    what is missing for good is a gap of its file.
    """

    id: str
    type: str
    state: str
    reason: str
    proof: str
    found_ns: int
    partition: int
    from_ns: int | None
    to_ns: int | None
    nodes: tuple[str, ...] | None
    explained: bool = False
    file: FileEntry | None = None
    start: int | None = None
    end: int | None = None
    end_exact: bool | None = None
    size_bytes: int | None = None
    positions: tuple[int, int] | None = None
    run: bytes | None = None
    batches: tuple[int, int] | None = None
    object: str = ""

    @property
    def harms(self) -> bool:
        """Return whether an answer that it touches is not complete."""
        return self.state != RECOVERED and not self.explained

    def touches(self, scope: Scope, nodes: Set[str]) -> bool:
        """Return whether it may hold rows of the scope, whose nodes are ``nodes``."""
        if not scope.overlaps(self.from_ns, self.to_ns):
            return False
        if self.file is not None:
            return file_in_scope(self.file, scope)
        return self.nodes is None or not nodes.isdisjoint(self.nodes)


def file_in_scope(file: FileEntry, scope: Scope) -> bool:
    """Return whether the scope's columns allow rows of the file; times do not count."""
    return (
        scope.allows("namespace", file.namespace)
        and scope.allows("pod", file.pod)
        and scope.allows("container", file.container)
        and scope.allows("node", file.node)
    )


OfFiles = Mapping[FileKey, tuple[FileEntry, tuple[Gap, ...]]]
"""The gaps of each file that has some, and the entry that they were found in."""


def file_gaps(ledger: Ledger, before: OfFiles) -> OfFiles:
    """Return the gaps of files, those of entries that have stayed the same as they were before."""
    found: dict[FileKey, tuple[FileEntry, tuple[Gap, ...]]] = {}
    for key, file in ledger.files.items():
        if file.lost and not file.settled_ns:
            known = before.get(key)
            is_same = known is not None and known[0] is file
            found[key] = known if known and is_same else (file, tuple(gaps_of(file)))
    return found


def other_gaps(ledger: Ledger) -> Iterator[Gap]:
    """Yield the gaps of lanes, jumps and retired nodes, also what has come since."""
    for key in sorted(key for keys in ledger.holed.values() for key in keys):
        lane = ledger.lanes[key]
        for hole in lane.holes:
            yield from _lane_gaps(lane, hole)
    for entry in ledger.jumps:
        nodes = {node for node, partition in ledger.nodes if partition == entry.jump.partition}
        yield _jump_gap(entry, nodes)
    for retired in ledger.retired:
        mark = ledger.marks.get(retired.node)
        yield _retired_gap(retired, 0 if mark is None else mark.until_ns)


def find_gaps(ledger: Ledger) -> Iterator[Gap]:
    """Yield every gap of a ledger, also what has come since."""
    for _, gaps in file_gaps(ledger, {}).values():
        yield from gaps
    yield from other_gaps(ledger)


def _id(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def gaps_of(file: FileEntry) -> Iterator[Gap]:
    """Yield a gap for each part of a loss that is still missing, or one if all of it has come.

    What several reports name is a gap of the latest of them.
    """
    covered = [(part.start, part.end) for part in file.covered]
    claimed: list[tuple[int, int]] = []
    open_ended = not file.sealed
    known_end = max([file.covered_end, *(lost.end for lost in file.lost)])
    for lost in reversed(file.lost):
        end = lost.end
        if not lost.end_exact:
            end = max(end, file.size if file.sealed else known_end)
        goes_on = open_ended and not lost.end_exact
        parts = list(holes(united(covered + claimed), lost.start, end))
        for start, stop in parts:
            exact = not (goes_on and stop == end)
            yield _file_gap(file, lost, LOST, start, stop, end_exact=exact)
            goes_on = goes_on and exact
        if goes_on:
            yield _file_gap(file, lost, UNKNOWN, end, end, end_exact=False)
        elif not parts and not any(a <= end and lost.start <= b for a, b in claimed):
            yield _file_gap(file, lost, RECOVERED, lost.start, lost.end, lost.end_exact)
        claimed.append((lost.start, end))
        open_ended = open_ended and lost.end_exact


def _file_gap(
    file: FileEntry, lost: Lost, state: str, start: int, end: int, end_exact: bool
) -> Gap:
    from_ns, to_ns = lost.from_ns, lost.to_ns
    return Gap(
        id=_id("file", file.file_id, file.epoch, lost.type, start),
        type=lost.type,
        state=state,
        reason=lost.reason,
        proof=lost.proof,
        found_ns=lost.found_ns,
        partition=file.partition,
        from_ns=None if from_ns is None else from_ns - STAMP_SLACK_NS,
        to_ns=None if to_ns is None else to_ns + STAMP_SLACK_NS,
        nodes=(file.node,),
        file=file,
        start=start,
        end=end,
        end_exact=end_exact,
        size_bytes=end - start,
    )


def _lane_gaps(lane: LaneEntry, hole: LaneHole) -> Iterator[Gap]:
    parts = []
    at = hole.first
    for seen in lane.seen:
        if at < min(seen.first, hole.last + 1):
            parts.append((at, min(seen.first, hole.last + 1) - 1))
        at = max(at, seen.last + 1)
    if at <= hole.last:
        parts.append((at, hole.last))
    for first, last in parts or [(hole.first, hole.last)]:
        yield Gap(
            id=_id("lane", lane.run, lane.partition, first),
            type=LOST_TOPIC,
            state=LOST if parts else RECOVERED,
            reason="acknowledged by the topic, and not in it",
            proof=hole.proof,
            found_ns=hole.found_ns,
            partition=lane.partition,
            from_ns=hole.from_ns,
            to_ns=hole.to_ns,
            nodes=(lane.node,),
            explained=hole.explained,
            run=lane.run,
            batches=(first, last),
        )


def _jump_gap(entry: JumpEntry, nodes: set[str]) -> Gap:
    """Return the gap of a jump; ``nodes`` are those that use its partition."""
    jump = entry.jump
    unexplained = nodes.difference(entry.explained_by)
    return Gap(
        id=_id("jump", jump.partition, jump.type, jump.start, jump.end, entry.found_ns),
        type=jump.type,
        state=LOST if jump.end > jump.start else UNKNOWN,
        reason="positions of the topic that were skipped, so no commit will cover them",
        proof=jump.proof,
        found_ns=entry.found_ns,
        partition=jump.partition,
        from_ns=jump.from_ns,
        to_ns=jump.to_ns,
        nodes=tuple(sorted(unexplained)) if nodes else None,
        explained=bool(nodes) and not unexplained,
        positions=(jump.start, jump.end),
        object=jump.object,
    )


def _retired_gap(entry: RetiredEntry, until_ns: int) -> Gap:
    """Return the gap of a node that is not waited for; ``until_ns`` is how far it is by now.

    What it wrote since the last proof is in it, whether it has come or not.
    """
    return Gap(
        id=_id("retired", entry.node, entry.retired_ns),
        type=NODE_RETIRED,
        state=RECOVERED if until_ns >= entry.retired_ns else UNKNOWN,
        reason="the node has gone for good, and nothing proves what it wrote last",
        proof=f"retired: {entry.why}",
        found_ns=entry.retired_ns,
        partition=entry.partitions[0],
        from_ns=entry.complete_until_ns or None,
        to_ns=entry.retired_ns,
        nodes=(entry.node,),
    )
