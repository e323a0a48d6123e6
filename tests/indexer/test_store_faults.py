"""Whatever the object store answers, or fails to, each row is in the table once.

An indexer in this process, a real Kafka, and a real S3 server behind a proxy that injects faults.
"""

import asyncio
import contextlib
import itertools
import re
from dataclasses import replace

import msgspec
import prometheus_client
import pytest

from indexer.errors import (
    BucketError,
    BucketUnavailable,
    IndexerError,
    PositionMoved,
    TableUnavailable,
)
from indexer.index import Indexer
from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.settings import KeeperSettings
from indexer.ledger.entries import UNPARSED
from indexer.store.open import open_bucket
from tests.indexer.place import COVERAGE, LETTER, LOG, SEGMENT, check_log, orphans
from tests.indexer.shipped import CLUSTER
from tests.indexer.test_index import Place, expected
from tests.real_parts.fault_proxy import (
    Action,
    Delay,
    FaultProxy,
    Hold,
    answering_otherwise,
    cutting,
    cutting_answer,
    cutting_request,
    flipped,
    pretending,
    refusing,
    storing_otherwise,
)
from tests.real_parts.kafka import Broker
from tests.real_parts.s3 import Bucket, S3Server
from tests.way import environment

ATTEMPTS = 5  # of boto3, for one put


@pytest.fixture
async def place(
    kafka: Broker, bucket: Bucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """Two partitions of a Kafka topic, and a bucket behind the proxy."""
    for name, value in environment(replace(bucket, endpoint=fault_proxy.endpoint)).items():
        monkeypatch.setenv(name, value)
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda *_: 0.01)  # seconds, and it would be many
    topic = f"kafka://{kafka.bootstrap}/{await kafka.new_topic(2)}"
    return Place(topic, open_bucket(f"s3://{bucket.name}/prefix"))


async def read(indexer: Indexer, count: int, partition: int = 0) -> None:
    """Read on until the next commit would have so many records of a partition."""
    following = indexer._consumer.following[partition]
    async with asyncio.timeout(30):
        while following.position.end - following.position.start < count:
            await indexer.turn()


async def commit(indexer: Indexer, end: int, partition: int = 0) -> None:
    """Commit until a partition's position, as patient as the process is."""
    async with asyncio.timeout(30):
        while indexer.status()["positions"][partition] < end:
            try:
                await indexer.turn()
                await indexer.flush()
            except IndexerError as error:
                if not error.retriable:
                    raise


def keeper_of(place: Place, **settings: int) -> Jobs:
    """Return the jobs of a new keeper."""
    registry = prometheus_client.CollectorRegistry()
    keeper = msgspec.convert({"cluster": CLUSTER, **settings}, KeeperSettings)
    return Jobs(keeper, place.bucket, KeeperMetrics(registry))


# -- uploads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SEGMENT, COVERAGE], ids=["segment", "coverage"])
@pytest.mark.parametrize("stored", ["nothing", "less"])
async def test_an_upload_that_was_acknowledged_and_is_not_whole_is_named_by_no_commit(
    place: Place, bucket: Bucket, fault_proxy: FaultProxy, path: str, stored: str
) -> None:
    await place.ship(0, 0, 20)
    action = {"nothing": pretending(), "less": storing_otherwise(lambda b: b[:-10], bucket)}[stored]
    fault = fault_proxy.arm(action, "PUT", path, times=1)
    async with place.indexer() as indexer:
        await read(indexer, 2)
        with pytest.raises(BucketUnavailable, match="that it took"):
            await indexer.flush()
        assert place.table.snapshot().version() == 0
        await commit(indexer, 2)
    assert fault.struck == 1
    assert place.rows() == expected(20)
    check_log(place.table)


@pytest.mark.parametrize("path", [SEGMENT, COVERAGE], ids=["segment", "coverage"])
async def test_no_position_moves_past_an_upload_that_failed(
    place: Place, fault_proxy: FaultProxy, path: str
) -> None:
    await place.ship(0, 0, 20)
    fault = fault_proxy.arm(refusing(503, "SlowDown"), "PUT", path, times=ATTEMPTS)
    async with place.indexer() as indexer:
        await read(indexer, 2)
        with pytest.raises(BucketUnavailable):
            await indexer.flush()
        assert fault.struck == ATTEMPTS
        assert indexer.status()["positions"] == {0: 0, 1: 0}
        assert place.table.snapshot().version() == 0
        await place.ship(0, 20, 30)
        await commit(indexer, 3)
    assert place.rows() == expected(30)
    check_log(place.table)


