"""A collector against real files and a real local topic, second by second."""

import asyncio
import contextlib
import errno
import os
import random
import resource
import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.checksum import crc32
from collector.files import checkpoint
from collector.inventory import UNSEEN_MAX
from collector.topic.local import LocalTopic
from collector.wire.batch import Unseen
from collector.wire.range import STDERR, STDOUT
from tests.collector.node import (
    SECOND,
    HeldTopic,
    Node,
    content_of,
    gaps_of,
    line,
    lines,
    open_files,
    ranges_of,
    seals_of,
)

Make = Callable[..., Node]


async def only_content(node: Node) -> bytes:
    (content,) = content_of(await node.batches()).values()
    return content


# -- rotation and deletion -----------------------------------------------------------------------


async def test_a_renamed_file_is_read_to_its_end(make: Make) -> None:
    node = make()
    path = node.file()
    first = node.write(path, lines(0, 50))
    await node.start()
    await node.pass_time()
    first += node.write(path, lines(50, 50))
    path.rename(node.file(rotated="20240301-000010"))
    second = node.write(path, lines(100, 10))
    await node.pass_time()
    late = node.file(rotated="20240301-000010")
    first += node.write(late, line(99, tag="P"))  # the runtime's old logger flushes late
    await node.pass_time(40)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    (seal,) = seals_of(batches).values()
    assert (seal.size, seal.lines, seal.crc) == (len(first), first.count(b"\n"), crc32(first))
    assert seal.why == "rotated"
    assert not gaps_of(batches)


async def test_three_rotations_between_two_scans_lose_no_file(make: Make) -> None:
    node = make()
    path, contents = node.file(), []
    contents.append(node.write(path, lines(0, 5)))
    await node.start()
    for i in range(3):
        path.rename(node.file(rotated=f"20240301-00001{i}"))
        contents.append(node.write(path, lines(10 * i + 10, 5)))
    await node.pass_time()
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(contents)
    opens = [entry for batch in batches for entry in batch.opens]
    assert [entry.previous for entry in opens[1:]] == [entry.file_id for entry in opens[:-1]]


async def test_rotated_files_are_read_at_the_first_start(make: Make) -> None:
    node = make()
    old = node.write(node.file(rotated="20240301-000001"), lines(0, 5))
    older = node.write(node.file(rotated="20240229-235959"), lines(10, 5))
    new = node.write(node.file(), lines(20, 5))
    node.write(node.file(rotated="20240228-000000.tmp"), lines(30, 5))
    await node.start()
    await node.pass_time()
    batches = await node.batches()
    assert list(content_of(batches).values()) == [older, old, new]


async def test_a_seal_waits_for_the_quiet_time_and_comes_again_after_growth(make: Make) -> None:
    node = make(seal_quiet_ms=20_000)
    path = node.file()
    node.write(path, lines(0, 5))
    await node.start()
    await node.pass_time()
    moved = node.file(rotated="20240301-000010")
    path.rename(moved)
    await node.pass_time(15)
    node.write(moved, lines(5, 1))
    await node.pass_time(18)
    assert not seals_of(await node.batches())
    await node.pass_time(6)
    (seal,) = seals_of(await node.batches()).values()
    assert seal.size == len(lines(0, 6))
    node.write(moved, lines(6, 2))
    await node.pass_time(30)
    batches = await node.batches()
    (seal,) = seals_of(batches).values()
    assert (seal.size, seal.crc) == (len(lines(0, 8)), crc32(lines(0, 8)))
    assert list(content_of(batches).values()) == [lines(0, 8)]
    assert not gaps_of(batches)


async def test_a_file_deleted_while_open_is_read_to_its_end(make: Make) -> None:
    node = make(read_bytes=4096)
    path = node.file()
    node.write(path, lines(0, 1))
    await node.start()
    writer = path.open("ab")
    path.unlink()
    writer.write(lines(1, 500))
    writer.flush()
    await node.pass_time(5)
    writer.write(lines(501, 5))
    writer.close()
    await node.pass_time(30)
    batches = await node.batches()
    assert await only_content(node) == lines(0, 506)
    (seal,) = seals_of(batches).values()
    assert (seal.why, seal.size) == ("deleted", len(lines(0, 506)))
    assert not gaps_of(batches)
    assert not node.collector.watch.tails


