"""From ranges and control entries to acknowledged batches, one lane per partition.

A lane packs what is handed to it until the batch is large or old enough, numbers it and gives it
to the topic. Acknowledgements come back in any order and go out in the order of the numbers, so
whoever hears of one knows that everything before it is in the topic too.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import zstandard

from collector import batch as wire
from collector.batch import Batch, Elided, Gap, Gone, Inventory, Open, Seal
from collector.range import Range, Stream
from collector.tail import split
from collector.topic import Topic

Entry = Open | Seal | Gap | Elided | Gone
_PLACES: dict[type, str] = {
    Open: "opens",
    Seal: "seals",
    Gap: "gaps",
    Elided: "elided",
    Gone: "gone",
}
_ENTRY_BYTES = 64


@dataclass(frozen=True, slots=True)
class Sent:
    """What is remembered of a batch until the topic has it."""

    ends: tuple[tuple[bytes, int, int], ...]  # file_id, epoch, end of each range
    entries: tuple[Entry, ...]
    wire_bytes: int
    created_ns: int


Acknowledged = Callable[[Sent], None]


@dataclass(frozen=True, slots=True)
class ShipLimits:
    """A batch is closed at ``batch_raw_bytes`` or ``flush_age_ns``; none is sent that is larger
    than ``batch_wire_bytes``; no more is read while ``unacked_bytes`` are on their way.
    """

    batch_raw_bytes: int
    batch_wire_bytes: int
    flush_age_ns: int
    unacked_bytes: int


@dataclass
class Lane:
    """One partition's part of one run: an open batch, and those that are on their way."""

    partition: int
    files: dict[bytes, Stream] = field(default_factory=dict)
    ranges: list[Range] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    inventory: Inventory | None = None
    raw_bytes: int = 0
    opened_ns: int = 0
    next_sequence: int = 0
    oldest_unacked: int = 0
    sent: dict[int, Sent] = field(default_factory=dict)
    acked: set[int] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be sent."""
        return not (self.ranges or self.entries or self.inventory)


class Shipper:
    """All lanes of one run."""

    def __init__(
        self,
        topic: Topic,
        header: tuple[str, str, bytes],
        limits: ShipLimits,
        level: int,
        clock: Callable[[], int],
        acknowledged: Acknowledged,
    ) -> None:
        """``header`` is (cluster, node, run); ``acknowledged`` hears of each batch, in order."""
        self._topic = topic
        self._cluster, self._node, self._run = header
        self._limits = limits
        self._clock = clock
        self._acknowledged = acknowledged
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._room = asyncio.Event()
        self.failed: BaseException | None = None
        self.lanes: dict[int, Lane] = {}
        self.unacked_bytes = 0
        self.wire_bytes = 0
        self.batches = 0

    def lane(self, partition: int) -> Lane:
        """Return the lane of a partition."""
        return self.lanes.setdefault(partition, Lane(partition))

    def add(self, partition: int, stream: Stream, entry: Range | Entry) -> None:
        """Put a range or a control entry of one file into the partition's open batch."""
        lane = self.lane(partition)
        lane.opened_ns = lane.opened_ns or self._clock()
        lane.files[entry.file_id] = stream
        if isinstance(entry, Range):
            lane.ranges.append(entry)
            lane.raw_bytes += len(entry.data)
        else:
            lane.entries.append(entry)
        lane.raw_bytes += _ENTRY_BYTES

    def add_inventory(
        self, partition: int, inventory: Inventory, files: dict[bytes, Stream]
    ) -> None:
        """Put an inventory into the partition's open batch, which is then due."""
        lane = self.lane(partition)
        lane.files.update(files)
        lane.inventory = inventory
        lane.opened_ns = 1

    @property
    def has_room(self) -> bool:
        """Whether more may be read: the wire bytes on their way are below their limit."""
        return self.unacked_bytes < self._limits.unacked_bytes

    async def wait_for_room(self, timeout_s: float) -> None:
        """Wait until the topic has taken something, but not for long."""
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), timeout_s)

    async def flush(self, *, everything: bool = False) -> None:
        """Send the batches that are due, or all; raise what the topic has refused one with."""
        if self.failed is not None:
            raise self.failed
        for lane in self.lanes.values():
            due = (
                everything
                or lane.raw_bytes >= self._limits.batch_raw_bytes
                or self._clock() - lane.opened_ns >= self._limits.flush_age_ns
            )
            if due and not lane.empty:
                await self._send(lane)

    async def _send(self, lane: Lane) -> None:
        empty = Batch(
            cluster=self._cluster,
            node=self._node,
            run=self._run,
            partition=lane.partition,
            sequence=0,
            oldest_unacked=0,
            created_ns=self._clock(),
            files=lane.files,
            inventory=lane.inventory,
        )
        batch = _filled(empty, [*lane.ranges, *lane.entries])
        lane.files, lane.ranges, lane.entries, lane.inventory = {}, [], [], None
        lane.raw_bytes = lane.opened_ns = 0
        for numbered, data in self._encoded(lane, batch):
            lane.sent[numbered.sequence] = _sent(numbered, len(data))
            self.unacked_bytes += len(data)
            self.wire_bytes += len(data)
            self.batches += 1
            headers = wire.record_headers(numbered)
            future = await self._topic.append(lane.partition, data, headers)
            future.add_done_callback(partial(self._done, lane, numbered.sequence))

    def _encoded(self, lane: Lane, batch: Batch) -> Iterator[tuple[Batch, bytes]]:
        """Yield ``batch`` numbered and encoded, in as many pieces as its wire bytes ask for."""
        numbered = replace(batch, sequence=lane.next_sequence, oldest_unacked=lane.oldest_unacked)
        data = wire.encode(numbered, self._compressor)
        if len(data) > self._limits.batch_wire_bytes and (halves := _halves(batch)):
            for half in halves:
                yield from self._encoded(lane, half)
            return
        lane.next_sequence += 1
        yield numbered, data

    def _done(self, lane: Lane, sequence: int, future: "asyncio.Future[int]") -> None:
        self._room.set()
        if future.cancelled():
            return
        if (error := future.exception()) is not None:
            self.failed = self.failed or error
            return
        lane.acked.add(sequence)
        while lane.oldest_unacked in lane.acked:
            lane.acked.remove(lane.oldest_unacked)
            sent = lane.sent.pop(lane.oldest_unacked)
            lane.oldest_unacked += 1
            self.unacked_bytes -= sent.wire_bytes
            self._acknowledged(sent)

    def oldest_unacked_ns(self) -> int:
        """Return when the oldest batch that is on its way was made; 0 if there is none."""
        sent = (each.created_ns for lane in self.lanes.values() for each in lane.sent.values())
        return min(sent, default=0)

    async def drain(self, grace_s: float) -> bool:
        """Send everything and wait for the topic; return whether it has taken it all."""
        try:
            async with asyncio.timeout(grace_s):
                if self.failed is None:
                    await self.flush(everything=True)
                while self.unacked_bytes and self.failed is None:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            return False
        return self.failed is None