async def test_an_upload_that_is_tried_again_is_whole_and_there_once(
    place: Place, fault_proxy: FaultProxy
) -> None:
    actions: list[Action] = [
        cutting(done=True),
        cutting_request(),
        refusing(500, "InternalError", done=True),
        refusing(409, "ConditionalRequestConflict", done=True),
    ]
    rounds = list(itertools.product(actions, [SEGMENT, COVERAGE, LETTER]))
    async with place.indexer() as indexer:
        for number, (action, path) in enumerate(rounds):
            fault = fault_proxy.arm(action, "PUT", path)
            await place.ship(1, number * 5, number * 5 + 5)
            await place.send((1, b"torn %d" % number))
            await commit(indexer, 2 * number + 2, 1)
            assert fault.struck == 1, (number, path)
    assert place.rows() == expected(0, 60)
    assert {gap.type for gap in place.gaps()} == {UNPARSED}
    letters = [place.bucket.get(gap.object) for gap in place.gaps()]
    assert letters == [b"torn %d" % number for number in range(len(rounds))]
    check_log(place.table)


# -- commits ---------------------------------------------------------------------------------

# What may happen to the request that makes a commit.
OF_A_COMMIT: list[Action] = [
    refusing(503, "SlowDown"),
    refusing(500, "InternalError", done=True),
    refusing(409, "ConditionalRequestConflict"),
    refusing(409, "ConditionalRequestConflict", done=True),
    refusing(412, "PreconditionFailed"),
    refusing(412, "PreconditionFailed", done=True),
    refusing(403, "AccessDenied"),
    refusing(403, "AccessDenied", done=True),
    cutting(),
    cutting(done=True),
    cutting_request(),
    Delay(0.5),
]


@pytest.mark.parametrize("who", ["the same", "another"])
async def test_a_commit_that_may_have_failed_is_neither_skipped_nor_made_twice(
    place: Place, fault_proxy: FaultProxy, who: str
) -> None:
    """The same indexer goes on after it, or another one that knows the table only."""
    faults = []
    async with contextlib.AsyncExitStack() as stack:
        indexer = await stack.enter_async_context(place.indexer())
        for number, action in enumerate(OF_A_COMMIT):
            await place.ship(0, number * 5, number * 5 + 5)
            faults.append(fault_proxy.arm(action, "PUT", LOG))
            await read(indexer, 1)
            failed = False
            try:
                await indexer.flush()
            except IndexerError as error:
                failed = not error.retriable  # this ends the process
            if failed or who == "another":
                await stack.aclose()
                indexer = await stack.enter_async_context(place.indexer())
            await commit(indexer, number + 1)
    assert [fault.struck for fault in faults] == [1] * len(OF_A_COMMIT)
    assert place.rows() == expected(60)
    assert place.gaps() == []
    check_log(place.table)


async def test_what_comes_during_a_commit_goes_into_the_next(
    place: Place, fault_proxy: FaultProxy
) -> None:
    """Another indexer commits in between, too, so that the held commit is no longer the next."""
    hold = Hold()
    fault_proxy.arm(hold, "PUT", LOG, first=2)
    await place.ship(0, 0, 20)
    async with place.indexer(partitions="0") as indexer:
        await read(indexer, 2)
        held = asyncio.create_task(indexer.flush())
        await asyncio.to_thread(hold.wait)
        await place.ship(0, 0, 40)  # the first half again
        await place.ship(1, 0, 20)
        await place.index(partitions="1")
        hold.release()
        await held
        await commit(indexer, 6)
    assert place.rows() == expected(40, 20)
    assert place.gaps() == []
    check_log(place.table)


# -- two writers -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SEGMENT, LOG], ids=["upload", "commit"])
@pytest.mark.parametrize("slow", ["shorter", "longer"])
async def test_a_slow_writer_of_the_same_records_changes_nothing_of_a_fast_ones(
    place: Place, fault_proxy: FaultProxy, path: str, slow: str
) -> None:
    """Each has read another number of records, and the slow one's upload arrives last."""
    await place.index()  # makes the table
    hold = Hold()
    await place.ship(0, 0, 20)
    async with place.indexer() as one, place.indexer() as two:
        await read(one, 2)
        await place.ship(0, 20, 40)
        await read(two, 4)
        first, second = (one, two) if slow == "shorter" else (two, one)
        fault = fault_proxy.arm(hold, "PUT", path)
        late = asyncio.create_task(first.flush())
        await asyncio.to_thread(hold.wait)
        await second.flush()
        assert place.rows() == expected(40 if slow == "shorter" else 20)
        hold.release()
        await late
        assert fault.struck == 1
        assert place.rows() == expected(40 if slow == "shorter" else 20)
        await commit(first, 4)
        await commit(second, 4)
    assert place.rows() == expected(40)
    assert place.gaps() == []
    check_log(place.table)
    uploads = [
        each for each in fault_proxy.requests if re.search(f"^PUT.*({SEGMENT}|{COVERAGE})", each)
    ]
    assert len(set(uploads)) == len(uploads)
    assert len(orphans(place.table)) >= 2  # a segment and its coverage


