"""The spool: what it holds survives an outage, a crash and the files themselves."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.errors import BatchTooLarge
from collector.ship.spool import Spool
from collector.topic.interface import Headers
from collector.topic.local import LocalTopic
from collector.wire.batch import Batch
from tests.collector.node import (
    HeldTopic,
    Node,
    content_of,
    gaps_of,
    line,
    lines,
    ranges_of,
    seals_of,
)

Make = Callable[..., Node]
HEADERS: Headers = (("run", b"r" * 16), ("sequence", b"\0" * 8))


def held(node: Node) -> HeldTopic:
    """From now on the topic takes nothing."""
    topic = HeldTopic(node.topic_folder)
    node.open_topic = lambda: topic
    return topic


def noise(first: int, count: int) -> bytes:
    """Lines that zstd cannot shrink by much."""
    return b"".join(line(first + i, text=os.urandom(500).hex()) for i in range(count))


def in_spool(node: Node) -> list[Path]:
    return sorted((node.state / "spool").glob("*.log"))


# -- the files


def test_what_is_put_comes_back_in_order_after_a_crash(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    values = [bytes([i]) * i for i in range(1, 8)]
    assert [spool.put(value, HEADERS) for value in values] == list(range(7))
    spool.forget([0, 3])
    again = Spool(tmp_path / "spool")
    found, lost = again.recover([(1, 2), (4, 6)])
    assert [record.position for record in found] == [1, 2, 4, 5, 6]
    assert lost == 0
    assert [(record := again.get(i)) and record.value for i in (1, 2, 4)] == [
        values[1], values[2], values[4],
    ]  # fmt: skip
    assert again.bytes == spool.bytes == sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert again.put(b"next", HEADERS) == 7


def test_a_batch_torn_at_any_byte_is_lost_alone_and_said_so(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for i in range(3):
        spool.put(bytes([i]) * 9, HEADERS)
    path = sorted((tmp_path / "spool").glob("*.log"))[1]
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        found, lost = Spool(tmp_path / "spool").recover([(0, 2)])
        assert [record.position for record in found] == [0, 2]
        assert lost == 1
        assert not path.exists()


def test_positions_are_not_used_again_when_all_batches_are_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.put(b"a", HEADERS)
    spool.forget([0])
    again = Spool(tmp_path / "spool")
    assert again.recover([(0, 0)]) == ([], 1)
    assert again.put(b"b", HEADERS) == 1


# -- outages


async def test_lines_read_in_an_outage_outlive_their_files_and_the_process(make: Make) -> None:
    node = make(flush_age_ms=100)
    topic = held(node)
    data = node.write(node.file(), lines(0, 50))
    await node.start()
    await node.pass_time(10, acknowledged=False)
    data += node.write(node.file(), lines(50, 50))
    await node.pass_time(3, acknowledged=False)
    assert in_spool(node)
    node.file().unlink()
    await node.pass_time(30, acknowledged=False)
    assert not node.collector.watch.tails, "what is in the spool needs no open file"
    await node.crash()
    topic = held(node)
    await node.start()
    await node.pass_time(5, acknowledged=False)
    await topic.release()
    await node.pass_time(30)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [data]
    assert gaps_of(batches) == []
    (seal,) = seals_of(batches).values()
    assert seal.size == len(data)
    assert seal.lines == 100
    await node.pass_time(2)
    assert in_spool(node) == []
    assert node.collector.shipper.unacked_bytes == 0


async def test_a_run_that_follows_an_outage_goes_on_where_the_spool_ends(make: Make) -> None:
    node = make(flush_age_ms=100)
    held(node)
    data = node.write(node.file(), lines(0, 50))
    await node.start()
    await node.pass_time(10, acknowledged=False)
    await node.crash()
    topic = held(node)
    data += node.write(node.file(), lines(50, 50))
    await node.start()
    await topic.release()
    await node.pass_time(10)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [data]
    (ranges,) = ranges_of(batches).values()
    assert sum(len(each.data) for each in ranges) == len(data), "nothing is sent twice"
    assert {batch.run for batch in batches} == {bytes(15) + b"\1", bytes(15) + b"\2"}


async def test_the_first_inventory_names_the_numbers_that_are_still_in_the_spool(
    make: Make,
) -> None:
    node = make(flush_age_ms=100, partitions=1)
    held(node)
    node.write(node.file(), lines(0, 5))
    await node.start()
    for i in range(10):
        node.write(node.file(), lines(10 * (i + 1), 5))
        await node.pass_time(1, acknowledged=False)
    numbers = list(node.collector.shipper.lanes[0].pending)
    await node.crash()
    topic = held(node)
    await node.start()
    await topic.release()
    await node.pass_time(10)
    batches = await node.batches()
    (replaces,) = {
        batch.inventory.replaces
        for batch in batches
        if batch.inventory and batch.inventory.replaces and batch.run[-1] == 2
    }
    assert replaces.run[-1] == 1
    assert set(replaces.spooled) <= set(numbers)
    assert {b.sequence for b in batches if b.run[-1] == 1} == set(replaces.spooled)


async def test_a_spool_that_was_lost_costs_duplicates_not_lines(make: Make) -> None:
    node = make(flush_age_ms=100)
    held(node)
    data = node.write(node.file(), lines(0, 50))
    await node.start()
    await node.pass_time(10, acknowledged=False)
    await node.crash()
    for path in in_spool(node):
        path.unlink()
    topic = held(node)
    await node.start()
    await topic.release()
    await node.pass_time(10)
    assert list(content_of(await node.batches()).values()) == [data]


async def test_a_damaged_batch_of_the_spool_is_read_again_from_its_file(make: Make) -> None:
    node = make(flush_age_ms=100)
    held(node)
    data = node.write(node.file(), lines(0, 50))
    await node.start()
    await node.pass_time(10, acknowledged=False)
    data += node.write(node.file(), lines(50, 50))
    await node.pass_time(5, acknowledged=False)
    await node.crash()
    path = in_spool(node)[0]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    topic = held(node)
    await node.start()
    await topic.release()
    await node.pass_time(10)
    assert list(content_of(await node.batches(whole_lanes=False)).values()) == [data]


async def test_a_stop_in_an_outage_leaves_everything_in_the_spool(make: Make) -> None:
    node = make(flush_age_ms=100, drain_ms=200)
    held(node)
    data = node.write(node.file(), lines(0, 50))
    await node.start()
    await node.pass_time(1, acknowledged=False)
    assert not await node.collector.stop()
    await node.close_topic()
    node.file().unlink()
    topic = held(node)
    await node.start()
    await topic.release()
    await node.pass_time(5)
    assert list(content_of(await node.batches()).values()) == [data]


# -- a full spool


SMALL = {
    "flush_age_ms": 100, "spool_bytes": 1 << 20, "held_bytes": 1 << 20, "seal_quiet_ms": 2000,
    "batch_raw_bytes": 65_536, "read_bytes": 65_536, "unacked_bytes": 1 << 20, "partitions": 1,
}  # fmt: skip

Writer = tuple[str, int]  # pod and restart


def lost_bytes(batches: list[Batch], written: dict[Writer, bytes]) -> dict[str, int]:
    """Bytes in GAPs by pod; every byte that was written is either there or in one of them."""
    streams = {file: stream for batch in batches for file, stream in batch.files.items()}
    ranges, found = ranges_of(batches), {pod: 0 for pod, _ in written}
    assert sorted((s.pod, s.restart) for s in streams.values()) == sorted(written)
    for file, stream in streams.items():
        data = written[stream.pod, stream.restart]
        state = bytearray(len(data))
        for each in ranges.get((file, 0), []):
            assert each.data == data[each.start : each.end]
            state[each.start : each.end] = b"+" * len(each.data)
        for gap in gaps_of(batches):
            if gap.file_id == file:
                assert gap.end_exact or gap.end == len(data)
                assert b"+" not in state[gap.start : gap.end], "a gap names what was shipped"
                state[gap.start : gap.end] = b"-" * (gap.end - gap.start)
        assert 0 not in state, "a byte is neither shipped nor in a gap"
        found[stream.pod] += state.count(b"-")
    return found


async def test_the_largest_pod_gives_way_and_every_lost_byte_is_in_a_gap(make: Make) -> None:
    node = make(**SMALL)
    topic = held(node)
    quiet = node.file(pod="quiet")
    written: dict[Writer, bytes] = {("quiet", 0): b""}
    await node.start()
    for i in range(40):
        noisy = node.file(i, pod="noisy")
        written["noisy", i] = node.write(noisy, noise(i * 1000, 300))
        written["quiet", 0] += node.write(quiet, lines(100_000 + i * 10, 10))
        await node.pass_time(1, acknowledged=False)
        noisy.unlink()
        assert node.collector.backlog.spool.bytes <= 1 << 20
        assert node.collector.status()["held_bytes"] < 2 << 20
    quiet.unlink()
    await node.pass_time(10, acknowledged=False)
    await topic.release()
    await node.pass_time(20)
    lost = lost_bytes(await node.batches(), written)
    assert lost["quiet"] == 0
    assert 0 < lost["noisy"] == node.collector.shed_bytes


async def test_a_gap_of_a_deleted_file_lasts_as_long_as_its_writer_may_go_on(make: Make) -> None:
    node = make(**SMALL)
    topic = held(node)
    await node.start()
    path = node.file()
    node.write(path, noise(0, 20_000))
    with path.open("ab") as writer:
        await node.pass_time(1, acknowledged=False)
        path.unlink()
        while not node.collector.shed_bytes:
            await node.pass_time(1, acknowledged=False)
        await node.pass_time(1, acknowledged=False)
        written_ns = node.now
        writer.write(lines(0, 10))
    await topic.release()
    await node.pass_time(10)
    [gap] = [gap for gap in gaps_of(await node.batches()) if gap.reason.startswith("deleted")]
    assert not gap.end_exact
    assert gap.to_ns is not None
    assert gap.to_ns >= written_ns


# -- a topic that takes less


class SmallTopic(LocalTopic):
    """A local topic that refuses what is larger than a limit, as a broker does."""

    limit = 20_000
    refused = 0

    async def append(self, partition: int, value: bytes, headers: Headers) -> Any:
        if len(value) > self.limit:
            self.refused += 1
            raise BatchTooLarge(len(value))
        return await super().append(partition, value, headers)


async def test_a_batch_that_is_too_large_arrives_in_parts_under_its_number(make: Make) -> None:
    node = make(partitions=1)
    topic = SmallTopic(node.topic_folder, partitions=1)
    node.open_topic = lambda: topic
    data = node.write(node.file(), noise(0, 200))
    await node.start()
    await node.pass_time(5)
    assert topic.refused
    found = LocalTopic(node.topic_folder, partitions=0)
    batches = await node.batches()
    await found.close()
    assert list(content_of(batches).values()) == [data]
    parts = [(b.sequence, b.part, b.parts) for b in batches if b.parts > 1]
    assert parts
    for number in {number for number, *_ in parts}:
        of = max(of for n, _, of in parts if n == number)  # of the last, the smallest
        assert [p for n, p, each in parts if (n, each) == (number, of)] == list(range(of))


@pytest.mark.parametrize("seconds", [7])
async def test_nothing_is_spooled_while_the_topic_keeps_up(make: Make, seconds: int) -> None:
    node = make()
    node.write(node.file(), lines(0, 50))
    await node.start()
    await node.pass_time(seconds)
    assert not (node.state / "spool").exists()


def test_files_of_others_in_the_spool_are_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put(b"a", ())
    foreign = [tmp_path / name for name in ("notes.txt", "7.txt", "7.log", "x.log", "x.tmp", "٣")]
    for path in foreign:
        path.write_bytes(b"mine")
    (torn := tmp_path / "00000000000000000009.log.tmp").write_bytes(b"torn")
    found, lost = Spool(tmp_path).recover([(0, 0)])
    assert ([record.position for record in found], lost) == ([0], 0)
    assert [path.read_bytes() for path in foreign] == [b"mine"] * len(foreign)
    assert not torn.exists()
