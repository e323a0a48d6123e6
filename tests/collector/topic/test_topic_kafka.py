"""What only Kafka can show: brokers that die, move or lie, and topics that are set up wrongly."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.structs import TopicPartition

from collector.errors import BatchTooLarge, PositionOutOfRange, TopicMissing, TopicUnavailable
from collector.process import Seldom
from collector.topic import kafka as topic_kafka
from collector.topic import kafka_append as append
from collector.topic import kafka_connection as connection
from collector.topic.interface import Topic, TopicLimits
from collector.topic.open import open_topic
from collector.topic.security import KafkaSettings, Security
from tests.collector.topic.test_topic import BYTES_MAX, HEADERS, put, read_often, take
from tests.real_parts.guard import free_port
from tests.real_parts.kafka import Broker, Cluster, SecuredBroker


@asynccontextmanager
async def opened(bootstrap: str, name: str) -> AsyncIterator[Topic]:
    topic = open_topic(f"kafka://{bootstrap}/{name}")
    try:
        yield topic
    finally:
        await topic.close()


async def all_values(topic: Topic, partition: int = 0) -> list[bytes]:
    """The values of a partition, without those that were sent again."""
    start, end = await topic.bounds(partition)
    records = await take(topic, start, end - start, partition)
    return list(dict.fromkeys(record.value for record in records))


class Load:
    """Appends numbers to partitions in turn, a hundred a second, until it is stopped."""

    def __init__(self, topic: Topic, partitions: int) -> None:
        self.sent: dict[int, list[bytes]] = {p: [] for p in range(partitions)}
        self.acked: dict[int, int] = dict.fromkeys(range(partitions), 0)
        self._topic = topic
        self._futures: list[asyncio.Future[int]] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            for partition, values in self.sent.items():
                values.append(b"%d" % len(values))
                future = await self._topic.append(partition, values[-1], ())
                future.add_done_callback(partial(self._count, partition))
                self._futures.append(future)
            await asyncio.sleep(0.01)

    def _count(self, partition: int, _: "asyncio.Future[int]") -> None:
        self.acked[partition] += 1

    def stop(self) -> None:
        self._task.cancel()

    async def goes_on(self, partition: int = 0) -> None:
        """Wait until something is acknowledged that is not yet appended now."""
        target = len(self.sent[partition]) + 1
        async with asyncio.timeout(40):
            while self.acked[partition] < target:
                await asyncio.sleep(0.05)

    async def check(self) -> None:
        """Stop, and find everything in the topic, in order."""
        self.stop()
        await asyncio.wait_for(asyncio.gather(*self._futures), 40)
        for partition, values in self.sent.items():
            assert await all_values(self._topic, partition) == values


def told(caplog: pytest.LogCaptureFixture, message: str) -> list[str]:
    """What was told with a message of ours, as often as it was."""
    found = [vars(r) for r in caplog.records if r.getMessage() == message]
    return [str(r.get("error") or r.get("advice") or "") for r in found]


# -- brokers that die ------------------------------------------------------------------------------


async def test_leaders_killed_in_a_loop_lose_nothing_and_keep_the_order(
    kafka_cluster: Cluster,
) -> None:
    name = await kafka_cluster.new_topic(2)
    async with opened(kafka_cluster.bootstrap, name) as topic, AsyncExitStack() as stack:
        load = Load(topic, 2)
        stack.callback(load.stop)
        for turn in range(2):
            leader = await kafka_cluster.leader(name, turn % 2)
            leader.kill()
            for partition in (0, 1):
                await load.goes_on(partition)
            await asyncio.to_thread(leader.restart)
        await load.check()
        assert topic.trouble == ""


async def test_appends_wait_while_two_of_three_brokers_are_dead(
    kafka_cluster: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "collector")
    monkeypatch.setattr(append, "_GIVEN_UP_S", 5.0)
    name = await kafka_cluster.new_topic(1)
    async with opened(kafka_cluster.bootstrap, name) as topic, AsyncExitStack() as stack:
        load = Load(topic, 1)
        stack.callback(load.stop)
        await load.goes_on()
        dead = kafka_cluster.brokers[:2]
        for broker in dead:
            broker.kill()
        await asyncio.sleep(1)
        acked = load.acked[0]
        async with asyncio.timeout(20):
            while not topic.trouble:
                await asyncio.sleep(0.1)
        await asyncio.sleep(6)  # a producer that has waited for long is given up, and no record
        assert load.acked[0] == acked
        await asyncio.to_thread(dead[0].restart)
        await load.goes_on()
        assert topic.trouble == ""
        await asyncio.to_thread(dead[1].restart)
        await load.check()
    assert told(caplog, "kafka accepts batches again") == [""]
    reasons = told(caplog, "kafka did not accept batches; retrying")
    assert "its leader acknowledges nothing" in reasons[0]
    assert len(set(reasons)) == len(reasons)
    assert not [record for record in caplog.records if record.name == "asyncio"]


# -- one broker ------------------------------------------------------------------------------------


async def test_partitions_are_known_right_after_the_topic_was_made(kafka: Broker) -> None:
    early = open_topic(f"kafka://{kafka.bootstrap}/{uuid.uuid4().hex}")
    with pytest.raises(TopicMissing, match="create it"):
        await early.partitions()
    await early.close()
    for count in (1, 5):
        topic = open_topic(f"kafka://{kafka.bootstrap}/{await kafka.new_topic(count)}")
        assert await topic.partitions() == count
        await topic.close()


async def test_records_deleted_before_they_were_read_are_out_of_range(kafka: Broker) -> None:
    name = await kafka.new_topic()
    topic = open_topic(f"kafka://{kafka.bootstrap}/{name}")
    await put(topic, *(b"%d" % i for i in range(6)))
    assert [r.position for r in await take(topic, 0, 6)] == list(range(6))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(name, 0): RecordsToDelete(before_offset=4)})
    await admin.close()
    assert await topic.bounds(0) == (4, 6)
    with pytest.raises(PositionOutOfRange) as caught:
        await read_often(topic, 1)
    assert (caught.value.partition, caught.value.position) == (0, 1)
    assert [r.value for r in await take(topic, 4, 2)] == [b"4", b"5"]
    await topic.close()


@pytest.mark.slow
async def test_no_broker_at_the_address_is_unavailable_and_named() -> None:
    port = free_port()
    topic = open_topic(f"kafka://127.0.0.1:{port}/logs")
    for call in (topic.partitions, lambda: topic.bounds(0)):
        with pytest.raises(TopicUnavailable, match=f"127.0.0.1:{port}"):
            await unavailable(call)
    waiting = await topic.append(0, b"", ())
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await topic.close()


async def unavailable(call: Callable[[], Awaitable[object]]) -> None:
    await asyncio.wait_for(call(), 60)


@pytest.mark.real
async def test_what_a_broker_does_not_answer_is_sent_again_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "collector")
    broker = Broker.start()
    try:
        topic = open_topic(f"kafka://{broker.bootstrap}/{await broker.new_topic()}")
        values = [b"%d" % i for i in range(30)]
        await put(topic, *values[:10])
        broker.kill()
        futures = [await topic.append(0, value, HEADERS) for value in values[10:20]]
        await asyncio.sleep(1)
        assert not any(future.done() for future in futures)
        async with asyncio.timeout(20):
            while "refused" not in topic.trouble and "Connect call failed" not in topic.trouble:
                await asyncio.sleep(0.1)
        await asyncio.sleep(2.5)  # it is said again only when something else is wrong
        reasons = told(caplog, "kafka did not accept batches; retrying")
        assert len(set(reasons)) == len(reasons)
        broker.restart()
        async with asyncio.timeout(30):
            await asyncio.gather(*futures)
        assert topic.trouble == ""
        assert told(caplog, "kafka accepts batches again") == [""]
        await put(topic, *values[20:])
        seen = [r.value for r in await take(topic, 0, 30)]
        assert list(dict.fromkeys(seen)) == values
        await topic.close()
    finally:
        broker.close()


async def test_a_batch_that_the_broker_will_never_take_is_refused_alone_and_at_once(
    kafka: Broker,
) -> None:
    name = await kafka.new_topic(1, {"max.message.bytes": "2000"})
    async with opened(kafka.bootstrap, name) as topic:
        await put(topic, b"connects")
        began = time.monotonic()
        values = [os.urandom(900) for _ in range(12)]
        good = [await topic.append(0, value, ()) for value in values]
        bad = [await topic.append(0, os.urandom(size), ()) for size in (3000, 2_000_000, 3001)]
        for future, size in zip(bad, (3000, 2_000_000, 3001), strict=True):
            with pytest.raises(BatchTooLarge, match=f"{size} bytes; send it in parts"):
                await asyncio.wait_for(future, 20)
        await asyncio.wait_for(asyncio.gather(*good), 20)
        await put(topic, b"and on")
        assert time.monotonic() - began < 5
        assert await all_values(topic) == [b"connects", *values, b"and on"]
        assert topic.trouble == ""


# -- brokers that move, or are not there -----------------------------------------------------------


@asynccontextmanager
async def forwarder(broker: Broker) -> AsyncIterator[str]:
    """An address that leads to wherever the broker is: what a name is in a cluster's DNS."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = broker.bootstrap.partition(":")
        try:
            onward = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()


