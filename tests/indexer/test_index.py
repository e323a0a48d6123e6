"""The indexer in this process: whatever fails and whenever, each row is in the table once."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import msgspec
import prometheus_client
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition
from deltalake import DeltaTable

from collector.errors import CollectorError, TopicUnavailable
from collector.topic.open import open_topic
from collector.wire.batch import Batch, Elided, Gone, encode, record_headers
from indexer.assemble import assemble
from indexer.errors import (
    BucketUnavailable,
    IndexerError,
    NotBalanced,
    TableUnavailable,
)
from indexer.index import Indexer
from indexer.keeper.fold import Fold
from indexer.ledger.bring_up import bring_up
from indexer.ledger.entries import LOST_RETENTION, LOST_TOPIC, TOPIC_RESET, UNPARSED
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.metrics import IndexerMetrics
from indexer.settings import IndexerSettings
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.table import CLOSED, Table
from query_api.completeness.gaps import Gap, find_gaps
from tests.indexer.shipped import CLUSTER, COMPRESSOR, START_NS, File, Run
from tests.real_parts.kafka import Broker
from tests.way import cri, lines

FILES = [File(lines(0, 60), pod=f"pod-{n}") for n in range(2)]
HOUR_NS = 3600 * 10**9


def wire(batch: Batch) -> bytes:
    return encode(batch, COMPRESSOR)


async def send(url: str, *records: tuple[int, Batch | bytes], partitions: int = 2) -> None:
    """Append records to partitions of a topic, which is made if need be."""
    topic = open_topic(url, partitions=partitions)
    try:
        for partition, batch in records:
            if isinstance(batch, bytes):
                await (await topic.append(partition, batch, ()))
            else:
                await (await topic.append(partition, wire(batch), record_headers(batch)))
    finally:
        await topic.close()


class Place:
    """A topic and a bucket, and what is in the table."""

    def __init__(self, topic: str, bucket: Bucket, partitions: int = 2) -> None:
        self.topic = topic
        self.bucket = bucket
        self.partitions = partitions
        self.clock_ns = START_NS
        self.runs = [Run(partition=p, run=bytes([65 + p]) * 16) for p in range(partitions)]

    async def send(self, *records: tuple[int, Batch | bytes]) -> None:
        await send(self.topic, *records, partitions=self.partitions)

    async def ship(self, partition: int, first: int, last: int) -> None:
        """Send lines ``[first, last)`` of the partition's file, ten a batch."""
        file = FILES[partition]
        at = [len(lines(0, n)) for n in range(61)]
        await self.send(
            *(
                (partition, self.runs[partition].batch(each, of=[file]))
                for each in file.ranges(at[::10], start=at[first], end=at[last])
            )
        )

    def new_indexer(self, bucket: Bucket | None = None, **more) -> Indexer:
        """Return an indexer that has not started."""
        defaults = {"partitions": "all", "flush_age_ms": 600_000, "check_interval_ms": 10}
        settings = msgspec.convert(
            {"cluster": CLUSTER, "topic": self.topic, **defaults, **more}, IndexerSettings
        )
        return Indexer(
            settings,
            lambda: open_topic(self.topic, partitions=0),
            bucket or self.bucket,
            IndexerMetrics(prometheus_client.CollectorRegistry()),
            clock=lambda: self.clock_ns,
        )

    @asynccontextmanager
    async def indexer(self, bucket: Bucket | None = None, **more) -> AsyncIterator[Indexer]:
        """Start an indexer; what it holds in memory is gone when the block ends."""
        indexer = self.new_indexer(bucket, **more)
        try:
            await indexer.start()
            yield indexer
        finally:
            await indexer.close()

    async def index(self, **more) -> None:
        """Let a new indexer commit everything there is."""
        async with self.indexer(**more) as indexer:
            await self.drain(indexer)

    async def drain(self, indexer: Indexer) -> None:
        """Commit until the topic's end, as patient as the process is."""
        topic = open_topic(self.topic, partitions=0)
        try:
            for _ in range(100):
                try:
                    await indexer.turn()
                    await indexer.flush()
                except (IndexerError, CollectorError) as error:
                    if not error.retriable:
                        raise
                    continue
                status = indexer.status()
                at = status["positions"]
                ends = {p: (await topic.bounds(p))[1] for p in at}
                if all(at[p] == ends[p] or p in status["stopped"] for p in at):
                    return
            raise AssertionError(f"not at the end: {indexer.status()}")
        finally:
            await topic.close()

    @property
    def table(self) -> Table:
        return Table(self.bucket, CLUSTER)

    def ledger(self) -> Ledger:
        return bring_up(Ledger(), self.table, self.table.snapshot().version())

    def gaps(self) -> list[Gap]:
        return list(find_gaps(self.ledger()))

    def rows(self) -> list[tuple[str, int, str]]:
        """Return pod, epoch and message of every row in the order of the files."""
        table = DeltaTable(self.table.uri, storage_options=self.bucket.storage_options)
        rows = table.to_pyarrow_table(columns=["pod", "epoch", "offset", "message"]).to_pylist()
        rows.sort(key=lambda row: (row["pod"], row["epoch"], row["offset"]))
        return [(row["pod"], row["epoch"], row["message"]) for row in rows]


