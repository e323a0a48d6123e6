"""A group of indexers whose members come, go and sleep: somebody goes on, and nobody doubles a row.

Indexers in this process, on a real Kafka and a real S3 server; what the group remembers of offsets
may be anything.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from indexer.index import Indexer
from indexer.run import Patience
from indexer.store.open import open_bucket
from tests.indexer.place import check_log
from tests.indexer.test_index import Place, expected
from tests.real_parts.kafka import Broker
from tests.real_parts.s3 import Bucket
from tests.way import environment


@pytest.fixture
async def place(kafka: Broker, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Two partitions of a Kafka topic, and a bucket."""
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    topic = f"kafka://{kafka.bootstrap}/{await kafka.new_topic(2)}"
    return Place(topic, open_bucket(f"s3://{bucket.name}/prefix"))


def group_of(place: Place) -> str:
    return "group-" + place.topic.rpartition("/")[2]


@asynccontextmanager
async def member(place: Place) -> AsyncIterator[Indexer]:
    """Start a member of the group, and let it work until the block ends."""

    share: dict[str, Any] = {
        "partitions": "",
        "group": group_of(place),
        "group_session_ms": 6_000,
    }
    stop = asyncio.Event()
    patience = Patience(0.05, 0.2, stop)

    async def work() -> None:
        while not stop.is_set():
            await patience.until_done(indexer.turn, "waiting")

    async with place.indexer(**share, flush_age_ms=10, check_interval_ms=60_000) as indexer:
        working = asyncio.create_task(work())
        try:
            yield indexer
        finally:
            stop.set()
            await working


async def committed(place: Place, *ends: int) -> None:
    """Return when the table has these positions."""
    name = place.topic.rpartition("/")[2]
    async with asyncio.timeout(60):
        for partition, end in enumerate(ends):
            while place.table.snapshot().transaction_version(f"{name}/0/{partition}") != end:
                await asyncio.sleep(0.05)


async def tell(place: Place, kafka: Broker, *offsets: int) -> None:
    """Commit offsets to the group, as a member would that nobody has heard of since."""
    name = place.topic.rpartition("/")[2]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, group_id=group_of(place), enable_auto_commit=False
    )
    await consumer.start()
    try:
        at = [TopicPartition(name, partition) for partition in range(len(offsets))]
        consumer.assign(at)
        await consumer.commit(dict(zip(at, offsets, strict=True)))
    finally:
        await consumer.stop()


@pytest.mark.parametrize(
    "offsets", [(0, 0), (4, 2), (1000, 1000)], ids=["at the start", "at the end", "beyond"]
)
async def test_offsets_that_the_group_remembers_are_no_place_to_go_on_from(
    place: Place, kafka: Broker, offsets: tuple[int, int]
) -> None:
    """The table is at (2, 0), whatever a member that had slept has told the group since."""
    await place.ship(0, 0, 20)
    await place.index()
    await place.ship(0, 20, 40)
    await place.ship(1, 0, 20)
    await tell(place, kafka, *offsets)
    async with member(place):
        await committed(place, 4, 2)
    assert place.rows() == expected(40, 20)
    assert place.gaps() == []
    check_log(place.table)


async def test_two_members_share_and_when_one_leaves_the_other_has_all(place: Place) -> None:
    async with member(place) as one:
        await place.ship(0, 0, 10)
        await place.ship(1, 0, 10)
        await committed(place, 1, 1)
        async with member(place) as two, asyncio.timeout(60):
            while sorted([*one.status()["positions"], *two.status()["positions"]]) != [0, 1]:
                await asyncio.sleep(0.05)
            await place.ship(0, 10, 30)
            await place.ship(1, 10, 30)
            await committed(place, 3, 3)
            assert len(two.status()["positions"]) == 1
        await place.ship(0, 30, 40)
        await place.ship(1, 30, 40)
        await committed(place, 4, 4)
    assert place.rows() == expected(40, 40)
    assert place.gaps() == []
    check_log(place.table)


async def test_a_group_that_never_comes_to_rest_gets_on(place: Place) -> None:
    """Somebody joins or leaves all the time: work is given up again and again, and yet done."""
    came = 0
    enough = asyncio.Event()

    async def come_and_go() -> None:
        nonlocal came
        while not enough.is_set():
            async with member(place):
                came += 1
                await asyncio.sleep(0.2)

    number = 0
    async with asyncio.timeout(100), member(place):
        restless = [asyncio.create_task(come_and_go()) for _ in range(2)]
        while came < 6 or number < 6:
            await place.ship(0, 2 * number, 2 * number + 2)
            await place.ship(1, 2 * number, 2 * number + 2)
            number += 1
            await committed(place, number, number)
        enough.set()
        await asyncio.gather(*restless)
    assert place.rows() == expected(2 * number, 2 * number)
    assert place.gaps() == []
    check_log(place.table)
