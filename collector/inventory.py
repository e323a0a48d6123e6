"""What a node says of itself every few seconds, even when nothing else happens.

The files of the last full scan go in; out comes one INVENTORY for each partition that the node can
reach, so that silence means something: a partition without one, or a file that is not in it.
"""

from collections.abc import Sequence
from dataclasses import replace

from collector.files.checkpoint import Checkpoint, FileKey
from collector.files.life_cycle import Stage
from collector.files.tail import Tail
from collector.files.watch import Watch
from collector.ship.shipper import Shipper
from collector.wire.batch import Inventory, Replaces, Seen, Unborn, Unseen
from collector.wire.range import Stream

UNSEEN_MAX = 256
"""How many places an inventory names; each is kept in the ledger as long as it is there."""


class Inventories:
    """The inventories of one run; the first one names the run before."""

    def __init__(
        self, watch: Watch, shipper: Shipper, before: Checkpoint, intervals_ns: tuple[int, int]
    ) -> None:
        """``intervals_ns``: between two, and between two that list all files."""
        self._watch = watch
        self._shipper = shipper
        self._before = before
        self._interval_ns, self._full_interval_ns = intervals_ns
        self._reported: dict[FileKey, tuple[int, int, int]] = {}
        self._next_ns = self._next_full_ns = 0
        self.sent = False

    def due(self, now_ns: int) -> bool:
        """Return whether it is time for the next one."""
        return now_ns >= self._next_ns

    def make_due(self) -> None:
        """Make it time for one that lists all files."""
        self._next_ns = self._next_full_ns = 0

    def send(self, scan_began_ns: int, now_ns: int) -> None:
        """Tell each partition what the scan that began then has found."""
        full = not self.sent or now_ns >= self._next_full_ns
        by_partition: dict[int, list[Tail]] = {p: [] for p in self._watch.placement.reachable()}
        errors, unseen = _told([*self._watch.errors.values(), *self._watch.links.values()])
        unborn = []
        for tail in self._watch.tails.values():
            if tail.stage is not Stage.UNBORN:
                by_partition.setdefault(tail.partition, []).append(tail)
            elif tail.size:
                unborn.append(Unborn(tail.stream, tail.size))
        for partition, tails in by_partition.items():
            changed = [tail for tail in tails if full or self._changed(tail)]
            seen = [self._seen(tail) for tail in changed]
            streams = {tail.file_id: tail.stream for tail in changed}
            if full:
                everywhere = (each.state for each in self._watch.files.closed.values())
                closed = [state for state in everywhere if state.partition == partition]
                seen += [
                    Seen(*state.key, state.size, state.spooled_mark.offset, state.acked)
                    for state in closed
                ]
                streams |= {state.file_id: state.stream for state in closed}
            inventory = Inventory(
                scan_began_ns=scan_began_ns,
                partitions=tuple(sorted(by_partition)),
                full=full,
                files=tuple(seen),
                unborn=tuple(u for u in unborn if self._goes_to(u.stream, now_ns, partition)),
                unchanged=len(tails) - len(changed),
                errors=errors,
                replaces=None if self.sent else self._replaces(partition),
                unseen=unseen,
            )
            self._shipper.add_inventory(partition, inventory, streams)
        if full:
            named = self._watch.files.named
            self._reported = {key: seen for key, seen in self._reported.items() if key in named}
            self._next_full_ns = now_ns + self._full_interval_ns
        self._next_ns = now_ns + self._interval_ns
        self.sent = True

    def _replaces(self, partition: int) -> Replaces | None:
        run = self._before.run
        if not run:
            return None
        lanes = {lane.partition: lane.oldest_unacked for lane in self._before.lanes}
        spooled = self._shipper.spooled_numbers(run, partition)
        return Replaces(run, lanes.get(partition, 0), spooled)

    def _goes_to(self, stream: Stream, now_ns: int, partition: int) -> bool:
        return self._watch.placement.of_file(stream.pod_uid, now_ns) == partition

    def _changed(self, tail: Tail) -> bool:
        return self._reported.get(tail.key) != _progress(tail)

    def _seen(self, tail: Tail) -> Seen:
        self._reported[tail.key] = _progress(tail)
        return Seen(*tail.key, *self._reported[tail.key])


def _told(places: Sequence[Unseen]) -> tuple[tuple[str, ...], tuple[Unseen, ...]]:
    """Return the errors of the whole node, and one place of each container that has some.

    Of more than UNSEEN_MAX containers the namespaces are told, and of more of these the number.
    """
    for_namespaces = [replace(each, pod="", container="") for each in places]
    for told in (places, for_namespaces):
        of: dict[tuple[str, str, str], Unseen] = {}
        for each in told:
            of.setdefault(each.whose if each.namespace else ("", "", each.path), each)
        if len(of) <= UNSEEN_MAX:
            errors = [str(each) for each in of.values() if not each.namespace]
            return tuple(errors), tuple(each for each in of.values() if each.namespace)
    return (f"{places[0]}; and {len(places) - 1} more places",), ()


def _progress(tail: Tail) -> tuple[int, int, int]:
    # Nobody waits for what cannot be read: it is told as unseen, and its size once it can be read.
    size = tail.read_mark.offset if tail.failure else tail.size
    return size, tail.read_mark.offset, tail.acked_mark.offset
