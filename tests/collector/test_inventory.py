"""What a node says of itself: inventories, lanes, acknowledgements, limits and what is gone."""

import asyncio
import os
import random
from collections.abc import Callable
from itertools import pairwise
from typing import get_args, get_type_hints

import msgspec
import pytest

from collector.checksum import crc32
from collector.errors import TopicError
from collector.files.placement import Placement
from collector.settings import CollectorSettings
from collector.ship.pack import halves
from collector.wire.batch import RAW_BYTES_MAX, Batch, Inventory, Seen, Unborn
from collector.wire.range import Stream
from tests.collector.node import (
    SECOND,
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


def inventories(batches: list[Batch], run: int, partition: int | None = None) -> list[Inventory]:
    return [
        batch.inventory
        for batch in batches
        if batch.inventory is not None
        and batch.run == run.to_bytes(16, "big")
        and partition in (None, batch.partition)
    ]


async def test_the_first_inventory_lists_all_and_names_the_run_it_replaces(make: Make) -> None:
    node = make()
    for i in range(6):
        node.write(node.file(pod=f"api-{i}"), lines(i * 10, 5))
    await node.start()
    await node.pass_time(4)
    await node.crash()
    acked = {lane.partition: lane.oldest_unacked for lane in node.collector_lanes()}
    await node.start()
    began = node.now
    await node.pass_time(2)
    batches = await node.batches()
    assert {inventory.replaces for inventory in inventories(batches, 1)} == {None}
    seen: list[Seen] = []
    for partition in (0, 1):
        (first,) = inventories(batches, 2, partition)
        assert first.full
        assert first.partitions == (0, 1)
        assert first.unchanged == 0
        assert began <= first.scan_began_ns <= node.now
        assert first.replaces is not None
        assert first.replaces.run == (1).to_bytes(16, "big")
        assert first.replaces.oldest_unacked == acked[partition]
        seen += first.files
    assert {(s.size, s.read, s.acked) for s in seen} == {(len(lines(0, 5)),) * 3} or len(seen) == 6
    assert len({s.file_id for s in seen}) == 6


async def test_inventories_come_every_ten_seconds_with_what_changed(make: Make) -> None:
    node = make(inventory_full_interval_ms=60_000)
    paths = [node.file(pod=f"api-{i}") for i in range(4)]
    for i, path in enumerate(paths):
        node.write(path, lines(i * 10, 5))
    await node.start()
    await node.pass_time(25)
    node.write(paths[0], lines(90, 1))
    await node.pass_time(20)
    batches = await node.batches()
    both = [inventories(batches, 1, p) for p in (0, 1)]
    for found in both:
        assert [i.full for i in found] == [True] + [False] * 4
        times = [i.scan_began_ns for i in found]
        assert all(10 * SECOND <= b - a <= 12 * SECOND for a, b in pairwise(times))
        assert {len(i.files) + i.unchanged for i in found} == {len(found[0].files)}
    assert [sum(len(i.files) for i in pair) for pair in zip(*both, strict=True)] == [4, 4, 0, 1, 0]
    await node.pass_time(30)
    assert [i.full for i in inventories(await node.batches(), 1, 0)][5:7] == [False, True]


async def test_a_file_without_a_line_is_listed_by_stream_and_size(make: Make) -> None:
    node = make()
    node.write(node.file(2), b"2024-03-01T00:00:00Z std")
    node.file(1).touch()
    await node.start()
    await node.pass_time(2)
    stream = Stream("payments", "api-0", "uid-api-0", "api", 2)
    batches = await node.batches()
    assert [i.unborn for i in inventories(batches, 1) if i.unborn] == [(Unborn(stream, 24),)]
    assert not content_of(batches)


async def test_an_empty_file_stays_without_a_word_until_it_has_one(make: Make) -> None:
    node = make()
    node.file().touch()
    await node.start()
    await node.pass_time(12)
    assert not any(b.opens or b.ranges or b.seals for b in await node.batches())
    node.write(node.file(), line(0))
    await node.pass_time(3)
    assert list(content_of(await node.batches()).values()) == [line(0)]


async def test_acknowledgements_out_of_order_wait_for_the_oldest(make: Make) -> None:
    node = make(partitions=1, flush_age_ms=10, spool_after_ms=60_000)
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    path = node.file()
    node.write(path, lines(0, 1))
    await node.start()
    for i in range(1, 6):
        await node.pass_time(1, acknowledged=False)
        node.write(path, lines(i, 1))
    await node.pass_time(2, acknowledged=False)
    (tail,) = node.collector.watch.tails.values()
    lane = node.collector.shipper.lanes[0]
    futures = [future for *_, future in held.waiting]
    order = list(range(len(futures)))
    random.Random(3).shuffle(order)
    done: set[int] = set()
    for number in order:
        futures[number].set_result(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done.add(number)
        oldest = next((i for i in range(len(futures) + 1) if i not in done), 0)
        assert lane.oldest_unacked == oldest
        assert lane.pending.keys() == set(range(oldest, len(futures)))
        assert tail.acked_mark.offset <= tail.read_mark.offset
        if 0 not in done:
            assert tail.acked_mark.offset == 0
    assert tail.acked_mark.offset == len(lines(0, 6))
    assert tail.acked_mark.crc == crc32(lines(0, 6))
    assert node.collector.shipper.unacked_bytes == 0
    held.waiting.clear()


async def test_batches_too_large_are_cut_and_every_byte_arrives(make: Make) -> None:
    node = make(batch_wire_bytes=65_536)
    content = b""
    for i in range(40):
        content += line(i, text=os.urandom(20_000).hex())
    long = line(99, text=os.urandom(300_000).hex())
    node.write(node.file(), content + long)
    node.write(node.file(pod="api-1"), lines(100, 50))
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([content + long, lines(100, 50)])
    assert len(batches) > 15
    assert all(sum(len(r.data) for r in batch.ranges) < 160_000 for batch in batches)
    assert sum(len(batch.opens) for batch in batches) == 2
    for ranges in ranges_of(batches).values():
        for before, after in pairwise(ranges):
            assert after.torn_before == (not before.data.endswith(b"\n"))


async def test_headers_of_many_files_do_not_make_batches_uncuttable(make: Make) -> None:
    node = make(batch_wire_bytes=65_536, partitions=1)
    random_ = random.Random(5)
    for i in range(700):
        pod = "".join(random_.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=60))
        node.write(node.file(pod=f"{pod}-{i}"), line(i))
    await node.start()
    await node.pass_time(2)
    batches = await node.batches()
    assert len(content_of(batches)) == 700
    assert len(batches) < 30


async def test_a_topic_that_never_answers_bounds_memory_but_stops_no_scan(make: Make) -> None:
    limits = {"unacked_bytes": 1 << 20, "read_bytes": 65_536, "batch_raw_bytes": 65_536}
    node = make(flush_age_ms=100, spool_bytes=1 << 20, **limits)
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    noise = (line(i, text=os.urandom(500).hex()) for i in range(6000))
    first = node.write(node.file(), b"".join(noise))
    await node.start()
    async with asyncio.timeout(20):
        await node.pass_time(3, acknowledged=False)
    shipper = node.collector.shipper
    assert 1 << 20 <= shipper.unacked_bytes < (1 << 20) + 200_000
    assert not shipper.has_room
    # Born and gone while the topic is away: nothing but the open descriptor keeps it.
    node.file().rename(node.file(rotated="1"))
    second = node.write(node.file(), lines(500, 20))
    await node.pass_time(1, acknowledged=False)
    node.file().unlink()
    node.file(rotated="1").unlink()
    await node.pass_time(3, acknowledged=False)
    before = len(held.waiting)
    await node.pass_time(20, acknowledged=False)
    assert len(held.waiting) - before < 5
    assert node.collector.backlog.spool.bytes <= 1 << 20
    assert shipper.unacked_bytes < 3 << 20
    assert node.collector.status()["oldest_unacked_seconds"] > 20
    await held.release()
    await node.pass_time(40)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    assert not [gap for gap in gaps_of(batches) if gap.reason != "a scan came late"]
    assert [i.replaces for i in inventories(batches, 1)]


async def test_what_the_topic_refuses_is_said_and_sent_again(make: Make) -> None:
    node = make()
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    node.write(node.file(), lines(0, 5))
    await node.start()
    await node.pass_time(2, acknowledged=False)
    refused = held.waiting.pop(0)
    refused[3].set_exception(TopicError("the topic is not there; create it"))
    await asyncio.sleep(0)
    status = node.collector.status()
    assert status["trouble"] == "the topic is not there; create it"
    assert status["healthy"]
    await held.release()
    await node.pass_time(3, acknowledged=False)
    await node.pass_time(1)
    assert list(content_of(await node.batches()).values()) == [lines(0, 5)]
    assert node.collector.status()["trouble"] == ""


async def test_gone_comes_after_an_hour_without_the_file_and_only_once(make: Make) -> None:
    node = make(seal_quiet_ms=1000, gone_after_ms=30_000, scan_interval_ms=1000)
    node.write(node.file(), lines(0, 5))
    node.write(node.file(pod="stays-0"), lines(50, 5))
    await node.start()
    await node.pass_time(3)
    node.file().unlink()
    await node.pass_time(28)
    assert not [g for b in await node.batches() for g in b.gone]
    await node.crash()
    await node.start()
    await node.pass_time(20)
    batches = await node.batches()
    (gone,) = [g for b in batches for g in b.gone]
    assert (gone.file_id, gone.epoch) in seals_of(batches)
    assert node.collector.watch.files.closed == {}
    await node.pass_time(40)
    assert len([g for b in await node.batches() for g in b.gone]) == 1


async def test_a_late_scan_is_a_gap_of_the_streams_whose_file_went_meanwhile(make: Make) -> None:
    node = make(scan_late_ms=10_000)
    node.write(node.file(), lines(0, 5))
    node.write(node.file(pod="calm-0"), lines(50, 5))
    await node.start()
    await node.pass_time(3)
    before = node.now
    node.file().unlink()
    node.write(node.file(), lines(20, 5))
    node.now += 30 * SECOND
    await node.pass_time(3)
    batches = await node.batches()
    (gap,) = gaps_of(batches)
    assert (gap.start, gap.end, gap.end_exact) == (len(lines(0, 5)), len(lines(0, 5)), False)
    assert gap.from_ns == before
    assert gap.to_ns == before + 31 * SECOND
    assert len(content_of(batches)) == 3


async def test_a_file_keeps_its_partition_when_their_number_changes(make: Make) -> None:
    node = make(partitions=1)
    for i in range(8):
        node.write(node.file(pod=f"api-{i}"), lines(i * 10, 5))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    more = {"later_partitions": "2@2024-02-01T00:00:00Z"}  # before the time in the lines
    node.settings = msgspec.structs.replace(node.settings, **more)
    await node.start()
    for i in range(8):
        node.write(node.file(pod=f"api-{i}"), lines(i * 10 + 5, 1))
        node.write(node.file(1, pod=f"api-{i}"), lines(500 + i, 1))
    await node.pass_time(3)
    batches = await node.batches()
    partitions: dict[bytes, set[int]] = {}
    for batch in batches:
        for each in batch.ranges:
            partitions.setdefault(each.file_id, set()).add(batch.partition)
    assert {len(found) for found in partitions.values()} == {1}
    assert len(partitions) == 16
    assert {p for found in partitions.values() for p in found} == {0, 1}


@pytest.mark.parametrize(("partitions", "spread"), [(1, 1), (5, 3), (12, 4), (7, 7)])
def test_each_pod_goes_where_its_node_says_that_it_can(partitions: int, spread: int) -> None:
    for node in range(20):
        placement = Placement("c", f"node-{node}", ((0, partitions),), spread)
        used = {placement.of_file(f"uid-{i}", 0) for i in range(200)}
        assert used == set(placement.reachable())
        assert len(used) == spread


async def test_control_entries_of_an_idle_node_are_few(make: Make) -> None:
    node = make()
    for i in range(50):
        node.write(node.file(pod=f"api-{i}"), lines(i * 10, 5))
    await node.start()
    await node.pass_time(3)
    sent = node.collector.shipper.wire_bytes
    await node.pass_time(60)
    assert node.collector.shipper.batches < 20
    assert node.collector.shipper.wire_bytes - sent < 6_000


def test_no_batch_that_settings_allow_is_too_large_to_be_read() -> None:
    most = {
        name: bounds.le
        for name, hint in get_type_hints(CollectorSettings, include_extras=True).items()
        for bounds in get_args(hint)[1:]
        if name in {"batch_raw_bytes", "event_bytes", "read_bytes"}
    }
    assert most["batch_raw_bytes"] + max(most.values()) < RAW_BYTES_MAX


def test_a_range_of_one_byte_cannot_be_cut() -> None:
    assert halves(Batch("c", "n", b"r" * 16, 0, 0, 0, 0, {})) == ()
