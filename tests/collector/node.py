"""A node for tests: real files in the kubelet's layout, a real local topic, a clock set by hand.

Files and time go in; what the topic holds comes out, checked on the way: lanes without holes,
ranges whose checksums fit the bytes that were written.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import prometheus_client
import zstandard

from collector.checksum import crc32
from collector.collect import Collector
from collector.files.checkpoint import LaneState, load
from collector.metrics import CollectorMetrics
from collector.settings import CollectorSettings
from collector.topic.interface import Headers, Topic
from collector.topic.local import LocalTopic
from collector.wire.batch import Batch, Gap, Seal, decode
from collector.wire.range import Range

SECOND = 1_000_000_000
BEGIN_NS = 1_700_000_000 * SECOND
FileKey = tuple[bytes, int]


def line(number: int, output: str = "stdout", tag: str = "F", text: str = "") -> bytes:
    """One CRI line; its number makes it differ from all others."""
    head = f"2024-03-01T00:00:{number % 60:02}.{number:09}Z {output} {tag} "
    return f"{head}{text or f'message {number}'}\n".encode()


def lines(first: int, count: int) -> bytes:
    """Lines ``[first, first + count)``."""
    return b"".join(line(number) for number in range(first, first + count))


class HeldTopic:
    """A local topic whose acknowledgements can be held back, as when a broker does not answer."""

    dense = True

    def __init__(self, folder: Path) -> None:
        self._topic = LocalTopic(folder, partitions=2)
        self.holds = True
        self.waiting: list[tuple[int, bytes, Headers, asyncio.Future[int]]] = []
        self.identity = self._topic.identity
        self.partitions = self._topic.partitions
        self.bounds = self._topic.bounds
        self.read = self._topic.read
        self.forget = self._topic.forget
        self.join = self._topic.join
        self.limits = self._topic.limits
        self.trouble = ""
        self.close = self._topic.close

    async def append(self, partition: int, value: bytes, headers: Headers) -> asyncio.Future[int]:
        if not self.holds:
            return await self._topic.append(partition, value, headers)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.waiting.append((partition, value, headers, future))
        return future

    async def release(self) -> None:
        """Take all that waits, and from now on everything at once."""
        while self.waiting:
            partition, value, headers, future = self.waiting.pop(0)
            future.set_result(await (await self._topic.append(partition, value, headers)))
        self.holds = False


class Node:
    """Files, a topic and at most one collector at a time."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.root = folder / "pods"
        self.root.mkdir()
        self.state = folder / "state"
        self.state.mkdir()
        self.topic_folder = folder / "topic"
        values: dict[str, Any] = {
            "roots": str(self.root),
            "state": str(self.state),
            "partitions": 2,
        }
        self.settings = CollectorSettings(**(values | settings))
        self.now = BEGIN_NS
        self.runs = 0
        self.open_topic: Callable[[], Topic] = lambda: LocalTopic(self.topic_folder, partitions=2)
        self.topic: Topic | None = None
        self.collector: Collector

    # -- files

    def file(self, restart: int = 0, pod: str = "api-0", rotated: str = "") -> Path:
        """A log file's path; its directory is made."""
        folder = self.root / f"payments_{pod}_uid-{pod}" / "api"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / (f"{restart}.log" + (f".{rotated}" if rotated else ""))

    def write(self, path: Path, data: bytes) -> bytes:
        """Append as the runtime does."""
        with path.open("ab") as file:
            file.write(data)
        return data

    # -- time

    async def start(self) -> None:
        """Start a run; its number is its name."""
        self.runs += 1
        self.topic = self.open_topic()
        registry = prometheus_client.CollectorRegistry()
        metrics = CollectorMetrics(registry)
        try:
            self.collector = await Collector.started(
                self.settings,
                self.topic,
                metrics,
                run=self.runs.to_bytes(16, "big"),
                clock=lambda: self.now,
            )
        except BaseException:
            await self.close_topic()
            raise

    async def turn(self, *, acknowledged: bool = True) -> None:
        """Do all that is due now; wait until the topic has it."""
        while await self.collector.turn():
            pass
        async with asyncio.timeout(20):
            while acknowledged and self.collector.shipper.unacked_bytes:
                await asyncio.sleep(0.001)
                await self.collector.turn()

    async def pass_time(self, seconds: float = 3, *, acknowledged: bool = True) -> None:
        """Let time pass, a second at most at once."""
        while seconds > 0:
            self.now += int(min(seconds, 1) * SECOND)
            seconds -= 1
            await self.turn(acknowledged=acknowledged)

    async def crash(self) -> None:
        """End the run as a kill does: nothing more is sent or remembered."""
        self.collector.watch.close()
        await self.close_topic()

    async def stop(self) -> None:
        """End the run in order."""
        assert await self.collector.stop()
        await self.close_topic()

    async def close_topic(self) -> None:
        if self.topic is not None:
            await self.topic.close()
        self.topic = None

    def collector_lanes(self) -> list[LaneState]:
        """What the checkpoint says of the lanes of the last run."""
        known = load(self.state)
        assert known is not None
        return known.lanes

    # -- what came out

    async def batches(self, *, whole_lanes: bool = True) -> list[Batch]:
        """All batches of all partitions, lanes checked."""
        topic = LocalTopic(self.topic_folder, partitions=0)
        decompressor = zstandard.ZstdDecompressor()
        found = []
        for partition in range(await topic.partitions()):
            position, end = await topic.bounds(partition)
            while position < end:
                records = (await topic.read({partition: position}, 1 << 24, 0))[partition]
                batches = [decode(record.value, decompressor) for record in records]
                assert {batch.partition for batch in batches} == {partition}
                found += batches
                position = records[-1].position + 1
        await topic.close()
        if whole_lanes:
            check_lanes(found)
        return found