def expected(*counts: int) -> list[tuple[str, int, str]]:
    return [(f"pod-{p}", 0, f"line {n}") for p, count in enumerate(counts) for n in range(count)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two partitions on local directories."""
    return Place(str(tmp_path / "topic"), open_bucket(str(tmp_path / "bucket")))


class Faulty:
    """A bucket whose ``put`` fails at the n-th call, before or after it has stored the object."""

    def __init__(self, inner: Bucket, at: int, *, stored: bool) -> None:
        self._inner = inner
        self._at = at
        self._stored = stored
        self.calls = 0
        self.uri = inner.uri
        self.storage_options = inner.storage_options
        self.get, self.get_range, self.size = inner.get, inner.get_range, inner.size
        self.names, self.delete, self.sweep = inner.names, inner.delete, inner.sweep

    def put(self, name: str, data: bytes) -> None:
        self.calls += 1
        if self.calls != self._at:
            self._inner.put(name, data)
            return
        if self._stored:
            self._inner.put(name, data)
        raise BucketUnavailable("injected")


# -- crashes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("patient", [False, True], ids=["crash", "retry"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_put_that_fails_at_any_step_doubles_and_loses_nothing(
    place: Place, at: int, stored: bool, patient: bool
) -> None:
    """A commit puts a segment, a dead letter and its coverage; then comes the next commit."""
    await place.ship(0, 0, 20)
    await place.send((1, b"torn"))
    await place.ship(1, 0, 20)
    faulty = Faulty(place.bucket, at, stored=stored)
    async with place.indexer(faulty) as indexer:
        if patient:
            await place.drain(indexer)
        elif at < 4:
            with pytest.raises(BucketUnavailable):
                await once(indexer)
    await place.ship(0, 20, 30)
    await place.index()
    assert faulty.calls >= at or at == 4
    assert place.rows() == expected(30, 20)
    assert [gap.type for gap in place.gaps()] == [UNPARSED]


async def once(indexer: Indexer) -> None:
    await indexer.turn()
    await indexer.flush()


async def several(indexer: Indexer) -> None:
    for _ in range(50):
        await once(indexer)


@pytest.mark.parametrize("made", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("patient", [False, True], ids=["crash", "retry"])
async def test_a_commit_that_fails_is_taken_from_the_table_not_from_its_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch, made: bool, patient: bool
) -> None:
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 20)
    commit, calls = Table.commit, []

    def failing(self: Table, *args) -> int:
        calls.append(args)
        if len(calls) > 1 or made:
            commit(self, *args)
        if len(calls) == 1:
            raise TableUnavailable("injected")
        return self.snapshot().version()

    monkeypatch.setattr(Table, "commit", failing)
    async with place.indexer() as indexer:
        if patient:
            await place.drain(indexer)
            await place.ship(0, 20, 40)
            await place.drain(indexer)
        else:
            with pytest.raises(TableUnavailable):
                await once(indexer)
            await place.ship(0, 20, 40)
    await place.index()
    assert place.rows() == expected(40, 20)
    assert place.gaps() == []


async def test_a_restart_at_every_commit_goes_on_where_the_table_stands(place: Place) -> None:
    for first in range(0, 60, 10):
        await place.ship(0, first, first + 10)
        await place.ship(1, 0, first + 10)  # from its start each time, as after a lost checkpoint
        await place.index()
    assert place.rows() == expected(60, 60)
    assert place.gaps() == []
    for partition in (0, 1):
        at = place.ledger().positions[partition].end
        assert place.table.snapshot().transaction_version(f"local/0/{partition}") == at


@pytest.mark.parametrize("restart", [False, True], ids=["in one run", "after a restart"])
async def test_what_is_sent_again_after_weeks_is_trimmed_though_its_file_is_not_loaded(
    place: Place, restart: bool
) -> None:
    await place.ship(0, 0, 30)
    gone = (Gone(FILES[0].id, 0),)
    await place.send((0, place.runs[0].batch(of=[FILES[0]], gone=gone)))
    await place.ship(1, 0, 60)
    await place.index()
    keeper = Fold(place.bucket, CLUSTER, 24, lambda: START_NS + 48 * HOUR_NS)
    assert keeper.advance(place.table)
    async with place.indexer() as indexer:
        await place.ship(0, 10, 40)  # ten lines of it are new
        await place.drain(indexer)
        if not restart:
            await place.ship(0, 0, 60)
            await place.drain(indexer)
    if restart:
        await place.ship(0, 0, 60)
        await place.index()
    assert place.rows() == expected(60, 60)
    assert keeper.advance(place.table)
    assert LedgerTable(place.bucket, CLUSTER).load() == place.ledger()


async def test_uncommitted_work_of_an_indexer_that_ends_is_read_again(place: Place) -> None:
    await place.ship(0, 0, 30)
    async with place.indexer() as indexer:
        await indexer.turn()
        assert indexer.status()["buffered_bytes"] > 0
    assert place.rows() == []
    await place.index()
    assert place.rows() == expected(30)


def liars() -> dict[str, Batch]:
    """Batches of partition 0 that can be decoded and cannot be true."""
    file, run = File(lines(0, 60), pod="pod-9"), Run(partition=0, run=b"liar" * 4)
    [whole] = file.ranges([])
    elided = Elided(file.id, 0, 500, 100, 3, 0, "drop")
    return {
        "lines": run.batch(replace(whole, lines=3), of=[file]),
        "end": run.batch(replace(whole, start=2**63 - 6), of=[file]),
        "elided": run.batch(elided=(elided,), of=[file]),
    }


@pytest.mark.parametrize("lie", liars())
async def test_a_batch_that_lies_is_kept_whole_and_holds_up_no_other(
    place: Place, lie: str
) -> None:
    await place.ship(0, 0, 20)
    await place.send((0, liar := liars()[lie]))
    await place.ship(0, 20, 40)
    await place.ship(1, 0, 20)
    await place.index()
    assert place.rows() == expected(40, 20)
    assert place.ledger().positions[0].end == 5
    [gap] = place.gaps()
    assert gap.type == UNPARSED
    assert gap.positions == (2, 3)
    assert place.bucket.get(gap.object) == wire(liar)


async def test_a_partition_that_does_not_add_up_though_its_batches_do_is_stopped_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error in the indexer itself would show: nothing of it may be committed."""

    def assembled(intakes, *args):
        if any(len(intake.batches) > 2 for intake in intakes):
            raise NotBalanced("injected")
        return assemble(intakes, *args)

    monkeypatch.setattr("indexer.suspect.assemble", assembled)
    await place.ship(0, 0, 30)
    await place.ship(1, 0, 20)
    async with place.indexer() as indexer:
        await place.drain(indexer)
        assert indexer.status()["stopped"] == {0: "injected"}
        assert not indexer.status()["healthy"]
        await place.ship(1, 20, 40)
        await place.drain(indexer)
    assert place.rows() == expected(0, 40)
    monkeypatch.undo()
    await place.index()
    assert place.rows() == expected(30, 40)
    assert place.gaps() == []


# -- rivals ----------------------------------------------------------------------------------


async def test_who_loses_one_partition_keeps_what_has_come_of_the_other(place: Place) -> None:
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 20)
    async with place.indexer() as slow:
        await slow.turn()  # holds both partitions, none committed
        await place.index(partitions="0")
        version = place.table.snapshot().version()
        await slow.flush()  # partition 0 is dropped, partition 1 goes in without it
        assert place.table.snapshot().version() == version + 1
        assert slow.status()["positions"] == {0: 2, 1: 2}
        await place.ship(0, 20, 30)
        await place.drain(slow)
    assert place.rows() == expected(30, 20)
    assert place.gaps() == []


