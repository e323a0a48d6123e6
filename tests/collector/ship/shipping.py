"""A shipper for tests, on a real spool and a topic that answers when it is told to.

Lines go in, each as a batch of its own; what the topic and the disk do to it is said step by step.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from collector.errors import TopicError
from collector.ship.backlog import Backlog
from collector.ship.lane import PendingBatch
from collector.ship.pack import Sent
from collector.ship.packer import ShipLimits
from collector.ship.shipper import Shipper
from collector.ship.spool import Spool
from collector.topic.interface import Headers
from collector.wire.range import Range, Stream
from tests.collector.node import BEGIN_NS, SECOND, HeldTopic, lines

FILE = b"f" * 16
STREAM = Stream("payments", "api-0", "uid-api-0", "api", 0)


class SlowSpool(Spool):
    """A spool on a disk that can be made to wait before it writes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.writing = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()

    def put(self, value: bytes, headers: Headers) -> int:
        self.writing.set()
        assert self.may_write.wait(30)
        return super().put(value, headers)


class Ship:
    """One run's shipper over the spool of a folder; partition 0 only."""

    def __init__(
        self,
        folder: Path,
        topic: Callable[[Path], HeldTopic] = HeldTopic,
        *,
        run: int = 1,
        unacked_bytes: int = 1 << 20,
    ) -> None:
        self.folder = folder
        self.now = BEGIN_NS
        self.topic = topic(folder / "topic")
        self.spool = SlowSpool(folder / "spool")
        self.backlog = Backlog(self.spool, 1 << 20, 1, lambda: self.now)
        self.acknowledged: list[Sent] = []
        self.spooled: list[Sent] = []
        self.shipper = Shipper(
            self.topic,
            self.backlog,
            ("cluster", "node", run.to_bytes(16, "big")),
            ShipLimits(1 << 20, 1 << 20, SECOND, unacked_bytes, 10 * SECOND),
            1,
            lambda: self.now,
            self.acknowledged.append,
            self.spooled.append,
        )
        self._offset = 0

    def add(self, data: bytes = b"") -> None:
        """Put a range, of one line unless said otherwise, into the open pack."""
        data = data or lines(self._offset, 1)
        start, self._offset = self._offset, self._offset + len(data)
        taken = Range(FILE, 0, start, data, data.count(b"\n"), 0, 0, 0, False, "cri")
        self.shipper.add(0, STREAM, taken)

    async def send(self, data: bytes = b"") -> PendingBatch:
        """Send a batch; it goes to the topic or into the spool."""
        self.add(data)
        await self.shipper.flush(everything=True)
        return self.newest

    async def begin(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Do what writes into the spool, up to where it waits for the disk."""
        self.spool.may_write.clear()
        self.spool.writing.clear()
        task = asyncio.create_task(work)
        assert await asyncio.to_thread(self.spool.writing.wait, 30)
        return task

    async def end(self, task: "asyncio.Task[Any]") -> None:
        """Let the disk write, and what was begun go on to its end."""
        self.spool.may_write.set()
        await task

    async def spool_all(self) -> None:
        """Write into the spool what is in memory only."""
        self.shipper.urgent = True
        await self.shipper.tend()
        self.shipper.urgent = False

    async def send_into_spool(self) -> PendingBatch:
        """Send a batch that goes into the spool and not to the topic."""
        self.shipper.urgent = True
        pending = await self.send()
        self.shipper.urgent = False
        return pending

    async def feed(self) -> None:
        """Give the topic what it takes of the spool, and again what it has refused before."""
        self.now += 3 * SECOND
        await self.shipper.tend()

    async def answer(self, pending: PendingBatch, error: Exception | None = None) -> None:
        """Let the topic say to a batch that it has it, or why not."""
        [at] = [i for i, each in enumerate(self.topic.waiting) if each[2] is pending.headers]
        future = self.topic.waiting.pop(at)[3]
        if error is None:
            future.set_result(0)
        else:
            future.set_exception(error)
        await asyncio.sleep(0)

    async def refuse(self, pending: PendingBatch) -> None:
        """Let the topic refuse a batch."""
        await self.answer(pending, TopicError("not now"))

    @property
    def newest(self) -> PendingBatch:
        """The batch that was numbered last."""
        return next(reversed(self.shipper.lanes[0].pending.values()))