async def test_twenty_restarts_whose_files_go_at_once_are_all_read(make: Make) -> None:
    node = make()
    contents = []
    await node.start()
    for restart in range(20):
        contents.append(node.write(node.file(restart), lines(restart * 10, 3)))
        await node.pass_time(1)
        node.file(restart).unlink()
    await node.pass_time(3)
    assert sorted(content_of(await node.batches()).values()) == sorted(contents)


@pytest.mark.parametrize("inode_reused", [False, True])
async def test_an_inode_used_again_is_another_file(make: Make, inode_reused: bool) -> None:
    node = make(seal_quiet_ms=1000)
    node.write(node.file(0), lines(0, 5))
    await node.start()
    await node.pass_time(2)
    node.file(0).rename(node.file(0, rotated="1"))
    await node.pass_time(10)
    assert seals_of(await node.batches())
    if inode_reused:  # what ext4 does at once, made certain: the same inode, size and pod
        os.rename(node.file(0, rotated="1"), node.file(1))
        with node.file(1).open("r+b") as file:
            file.write(lines(5, 5))
    else:
        node.file(0, rotated="1").unlink()
        node.write(node.file(1), lines(5, 5))
    await node.pass_time(5)
    assert sorted(content_of(await node.batches()).values()) == [lines(0, 5), lines(5, 5)]


async def test_fds_are_given_back(make: Make) -> None:
    node = make(seal_quiet_ms=0)
    await node.start()
    await node.pass_time(2)
    before = open_files()
    for i in range(60):
        node.write(node.file(pod=f"job-{i}"), lines(i, 1))
        node.file(pod=f"empty-{i}").touch()
    await node.pass_time(2)
    assert open_files() == before + 120
    for i in range(60):
        node.file(pod=f"job-{i}").unlink()
        node.file(pod=f"empty-{i}").unlink()
    await node.pass_time(6)
    assert open_files() == before
    assert len(seals_of(await node.batches())) == 60


# -- truncation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 40, 20], ids=["shorter", "longer", "as long"])
@pytest.mark.parametrize("acked", [True, False], ids=["acked", "on its way"])
async def test_a_truncated_file_is_a_gap_and_a_new_file(
    make: Make, count: int, acked: bool
) -> None:
    node = make(seal_quiet_ms=2000)
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    path = node.file()
    old = node.write(path, lines(100, 20))
    await node.start()
    if acked:
        await held.release()
    await node.pass_time(2, acknowledged=acked)
    path.write_bytes(lines(200, count))
    await node.pass_time(3, acknowledged=acked)
    await held.release()
    path.rename(node.file(rotated="1"))
    await node.pass_time(10)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([old, lines(200, count)])
    (gap,) = gaps_of(batches)
    assert (gap.start, gap.end, gap.end_exact) == (len(old), len(old), False)
    assert gap.reason == "truncated"


@pytest.mark.parametrize("acked", [True, False], ids=["acked", "on its way"])
async def test_a_new_content_with_the_same_first_line_is_a_new_epoch(
    make: Make, acked: bool
) -> None:
    node = make()
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    path = node.file()
    old = node.write(path, lines(0, 20))
    await node.start()
    if acked:
        await held.release()
    await node.pass_time(2, acknowledged=acked)
    path.write_bytes(new := lines(0, 1) + lines(30, 30))
    await node.pass_time(3, acknowledged=acked)
    await held.release()
    await node.pass_time(3)
    batches = await node.batches()
    contents = content_of(batches)
    ((name, _),) = {(key[0], 0) for key in contents}
    assert contents == {(name, 0): old, (name, 1): new}
    (gap,) = gaps_of(batches)
    assert (gap.epoch, gap.start, gap.end) == (0, len(old), len(old))