async def test_indexers_that_all_follow_everything_get_on_and_double_nothing(place: Place) -> None:
    """Three of them race for each commit; with every lost race somebody has won one."""
    await place.ship(0, 0, 10)
    async with place.indexer() as one, place.indexer() as two, place.indexer() as three:
        for first in range(0, 60, 20):
            await place.ship(0, first, first + 20)
            await place.ship(1, first, first + 20)
            await asyncio.gather(*(each.turn() for each in (one, two, three)))
            await asyncio.gather(*(each.flush() for each in (one, two, three)))
        for each in (one, two, three):
            await place.drain(each)
    assert place.rows() == expected(60, 60)
    assert place.gaps() == []


async def test_an_indexer_that_slept_over_a_new_generation_cannot_go_on_under_the_old(
    place: Place,
) -> None:
    await place.ship(0, 0, 20)
    await place.index()
    await place.ship(0, 20, 30)
    async with place.indexer() as old:
        await old.turn()
        shutil.rmtree(place.topic)
        await place.ship(0, 0, 40)
        await place.index()
        await old.flush()
        await place.ship(0, 40, 50)
        await place.drain(old)
    assert place.rows() == expected(50)
    assert place.table.snapshot().transaction_version("local/0/0") == CLOSED
    assert place.ledger().positions[0].generation == 1


