"""Whatever Kafka has deleted, made anew or remembers wrongly, the table says where to go on.

An indexer in this process, on a real Kafka and a real S3 server; the damage is done through Kafka's
own administration, and to the table as one who restores an old copy would do it.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from collector.wire.batch import Elided
from indexer.ledger.entries import LOST_RETENTION, TOPIC_RESET
from indexer.store.open import open_bucket
from tests.indexer.place import check_log
from tests.indexer.shipped import Run
from tests.indexer.test_index import FILES, Place, expected, resets
from tests.real_parts.kafka import Broker
from tests.real_parts.s3 import Bucket
from tests.way import environment, lines


@pytest.fixture
async def place(kafka: Broker, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Two partitions of a Kafka topic, and a bucket."""
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    topic = f"kafka://{kafka.bootstrap}/{await kafka.new_topic(2)}"
    return Place(topic, open_bucket(f"s3://{bucket.name}/prefix"))


def name_of(place: Place) -> str:
    return place.topic.rpartition("/")[2]


@asynccontextmanager
async def administrator(kafka: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def delete_records(place: Place, kafka: Broker, before: int) -> None:
    """Do to partition 0 what retention does."""
    at = TopicPartition(name_of(place), 0)
    async with administrator(kafka) as admin:
        assert await admin.delete_records({at: RecordsToDelete(before)}) == {at: before}


async def make_anew(place: Place, kafka: Broker) -> None:
    """Delete the topic and create it again under the same name."""
    name = name_of(place)
    async with administrator(kafka) as admin, asyncio.timeout(30):
        await admin.delete_topics([name])
        while name in await admin.list_topics():
            await asyncio.sleep(0.05)
        await admin.create_topics([NewTopic(name, 2, 1)])
    place.runs = [Run(partition=p, run=b"new" + bytes([p]) * 13) for p in range(2)]


# -- what is gone ----------------------------------------------------------------------------


def check_lost(place: Place, last: int, deleted: range) -> None:
    """Check that of ``last`` lines those are missing, and only those, that a gap names."""
    [(kind, positions)] = resets(place)
    assert kind == LOST_RETENTION
    assert positions is not None
    lost = range(*positions)
    assert len(lost) > 0
    assert set(lost) <= set(deleted)
    assert [m for _, _, m in place.rows()] == [
        f"line {n}" for n in range(last) if n // 10 not in lost
    ]
    check_log(place.table)


async def test_retention_that_passes_a_stopped_indexers_position_leaves_exactly_its_gap(
    place: Place, kafka: Broker
) -> None:
    await place.ship(0, 0, 10)
    await place.index()
    await place.ship(0, 10, 60)
    await delete_records(place, kafka, 4)
    await place.index()
    assert resets(place) == [(LOST_RETENTION, (1, 4))]
    check_lost(place, 60, range(1, 4))


@pytest.mark.parametrize("at_hand", [0, 2], ids=["all committed", "some not committed"])
async def test_retention_that_overtakes_a_running_indexer_leaves_exactly_its_gap(
    place: Place, kafka: Broker, at_hand: int
) -> None:
    """What it has read and not committed is not lost, though it could not be read again."""
    await place.ship(0, 0, 10)
    async with place.indexer() as indexer:
        await place.drain(indexer)
        indexer._check_due_s = math.inf  # let it read on
        await place.ship(0, 10, 10 + 10 * at_hand)
        async with asyncio.timeout(30):
            while indexer._consumer.following[0].position.end < 1 + at_hand:
                await indexer.turn()
        await place.ship(0, 10 + 10 * at_hand, 60)
        await delete_records(place, kafka, 5)
        await place.drain(indexer)
    # The client may have asked for the next records before they were deleted.
    check_lost(place, 60, range(1 + at_hand, 5))


@pytest.mark.parametrize("last", [30, 40, 60], ids=["shorter", "as long", "longer"])
async def test_a_topic_made_anew_is_read_from_its_start_whatever_its_length(
    place: Place, kafka: Broker, last: int
) -> None:
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 20)
    await place.index()
    await make_anew(place, kafka)
    await place.ship(0, 20, last)
    await place.index()
    assert resets(place) == [(TOPIC_RESET, (2, 2)), (TOPIC_RESET, (2, 2))]
    assert place.rows() == expected(last, 20)
    assert place.ledger().positions[0].generation == 1
    await place.ship(1, 20, 40)
    await place.index()
    assert len(resets(place)) == 2
    assert place.rows() == expected(last, 40)
    check_log(place.table)


async def test_a_table_put_back_to_an_older_copy_takes_what_is_missing_from_the_topic(
    place: Place,
) -> None:
    """Whatever offsets Kafka has, and whatever a ledger that is newer than the table says."""
    for first in range(0, 60, 20):
        await place.ship(0, first, first + 20)
        await place.index()
    log = f"{place.table.folder}_delta_log/"
    for version in (2, 3):
        place.bucket.delete(f"{log}{version:020d}.json")
    assert place.rows() == expected(20)
    await place.index()
    assert place.rows() == expected(60)
    assert place.gaps() == []
    check_log(place.table)


# -- what is no line -------------------------------------------------------------------------


async def test_batches_without_any_row_move_the_position_and_nothing_else(place: Place) -> None:
    """All their bytes are dropped by a rule, or there already, or they have none."""
    file, run = FILES[0], place.runs[0]
    size = len(file.data)
    half = len(lines(0, 30))
    await place.ship(0, 0, 30)
    await place.index()
    elided = Elided(file.id, 0, half, size, 30, file.crc(size), "noise")
    await place.send(
        (0, run.batch(elided=(elided,), of=[file])),
        (0, run.inventory([(file, size, size)])),
        (0, run.batch()),
    )
    await place.ship(0, 0, 30)
    names = set(place.bucket.names(place.table.folder + "date=2026"))
    await place.index()
    at = place.ledger().positions[0].end
    assert at == 3 + 3 + 3
    assert place.table.snapshot().transaction_version(f"{name_of(place)}/0/0") == at
    assert set(place.bucket.names(place.table.folder + "date=2026")) == names
    assert place.gaps() == []
    version = place.table.snapshot().version()
    await place.index()
    assert place.table.snapshot().version() == version
    check_log(place.table)