async def test_files_that_share_a_first_line_go_on_after_a_restart(make: Make) -> None:
    node = make()
    path = node.file()
    first = node.write(path, lines(0, 20))
    await node.start()
    await node.pass_time(2)
    path.rename(node.file(rotated="1"))
    second = node.write(path, lines(0, 1) + lines(30, 10))
    await node.pass_time(2)
    await node.crash()
    await node.start()
    second += node.write(path, lines(50, 2))
    await node.pass_time(3)
    batches = await node.batches()
    contents = content_of(batches)
    assert sorted((key[1], content) for key, content in contents.items()) == [
        (0, first),
        (1, second),
    ]
    assert not gaps_of(batches)


async def test_a_file_truncated_while_down_is_a_gap_and_a_new_epoch(make: Make) -> None:
    node = make()
    path = node.file()
    old = node.write(path, lines(0, 20))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    path.write_bytes(new := lines(0, 1) + lines(30, 40))
    await node.start()
    await node.pass_time(4)
    batches = await node.batches()
    assert sorted((key[1], c) for key, c in content_of(batches).items()) == [(0, old), (1, new)]
    (gap,) = gaps_of(batches)
    assert (gap.epoch, gap.start, gap.end, gap.end_exact) == (0, len(old), len(old), False)


# -- restarts ------------------------------------------------------------------------------------


async def test_a_file_deleted_while_down_is_a_gap_from_what_was_acknowledged(make: Make) -> None:
    node = make()
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    path = node.file()
    node.write(path, lines(0, 20))
    await node.start()
    await held.release()
    await node.pass_time(2)
    held.holds = True
    node.write(path, lines(20, 20))
    await node.pass_time(2, acknowledged=False)
    await node.crash()
    scanned_ns = node.now
    path.unlink()
    node.open_topic = lambda: LocalTopic(node.topic_folder, partitions=2)
    node.now += 60 * SECOND
    await node.start()
    await node.pass_time(3)
    (gap,) = gaps_of(await node.batches())
    assert (gap.start, gap.end, gap.end_exact) == (len(lines(0, 20)), len(lines(0, 40)), False)
    assert gap.from_ns is not None
    assert gap.to_ns is not None
    assert gap.from_ns <= scanned_ns < gap.to_ns <= node.now
    await node.pass_time(5)
    await node.crash()
    await node.start()
    await node.pass_time(5)
    assert len(gaps_of(await node.batches())) == 1


async def test_a_file_renamed_read_and_deleted_while_down_is_sealed(make: Make) -> None:
    node = make()
    path = node.file()
    node.write(path, lines(0, 20))
    await node.start()
    await node.pass_time(2)
    path.rename(node.file(rotated="1"))
    await node.pass_time(2)
    await node.crash()
    node.file(rotated="1").unlink()
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    (seal,) = seals_of(batches).values()
    assert (seal.size, seal.crc, seal.why) == (len(lines(0, 20)), crc32(lines(0, 20)), "deleted")
    assert not gaps_of(batches)


async def test_a_restart_goes_on_where_the_topic_had_acknowledged(make: Make) -> None:
    node = make(read_bytes=4096)
    path = node.file()
    content = node.write(path, lines(0, 300))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    path.rename(node.file(rotated="1"))
    content += node.write(node.file(rotated="1"), lines(300, 100))
    second = node.write(path, lines(500, 20))
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([content, second])
    assert sum(len(r.data) for rs in ranges_of(batches).values() for r in rs) == len(
        content + second
    )
    assert not gaps_of(batches)
    assert sum(len(batch.opens) for batch in batches) == 2


async def test_what_was_not_acknowledged_is_sent_again(make: Make) -> None:
    node = make()
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    path = node.file()
    content = node.write(path, lines(0, 30))
    await node.start()
    await node.pass_time(3, acknowledged=False)
    assert node.collector.status()["unacked_bytes"] == len(content)
    await node.crash()
    node.open_topic = lambda: LocalTopic(node.topic_folder, partitions=2)
    await node.start()
    await node.pass_time(3)
    assert await only_content(node) == content


async def test_a_lost_checkpoint_sends_all_again_under_the_same_names(make: Make) -> None:
    node = make()
    content = node.write(node.file(), lines(0, 30))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    for path in node.state.iterdir():
        path.unlink()
    await node.start()
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    assert sum(len(r.data) for r in ranges) == 2 * len(content)
    assert await only_content(node) == content