def _entries(batch: Batch) -> tuple[Entry, ...]:
    return (*batch.opens, *batch.seals, *batch.gaps, *batch.elided, *batch.gone)


def _sent(batch: Batch, wire_bytes: int) -> Sent:
    ends = tuple((r.file_id, r.epoch, r.end) for r in batch.ranges)
    return Sent(ends, _entries(batch), wire_bytes, batch.created_ns)


def _halves(batch: Batch) -> Sequence[Batch]:
    """Return two smaller batches with the same content, or nothing if it cannot be cut."""
    content = [*batch.opens, *batch.ranges, *_entries(batch)[len(batch.opens) :]]
    alone = replace(batch, inventory=None)
    if batch.inventory is not None:
        return (_filled(alone, content), _filled(batch, [])) if content else ()
    if len(content) > 1:
        middle = len(content) // 2
        return _filled(alone, content[:middle]), _filled(alone, content[middle:])
    if len(batch.ranges) == 1 and len(batch.ranges[0].data) > 1:
        left, right = split(batch.ranges[0])
        return _filled(alone, [left]), _filled(alone, [right])
    return ()


def _filled(batch: Batch, content: Sequence[Range | Entry]) -> Batch:
    """Return the batch with this content instead, and the headers of only its files."""
    by_place: dict[str, list[Any]] = {place: [] for place in ("ranges", *_PLACES.values())}
    for each in content:
        by_place[_PLACES.get(type(each), "ranges")].append(each)
    named = {each.file_id for each in content}
    if batch.inventory is not None:
        named.update(seen.file_id for seen in batch.inventory.files)
    files = {i: stream for i, stream in batch.files.items() if i in named}
    values: dict[str, Any] = {place: tuple(each) for place, each in by_place.items()}
    return replace(batch, files=files, **values)