@pytest.mark.real
async def test_a_broker_that_has_moved_is_found_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topic_kafka, "_SILENT_S", 1.0)
    broker = await asyncio.to_thread(Broker.start)
    try:
        name = await broker.new_topic()
        async with (
            forwarder(broker) as address,
            opened(address, name) as writer,
            opened(address, name) as reader,
        ):
            values = [b"%d" % i for i in range(20)]
            await put(writer, *values[:10])
            assert len(await take(reader, 0, 10)) == 10
            moving = asyncio.create_task(asyncio.to_thread(broker.move))
            await asyncio.sleep(0.5)
            futures = [await writer.append(0, value, ()) for value in values[10:]]
            await moving
            await asyncio.wait_for(asyncio.gather(*futures), 40)
            async with asyncio.timeout(40):
                seen: list[bytes] = []
                while not seen:
                    with suppress(TopicUnavailable):  # which says to try again
                        found = await reader.read({0: 10}, BYTES_MAX, 200)
                        seen = [record.value for record in found.get(0, [])]
            assert list(dict.fromkeys(seen)) == values[10:][: len(set(seen))]
            assert await all_values(reader) == values
    finally:
        broker.close()


async def test_bootstrap_addresses_that_do_not_resolve_or_answer_hinder_nothing(
    kafka: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "REQUEST_S", 0.5)
    monkeypatch.setattr(caplog.handler, "filters", [Seldom("aiokafka")])
    name = await kafka.new_topic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        brokers = f"broker-0.invalid:9092,127.0.0.1:{port},{kafka.bootstrap}"
        for number in range(6):  # they are tried in any order
            async with opened(brokers, name) as topic:
                await put(topic, b"%d" % number)
                assert await all_values(topic) == [b"%d" % i for i in range(number + 1)]
    unresolved = [r for r in caplog.records if "broker-0.invalid" in r.getMessage()]
    assert [r.name for r in unresolved] == ["aiokafka"]


