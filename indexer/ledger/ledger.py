"""What is there and what is missing: coverage objects folded, one after the other.

Coverage in the order of the table's versions goes in; out come, for each file, the covered bytes
and the lost ones, for each lane the numbers seen, and for each node how far it is complete. The
fold is a plain function of what went before, so it can be done again and must come out the same;
what a question asks for is kept up beside it, so that nothing is searched among all files.
"""

import msgspec

from collector.wire.batch import Gap, Gone, Inventory, Meta, Open, Replaces, Seal, Seen
from indexer.ledger.entries import (
    NODE_RETIRED,
    UNACCOUNTED,
    BlindSpot,
    DeletedEntry,
    ExpiredEntry,
    FileKey,
    JumpEntry,
    LaneEntry,
    NodeEntry,
    PendingInventory,
    RetiredEntry,
    SeenNumbers,
    copied,
    joined,
)
from indexer.ledger.files import Commit
from indexer.ledger.forget import LANE_KEPT_NS, forget
from indexer.ledger.intervals import united
from indexer.ledger.losses import (
    hole_before,
    is_accounted,
    is_over,
    known_since,
    lose_missing,
    lose_reported,
    lose_rest,
    prove_holes,
)
from indexer.ledger.settled import NONE_SETTLED, SECOND_NS
from indexer.ledger.state import LedgerState, Mark
from indexer.table.coverage import (
    Control,
    Coverage,
    Deleted,
    Expired,
    LaneSpan,
    Note,
    Retired,
)
from indexer.times import HOUR_NS

# Collectors list a closed file for an hour or longer after it has left the disk (the least that
# their `gone_after_ms` may be), so a later full inventory still speaks of every file that a hole
# younger than this can have held.
EXPLAINED_WITHIN_NS = 3_600_000_000_000


EXPIRED_SPANS = 64
"""So many stretches of hours are told apart whose rows a rule has taken from a namespace."""