async def test_half_a_line_at_a_stop_is_not_lost(make: Make) -> None:
    node = make()
    path = node.file()
    whole = line(1)
    node.write(path, line(0) + whole[:20])
    await node.start()
    await node.pass_time(2)
    await node.stop()
    node.write(path, whole[20:])
    await node.start()
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    assert [each.data for each in ranges] == [line(0), whole]
    assert not any(each.torn_before for each in ranges)


async def test_a_file_that_has_rested_is_read_within_two_scans(make: Make) -> None:
    node = make()
    written = node.write(path := node.file(), lines(0, 3))
    await node.start()
    for _ in range(3):  # also when the scan before has left it out
        await node.pass_time(91)
        written += node.write(path, lines(len(written), 3))
        await node.pass_time(3)  # the last second is for the batch
        (tail,) = node.collector.watch.tails.values()
        assert tail.acked_mark.offset == len(written)
    await node.stop()


async def test_a_full_state_disk_is_said_and_reading_goes_on(make: Make) -> None:
    node = make()
    path = node.file()
    node.write(path, lines(0, 5))
    await node.start()
    (node.state / "checkpoint.tmp").mkdir()  # as good as a full disk: it cannot be written
    await node.pass_time(3)
    node.write(path, lines(5, 5))
    await node.pass_time(3)
    assert node.collector._metrics.checkpoint_failed._value.get() == 1
    (node.state / "checkpoint.tmp").rmdir()
    await node.pass_time(3)
    assert node.collector._metrics.checkpoint_failed._value.get() == 0
    assert await only_content(node) == lines(0, 10)