def check_lanes(batches: Iterable[Batch]) -> None:
    """Each lane's numbers follow each other from 0; the oldest unacknowledged never goes back."""
    lanes = defaultdict(list)
    for batch in batches:
        lanes[batch.run, batch.partition].append(batch)
    for lane in lanes.values():
        whole = [batch for batch in lane if batch.part == batch.parts - 1]
        assert [batch.sequence for batch in whole] == list(range(len(whole)))
        oldest = [batch.oldest_unacked for batch in lane]
        assert oldest == sorted(oldest)
        assert all(batch.oldest_unacked <= batch.sequence for batch in lane)


def ranges_of(batches: Iterable[Batch]) -> dict[FileKey, list[Range]]:
    """All ranges by file, in the order in which they were sent."""
    found = defaultdict(list)
    for batch in batches:
        for each in batch.ranges:
            assert each.file_id in batch.files
            assert each.lines == each.data.count(b"\n")
            found[each.file_id, each.epoch].append(each)
    return dict(found)


def content_of(batches: Iterable[Batch]) -> dict[FileKey, bytes]:
    """What the ranges of each file are together; they may overlap but leave no hole."""
    found = {}
    for key, ranges in ranges_of(batches).items():
        content = b""
        for each in sorted(ranges, key=lambda each: (each.start, each.end)):
            assert each.start <= len(content), f"a hole at {len(content)}"
            assert crc32(content[: each.start]) == each.crc_before
            overlap = content[each.start : each.end]
            assert each.data[: len(overlap)] == overlap
            content += each.data[len(overlap) :]
        found[key] = content
    return found


def seals_of(batches: Iterable[Batch]) -> dict[FileKey, Seal]:
    """The last SEAL of each file."""
    return {(seal.file_id, seal.epoch): seal for batch in batches for seal in batch.seals}


def gaps_of(batches: Iterable[Batch]) -> list[Gap]:
    """All GAP entries."""
    return [gap for batch in batches for gap in batch.gaps]


def open_files() -> int:
    """How many files this process holds open."""
    return len(os.listdir("/proc/self/fd"))
