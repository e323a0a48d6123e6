"""What is there and what is missing: coverage objects folded, one after the other.

Coverage in the order of the table's versions goes in; out come, for each file, the covered bytes
and the lost ones, for each lane the numbers seen, and for each node how far it is complete. The
fold is a plain function of what went before, so it can be done again and must come out the same.
"""

from collections.abc import Iterator

import msgspec
from msgspec import field

from collector.wire.batch import Gap, Gone, Inventory, Meta, Open, Replaces, Seal
from collector.wire.range import CRC_UNKNOWN
from indexer.ledger.entries import (
    LOST_ROTATED,
    LOST_TOPIC,
    UNACCOUNTED,
    BlindSpot,
    Covered,
    DeletedEntry,
    Entries,
    ExpiredEntry,
    FileEntry,
    FileKey,
    JumpEntry,
    LaneEntry,
    LaneHole,
    LaneKey,
    Lost,
    NodeEntry,
    PendingInventory,
    SeenNumbers,
    copied,
    joined,
    missing,
)
from indexer.ledger.intervals import holes, united
from indexer.table.coverage import (
    Coverage,
    Deleted,
    Expired,
    FileCover,
    LaneSpan,
    Note,
    Position,
    Span,
    note_entry,
)

# Collectors list a closed file for an hour or longer after it has left the disk (the least that
# their `gone_after_ms` may be), so a later full inventory still speaks of every file that a hole
# younger than this can have held.
EXPLAINED_WITHIN_NS = 3_600_000_000_000