# -- what comes in ---------------------------------------------------------------------------


async def test_a_newer_wire_version_stops_its_partition_and_no_other(place: Place) -> None:
    newer = bytearray(wire(Run().batch()))
    newer[3] += 1
    await place.ship(0, 0, 20)
    await place.send((0, bytes(newer)))
    await place.ship(0, 20, 30)
    await place.ship(1, 0, 20)
    async with place.indexer() as indexer:
        await place.drain(indexer)
        status = indexer.status()
        assert not status["healthy"]
        assert "upgrade the reader" in status["stopped"][0]
        assert status["positions"] == {0: 2, 1: 2}
        await place.ship(1, 20, 40)
        await place.drain(indexer)
    assert place.rows() == expected(20, 40)
    assert place.gaps() == []
    async with place.indexer() as indexer:  # it is there still
        await place.drain(indexer)
        assert 0 in indexer.status()["stopped"]
    assert place.ledger().positions[0].end == 2


async def test_a_torn_record_is_kept_and_stops_nothing(place: Place) -> None:
    torn = wire(Run().batch(*FILES[0].ranges([]), of=FILES[:1]))[:-9]
    await place.ship(0, 0, 10)
    await place.send((0, torn), (0, b""), (0, b"\xff" * 1000))
    await place.ship(0, 10, 20)
    await place.index()
    assert place.rows() == expected(20)
    gaps = place.gaps()
    assert [(gap.type, gap.positions) for gap in gaps] == [
        (UNPARSED, (1, 2)), (UNPARSED, (2, 3)), (UNPARSED, (3, 4)),
    ]  # fmt: skip
    assert [place.bucket.get(gap.object) for gap in gaps] == [torn, b"", b"\xff" * 1000]


async def test_a_flood_of_records_that_are_no_batch_alarms_until_one_is(place: Place) -> None:
    await place.send(*((0, b"torn %d" % n) for n in range(7)))
    await place.ship(1, 0, 20)
    async with place.indexer(dead_letters_in_row_max=7) as indexer:
        await place.drain(indexer)
        assert indexer.status()["dead_letters_in_row"] == {0: 7}
        assert not indexer.status()["healthy"]
        await place.ship(0, 0, 20)
        await place.send(*((0, b"torn %d" % n) for n in range(6)))
        await place.drain(indexer)
        assert indexer.status()["healthy"]
    assert place.rows() == expected(20, 20)


async def test_letters_of_two_generations_at_one_position_are_both_kept(place: Place) -> None:
    await place.send((0, b"first"), (1, b"x"))
    await place.index()
    shutil.rmtree(place.topic)
    await place.send((0, b"second"), (1, b"x"))
    await place.index()
    letters = [gap.object for gap in place.gaps() if gap.type == UNPARSED and gap.partition == 0]
    assert [place.bucket.get(name) for name in letters] == [b"first", b"second"]


async def test_replays_alone_move_the_position_and_write_no_segment(place: Place) -> None:
    await place.ship(0, 0, 20)
    await place.index()
    names = set(place.bucket.names(place.table.folder + "date=2026"))
    await place.ship(0, 0, 20)
    await place.index()
    assert place.ledger().positions[0].end == 4
    assert set(place.bucket.names(place.table.folder + "date=2026")) == names


