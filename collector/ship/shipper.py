"""From packed batches to acknowledged ones, one lane per partition.

Each batch gets the next number of its lane and goes to the topic at once, or into the spool while
the topic does not keep up, and from there in the same order. Acknowledgements come back in any
order and go out in the order of the numbers, so whoever hears of one knows that everything before
it is in the topic too. A batch leaves memory or spool only after that.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import zstandard

from collector.ship.backlog import Backlog
from collector.ship.batch_state import BatchState, Event
from collector.ship.hand_over import HandOver
from collector.ship.lane import IN_THE_SPOOL, Lane, PendingBatch
from collector.ship.pack import Entry, Sent
from collector.ship.packer import Packer, ShipLimits
from collector.topic.interface import Record, Topic
from collector.wire.batch import Inventory, Meta
from collector.wire.range import Range, Stream

Report = Callable[[Sent], None]

_log = logging.getLogger(__name__)


class Shipper:
    """All lanes of one run, and what the spool holds of runs before."""

    def __init__(
        self,
        topic: Topic,
        backlog: Backlog,
        header: tuple[str, str, bytes],
        limits: ShipLimits,
        level: int,
        clock: Callable[[], int],
        acknowledged: Report,
        spooled: Report,
    ) -> None:
        """``header`` is (cluster, node, run). ``acknowledged`` hears of each batch that the topic
        has, ``spooled`` of each that the spool has; both in the order of a lane.
        """
        compressor = zstandard.ZstdCompressor(level=level)
        self.backlog = backlog
        self._packer = Packer(header, limits, compressor, clock)
        self._hand_over = HandOver(topic, compressor, clock, self._settle)
        self._clock = clock
        self._acknowledged = acknowledged
        self._spooled = spooled
        self.handed_ns = (
            0  # when the oldest unanswered batch was handed, at the last `tend`; 0: none
        )
        self.urgent = False  # what waits in files will soon be deleted
        self.old_lanes: dict[tuple[bytes, int], Lane] = {}
        self.unacked_bytes = self.wire_bytes = 0
        self.batches = 0

    @property
    def limits(self) -> ShipLimits:
        """The limits as of now."""
        return self._packer.limits

    @property
    def lanes(self) -> Mapping[int, Lane]:
        """The lanes of this run by partition."""
        return self._packer.lanes

    @property
    def failed(self) -> BaseException | None:
        """What the topic has failed with, if that was no TopicError: nothing is sent any more."""
        return self._hand_over.failed

    @property
    def trouble(self) -> str:
        """What the topic last refused a batch with; empty once it takes all."""
        return self._hand_over.trouble

    def recover(self, records: Sequence[Record]) -> list[Sent]:
        """Take up what the spool holds of runs before; return what to remember of each batch."""
        lanes, found = self.backlog.recover(records)
        for lane in lanes:
            self.old_lanes[lane.run, lane.partition] = lane
            self.unacked_bytes += sum(pending.wire_bytes for pending in lane.pending.values())
        return found

    def spooled_numbers(self, run: bytes, partition: int) -> tuple[int, ...]:
        """Return the numbers of a lane that the spool still holds."""
        lane = self.old_lanes.get((run, partition))
        return tuple(lane.pending) if lane else ()

    # -- what is to be sent --------------------------------------------------------------------

    def add(self, partition: int, stream: Stream, entry: Range | Entry) -> None:
        """Put a range or a control entry of one file into the partition's open pack."""
        self._packer.add(partition, stream, entry)

    def add_meta(self, partition: int, meta: Meta) -> None:
        """Put what is known of a pod into the partition's open pack."""
        self._packer.add_meta(partition, meta)

    def add_inventory(
        self, partition: int, inventory: Inventory, files: dict[bytes, Stream]
    ) -> None:
        """Put an inventory into the partition's open pack, which is then due."""
        self._packer.add_inventory(partition, inventory, files)

    def lower_batch_bytes(self, wire_bytes: int) -> None:
        """Make no larger batches from now on."""
        self._packer.lower_batch_bytes(wire_bytes)

    async def flush(self, *, everything: bool = False) -> None:
        """Send the batches that are due, or all."""
        if self.failed is not None:
            raise self.failed
        for pending in self._numbered(everything=everything):
            await self._send(pending)

    def _numbered(self, *, everything: bool) -> list[PendingBatch]:
        """Return the batches that are due, or all, each in its lane by now.

        All at once: whoever is cancelled while one is sent leaves the others where they are found.
        """
        made = list(self._packer.batches(everything=everything))
        for pending in made:
            self.unacked_bytes += pending.wire_bytes
            self.wire_bytes += pending.wire_bytes
            self.batches += 1
        return made

    async def _send(self, pending: PendingBatch) -> None:
        if not (self.spooling and await self._spool(pending)):
            await self._hand_over.hand(pending)

    # -- how much is on its way ----------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether more may be read: what is on its way, or the spool, is below its limit."""
        if self.spooling and not self.backlog.failed:
            return self.backlog.has_room
        return not self.pressed

    @property
    def pressed(self) -> bool:
        """Whether the topic takes less than is read."""
        return self._hand_over.bytes >= self.limits.unacked_bytes

    def may_displace(self, pod: str) -> bool:
        """Whether the full spool makes room for a pod that is about to lose lines."""
        return self.spooling and self.backlog.may_displace(pod, self.limits.batch_raw_bytes)

    async def wait_for_room(self, timeout_s: float) -> None:
        """Wait until the topic has taken something, but not for long."""
        await self._hand_over.wait_for_answer(timeout_s)

    @property
    def spooling(self) -> bool:
        """Whether new batches go to the spool: the topic does not keep up."""
        return bool(self.backlog.unfed) or self.urgent or self.stalled

    @property
    def stalled(self) -> bool:
        """Whether the topic has let a batch wait for too long."""
        if self._hand_over.refusing:
            return True
        since = self.oldest_handed_ns()
        return since is not None and self._clock() - since >= self.limits.spool_after_ns

    def oldest_handed_ns(self) -> int | None:
        """Return since when the topic has had the oldest batch that it has not answered."""
        firsts = (lane.first for lane in (*self.lanes.values(), *self.old_lanes.values()))
        handed = (first for first in firsts if first is not None and first.state.handed)
        return min((first.handed_ns for first in handed), default=None)

    @property
    def feeding(self) -> bool:
        """Whether the topic takes at once what the spool holds."""
        return bool(self.backlog.unfed) and not (self.stalled or self.pressed)

    # -- topic and spool -----------------------------------------------------------------------

    async def tend(self) -> None:
        """Do what is due: spool what the topic does not take, feed it what it does."""
        self.handed_ns = self.oldest_handed_ns() or 0
        if self.stalled or self.urgent:
            await self._spool_all()
        await self._hand_over.retry()
        while self.feeding:
            await self._feed(self.backlog.unfed[0])

    async def _spool_all(self) -> None:
        """Write into the spool what so far is in memory only, as far as there is room."""
        for lane in list(self.lanes.values()):
            for number in range(lane.next_spooled, lane.next_sequence):
                pending = lane.pending.get(number)
                if pending is None or pending.state.in_spool:
                    continue
                if not self.has_room or not await self._spool(pending):
                    return

    async def _spool(self, pending: PendingBatch) -> bool:
        try:
            return await self.backlog.put(pending)
        finally:  # it has ended, even if this is cancelled
            self._report_spooled(pending.lane)

    def _report_spooled(self, lane: Lane) -> None:
        for pending in lane.newly_spooled():
            self._spooled(pending.sent)
            if not pending.state.in_memory:
                pending.sent = IN_THE_SPOOL

    async def _feed(self, pending: PendingBatch) -> None:
        size = self.backlog.spool.size(pending.position)
        self.unacked_bytes += size - pending.wire_bytes  # it may have shed something
        pending.wire_bytes = size
        found = await self.backlog.fetch(pending)
        self.backlog.unfed.popleft()  # no sooner: this may be cancelled while it is fetched
        if found:
            await self._hand_over.hand(pending)
            return
        # Its number will be missing in the lane, and so prove what is lost.
        _log.error("a spooled batch cannot be read; it is lost", extra={"number": pending.number})
        pending.move(Event.LOSE)
        self._hand_over.bytes += pending.wire_bytes
        self._settle(pending)

    def _settle(self, ended: PendingBatch) -> None:
        """Report the batches that the topic has now with all before them, one having ``ended``."""
        lane = ended.lane
        for pending in lane.settled():
            self.unacked_bytes -= pending.wire_bytes
            self._hand_over.bytes -= pending.wire_bytes
            self.backlog.settled(pending)
            reported = pending.number < lane.next_spooled
            # What a lost batch held is known only as long as it was not reported as spooled.
            if pending.state is not BatchState.LOST or not reported:
                self._acknowledged(pending.sent)
            pending.move(Event.SETTLE)
        self._report_spooled(lane)

    async def drain(self, grace_s: float) -> bool:
        """Send everything and wait for the topic; return whether it has taken it all.

        What it has not taken within the time goes to the spool, as far as there is room.
        """
        if self.failed is not None:
            raise self.failed
        made = self._numbered(everything=True)  # first: only what has a number can be spooled
        try:
            async with asyncio.timeout(grace_s):
                for pending in made:
                    await self._send(pending)
                while self.unacked_bytes and self.failed is None:
                    await self.tend()
                    await self.wait_for_room(0.1)
        except TimeoutError:
            self.urgent = True
            await self._spool_all()
        return not self.unacked_bytes and not self.backlog.unfed and self.failed is None