async def test_what_cannot_be_read_is_said_once_and_forgotten_in_time(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    node = make()
    await node.start()
    for number in range(3):  # crash loops bring such names for ever
        path = node.file(pod=f"job-{number}")
        path.symlink_to(__file__)
        await node.pass_time(20)
        shutil.rmtree(path.parent.parent)
        node.now += 7200 * SECOND if number == 1 else 0
        await node.pass_time(20)
    assert len([r for r in caplog.records if "is not followed" in r.message]) == 3
    assert len(node.collector._said) == 1
    await node.stop()


async def test_a_disk_that_is_slow_with_a_checkpoint_holds_up_no_other_answer(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make()
    node.write(node.file(), lines(0, 5))
    await node.start()
    answered = threading.Event()
    save = checkpoint.save

    def slow(directory: Path, state: checkpoint.Checkpoint) -> None:
        assert answered.wait(20)
        save(directory, state)

    monkeypatch.setattr(checkpoint, "save", slow)
    turning = asyncio.create_task(node.pass_time(3))
    async with asyncio.timeout(20):
        while node.collector.shipper.unacked_bytes or not node.collector._acked:
            await asyncio.sleep(0.001)
    for _ in range(5):
        await asyncio.sleep(0.01)
        assert node.collector.alive()["healthy"]
    assert not turning.done()
    answered.set()
    await turning
    (state,) = checkpoint.load(node.state).files  # type: ignore[union-attr]
    assert state.acked == len(lines(0, 5))


async def test_a_disk_that_refuses_the_first_checkpoint_stops_nothing(make: Make) -> None:
    node = make()
    node.write(node.file(), lines(0, 5))
    (node.state / "checkpoint.tmp").mkdir()
    await node.start()
    await node.pass_time(3)
    assert await only_content(node) == lines(0, 5)


# -- content -------------------------------------------------------------------------------------


async def test_events_are_never_split_unless_flagged(make: Make) -> None:
    node = make(read_bytes=4096)
    random_ = random.Random(7)
    data, number = b"", 0
    for _ in range(150):
        output = random_.choice(["stdout", "stderr"])
        for tag in [*["P"] * random_.choice([0, 0, 1, 5, 9]), "F"]:
            number += 1
            data += line(number, output, tag, "x" * random_.randrange(500))
    node.write(node.file(), data)
    await node.start()
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    assert len(ranges) > 10
    assert b"".join(each.data for each in ranges) == data
    assert not any(r.open_before or r.open_after or r.torn_before for r in ranges)


async def test_an_open_event_waits_five_seconds_and_is_flagged_then(make: Make) -> None:
    node = make()
    path = node.file()
    node.write(path, line(0) + line(1, tag="P"))
    await node.start()
    await node.pass_time(4.5)
    assert await only_content(node) == line(0)
    await node.pass_time(3)
    assert await only_content(node) == line(0) + line(1, tag="P")
    node.write(path, line(2, "stderr", "P") + line(3) + line(4, "stderr") + line(5))
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    flags = [(each.open_before, each.open_after) for each in ranges]
    assert flags == [(0, 0), (0, STDOUT), (STDOUT, 0)]


async def test_both_outputs_can_be_open(make: Make) -> None:
    node = make(event_wait_ms=0)
    node.write(node.file(), line(0, "stderr", "P") + line(1, "stdout", "P"))
    await node.start()
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    assert [(r.open_before, r.open_after) for r in ranges] == [(0, STDOUT | STDERR)]


async def test_an_event_longer_than_allowed_goes_in_flagged_parts(make: Make) -> None:
    node = make(read_bytes=4096, event_bytes=8192)
    data = b"".join(line(i, tag="P", text="y" * 1000) for i in range(20)) + line(21)
    node.write(node.file(), data + line(22))
    await node.start()
    await node.pass_time(2)
    (ranges,) = ranges_of(await node.batches()).values()
    assert b"".join(each.data for each in ranges) == data + line(22)
    assert ranges[0].open_after == STDOUT
    for before, after in pairwise(ranges):
        assert before.open_after == after.open_before
        assert before.data.endswith(b"\n")
    assert ranges[-1].open_after == 0


async def test_a_line_longer_than_allowed_goes_in_torn_parts(make: Make) -> None:
    node = make(read_bytes=4096, event_bytes=8192)
    data = line(0, text="z" * 30_000) + line(1)
    node.write(node.file(), data)
    await node.start()
    await node.pass_time(9)
    (ranges,) = ranges_of(await node.batches()).values()
    assert b"".join(each.data for each in ranges) == data
    assert [each.torn_before for each in ranges] == [
        False,
        *(not each.data.endswith(b"\n") for each in ranges[:-1]),
    ]
    assert ranges[1].torn_before


async def test_a_line_of_a_megabyte_is_one_range(make: Make) -> None:
    node = make()
    long = line(1, text=os.urandom(400_000).hex())
    node.write(node.file(), line(0) + long + line(2))
    await node.start()
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    assert b"".join(each.data for each in ranges) == line(0) + long + line(2)
    assert any(long in each.data for each in ranges)


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 4096 + line(0),
        line(0) + b"\0" * 4096 + b"\n" + line(1),
        line(0) + b"\0" * 70_000,
        line(0)[:-1] + b"\r\n" + line(1),
        b"\n\n\n",
        b"\n",
        b"x",
        b"x" * 255,
        b"x" * 256,
        b"x" * 257,
        b"\xff\xfe\n" + line(0, text="\u00e4")[:-2],
        b"no cri at all\nstdout P x\n",
    ],
)
async def test_bytes_of_any_kind_arrive_as_they_are(make: Make, data: bytes) -> None:
    node = make(seal_quiet_ms=1000)
    node.write(node.file(), data)
    await node.start()
    await node.pass_time(2)
    node.file().rename(node.file(rotated="1"))
    await node.pass_time(9)
    assert await only_content(node) == data
    (seal,) = seals_of(await node.batches()).values()
    assert (seal.size, seal.lines, seal.crc) == (len(data), data.count(b"\n"), crc32(data))


async def test_random_growth_and_rotation_covers_every_byte(make: Make) -> None:
    node = make(read_bytes=4096, batch_raw_bytes=8192, event_wait_ms=2000)
    random_ = random.Random(11)
    number = 0
    paths = [node.file(pod=pod) for pod in ("a-0", "b-0", "c-0")]
    await node.start()
    for step in range(60):
        for path in paths:
            for _ in range(random_.randrange(25)):
                number += 1
                tag = random_.choice("FFFP")
                part = line(number, random_.choice(["stdout", "stderr"]), tag, "q" * (number % 70))
                node.write(path, part[: random_.choice([None, None, None, 30])])
            if random_.random() < 0.1 and path.exists():
                path.rename(path.with_name(f"0.log.{step:03}"))
        if random_.random() < 0.15:
            await node.crash()
            await node.start()
        await node.pass_time(1)
    await node.pass_time(30)
    expected = [path.read_bytes() for path in node.root.glob("*/*/*") if path.stat().st_size]
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(expected)
    assert not gaps_of(batches)


