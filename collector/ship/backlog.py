"""What waits in the spool while the topic does not keep up: put in, fed out, shed, forgotten.

Batches on their way go in and come out in the same order. The spool stays below its limit: the
largest pod gives up its oldest ranges, as GAPs in batches that keep their numbers. A batch is
forgotten only after the topic has it and the checkpoint says so.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec

from collector.durable import to_its_end
from collector.ship.batch_state import BatchState, Event
from collector.ship.lane import Lane, PendingBatch
from collector.ship.pack import SENT_HEADER, Sent
from collector.ship.shed import WHY, largest, shed
from collector.ship.spool import Spool
from collector.topic.interface import Record

_SHED_SHARE = 16  # of the spool is made free at once, so that batches are not rewritten one by one
_ROOM_SHARE = 8  # of the spool is left for what was read already

_log = logging.getLogger(__name__)


class Backlog:
    """The batches in the spool, and how much of them each pod has written."""

    def __init__(self, spool: Spool, bytes_max: int, level: int, clock: Callable[[], int]) -> None:
        """``bytes_max`` bounds the spool; ``level`` is zstd's, for batches that are rewritten."""
        self.spool = spool
        self._bytes_max = bytes_max
        self._level = level
        self._clock = clock
        self._acked_positions: list[int] = []
        self.unfed: deque[PendingBatch] = deque()  # all are SPOOLED
        self.pods: Counter[str] = Counter()  # raw bytes
        self.failed = False
        self.spooled_batches = self.shed_bytes = 0

    def recover(self, records: Sequence[Record]) -> tuple[list[Lane], list[Sent]]:
        """Take up what runs before have left; return their lanes and what their batches hold."""
        lanes: dict[tuple[bytes, int], Lane] = {}
        found = []
        for record in records:
            headers = dict(record.headers)
            known = msgspec.msgpack.decode(headers.pop(SENT_HEADER), type=Sent)
            number = int.from_bytes(headers["sequence"], "big")
            key = (headers["run"], known.partition)
            lane = lanes.setdefault(key, Lane(*key))
            if number in lane.pending:  # written twice: the first one counts
                self._acked_positions.append(record.position)
                continue
            pending = PendingBatch(
                lane,
                number,
                self.spool.size(record.position),
                tuple(headers.items()),
                position=record.position,
                begins=BatchState.SPOOLED,
            )
            lane.put(pending)
            lane.next_spooled = max(lane.next_spooled, number + 1)  # by the run before
            self.unfed.append(pending)
            self.pods.update(known.pods)
            found.append(known)
        return list(lanes.values()), found

    @property
    def has_room(self) -> bool:
        """Whether more may be read into the spool."""
        return self.spool.bytes < self._bytes_max - self._bytes_max // _ROOM_SHARE

    def may_displace(self, pod: str, raw_bytes: int) -> bool:
        """Whether the largest pod gives way to so many bytes of another: until both are equal."""
        most = self.pods.get(largest(self.pods), 0)
        return not self.failed and self.pods.get(pod, 0) + raw_bytes < most

    async def put(self, pending: PendingBatch) -> bool:
        """Write a batch into the spool; return whether it is there.

        If nobody else has it, it is left to the spool, to be fed later. Once begun it is done to
        its end: a thread that writes cannot be stopped, and a batch of which nobody knows that it
        was written would be written again. A CancelledError is raised after that.
        """
        return await to_its_end(self._put(pending))

    async def _put(self, pending: PendingBatch) -> bool:
        headers = (*pending.headers, (SENT_HEADER, msgspec.msgpack.encode(pending.sent)))
        try:
            position = await asyncio.to_thread(self.spool.put, pending.value, headers)
        except OSError as error:
            if not self.failed:
                _log.error("the spool cannot be written; going on", extra={"error": str(error)})
            self.failed = True
            return False
        self.failed = False
        self.spooled_batches += 1
        pending.move(Event.SPOOL)
        if pending.state is BatchState.DONE:
            self._acked_positions.append(position)
            return True
        pending.position = position
        self.pods.update(pending.sent.pods)
        if pending.state is BatchState.SPOOLED:
            pending.value = b""
            self.unfed.append(pending)
        await self._shed()
        return True

    async def fetch(self, pending: PendingBatch) -> bool:
        """Bring a batch back into memory; return whether it could be read."""
        record = await asyncio.to_thread(self.spool.get, pending.position)
        if record is None:
            return False
        pending.value = record.value
        pending.sent = msgspec.msgpack.decode(dict(record.headers)[SENT_HEADER], type=Sent)
        return True

    def settled(self, pending: PendingBatch) -> None:
        """Note that a batch has left its lane: what the spool has of it may go."""
        if pending.state.in_spool:
            self._acked_positions.append(pending.position)
            self.pods.subtract(pending.sent.pods)

    async def _shed(self) -> None:
        if self.spool.bytes <= self._bytes_max:
            return
        for pending in list(self.unfed):
            if self.spool.bytes <= self._bytes_max - self._bytes_max // _SHED_SHARE:
                return
            pod = largest(self.pods)
            try:
                gone = await asyncio.to_thread(self._without, pending.position, pod)
            except OSError as error:
                _log.error("the spool cannot be written; going on", extra={"error": str(error)})
                return
            if gone:
                self.pods[pod] -= gone
                self.shed_bytes += gone
                missing = {"pod_uid": pod, "bytes": gone, "reason": WHY}
                _log.warning("lines are missing", extra=missing)

    def _without(self, position: int, pod: str) -> int:
        """Take a pod's ranges out of a spooled batch; return how many raw bytes that gives up."""
        record = self.spool.get(position)
        found = record and shed(record, pod, self._clock(), self._level)
        if not found:
            return 0
        self.spool.replace(found[0])
        return found[1]

    def forget_acked(self, count: int) -> None:
        """Take the first so many of the ``acked`` out of the spool, once a checkpoint says so."""
        self.spool.forget(self._acked_positions[:count])
        del self._acked_positions[:count]

    @property
    def acked(self) -> int:
        """How many batches of the spool the topic has."""
        return len(self._acked_positions)

    @property
    def spooled_positions(self) -> list[tuple[int, int]]:
        """The positions of the spool that the topic does not have, as runs."""
        return self.spool.runs(without=frozenset(self._acked_positions))
