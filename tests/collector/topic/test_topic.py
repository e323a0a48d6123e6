"""One suite for both implementations of Topic, then what only a local directory can show."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from collector.errors import (
    BatchTooLarge,
    PositionOutOfRange,
    SettingError,
    TopicMissing,
    TopicUnavailable,
)
from collector.topic import local as topic_local
from collector.topic.interface import Record, Topic
from collector.topic.local import LocalTopic
from collector.topic.open import open_topic
from tests.real_parts.kafka import Broker

Opener = Callable[[], Topic]
HEADERS = (("run", b"\x00" * 16), ("sequence", b"\x01"))
BYTES_MAX = 1 << 20


@pytest.fixture
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens the same topic of two partitions again with each call, as another process would."""
    if request.param == "kafka":
        broker: Broker = request.getfixturevalue("kafka")
        url = f"kafka://{broker.bootstrap}/{await broker.new_topic(2)}"
    else:
        url = str(tmp_path / "topic")
    opened: list[Topic] = []

    def new() -> Topic:
        opened.append(open_topic(url, partitions=2))
        return opened[-1]

    yield new
    for topic in opened:
        await topic.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The Kafka half of the suite is marked as real, for it asks for the server by name."""
    if "opener" in metafunc.fixturenames:
        params = ["local", pytest.param("kafka", marks=pytest.mark.real)]
        metafunc.parametrize("opener", params, indirect=True)


async def put(topic: Topic, *values: bytes, partition: int = 0) -> list[int]:
    """Append and wait for all acknowledgements; the positions."""
    futures = [await topic.append(partition, value, HEADERS) for value in values]
    return list(await asyncio.wait_for(asyncio.gather(*futures), 20))


async def take(topic: Topic, position: int, count: int, partition: int = 0) -> list[Record]:
    """Read until ``count`` records from ``position`` on are there."""
    records: list[Record] = []
    async with asyncio.timeout(20):
        while len(records) < count:
            found = await topic.read({partition: position}, BYTES_MAX, 500)
            records += found.get(partition, [])
            position = records[-1].position + 1 if records else position
    return records


async def read_often(topic: Topic, position: int) -> None:
    """Kafka says that a position is out of range in one of its next answers, not always at once."""
    for _ in range(20):
        await topic.read({0: position}, BYTES_MAX, 500)


# -- both implementations ------------------------------------------------------------------------


async def test_records_come_back_in_order_with_their_positions(opener: Opener) -> None:
    values = [b"%d" % i for i in range(50)]
    positions = await put(opener(), *values)
    records = await take(opener(), 0, 50)
    assert [record.value for record in records] == values
    assert [record.position for record in records] == positions == list(range(50))
    assert records[0].headers == HEADERS


async def test_any_bytes_are_a_record(opener: Opener) -> None:
    values = [b"", b"\0", b"ELF1" * 9, os.urandom(900_000), b"\xff" * 70_000]
    await put(opener(), *values)
    assert [record.value for record in await take(opener(), 0, 5)] == values


async def test_partitions_are_apart(opener: Opener) -> None:
    topic = opener()
    await put(topic, b"a", b"b", partition=0)
    await put(topic, b"c", partition=1)
    reader = opener()
    assert [r.value for r in await take(reader, 0, 1, partition=1)] == [b"c"]
    assert await reader.bounds(0) == (0, 2)
    assert await reader.bounds(1) == (0, 1)
    assert await reader.partitions() == 2


async def test_bounds_of_an_empty_partition_are_equal(opener: Opener) -> None:
    assert await opener().bounds(0) == (0, 0)


async def test_the_name_stays(opener: Opener) -> None:
    name = await opener().identity()
    assert name
    assert await opener().identity() == name


async def test_reading_starts_anywhere_and_again(opener: Opener) -> None:
    await put(opener(), *(b"%d" % i for i in range(10)))
    reader = opener()
    for position in (7, 0, 9, 3, 3):
        records = await take(reader, position, 10 - position)
        assert [r.position for r in records] == list(range(position, 10))


async def test_two_partitions_are_read_at_once(opener: Opener) -> None:
    topic = opener()
    await put(topic, b"a", partition=0)
    await put(topic, b"b", partition=1)
    reader = opener()
    found: dict[int, list[Record]] = {}
    async with asyncio.timeout(20):
        while len(found) < 2:
            found |= await reader.read({p: 0 for p in (0, 1) if p not in found}, BYTES_MAX, 500)
    assert {p: [r.value for r in records] for p, records in found.items()} == {0: [b"a"], 1: [b"b"]}


async def test_a_read_without_news_ends_after_its_wait(opener: Opener) -> None:
    topic = opener()
    await put(topic, b"a")
    began = time.monotonic()
    assert await topic.read({0: 1}, BYTES_MAX, 200) == {}
    assert time.monotonic() - began >= 0.19


async def test_a_waiting_read_sees_what_comes(opener: Opener) -> None:
    reader, writer = opener(), opener()
    await put(writer, b"old")
    waiting = asyncio.create_task(reader.read({0: 1}, BYTES_MAX, 15_000))
    await asyncio.sleep(0.2)
    await put(writer, b"new")
    assert [r.value for r in (await waiting)[0]] == [b"new"]


@pytest.mark.parametrize("position", [6, 1_000_000])
async def test_a_position_above_the_end_is_refused(opener: Opener, position: int) -> None:
    topic = opener()
    await put(topic, *[b"x"] * 5)
    with pytest.raises(PositionOutOfRange) as caught:
        await read_often(topic, position)
    assert (caught.value.partition, caught.value.position) == (0, position)
    assert [r.position for r in await take(topic, 4, 1)] == [4]


async def test_each_reader_sees_all_while_two_writers_append(opener: Opener) -> None:
    first, second = opener(), opener()

    async def write(topic: Topic, name: bytes) -> None:
        for i in range(0, 60, 3):
            await put(topic, *(b"%s-%d" % (name, i + j) for j in range(3)))

    writing = asyncio.gather(write(first, b"a"), write(second, b"b"))
    # The second writer reads as well: appending and reading may not disturb each other.
    seen = await asyncio.gather(take(opener(), 0, 120), take(second, 0, 120))
    await writing
    for records in seen:
        assert [r.position for r in records] == list(range(120))
        for name in (b"a", b"b"):
            values = [r.value for r in records if r.value.startswith(name)]
            assert values == [b"%s-%d" % (name, i) for i in range(60)]


async def test_bounds_asked_for_while_appending_harm_nothing(opener: Opener) -> None:
    topic = opener()
    value = os.urandom(600_000)
    done = asyncio.gather(*[await topic.append(0, value, HEADERS) for _ in range(12)])
    ends = []
    while not done.done():
        ends.append((await topic.bounds(0))[1])
        await asyncio.sleep(0)
    assert await done == list(range(12))
    assert ends == sorted(ends)
    assert await topic.bounds(0) == (0, 12)
    assert [r.value == value for r in await take(opener(), 0, 12)] == [True] * 12


async def test_the_record_before_what_is_forgotten_is_kept(opener: Opener) -> None:
    topic = opener()
    await put(topic, *(b"%d" % i for i in range(5)))
    await topic.forget(0, 5)
    assert (await topic.bounds(0))[1] == 5
    assert [r.value for r in await take(topic, 4, 1)] == [b"4"]


async def test_who_is_alone_in_a_group_gets_all_partitions(opener: Opener) -> None:
    topic = opener()
    await put(topic, b"a")
    member = topic.join(f"group-{uuid.uuid4()}", 6_000)
    async with asyncio.timeout(20):
        while await member.mine() != {0, 1}:
            await asyncio.sleep(0.05)
    await member.tell({0: 1, 1: 0, 7: 3})
    await member.leave()
    assert [r.value for r in await take(topic, 0, 1)] == [b"a"]


async def test_a_partition_that_is_not_there_is_named(opener: Opener) -> None:
    topic = opener()
    await topic.partitions()
    with pytest.raises(TopicMissing, match="no partition 9"):
        await asyncio.wait_for(topic.append(9, b"x", HEADERS), 60)


async def test_the_largest_value_is_taken_and_what_is_larger_refused_alone(opener: Opener) -> None:
    topic = opener()
    largest = os.urandom((await topic.limits()).value_bytes_max)
    sent = [await topic.append(0, value, HEADERS) for value in (b"a", largest + largest, largest)]
    with pytest.raises(BatchTooLarge, match="send it in parts") as caught:
        await asyncio.wait_for(sent[1], 20)
    assert caught.value.size == 2 * len(largest)
    assert not caught.value.retriable
    assert [await asyncio.wait_for(each, 20) for each in (sent[0], sent[2])] == [0, 1]
    assert topic.trouble == ""
    assert [record.value for record in await take(topic, 0, 2)] == [b"a", largest]


# -- the local directory -------------------------------------------------------------------------

WRITER = """
import asyncio, sys
from collector.topic.local import LocalTopic
async def main():
    topic = LocalTopic(sys.argv[1], partitions=1)
    number = 0
    while True:
        futures = []
        for _ in range(5):
            value = b"%s-%d-" % (sys.argv[2].encode(), number) + b"x" * (number * 7919 % 60000)
            futures.append(await topic.append(0, value, ()))
            number += 1
        for future in futures:
            print(await future, flush=True)