class Ledger(msgspec.Struct):
    """The fold of all coverage up to a version of the table (-1: of none).

    Files that were gone before ``past_ns`` may be on storage only (0: all files are here).
    """

    version: int = -1
    positions: dict[int, Position] = {}
    files: Entries[FileKey, FileEntry] = field(default_factory=Entries)
    lanes: Entries[LaneKey, LaneEntry] = field(default_factory=Entries)
    nodes: Entries[tuple[str, int], NodeEntry] = field(default_factory=Entries)
    jumps: list[JumpEntry] = []
    # By namespace and rule; by request and container.
    expired: Entries[tuple[str, str], ExpiredEntry] = field(default_factory=Entries)
    deleted: Entries[tuple[str, str, str, str], DeletedEntry] = field(default_factory=Entries)
    past_ns: int = 0

    def branch(self) -> "Ledger":
        """Return a ledger to fold on while this one stays as it is; it costs what is changed."""
        shared = ("files", "lanes", "nodes", "expired", "deleted")
        return msgspec.structs.replace(
            self,
            positions=dict(self.positions),
            jumps=[copied(entry) for entry in self.jumps],
            **{name: getattr(self, name).branch() for name in shared},
        )

    def apply(self, coverage: Coverage, version: int) -> set[FileKey]:
        """Fold in what the commit that made ``version`` has added; return the files changed."""
        changed = {(cover.file_id, cover.epoch) for cover in coverage.files}
        for position in coverage.positions:
            self.positions[position.partition] = position
        for cover in coverage.files:
            entry = self._file(cover)
            for span in cover.spans:
                _cover(entry, span)
        for numbers in coverage.lanes:
            self._number(numbers, coverage.committed_ns)
        touched = {(numbers.node, numbers.partition) for numbers in coverage.lanes}
        # What an inventory does not list may have been opened after its scan: openings first.
        for note in sorted(coverage.notes, key=lambda note: note.kind == "inventory"):
            self._note(note, coverage.committed_ns, changed)
        for jump in coverage.jumps:
            self.jumps.append(JumpEntry(jump=jump, found_ns=coverage.committed_ns))
        for key in touched:
            if (node := self.nodes.own(key)) is not None:
                self._settle(node)
        for expired in coverage.expired:
            self._expire(expired)
        for deleted in coverage.deleted:
            self._delete(deleted, coverage.committed_ns)
        self.version = version
        return changed

    def revive(self, past: FileEntry) -> None:
        """Take a past file in again, with what has been covered of it since."""
        key = (past.file_id, past.epoch)
        if (known := self.files.get(key)) is not None:
            for part in known.covered:
                times = (part.first_ns, part.last_ns)
                _cover(
                    past,
                    Span(part.start, part.end, CRC_UNKNOWN, 0, 0, *times, "", part.parser_state),
                )
            for end in known.ends.items():
                past.add_end(*end)
        self.files[key] = past

    def forget(self, gone_before_ns: int) -> None:
        """Let go of the files that were gone before that time."""
        for key in [k for k, file in self.files.items() if 0 < file.gone_ns < gone_before_ns]:
            del self.files[key]

    # -- what was removed on purpose: its bytes stay covered -----------------------------------

    def _expire(self, expired: Expired) -> None:
        key = (expired.namespace, expired.rule)
        entry = self.expired.own(key) or self.expired.setdefault(key, ExpiredEntry(*key, [], 0))
        entry.hours = united([*entry.hours, (expired.hour, expired.hour + 1)])
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

    # -- files -------------------------------------------------------------------------------

    def _file(self, cover: FileCover) -> FileEntry:
        key = (cover.file_id, cover.epoch)
        file = self.files.own(key)
        if file is None:
            self.files[key] = file = FileEntry(
                file_id=cover.file_id,
                epoch=cover.epoch,
                partition=cover.partition,
                node=cover.node,
                **cover.stream.fields(),
            )
        return file

    def _note(self, note: Note, now_ns: int, changed: set[FileKey]) -> None:
        entry = note_entry(note)
        if isinstance(entry, Inventory):
            self._inventory(note, entry, now_ns, changed)
            return
        if isinstance(entry, Meta):
            return  # it speaks of a pod, and of no bytes
        file = self.files.own((entry.file_id, entry.epoch))
        if file is None:
            return
        if isinstance(entry, Open):
            file.previous = entry.previous
            file.seen_ns = entry.seen_ns
        elif isinstance(entry, Gone):
            file.gone_ns = file.gone_ns or now_ns
        elif isinstance(entry, Seal):
            file.sealed = True
            file.size = max(file.size, entry.size)
            proof = f"seal in batch {note.sequence} of run {note.run.hex()} says {entry.size} bytes"
            _lose_missing(file, entry.size, proof, now_ns)
        else:
            _lose_reported(file, entry, note, now_ns)

    # -- lanes -------------------------------------------------------------------------------

    def _number(self, span: LaneSpan, now_ns: int) -> None:
        key = (span.run, span.partition)
        lane = self.lanes.own(key)
        if lane is None:
            lane = LaneEntry(run=span.run, partition=span.partition, node=span.node)
            self.lanes[key] = lane
        lane.node = lane.node or span.node  # a dead letter's headers do not name the node
        times = (span.first_created_ns, span.last_created_ns)
        lane.seen.append(SeenNumbers(span.first, span.last, *times))
        lane.seen = joined(lane.seen)
        lane.oldest_unacked = max(lane.oldest_unacked, span.oldest_unacked)
        proof = f"batch {span.last} says that every number below {span.oldest_unacked} was acked"
        _prove_holes(lane, proof, now_ns)

    # -- inventories -------------------------------------------------------------------------

    def _inventory(
        self, note: Note, inventory: Inventory, now_ns: int, changed: set[FileKey]
    ) -> None:
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
            self._replace(note, inventory.replaces, now_ns)
        proof = f"inventory in batch {note.sequence} of run {note.run.hex()}"
        wanted = []
        for seen in inventory.files:
            wanted.append((seen.file_id, seen.epoch, seen.size))
            if file := self.files.own((seen.file_id, seen.epoch)):
                file.size = max(file.size, seen.size)
                acked = f"{proof}: the topic acknowledged {seen.acked} bytes"
                _lose_missing(file, seen.acked, acked, now_ns)
        if inventory.full:
            if node.full_run != note.run:
                changed.update(self._find_unaccounted(note, inventory, now_ns))
            node.full_run = note.run
            self._explain(note, inventory)
        node.pending.append(
            PendingInventory(
                scan_began_ns=inventory.scan_began_ns,
                sequence=note.sequence,
                wanted=wanted,
                proves=not inventory.errors,
                blind_spots=_blind_spots(inventory),
            )
        )

    def _replace(self, note: Note, old: Replaces, now_ns: int) -> None:
        """Close the lane of the run before: what it had acknowledged must have come."""
        key = (old.run, note.partition)
        if key not in self.lanes and not old.oldest_unacked:
            return
        new = LaneEntry(run=old.run, partition=note.partition, node=note.node)
        lane = self.lanes.own(key) or self.lanes.setdefault(key, new)
        lane.oldest_unacked = max(lane.oldest_unacked, old.oldest_unacked)
        proof = f"run {note.run.hex()} says that numbers below {old.oldest_unacked} were acked"
        _prove_holes(lane, proof, now_ns)

    def _find_unaccounted(self, note: Note, inventory: Inventory, now_ns: int) -> Iterator[FileKey]:
        """A new run lists all that it knows: an unsealed file that it does not list is open."""
        listed = {(seen.file_id, seen.epoch) for seen in inventory.files}
        for key, file in self.files.items():
            if file.sealed or file.gone_ns or file.node != note.node:
                continue  # this comes first: there are millions of them
            if file.partition != note.partition or key in listed or _is_over(file):
                continue
            if _known_since(file) >= inventory.scan_began_ns:
                continue  # born after the scan
            (self.files.own(key) or file).lost.append(
                Lost(
                    type=UNACCOUNTED,
                    start=file.covered_end,
                    end=max(file.size, file.covered_end),
                    end_exact=False,
                    from_ns=file.last_ns or None,
                    to_ns=inventory.scan_began_ns,
                    reason="the collector lost its checkpoint, and the file was gone",
                    proof=f"full inventory in batch {note.sequence} of run {note.run.hex()}",
                    found_ns=now_ns,
                )
            )
            yield key

    def _explain(self, note: Note, inventory: Inventory) -> None:
        """A full inventory names every byte that an earlier hole of its node can have held."""
        for key, lane in self.lanes.items():
            if lane.holes and (lane.node, lane.partition) == (note.node, note.partition):
                for hole in (self.lanes.own(key) or lane).holes:
                    if lane.run == note.run and hole.last > note.sequence:
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
            node.holds_back = _hole_before(lane, first.sequence)
            for file_id, epoch, size in first.wanted:
                file = self.files.get((file_id, epoch))
                if size and (file is None or next(_unaccounted(file, size), None)):
                    node.holds_back = f"file {file_id.hex()} has {size} bytes on disk"
            if node.holds_back:
                return
            if first.proves:
                _note_blind_spots(node, first.blind_spots)
                node.complete_until_ns = max(node.complete_until_ns, first.scan_began_ns)
            node.pending.pop(0)