# -- a process that is stopped ---------------------------------------------------------------------

CHILD = """
import asyncio, sys
from collector.topic import kafka_append as append
from collector.topic import kafka_connection as connection
from collector.topic import kafka as topic_kafka
from collector.topic.open import open_topic
connection.REQUEST_S = 1.5
async def main():
    topic = open_topic(sys.argv[1])
    futures = []
    for number in range(600):
        futures.append(await topic.append(0, b"%d" % number, ()))
        if number == 100:
            await futures[0]
            print("appends", flush=True)
        await asyncio.sleep(0.005)
    await asyncio.gather(*futures)
    await topic.close()
asyncio.run(main())
"""


async def test_a_process_that_was_frozen_for_longer_than_its_timeouts_loses_nothing(
    kafka: Broker,
) -> None:
    name = await kafka.new_topic()
    url = f"kafka://{kafka.bootstrap}/{name}"
    child = subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "appends\n"
        for frozen_s in (4, 2):
            child.send_signal(signal.SIGSTOP)
            time.sleep(frozen_s)
            child.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        assert await asyncio.to_thread(child.wait, 60) == 0
    finally:
        child.kill()
        child.communicate()
    async with opened(kafka.bootstrap, name) as topic:
        assert await all_values(topic) == [b"%d" % number for number in range(600)]


# -- topics that are missing, grow, or are set up wrongly ------------------------------------------


async def test_a_topic_made_later_takes_what_waited_and_is_never_made_by_asking(
    kafka: Broker,
) -> None:
    name = f"later-{uuid.uuid4().hex}"
    async with opened(kafka.bootstrap, name) as topic:
        waiting = await topic.append(0, b"a", ())
        with pytest.raises(TopicMissing, match="create it"):
            await topic.partitions()
        with pytest.raises(TopicMissing, match="create it"):
            await topic.limits()
        assert await topic.read({0: 0}, BYTES_MAX, 200) == {}
        await asyncio.sleep(2)
        assert not waiting.done()
        assert re.search(f"topic '{name}' does not exist; create it", topic.trouble)
        await kafka.new_topic(3, name=name)  # fails if there is one already
        await asyncio.wait_for(waiting, 20)
        assert topic.trouble == ""
        assert await topic.partitions() == 3