# -- reads -----------------------------------------------------------------------------------


async def test_a_read_that_fails_is_tried_again_and_taken_for_nothing_else(
    place: Place, fault_proxy: FaultProxy
) -> None:
    for first in range(0, 40, 20):
        await place.ship(0, first, first + 20)
        await place.index()
    faults = [
        fault_proxy.arm(action, "GET", path)
        for path in (LOG, COVERAGE, "list-type")
        for action in (refusing(503, "SlowDown"), cutting_answer(), cutting())
    ]
    faults.append(fault_proxy.arm(answering_otherwise(flipped), "GET", COVERAGE, first=2))
    await place.ship(0, 40, 60)
    for _ in range(10):
        try:
            await place.index()
            break
        except BucketUnavailable:
            continue
    assert faults[-1].struck == 1
    assert place.rows() == expected(60)
    assert place.gaps() == []
    check_log(place.table)


# -- vacuum ----------------------------------------------------------------------------------

AN_AGE_S = 30 * 3600  # longer than a vacuum spares what no version names


async def test_a_vacuum_spares_what_a_commit_is_about_to_name(
    place: Place, fault_proxy: FaultProxy, s3: S3Server, bucket: Bucket
) -> None:
    """And takes the uploads of a commit that was lost long ago."""
    await place.ship(0, 0, 20)
    hold = Hold()
    fault_proxy.arm(refusing(403, "AccessDenied"), "PUT", LOG, first=2)
    fault_proxy.arm(hold, "PUT", LOG, first=3)
    async with place.indexer(partitions="0") as indexer:
        await read(indexer, 2)
        with pytest.raises(BucketError, match="refused"):
            await indexer.flush()
        lost = orphans(place.table)
        assert len(lost) == 2
        for name in lost:
            s3.age(bucket, f"prefix/{name}", AN_AGE_S)
        held = asyncio.create_task(indexer.flush())
        await asyncio.to_thread(hold.wait)
        uploaded = orphans(place.table) - lost
        assert len(uploaded) == 2
        await asyncio.to_thread(keeper_of(place).vacuum)
        assert orphans(place.table) == uploaded
        hold.release()
        await held
    assert orphans(place.table) == set()
    assert place.rows() == expected(20)
    check_log(place.table)


# -- all at once -----------------------------------------------------------------------------


async def test_indexers_and_a_keeper_at_work_on_a_bad_store_keep_each_row_once(
    place: Place, fault_proxy: FaultProxy
) -> None:
    """Two indexers follow the same partitions, and one request in twelve goes wrong."""
    jobs = keeper_of(place, compact_inputs_min=2, compact_settle_ms=0, gather_objects_min=2)
    place.table.make()
    actions: list[Action] = [
        refusing(503, "SlowDown"),
        refusing(500, "InternalError", done=True),
        cutting(),
        cutting(done=True),
        cutting_request(),
        cutting_answer(),
    ]
    faults = [
        fault_proxy.arm(action, times=None, chance=1 / 72, seed=number)
        for number, action in enumerate(actions)
    ]
    async with contextlib.AsyncExitStack() as stack:
        indexers: list[Indexer] = []
        while len(indexers) < 2:
            with contextlib.suppress(BucketUnavailable, TableUnavailable):
                indexers.append(await stack.enter_async_context(place.indexer()))
        for number in range(4):
            await place.ship(0, 10 * number, 10 * number + 10)
            await place.ship(1, 0, 10 * number + 10)
            await asyncio.gather(*(commit(each, number + 1) for each in indexers))
            for job in (jobs.fold, jobs.gather, jobs.compact):
                with contextlib.suppress(BucketUnavailable, TableUnavailable, PositionMoved):
                    await asyncio.to_thread(job)
        await asyncio.gather(*(commit(each, 1 + 2 + 3 + 4, 1) for each in indexers))
    fault_proxy.disarm()
    assert all(fault.struck for fault in faults)
    assert place.rows() == expected(40, 40)
    assert place.gaps() == []
    assert place.table.snapshot().transaction_version("keeper") is not None
    check_log(place.table)