def _blind_spots(inventory: Inventory) -> list[BlindSpot]:
    """Return one for each container, pod or namespace of which something was not seen or named."""
    spots = [BlindSpot(*place.whose, why=str(place)) for place in inventory.unseen]
    spots += [BlindSpot(*unborn.stream.whose) for unborn in inventory.unborn]
    return sorted({spot.whose: spot for spot in reversed(spots)}.values(), key=lambda s: s.whose)


def _note_blind_spots(node: NodeEntry, found: list[BlindSpot]) -> None:
    """Take what is not seen as of the inventory that the node's mark moves to."""
    at = {spot.names: spot.since_ns for spot in node.blind_spots}
    within: dict[tuple[str, ...], int] = {}  # the earliest of those that lie there or below
    for names, since_ns in at.items():
        for place in (names[:length] for length in range(len(names) + 1)):
            within[place] = min(within.get(place, since_ns), since_ns)
    for spot in found:
        around = (at.get(spot.names[:length]) for length in range(len(spot.names)))
        since = [since_ns for since_ns in (within.get(spot.names), *around) if since_ns is not None]
        spot.since_ns = min(since, default=node.complete_until_ns)
    node.blind_spots = found


def _cover(file: FileEntry, span: Span) -> None:
    """Add a span to the covered bytes."""
    new = Covered(span.start, span.end, span.first_ns, span.last_ns, span.parser_state)
    rest = []
    for old in file.covered:
        if old.end < new.start or old.start > new.end:
            rest.append(old)
            continue
        firsts = [t for t in (old.first_ns, new.first_ns) if t]
        new = Covered(
            min(old.start, new.start),
            max(old.end, new.end),
            min(firsts, default=0),
            max(old.last_ns, new.last_ns),
            max(old, new, key=lambda part: part.end).parser_state,
        )
    file.covered = sorted([*rest, new], key=lambda part: part.start)
    if span.crc_after != CRC_UNKNOWN:
        file.add_end(span.end, span.crc_after)
    file.lines += span.lines
    file.rows += span.rows
    if span.rule:
        file.elided += span.end - span.start
    file.size = max(file.size, span.end)


