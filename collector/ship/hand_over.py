"""What the topic was given, and what it says to that.

Batches go in and are reported once the topic has them. One that it refuses is given to it again
after a while, one that is too large in parts under the same number; none is given up.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import zstandard

from collector.errors import BatchTooLarge, TopicError
from collector.ship.batch_state import Event
from collector.ship.lane import PendingBatch
from collector.ship.pack import encode_parts
from collector.topic.interface import Topic
from collector.wire import batch as wire

_RETRY_NS = 2_000_000_000

_log = logging.getLogger(__name__)


class HandOver:
    """All batches that the topic was given and that have not left their lanes."""

    def __init__(
        self,
        topic: Topic,
        compressor: zstandard.ZstdCompressor,
        clock: Callable[[], int],
        acknowledged: Callable[[PendingBatch], None],
    ) -> None:
        """``acknowledged`` hears of each batch that the topic has, in any order."""
        self._topic = topic
        self._compressor = compressor
        self._clock = clock
        self._acknowledged = acknowledged
        self._answered = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: deque[PendingBatch] = deque()  # to be handed to the topic again
        self._retry_ns = 0
        self.bytes = 0  # of the batches handed, until they have left their lanes
        self.failed: BaseException | None = None  # no TopicError: nothing can be sent any more
        self.trouble = ""  # what the topic last refused a batch with

    @property
    def refusing(self) -> bool:
        """Whether a batch waits to be handed again."""
        return bool(self._refused)

    async def wait_for_answer(self, timeout_s: float) -> None:
        """Wait until the topic has answered something, but not for long."""
        self._answered.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._answered.wait()

    async def hand(self, pending: PendingBatch) -> None:
        """Give a batch to the topic; whatever it says to that, the batch stays."""
        pending.move(Event.HAND)
        pending.handed_ns = self._clock()
        self.bytes += pending.wire_bytes
        await self._append(pending, [pending.value])

    async def retry(self) -> None:
        """Give the topic again what it has refused, once that is some time ago."""
        if self._refused and self._clock() >= self._retry_ns:
            for _ in range(len(self._refused)):
                await self.hand(self._refused.popleft())

    async def _append(self, pending: PendingBatch, values: Sequence[bytes]) -> None:
        pending.tries += 1
        pending.left = len(values)
        tries = pending.tries
        for value in values:
            try:
                future = await self._topic.append(pending.lane.partition, value, pending.headers)
            except TopicError as error:
                if tries == pending.tries:  # no part before this one was refused meanwhile
                    self._not_taken(pending, error)
                return
            future.add_done_callback(partial(self._answer, pending, tries))

    def _answer(self, pending: PendingBatch, tries: int, future: "asyncio.Future[int]") -> None:
        self._answered.set()
        if future.cancelled() or tries != pending.tries:
            return
        error = future.exception()
        if isinstance(error, TopicError):
            self._not_taken(pending, error)
        elif error is not None:
            self.failed = self.failed or error
        else:
            pending.left -= 1
            if not pending.left:
                self._taken(pending)

    def _taken(self, pending: PendingBatch) -> None:
        pending.move(Event.ACK)
        if not self._refused:
            self.trouble = ""
        self._acknowledged(pending)

    def _not_taken(self, pending: PendingBatch, error: TopicError) -> None:
        pending.tries += 1  # what is still to come of this try does not count
        if isinstance(error, BatchTooLarge):
            task = asyncio.create_task(self._hand_parts(pending, error.size))
            self._tasks.add(task)
            task.add_done_callback(self._parts_handed)
        else:
            self._refuse(pending, error)

    def _refuse(self, pending: PendingBatch, error: TopicError) -> None:
        """Remember a batch that the topic did not take, to try again."""
        if str(error) != self.trouble:
            self.trouble = str(error)
            _log.error("the topic did not accept a batch; retrying", extra={"error": self.trouble})
        pending.move(Event.REFUSE)
        self.bytes -= pending.wire_bytes
        self._refused.append(pending)
        self._retry_ns = self._clock() + _RETRY_NS

    async def _hand_parts(self, pending: PendingBatch, refused: int) -> None:
        """Hand a batch in parts, one of ``refused`` bytes being too large; it is acknowledged when
        all of them are.
        """
        try:
            limit = min((await self._topic.limits()).value_bytes_max, refused // 2)
        except TopicError:
            limit = refused // 2
        batch = wire.decode(pending.value, zstandard.ZstdDecompressor())
        parts = encode_parts(batch, limit, self._compressor)
        _log.warning(
            "the topic does not accept a batch of this size; sending it in parts",
            extra={"bytes": pending.wire_bytes, "parts": len(parts)},
        )
        await self._append(pending, parts)

    def _parts_handed(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed = self.failed or error
            self._answered.set()