# -- what cannot be looked into ------------------------------------------------------------------


async def test_a_directory_that_cannot_be_read_is_named_and_the_rest_goes_on(make: Make) -> None:
    node = make()
    node.write(node.file(), lines(0, 5))
    missing = node.root.parent / "gone"
    loop = node.root.parent / "loop"
    loop.symlink_to(loop)
    roots = f"{node.root}:{missing}:{loop}"
    node.settings = msgspec.structs.replace(node.settings, roots=roots)
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [lines(0, 5)]
    errors = {error for batch in batches if batch.inventory for error in batch.inventory.errors}
    assert {error.split(":")[0] for error in errors} == {str(missing), str(loop)}
    assert node.collector.status()["cannot_look_into"] == [str(missing), str(loop)]


@pytest.mark.parametrize(
    ("denied", "whose"),
    [
        ("payments_api-0_uid-api-0", ("payments", "api-0", "")),
        ("payments_api-0_uid-api-0/api", ("payments", "api-0", "api")),
        ("payments_api-0_uid-api-0/api/0.log", ("payments", "api-0", "api")),
    ],
)
async def test_what_cannot_be_read_makes_its_own_streams_unknown(
    make: Make, monkeypatch: pytest.MonkeyPatch, denied: str, whose: tuple[str, str, str]
) -> None:
    node = make()
    secret, well = node.file(), node.file(pod="web-1")
    node.write(secret, lines(0, 5))
    node.write(well, lines(10, 5))
    path = str(node.root / denied)

    def deny(call: Callable[..., Any]) -> Callable[..., Any]:
        def denying(place: Any, *args: Any, **kwargs: Any) -> Any:
            if os.fspath(place) == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return call(place, *args, **kwargs)

        return denying

    with monkeypatch.context() as patched:  # root may read everything
        for name in ("scandir", "open"):
            patched.setattr(os, name, deny(getattr(os, name)))
        await node.start()
        await node.pass_time(3)
        told = [batch.inventory for batch in await node.batches() if batch.inventory]
        place = Unseen(*whose, path, "Permission denied")
        assert {(each.errors, each.unseen) for each in told} == {((), (place,))}
        assert {seen.size for each in told for seen in each.files} == {len(lines(10, 5))}
        assert node.collector.status()["cannot_look_into"] == [path]
    await node.pass_time(12)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == [lines(0, 5), lines(10, 5)]
    last = [batch.inventory for batch in batches if batch.inventory][-1]
    assert (last.errors, last.unseen) == ((), ())