def _unaccounted(file: FileEntry, end: int) -> Iterator[tuple[int, int]]:
    """Yield the holes of ``[0, end)`` that are not known to be lost either."""
    known = sorted((lost.start, lost.end if lost.end_exact else end) for lost in file.lost)
    for start, stop in missing(file, end):
        yield from holes(known, start, stop)


def _known_since(file: FileEntry) -> int:
    """Return when the file was first seen. Its OPEN may be lost with a run that kept the rest."""
    reports = (lost.to_ns or 0 for lost in file.lost)
    return file.seen_ns or file.first_ns or max(reports, default=0)


def _is_over(file: FileEntry) -> bool:
    return any(not lost.end_exact for lost in file.lost)


def _lose_missing(file: FileEntry, end: int, proof: str, now_ns: int) -> None:
    """What the topic has acknowledged and the table does not cover by now is lost."""
    for start, stop in list(_unaccounted(file, end)):
        before = [part.last_ns for part in file.covered if part.end <= start]
        after = [part.first_ns for part in file.covered if part.start >= stop]
        file.lost.append(
            Lost(
                type=LOST_TOPIC,
                start=start,
                end=stop,
                end_exact=True,
                from_ns=max(before, default=0) or None,
                to_ns=min((t for t in after if t), default=0) or None,
                reason="acknowledged by the topic, and not in it",
                proof=proof,
                found_ns=now_ns,
            )
        )


def _lose_reported(file: FileEntry, gap: Gap, note: Note, now_ns: int) -> None:
    if any(lost.start == gap.start and lost.reason == gap.reason for lost in file.lost):
        return  # the same entry, sent by a run that was killed before it could note that
    # The line before the gap bounds it from below; the collector's last scan may be later.
    before_ns = max((part.last_ns for part in file.covered if part.end <= gap.start), default=0)
    file.lost.append(
        Lost(
            type=LOST_ROTATED,
            start=gap.start,
            end=gap.end,
            end_exact=gap.end_exact,
            from_ns=before_ns or gap.from_ns,
            to_ns=gap.to_ns,
            reason=gap.reason,
            proof=f"gap in batch {note.sequence} of run {note.run.hex()}",
            found_ns=now_ns,
        )
    )
    file.size = max(file.size, gap.end)


def _unseen(lane: LaneEntry, end: int) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Yield runs of numbers below ``end`` that did not come, and what bounds them in time."""
    at, before = 0, None
    for part in lane.seen:
        if at < min(part.first, end):
            yield at, min(part.first, end) - 1, before, part.first_created_ns
        at, before = part.last + 1, part.last_created_ns
    if at < end:
        yield at, end - 1, before, None


def _prove_holes(lane: LaneEntry, proof: str, now_ns: int) -> None:
    known = _known_holes(lane)
    for first, last, from_ns, to_ns in _unseen(lane, lane.oldest_unacked):
        for start, end in holes(known, first, last + 1):
            lane.holes.append(LaneHole(start, end - 1, from_ns, to_ns, proof, now_ns))


def _hole_before(lane: LaneEntry, sequence: int) -> str:
    """Return which number is neither here nor known to be lost; empty if there is none."""
    known = _known_holes(lane)
    for first, last, _, _ in _unseen(lane, sequence):
        for start, _ in holes(known, first, last + 1):
            return f"batch {start} of run {lane.run.hex()} has not come"
    return ""


def _known_holes(lane: LaneEntry) -> list[tuple[int, int]]:
    return sorted((hole.first, hole.last + 1) for hole in lane.holes)