async def test_a_line_outside_of_the_retention_is_filed_under_the_hour_of_its_commit(
    place: Place,
) -> None:
    file = File(b"1970-01-01T00:00:05Z stdout F boot\n" + cri(1, "now"), pod="pod-0")
    await place.send((0, place.runs[0].batch(*file.ranges([]), of=[file])))
    place.clock_ns = START_NS // HOUR_NS * HOUR_NS
    await place.index(retention_hours=24 * 400)
    table = DeltaTable(place.table.uri).to_pyarrow_table(
        columns=["message", "time_source", "hour", "date"]
    )
    found = {row["message"]: row for row in table.to_pylist()}
    assert found["boot"]["time_source"] == "line-outside"
    assert found["boot"]["date"].year == 2026
    assert found["boot"]["hour"] == place.clock_ns // HOUR_NS % 24
    assert (found["now"]["time_source"], found["now"]["hour"]) == ("line", 12)


# -- the bucket is away ----------------------------------------------------------------------


async def test_a_bucket_that_is_away_for_a_while_costs_only_time(
    place: Place, tmp_path: Path
) -> None:
    await place.ship(0, 0, 20)
    await place.index()
    async with place.indexer() as indexer:
        await place.ship(0, 20, 30)
        await indexer.turn()
        (tmp_path / "bucket").rename(tmp_path / "away")
        (tmp_path / "bucket").write_text("no directory")
        for _ in range(2):
            with pytest.raises(IndexerError) as gone:
                await indexer.flush()
            assert gone.value.retriable
        (tmp_path / "bucket").unlink()
        (tmp_path / "away").rename(tmp_path / "bucket")
        await place.drain(indexer)
    assert place.rows() == expected(30)
    assert place.gaps() == []


# -- is it the same topic? -------------------------------------------------------------------


def resets(place: Place) -> list[tuple[str, tuple[int, int] | None]]:
    """Return the gaps in positions; numbers that went with them are gaps of their lanes."""
    return [(gap.type, gap.positions) for gap in place.gaps() if gap.positions is not None]


async def test_a_topic_with_another_identity_was_made_anew(place: Place) -> None:
    await place.ship(0, 0, 20)
    await place.index()
    shutil.rmtree(place.topic)
    await place.ship(0, 20, 40)
    await place.index()
    assert resets(place) == [(TOPIC_RESET, (2, 2))]  # of the other partition nothing was known
    assert place.ledger().positions[0].generation == 1
    assert place.rows() == expected(40)
    before = place.gaps()
    await place.index()
    assert place.gaps() == before


async def test_records_that_the_topic_deleted_unread_are_passed_over_with_a_gap(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.topic.local.FILE_BYTES", 1)  # a file for each record
    await place.ship(0, 0, 10)
    await place.index()
    await place.ship(0, 10, 50)
    topic = open_topic(place.topic)
    try:
        await topic.forget(0, 5)
        start, _ = await topic.bounds(0)
        assert start > 1
    finally:
        await topic.close()
    await place.index()
    assert resets(place) == [(LOST_RETENTION, (1, start))]
    messages = [message for _, _, message in place.rows()]
    assert messages == [f"line {n}" for n in (*range(10), *range(start * 10, 50))]


async def test_a_position_that_is_missing_in_a_dense_topic_is_a_gap(place: Place) -> None:
    await place.ship(0, 0, 50)
    path = Path(place.topic) / "0" / f"{0:020d}.log"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    await place.index()
    [(kind, positions)] = resets(place)
    assert kind == LOST_TOPIC
    assert positions is not None
    assert positions[1] - positions[0] == 1
    lost = range(positions[0] * 10, positions[1] * 10)
    assert [m for _, _, m in place.rows()] == [f"line {n}" for n in range(50) if n not in lost]


# -- on Kafka --------------------------------------------------------------------------------


@pytest.fixture
async def on_servers(kafka: Broker, store: Bucket) -> Place:
    """Two partitions of a new Kafka topic, and each body of the bucket."""
    name = await kafka.new_topic(2)
    return Place(f"kafka://{kafka.bootstrap}/{name}", store)


async def test_rows_come_once_through_kafka_whoever_crashes(on_servers: Place) -> None:
    place = on_servers
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 40)
    faulty = Faulty(place.bucket, 2, stored=True)
    async with place.indexer(faulty) as indexer:
        with pytest.raises(BucketUnavailable):
            await several(indexer)
    await place.index()
    await place.ship(0, 0, 40)
    async with place.indexer() as one, place.indexer() as two:
        await asyncio.gather(place.drain(one), place.drain(two))
    assert place.rows() == expected(40, 40)
    assert place.gaps() == []