async def test_partitions_that_are_added_are_used(kafka: Broker) -> None:
    name = await kafka.new_topic(1)
    async with opened(kafka.bootstrap, name) as topic, opened(kafka.bootstrap, name) as blind:
        await put(topic, b"a")
        assert await topic.partitions() == 1
        with pytest.raises(TopicMissing, match="no partition 1"):
            await topic.append(1, b"b", ())
        waiting = await blind.append(1, b"c", ())
        await put(blind, b"b")  # another partition does not wait for it
        await asyncio.sleep(1.5)
        assert "add partitions" in blind.trouble
        async with administrator(kafka) as admin:
            await admin.create_partitions({name: NewPartitions(2)})
        await asyncio.wait_for(waiting, 20)
        await put(topic, b"d", partition=1)
        assert await all_values(topic, 1) == [b"c", b"d"]


@asynccontextmanager
async def administrator(broker: Broker) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@pytest.mark.parametrize(
    ("config", "value_bytes_max"), [({}, 1_000_000), ({"max.message.bytes": "65536"}, 64_512)]
)
async def test_the_limit_of_the_topic_or_of_the_broker_counts(
    kafka: Broker, config: dict[str, str], value_bytes_max: int
) -> None:
    name = await kafka.new_topic(1, config)
    async with opened(kafka.bootstrap, name) as topic:
        limits = await topic.limits()
        assert limits == TopicLimits(value_bytes_max)
        values = [os.urandom(value_bytes_max // 3) for _ in range(30)]
        values.append(os.urandom(value_bytes_max))
        await put(topic, *values)
        await put(topic, os.urandom(value_bytes_max))
        assert (await all_values(topic))[:-1] == values


async def test_what_is_set_up_wrongly_is_told_once(
    kafka: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {
        "compression.type": "gzip",
        "cleanup.policy": "compact,delete",
        "retention.ms": "60000",
        "retention.bytes": "1000000",
    }
    name = await kafka.new_topic(1, wrong)
    async with opened(kafka.bootstrap, name) as topic:
        found = (await topic.limits()).advice
        assert (await topic.limits()).advice == found
    assert [each.split(" ")[0] for each in found] == list(wrong)
    assert told(caplog, "the topic's settings should be changed") == list(found)


async def test_one_copy_of_three_is_told(kafka_cluster: Cluster) -> None:
    name = await kafka_cluster.new_topic(1, {"min.insync.replicas": "1"})
    async with opened(kafka_cluster.bootstrap, name) as topic:
        (found,) = (await topic.limits()).advice
    assert found.startswith("min.insync.replicas is 1 of 3 replicas")


async def test_without_the_right_to_ask_the_own_limit_counts(
    secured_kafka: SecuredBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = await secured_kafka.new_topic(1, {"max.message.bytes": "65536"})
    (tmp_path / "password").write_text(secured_kafka.users["guest"])
    settings = KafkaSettings(
        kafka_tls=True,
        kafka_tls_ca=str(secured_kafka.authority.certificate),
        kafka_sasl_mechanism="PLAIN",
        kafka_sasl_username="guest",
        kafka_sasl_password_file=str(tmp_path / "password"),
    )
    topic = open_topic(f"kafka://{secured_kafka.sasl}/{name}", security=Security(settings))
    limits = [await topic.limits() for _ in range(2)]
    await topic.close()
    assert [each.value_bytes_max for each in limits] == [1_000_000] * 2
    (advice,) = told(caplog, "the topic's settings should be changed")
    assert "allow it DescribeConfigs" in advice


async def test_a_line_of_last_week_does_not_expire_on_arrival(kafka: Broker) -> None:
    day_ms = 86_400_000
    last_week_ms = int(time.time() * 1000) - 8 * day_ms
    line = datetime.fromtimestamp(last_week_ms / 1000, UTC).isoformat().encode() + b" stdout F x"
    names = [await kafka.new_topic(1, {"retention.ms": str(day_ms)}) for _ in range(2)]
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    await producer.send_and_wait(names[0], line, partition=0, timestamp_ms=last_week_ms)
    await producer.stop()
    async with opened(kafka.bootstrap, names[0]) as other, opened(kafka.bootstrap, names[1]) as own:
        await put(own, line)
        async with asyncio.timeout(20):
            while await other.bounds(0) != (1, 1):  # the proof that it is looked for
                await asyncio.sleep(0.1)
        assert await own.bounds(0) == (0, 1)
        assert await all_values(own) == [line]