class Ledger(LedgerState):
    """The fold of all coverage up to a version of the table (-1: of none).

    Files that were settled before ``past_ns`` may be on storage only (0: all are here).
    """

    def branch(self) -> "Ledger":
        """Return a ledger to fold on while this one stays as it is; it costs what is changed."""
        shared = ("files", "lanes", "nodes", "expired", "deleted")
        plain = ("positions", "retired", "settled", "going_on", "holed", "marks", "gone")
        return msgspec.structs.replace(
            self,
            jumps=[copied(entry) for entry in self.jumps],
            totals=self.totals.branch(),
            leaving={},
            **{name: getattr(self, name).branch() for name in shared},
            **{name: getattr(self, name).copy() for name in plain},
        )

    def apply(self, coverage: Coverage, version: int) -> set[FileKey]:
        """Fold in what the commit that made ``version`` has added; return the files changed."""
        return self.fold(Commit.of(coverage), version)

    def fold(self, commit: Commit, version: int) -> set[FileKey]:
        """Do the same with a commit whose notes are decoded."""
        coverage, now_ns = commit.coverage, commit.now_ns
        if commit.settled is None:
            commit.settled = self.settled_of(commit.covers)
        for position in coverage.positions:
            self.positions[position.partition] = position
        for each in coverage.files:
            self.cover_file(each, commit)
        for numbers in coverage.lanes:
            self._number(numbers, now_ns)
        touched = {(numbers.node, numbers.partition) for numbers in coverage.lanes}
        for note, entry in commit.notes:
            self._note(note, entry, commit)
        for jump in coverage.jumps:
            self.jumps.append(JumpEntry(jump=jump, found_ns=now_ns))
        self.settle_files(commit)
        for key in touched:
            if (node := self.nodes.own(key)) is not None:
                self._settle(node)
                self._mark(node)
        for retired in coverage.retired:
            self._retire(retired, commit)
        for expired in coverage.expired:
            self._expire(expired)
        for deleted in coverage.deleted:
            self._delete(deleted, now_ns)
        if now_ns // HOUR_NS > self.swept_hour:
            self.swept_hour = now_ns // HOUR_NS
            forget(self, commit)
        self.version = version
        return commit.changed

    def index(self) -> None:
        """Make again what the fold keeps up beside its entries, after these were put in."""
        self.going_on, self.holed, self.marks = {}, {}, {}
        for file in self.files.values():
            self.index_file(file)
        for lane in self.lanes.values():
            self._index_lane(lane)
        self.gone = {entry.node: None for entry in self.retired}
        for node in self.nodes.values():
            self._mark(node)

    # -- what was removed on purpose: its bytes stay covered -----------------------------------

    def _expire(self, expired: Expired) -> None:
        key = (expired.namespace, expired.rule)
        entry = self.expired.own(key) or self.expired.setdefault(key, ExpiredEntry(*key, [], 0))
        hours = united([*entry.hours, (expired.hour, expired.hour + 1)])
        while len(hours) > EXPIRED_SPANS:  # between the oldest there is nothing any more either
            hours[:2] = [(hours[0][0], hours[1][1])]
        entry.hours = hours
        entry.rows += expired.rows

    def _delete(self, deleted: Deleted, now_ns: int) -> None:
        key = (deleted.request, deleted.namespace, deleted.pod, deleted.container)
        times = (deleted.first_ns, deleted.last_ns)
        new = DeletedEntry(*key, 0, *times, now_ns)
        entry = self.deleted.own(key) or self.deleted.setdefault(key, new)
        entry.rows += len(deleted.offsets)
        entry.first_ns = min(entry.first_ns, deleted.first_ns)
        entry.last_ns = max(entry.last_ns, deleted.last_ns)
        entry.deleted_ns = min(entry.deleted_ns, now_ns)

    # -- notes -------------------------------------------------------------------------------

    def _note(self, note: Note, entry: Control, commit: Commit) -> None:
        if isinstance(entry, Inventory):
            self._inventory(note, entry, commit)
            return
        if isinstance(entry, Meta):
            return  # it speaks of a pod, and of no bytes
        key = (entry.file_id, entry.epoch)
        settled_bytes = self.settled_bytes(key, commit)
        size = entry.size if isinstance(entry, Seal) else 0
        if settled_bytes is not None and size <= settled_bytes and not isinstance(entry, Gap):
            return  # nothing more is to be known of it
        file = self.change(key, commit)
        if file is None:
            return
        went_on = file.goes_on
        if isinstance(entry, Open):
            file.previous = entry.previous
            file.seen_ns = entry.seen_ns
        elif isinstance(entry, Gone):
            file.gone_ns = file.gone_ns or commit.now_ns
        elif isinstance(entry, Seal):
            file.sealed = True
            file.size = max(file.size, entry.size)
            proof = f"seal in batch {note.sequence} of run {note.run.hex()} says {entry.size} bytes"
            lose_missing(file, entry.size, proof, commit.now_ns)
        else:
            lose_reported(file, entry, note, commit.now_ns)
        if went_on and not file.goes_on:
            self.totals.add(self.row(file), opened=-1)

    # -- lanes -------------------------------------------------------------------------------

    def _number(self, span: LaneSpan, now_ns: int) -> None:
        key = (span.run, span.partition)
        lane = self.lanes.own(key)
        times = (span.first_created_ns, span.last_created_ns)
        if lane is None:
            lane = LaneEntry(run=span.run, partition=span.partition, node=span.node)
            if span.first and now_ns - span.first_created_ns > LANE_KEPT_NS:
                lane.seen.append(SeenNumbers(0, span.first - 1, times[0], times[0]))
            self.lanes[key] = lane
        if span.node and not lane.node:  # a dead letter's headers do not name the node
            lane.node = span.node
            self._index_lane(lane)
        if lane.seen and span.first == lane.seen[-1].last + 1:  # as most are
            lane.seen[-1].last, lane.seen[-1].last_created_ns = span.last, times[1]
        else:
            lane.seen = joined([*lane.seen, SeenNumbers(span.first, span.last, *times)])
        lane.last_ns = now_ns
        self._acked(
            lane,
            span.oldest_unacked,
            now_ns,
            f"batch {span.last} says that every number below {span.oldest_unacked} was acked",
        )

    def _acked(self, lane: LaneEntry, oldest_unacked: int, now_ns: int, proof: str) -> None:
        lane.oldest_unacked = max(lane.oldest_unacked, oldest_unacked)
        if prove_holes(lane, proof, now_ns):
            self._index_lane(lane)

    def _index_lane(self, lane: LaneEntry) -> None:
        if lane.holes:
            place = (lane.node, lane.partition)
            key = (lane.run, lane.partition)
            self.holed[place] = self.holed.get(place, frozenset()) | {key}

    def _replace(self, note: Note, old: Replaces, now_ns: int) -> None:
        """Close the lane of the run before: what it had acknowledged must have come."""
        key = (old.run, note.partition)
        if key not in self.lanes and not old.oldest_unacked:
            return
        new = LaneEntry(run=old.run, partition=note.partition, node=note.node)
        lane = self.lanes.own(key) or self.lanes.setdefault(key, new)
        lane.last_ns = now_ns
        proof = f"run {note.run.hex()} says that numbers below {old.oldest_unacked} were acked"
        self._acked(lane, old.oldest_unacked, now_ns, proof)

    # -- inventories -------------------------------------------------------------------------

    def _inventory(self, note: Note, inventory: Inventory, commit: Commit) -> None:
        key = (note.node, note.partition)
        node = self.nodes.own(key)
        partitions = list(inventory.partitions)
        if node is None:
            node = NodeEntry(
                node=note.node, partition=note.partition, run=note.run, partitions=partitions
            )
            self.nodes[key] = node
        if node.run != note.run:  # numbers of another lane: they say nothing in this one
            node.pending.clear()
        node.run, node.partitions = note.run, partitions
        node.scan_began_ns = inventory.scan_began_ns
        node.errors = list(inventory.errors)
        if inventory.replaces is not None and inventory.replaces.run != note.run:
            self._replace(note, inventory.replaces, commit.now_ns)
        proof = f"inventory in batch {note.sequence} of run {note.run.hex()}"
        wanted = [
            (seen.file_id, seen.epoch, seen.size)
            for seen in inventory.files
            if self._is_wanted(seen, proof, commit)
        ]
        if inventory.full:
            if node.full_run != note.run:
                self._find_unaccounted(note, inventory, commit)
            node.full_run = note.run
            self._explain(note, inventory)
            if key in self.settled:
                listed = [(seen.file_id, seen.epoch) for seen in inventory.files]
                now_s = commit.now_ns // SECOND_NS
                self.settled[key] = self.settled[key].listed(listed, now_s)
        node.pending.append(
            PendingInventory(
                scan_began_ns=inventory.scan_began_ns,
                sequence=note.sequence,
                wanted=wanted,
                proves=not inventory.errors,
                blind_spots=_blind_spots(inventory),
            )
        )

    def _is_wanted(self, seen: Seen, proof: str, commit: Commit) -> bool:
        """Take what an inventory says of a file; return whether some of it is yet to come."""
        key = (seen.file_id, seen.epoch)
        settled_bytes = self.settled_bytes(key, commit)
        if settled_bytes is not None and max(seen.size, seen.acked) <= settled_bytes:
            return False
        file = self.files.get(key)
        if file is None and settled_bytes is None:
            return seen.size > 0
        if file is None or seen.size > file.size or not is_accounted(file, seen.acked):
            file = self.change(key, commit)
            if file is not None:
                file.size = max(file.size, seen.size)
                acked = f"{proof}: the topic acknowledged {seen.acked} bytes"
                lose_missing(file, seen.acked, acked, commit.now_ns)
        return file is not None and not is_accounted(file, seen.size)

    def _find_unaccounted(self, note: Note, inventory: Inventory, commit: Commit) -> None:
        """A new run lists all that it knows: an unsealed file that it does not list is open."""
        listed = {(seen.file_id, seen.epoch) for seen in inventory.files}
        for key in self.going_on.get((note.node, note.partition), frozenset()) - listed:
            file = self.files[key]
            if not file.goes_on or is_over(file) or known_since(file) >= inventory.scan_began_ns:
                continue  # it was born after the scan, or has ended in this commit
            proof = f"full inventory in batch {note.sequence} of run {note.run.hex()}"
            reason = "the collector lost its checkpoint, and the file was gone"
            if own := self.change(key, commit):
                times = (inventory.scan_began_ns, commit.now_ns)
                lose_rest(own, UNACCOUNTED, reason, proof, *times)

    def _explain(self, note: Note, inventory: Inventory) -> None:
        """A full inventory names every byte that an earlier hole of its node can have held."""
        for key in self.holed.get((note.node, note.partition), ()):
            for hole in (self.lanes.own(key) or self.lanes[key]).holes:
                if key[0] == note.run and hole.last > note.sequence:
                    continue  # it was made after the inventory
                young = inventory.scan_began_ns - (hole.from_ns or 0) < EXPLAINED_WITHIN_NS
                hole.explained = hole.explained or young
        for entry in self.jumps:
            young = inventory.scan_began_ns - (entry.jump.from_ns or 0) < EXPLAINED_WITHIN_NS
            here = entry.jump.partition == note.partition
            if here and young and note.node not in entry.explained_by:
                entry.explained_by.append(note.node)

    def _settle(self, node: NodeEntry) -> None:
        """Move the node's mark over every inventory whose bytes are all accounted for."""
        lane = self.lanes[node.run, node.partition]
        while node.pending:
            first = node.pending[0]
            node.holds_back = hole_before(lane, first.sequence)
            for file_id, epoch, size in first.wanted:
                if not self._has(node, (file_id, epoch), size):
                    node.holds_back = f"file {file_id.hex()} has {size} bytes on disk"
            if node.holds_back:
                return
            if first.proves:
                _note_blind_spots(node, first.blind_spots)
                node.complete_until_ns = max(node.complete_until_ns, first.scan_began_ns)
            node.pending.pop(0)

    def _has(self, node: NodeEntry, key: FileKey, size: int) -> bool:
        """Return whether so much of a file is covered or known to be lost."""
        if (file := self.files.get(key)) is not None:
            return is_accounted(file, size)
        [settled] = self.settled.get((node.node, node.partition), NONE_SETTLED).find([key])
        return settled is not None and settled.size >= size

    def _mark(self, node: NodeEntry) -> None:
        """Note how far the node is, of which this is an entry."""
        self.gone.pop(node.node, None)
        place = (node.node, node.partition)
        if bool(node.blind_spots) != (place in self.blind):
            self.blind = self.blind ^ {place}
        known = self.marks.get(node.node)
        here = known.partitions if known else ()
        if node.partition not in here:
            here = tuple(sorted({node.partition, *here}))
        entries = [self.nodes[node.node, partition] for partition in here]
        named = {partition for entry in entries for partition in entry.partitions}
        if missing := named.difference(here):
            self.marks[node.node] = Mark(0, min(missing), here)
        else:
            until_ns, partition = min((e.complete_until_ns, e.partition) for e in entries)
            self.marks[node.node] = Mark(until_ns, partition, here)

    # -- nodes that have gone for good ---------------------------------------------------------

    def _retire(self, retired: Retired, commit: Commit) -> None:
        """Close a node: what was not proved of it until now is missing, as far as anybody knows."""
        mark = self.marks.pop(retired.node, None)
        places = [place for place in self.going_on if place[0] == retired.node]
        if mark is None and not places:
            return
        self.gone[retired.node] = None
        self.retired.append(
            RetiredEntry(
                node=retired.node,
                complete_until_ns=mark.until_ns if mark else 0,
                retired_ns=commit.now_ns,
                partitions=list(mark.partitions) if mark else sorted({p for _, p in places}),
                why=retired.why,
            )
        )
        for partition in mark.partitions if mark else ():
            del self.nodes[retired.node, partition]
        self.blind = frozenset(place for place in self.blind if place[0] != retired.node)
        proof = f"node {retired.node} was retired: {retired.why}"
        for key in [key for place in places for key in self.going_on[place]]:
            if (file := self.change(key, commit)) is not None:
                file.gone_ns = commit.now_ns
                if not is_accounted(file, file.size):
                    reason = "its node has gone for good, and this has not come"
                    lose_rest(file, NODE_RETIRED, reason, proof, commit.now_ns, commit.now_ns)
        self.totals.close_node(retired.node)
        self.settle_files(commit)


