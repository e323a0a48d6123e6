"""What a topic's writer meets besides records: whatever it is, nobody waits for ever."""

import asyncio
from pathlib import Path
from typing import Any, cast

import aiokafka
import pytest

from collector.errors import TopicUnavailable
from collector.topic import local as topic_local
from collector.topic.kafka_append import Appender
from collector.topic.local import LocalTopic

FOREIGN = ["x.log", "notes.txt", ".log", "1.log", "-1.log", "٣.log", "00000000000000000007.log.bak"]


async def put(topic: LocalTopic, value: bytes) -> int:
    return await asyncio.wait_for(await topic.append(0, value, ()), 20)


@pytest.mark.parametrize("name", FOREIGN)
async def test_files_of_others_in_a_partition_are_left_alone(tmp_path: Path, name: str) -> None:
    topic = LocalTopic(tmp_path / "topic")
    assert await put(topic, b"a") == 0
    (foreign := tmp_path / "topic" / "0" / name).write_bytes(b"mine")
    assert await put(topic, b"b") == 1
    again = LocalTopic(tmp_path / "topic")
    assert await put(again, b"c") == 2
    assert await again.bounds(0) == (0, 3)
    found = await again.read({0: 0}, 1 << 20, 0)
    assert [record.value for record in found[0]] == [b"a", b"b", b"c"]
    await again.forget(0, 3)
    assert foreign.read_bytes() == b"mine"
    for each in (topic, again):
        await each.close()


async def test_whoever_waits_for_a_writer_that_has_failed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = LocalTopic(tmp_path)
    append = topic_local._append

    def fail(*_: object) -> int:
        raise ValueError("nobody has thought of this")

    monkeypatch.setattr(topic_local, "_append", fail)
    futures = [await topic.append(0, b"x" * (12 << 20), ()) for _ in range(3)]
    beyond = asyncio.create_task(topic.append(0, b"y", ()))  # no room for it
    for future in futures:
        with pytest.raises(TopicUnavailable, match="nobody has thought of this"):
            await asyncio.wait_for(future, 20)
    monkeypatch.setattr(topic_local, "_append", append)
    late = await asyncio.wait_for(beyond, 20)
    await asyncio.wait([late], timeout=20)
    assert late.done()  # written or refused
    assert await put(topic, b"again") == (late.exception() is None)
    await topic.close()


async def test_nobody_waits_for_a_topic_that_was_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_local, "_RETRY_S", 0.01)

    def full(*_: object) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(topic_local, "_append", full)
    topic = LocalTopic(tmp_path)
    future = await topic.append(0, b"x", ())
    await topic.close()
    await asyncio.wait([future], timeout=20)
    assert future.cancelled()


@pytest.mark.parametrize(
    "about", [b"", b"{}", b"[]", b'{"id": "a", "partitions": "many"}', b"\xff"]
)
async def test_a_damaged_description_of_a_topic_is_named(tmp_path: Path, about: bytes) -> None:
    (tmp_path / "topic.json").write_bytes(about)
    with pytest.raises(TopicUnavailable, match=r"topic\.json is damaged"):
        await LocalTopic(tmp_path).partitions()


class Broken:
    """A connection whose client fails as no error of Kafka does, and says no to all the rest."""

    def __init__(self) -> None:
        self.asked = self.dropped = 0

    async def client(self) -> Any:
        self.asked += 1
        raise KeyError("cluster") if self.asked < 3 else TopicUnavailable("away")

    async def drop(self) -> None:
        self.dropped += 1


async def test_records_wait_for_kafka_after_an_error_that_nobody_expects(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("collector.topic.kafka_append._RETRY_S", 0.0)
    said: list[str] = []
    broken = Broken()
    appender = Appender(aiokafka.TopicPartition("logs", 0), cast(Any, broken), said.append)
    future = appender.append(b"x", ())
    async with asyncio.timeout(20):
        while "away" not in said:
            await asyncio.sleep(0)
    assert not future.done()
    assert caplog.text.count("cannot send to kafka; retrying") == 2
    assert [each for each in said if "KeyError('cluster')" in each] == said[:2]
    monkeypatch.setattr("collector.topic.kafka_append._CLOSE_S", 0.0)
    await appender.close()