async def test_a_file_that_fails_when_it_is_read_holds_back_no_other(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make()
    broken = node.file()
    node.write(broken, lines(0, 5))
    await node.start()
    await node.pass_time(3)
    (tail,) = node.collector.watch.tails.values()

    def fail(*args: Any) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(tail.content, "read", fail)
        node.write(broken, lines(5, 5))
        await node.pass_time(12)
        told = [batch.inventory for batch in await node.batches() if batch.inventory][-1]
        place = Unseen("payments", "api-0", "api", str(broken), "Input/output error")
        assert told.unseen == (place,)
        assert all(seen.size == seen.acked for seen in told.files)
    await node.pass_time(12)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [lines(0, 10)]
    later = [batch.inventory for batch in batches if batch.inventory]
    assert later[-1].unseen == ()
    assert [seen.size for each in later for seen in each.files][-1] == len(lines(0, 10))


async def test_more_places_than_are_told_are_told_by_namespace_or_number(make: Make) -> None:
    node = make()
    elsewhere = node.root.parent / "elsewhere.log"
    node.write(elsewhere, lines(0, 1))

    async def told(namespaces: int) -> set[tuple[tuple[str, ...], int]]:
        for i in range(UNSEEN_MAX + 1):
            link = node.root / f"ns-{i % namespaces}_pod-{i}-{namespaces}_uid" / "app" / "0.log"
            link.parent.mkdir(parents=True)
            link.symlink_to(elsewhere)
        await node.pass_time(12)
        last = [batch.inventory for batch in await node.batches() if batch.inventory][-1]
        assert not any(place.pod for place in last.unseen)
        return {(last.errors, len(last.unseen))}

    await node.start()
    assert await told(7) == {((), 7)}
    ((errors, places),) = await told(UNSEEN_MAX + 1)
    assert (len(errors), places) == (1, 0)
    assert errors[0].endswith(f"and {2 * UNSEEN_MAX + 1} more places")


async def test_a_root_that_is_away_for_a_while_seals_and_loses_nothing(make: Make) -> None:
    node = make(seal_quiet_ms=1000)
    path = node.file()
    node.write(path, lines(0, 5))
    await node.start()
    await node.pass_time(3)
    away = node.root.with_name("away")
    node.root.rename(away)
    await node.crash()
    await node.start()
    await node.pass_time(5)
    away.rename(node.root)
    node.write(path, lines(5, 5))
    await node.pass_time(5)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [lines(0, 10)]
    assert not gaps_of(batches)
    assert not seals_of(batches)


async def test_a_file_lost_behind_an_unreadable_root_is_reported_later(make: Make) -> None:
    node = make()
    node.write(node.file(), lines(0, 5))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    node.file().unlink()
    away = node.root.with_name("away")
    node.root.rename(away)
    await node.start()
    await node.pass_time(3)
    assert not gaps_of(await node.batches())
    away.rename(node.root)
    await node.pass_time(4)
    (gap,) = gaps_of(await node.batches())
    assert gap.start == len(lines(0, 5))


async def test_a_file_that_cannot_be_opened_at_first_is_no_gap(make: Make) -> None:
    node = make()
    node.write(node.file(1), lines(0, 5))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    node.write(node.file(0), lines(50, 5))  # is opened first and takes the last descriptor
    topic = LocalTopic(node.topic_folder)
    await topic.partitions()
    node.open_topic = lambda: topic
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 20, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        os.close(taken.pop())
        await node.start()
        node.now += SECOND
        node.collector._scan()
        assert any("Too many open" in e.why for e in node.collector.watch.errors.values())
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    node.write(node.file(1), lines(5, 5))
    await node.pass_time(5)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == [lines(0, 10), lines(50, 5)]
    assert not gaps_of(batches)


async def test_a_name_that_is_not_text_makes_only_its_own_streams_unknown(make: Make) -> None:
    node = make()
    node.write(node.file(), lines(0, 5))
    bad = os.path.join(os.fsencode(node.root), b"payments_\xff_uid", b"api")
    os.makedirs(bad)
    with open(os.path.join(bad, b"0.log"), "wb") as file:
        file.write(lines(0, 5))
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [lines(0, 5)]
    told = {batch.inventory.unseen for batch in batches if batch.inventory}
    path = f"{node.root}/payments_\\xff_uid"
    assert told == {(Unseen("payments", "\\xff", "", path, "its name is not UTF-8"),)}
    assert not any(batch.inventory.errors for batch in batches if batch.inventory)


async def test_only_regular_files_of_the_layout_are_read(make: Make) -> None:
    node = make()
    path = node.file()
    content = node.write(path, lines(0, 5))
    folder = path.parent
    node.write(node.root.parent / "secret", lines(10, 5))
    (folder / "1.log").symlink_to(node.root.parent / "secret")
    (folder / "2.log").symlink_to("/nonexistent")
    os.mkfifo(folder / "3.log")
    (folder / "4.log").mkdir()
    for name in ("0.log.tmp", "x.log", "0.logs", "0.log.1.tmp", "-1.log", "٣.log"):
        node.write(folder / name, lines(20, 5))
    node.write(node.root / "plain.log", lines(30, 5))
    (node.root / "a_b").mkdir()
    (node.root / "a_b_c_d").mkdir()
    (node.root / "payments_api-1_uid").symlink_to(folder.parent)
    await node.start()
    await node.pass_time(3)
    assert await only_content(node) == content
    assert not node.collector.watch.errors