asyncio.run(main())
"""


def start_writer(root: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), name], stdout=subprocess.PIPE, text=True
    )


def kill(writer: subprocess.Popen[str]) -> int:
    """Kill the writer; how many records it knew to be safe."""
    writer.send_signal(signal.SIGKILL)
    assert writer.stdout is not None
    lines = writer.stdout.read().split("\n")[:-1]
    writer.wait()
    writer.stdout.close()
    return len(lines)


async def read_all(root: Path) -> list[Record]:
    topic = LocalTopic(root, partitions=0)
    start, end = await topic.bounds(0)
    records = await take(topic, start, end - start)
    await topic.close()
    return records


@pytest.mark.real
async def test_two_processes_share_a_partition_and_kill_9_takes_nothing(tmp_path: Path) -> None:
    known: dict[str, int] = {}
    for turn in range(4):
        writers = {name: start_writer(tmp_path, name) for name in (f"a{turn}", f"b{turn}")}
        for writer in writers.values():
            assert writer.stdout is not None
            writer.stdout.readline()
        time.sleep(0.02 + 0.013 * turn)
        for name, writer in writers.items():
            known[name] = 1 + kill(writer)
    records = await read_all(tmp_path)
    assert [r.position for r in records] == list(range(len(records)))
    for name, count in known.items():
        numbers = [
            int(r.value.split(b"-")[1]) for r in records if r.value.startswith(name.encode())
        ]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= count


def files_of(root: Path) -> list[Path]:
    return sorted((root / "0").glob("*.log"))


async def test_a_tail_torn_at_any_byte_is_cut_and_its_position_used_again(tmp_path: Path) -> None:
    topic = LocalTopic(tmp_path)
    await put(topic, b"first", b"second")
    path = files_of(tmp_path)[0]
    sound = path.stat().st_size
    await put(topic, b"third record")
    whole = path.read_bytes()
    await topic.close()
    for end in range(sound, len(whole)):
        path.write_bytes(whole[:end])
        again = LocalTopic(tmp_path)
        assert await again.bounds(0) == (0, 2)
        assert await put(again, b"other") == [2]
        assert [r.value for r in await take(again, 0, 3)] == [b"first", b"second", b"other"]
        await again.close()


@pytest.mark.parametrize("at", [0, 5, 9, 16, 17, 20, 23, 30, 40, 600])
@pytest.mark.parametrize("bytes_max", [1, 700, BYTES_MAX])
async def test_a_damaged_frame_is_a_missing_position(
    tmp_path: Path, at: int, bytes_max: int
) -> None:
    topic = LocalTopic(tmp_path)
    await put(topic, b"a" * 1000)
    path = files_of(tmp_path)[0]
    begins = path.stat().st_size
    await put(topic, b"b" * 1000)
    await put(topic, b"c" * 1000, b"d" * 1000)
    data = bytearray(path.read_bytes())
    data[begins + at] ^= 0xFF
    path.write_bytes(data)
    reader, position, seen = LocalTopic(tmp_path), 0, []
    assert await reader.bounds(0) == (0, 4)
    for _ in range(9):
        for record in (await reader.read({0: position}, bytes_max, 0)).get(0, []):
            seen.append(record)
            position = record.position + 1
    assert [(r.position, r.value[:1]) for r in seen] == [(0, b"a"), (2, b"c"), (3, b"d")]
    assert await put(reader, b"e") == [4]
    for each in (topic, reader):
        await each.close()


async def test_files_that_the_table_holds_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_local, "FILE_BYTES", 350)
    topic = LocalTopic(tmp_path)
    for i in range(12):
        await put(topic, b"%02d" % i + b"x" * 98)
    assert len(files_of(tmp_path)) == 4  # three records each
    other = LocalTopic(tmp_path)
    assert [r.position for r in await take(other, 0, 3)] == [0, 1, 2]
    kept: dict[int, list[int]] = {before: [] for before in (3, 4, 7, 12)}
    for before, records in kept.items():
        await topic.forget(0, before)
        start, end = await topic.bounds(0)
        records += [start, end]
        assert next(r.position for r in await take(topic, before - 1, 1)) == before - 1
    assert kept == {3: [0, 12], 4: [3, 12], 7: [6, 12], 12: [9, 12]}
    with pytest.raises(PositionOutOfRange, match="position 3 of partition 0"):
        await other.read({0: 3}, BYTES_MAX, 0)
    assert [r.position for r in await take(other, 9, 3)] == [9, 10, 11]
    assert await put(other, b"next") == [12]
    for each in (topic, other):
        await each.close()


async def test_a_reader_at_a_files_end_goes_on_after_that_file_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_local, "FILE_BYTES", 100)
    topic, reader = LocalTopic(tmp_path), LocalTopic(tmp_path)
    await put(topic, b"x" * 98)
    assert [r.position for r in await take(reader, 0, 1)] == [0]
    for _ in range(3):
        await put(topic, b"y" * 98)
    await topic.forget(0, 3)
    files_of(tmp_path)[0].unlink(missing_ok=True)
    await topic.forget(0, 2)
    start = (await topic.bounds(0))[0]
    assert start > 0
    if start == 1:
        assert [r.position for r in await take(reader, 1, 3)] == [1, 2, 3]
    else:
        with pytest.raises(PositionOutOfRange):
            await reader.read({0: 1}, BYTES_MAX, 0)
    for each in (topic, reader):
        await each.close()


async def test_id_and_end_outlive_the_data(tmp_path: Path) -> None:
    topic = LocalTopic(tmp_path, partitions=3)
    name = await topic.identity()
    await put(topic, b"a", b"b")
    await topic.forget(0, 2)
    await topic.close()
    again = LocalTopic(tmp_path, partitions=7)
    assert await again.identity() == name
    assert await again.partitions() == 3
    assert (await again.bounds(0))[1] == 2
    await again.close()


async def test_a_topic_made_anew_has_another_name(tmp_path: Path) -> None:
    first, second = LocalTopic(tmp_path / "a"), LocalTopic(tmp_path / "b")
    assert await first.identity() != await second.identity()
    for each in (first, second):
        await each.close()


async def test_a_reader_that_comes_first_waits_for_the_topic_to_be_made(tmp_path: Path) -> None:
    reader = LocalTopic(tmp_path / "t", partitions=0)
    with pytest.raises(TopicUnavailable, match="start a collector"):
        await reader.partitions()
    writer = LocalTopic(tmp_path / "t", partitions=2)
    await put(writer, b"x")
    assert await reader.partitions() == 2
    for each in (writer, reader):
        await each.close()


async def test_a_place_that_is_no_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TopicUnavailable, match="file"):
        await LocalTopic(tmp_path / "file").partitions()


FULL = """
import asyncio, resource, signal, sys
from collector.topic.local import LocalTopic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
async def main():
    topic = LocalTopic(sys.argv[1])
    assert await (await topic.append(0, b"a" * 3000, ())) == 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    futures = [await topic.append(0, b"b" * 3000, ()), await topic.append(0, b"c", ())]
    done, waiting = await asyncio.wait(futures, timeout=0.5)
    assert not done
    assert await topic.bounds(0) == (0, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print(await asyncio.gather(*futures), await topic.bounds(0))
    await topic.close()
asyncio.run(main())
"""


@pytest.mark.real
async def test_a_full_disk_holds_the_future_back_until_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[1, 2] (0, 3)\n"
    assert "topic cannot be written; retrying" in done.stderr
    assert [r.value[:1] for r in await read_all(tmp_path)] == [b"a", b"b", b"c"]


# -- urls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["kafka://", "kafka://host:1", "kafka://host:1/a/b", "http://x/y"])
def test_a_url_of_no_topic_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="topic"):
        open_topic(url)