def _blind_spots(inventory: Inventory) -> list[BlindSpot]:
    """Return one for each container, pod or namespace of which something was not seen or named."""
    if not (inventory.unseen or inventory.unborn):
        return []
    spots = [BlindSpot(*place.whose, why=str(place)) for place in inventory.unseen]
    spots += [BlindSpot(*unborn.stream.whose) for unborn in inventory.unborn]
    return sorted({spot.whose: spot for spot in reversed(spots)}.values(), key=lambda s: s.whose)


def _note_blind_spots(node: NodeEntry, found: list[BlindSpot]) -> None:
    """Take what is not seen as of the inventory that the node's mark moves to."""
    if not found:
        node.blind_spots = []
        return
    at = {spot.names: spot.since_ns for spot in node.blind_spots}
    within: dict[tuple[str, ...], int] = {}  # the earliest of those that lie there or below
    for names, since_ns in at.items():
        for place in (names[:length] for length in range(len(names) + 1)):
            within[place] = min(within.get(place, since_ns), since_ns)
    found = [copied(spot) for spot in found]
    for spot in found:
        around = (at.get(spot.names[:length]) for length in range(len(spot.names)))
        since = [since_ns for since_ns in (within.get(spot.names), *around) if since_ns is not None]
        spot.since_ns = min(since, default=node.complete_until_ns)
    node.blind_spots = found