async def in_transaction(place: Place, kafka: Broker, batch: Batch, *, commit: bool) -> None:
    name = place.topic.rpartition("/")[2]
    headers = list(record_headers(batch))
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap, transactional_id=f"{name}-{commit}"
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        await producer.send_and_wait(name, wire(batch), partition=0, headers=headers)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()


async def test_control_records_and_transactions_leave_no_false_gap(
    on_servers: Place, kafka: Broker
) -> None:
    """Positions of Kafka have holes where its own records are."""
    place = on_servers
    run, file = place.runs[0], FILES[0]
    first, second, third, last = file.ranges([400, 800, 1200])
    await place.send((0, run.batch(first, of=[file])))
    await in_transaction(place, kafka, run.batch(second, of=[file]), commit=True)
    again = run.batch(third, of=[file])
    await in_transaction(place, kafka, again, commit=False)
    # The first marker may come before or behind the third record; nobody reads the last one.
    async with asyncio.timeout(60), place.indexer() as indexer:
        while indexer.status()["positions"][0] < 3:
            await once(indexer)
    await place.send((0, again), (0, run.batch(last, of=[file])))
    await place.index()
    size = len(file.data)
    await place.send((0, run.inventory([(file, size, size)])))
    await place.index()
    assert place.gaps() == []
    assert [m for _, _, m in place.rows() if m.startswith("line")][-1] == "line 59"
    [entry] = place.ledger().files.values()
    assert [(p.start, p.end) for p in entry.covered] == [(0, size)]
    assert place.ledger().nodes["node-1", 0].complete_until_ns == START_NS


async def test_a_kafka_topic_whose_last_record_differs_was_made_anew(
    on_servers: Place, kafka: Broker
) -> None:
    """Its name is the same, and so may be its length: only the record tells."""
    place = on_servers
    name = place.topic.rpartition("/")[2]
    await place.ship(0, 0, 20)
    await place.index()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([name])
        while name in await admin.list_topics():
            await asyncio.sleep(0.1)
        await admin.create_topics([NewTopic(name, 2, 1)])
    finally:
        await admin.close()
    place.runs[0] = Run(run=b"new" + bytes(13))
    await place.ship(0, 20, 50)
    await place.index()
    assert [(kind, at) for kind, at in resets(place) if kind == TOPIC_RESET] == [
        (TOPIC_RESET, (2, 2))
    ]
    assert place.rows() == expected(50)


async def test_records_that_kafka_deleted_unread_are_a_gap_also_while_an_indexer_runs(
    on_servers: Place, kafka: Broker
) -> None:
    place = on_servers
    at = TopicPartition(place.topic.rpartition("/")[2], 0)
    await place.ship(0, 0, 20)
    async with place.indexer() as indexer:
        await place.drain(indexer)
        await place.ship(0, 20, 50)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({at: RecordsToDelete(4)})
        finally:
            await admin.close()
        await place.drain(indexer)
    assert resets(place) == [(LOST_RETENTION, (2, 4))]
    numbers = (*range(20), *range(40, 50))
    assert [message for _, _, message in place.rows()] == [f"line {n}" for n in numbers]


async def test_of_a_mixed_commit_on_kafka_only_the_stale_partition_is_read_again(
    on_servers: Place,
) -> None:
    place = on_servers
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 20)
    async with place.indexer() as slow:
        while slow.status()["buffered_bytes"] < 1_800:
            await slow.turn()
        await place.index(partitions="0")
        await slow.flush()
        assert slow.status()["positions"] == {0: 2, 1: 2}
        assert slow._metrics.positions_moved._value.get() == 1
        await place.ship(0, 20, 30)
        await place.drain(slow)
    assert place.rows() == expected(30, 20)
    assert place.gaps() == []


async def test_what_has_come_is_committed_when_the_topic_goes_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.ship(0, 0, 20)
    async with place.indexer() as indexer:
        await indexer.turn()

        async def away(*_: object) -> NoReturn:
            raise TopicUnavailable("injected")

        with monkeypatch.context() as patch:
            patch.setattr(indexer._topic, "read", away)
            with pytest.raises(TopicUnavailable):
                await indexer.turn()
        assert place.rows() == expected(20)
        await place.ship(0, 20, 30)
        await place.drain(indexer)
    assert place.rows() == expected(30)
