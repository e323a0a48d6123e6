"""The servers that tests rely on do what real ones do, and never outlive the run."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.real_parts.guard import ROOT, Guarded, ServerError, accepts
from tests.real_parts.kafka import Broker


async def test_kafka_returns_what_was_produced(kafka: Broker) -> None:
    topic = await kafka.new_topic(partitions=3, config={"max.message.bytes": "2097152"})
    payloads = [os.urandom(1_000), os.urandom(1_500_000)]
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap,
        acks="all",
        enable_idempotence=True,
        max_request_size=2_000_000,
    )
    await producer.start()
    try:
        sent = [await producer.send_and_wait(topic, p, partition=2) for p in payloads]
    finally:
        await producer.stop()
    assert [record.offset for record in sent] == [0, 1]

    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 2)])
        seen = [await asyncio.wait_for(consumer.getone(), 30) for _ in payloads]
    finally:
        await consumer.stop()
    assert [record.value for record in seen] == payloads


@pytest.mark.real
async def test_a_killed_broker_comes_back_with_its_records() -> None:
    broker = Broker.start()
    try:
        topic = await broker.new_topic()
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
        await producer.start()
        try:
            await producer.send_and_wait(topic, b"a line\n")
        finally:
            await producer.stop()
        broker.kill()
        assert not accepts(int(broker.bootstrap.rpartition(":")[2]))
        broker.restart()
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            record = await asyncio.wait_for(consumer.getone(), 30)
        finally:
            await consumer.stop()
        assert record.value == b"a line\n"
    finally:
        broker.close()
    assert not broker.folder.exists()


@pytest.mark.real
def test_a_run_that_is_killed_leaves_no_server_and_no_folder() -> None:
    code = (
        "import time\n"
        "from tests.real_parts.kafka import Broker\n"
        "from tests.real_parts.s3 import S3Server\n"
        "for server in (Broker.start().server, S3Server.start().server):\n"
        "    print(server.pid, server.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout is not None
        servers = [run.stdout.readline().decode().split() for _ in range(2)]
        assert all(Path(folder).exists() and _runs(pid) for pid, folder in servers)
        run.send_signal(signal.SIGKILL)
        run.wait()
    end = time.monotonic() + 20
    while any(Path(folder).exists() or _runs(pid) for pid, folder in servers):
        assert time.monotonic() < end, "a server or its folder outlived the run"
        time.sleep(0.05)


@pytest.mark.real
def test_a_server_dies_with_its_guard(tmp_path: Path) -> None:
    server = Guarded(["sleep", "600"], tmp_path)
    os.kill(server._guard.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while _runs(str(server.pid)):
        assert time.monotonic() < end, "the server outlived its guard"
        time.sleep(0.05)
    server.stop()


@pytest.mark.real
def test_what_a_server_leaves_elsewhere_is_removed_after_it(tmp_path: Path) -> None:
    folder, left = tmp_path / "server", tmp_path / "left"
    folder.mkdir()
    left.touch()
    server = Guarded(["sleep", "600"], folder, after=["rm", str(left)])
    assert left.exists()
    server.stop()
    assert not left.exists()
    assert not folder.exists()


@pytest.mark.real
def test_a_server_that_dies_at_its_start_shows_its_log(tmp_path: Path) -> None:
    server = Guarded(["sh", "-c", "echo port is taken; exit 1"], tmp_path)
    with pytest.raises(ServerError, match="port is taken"):
        server.wait_until(lambda: False, timeout_s=30)
    assert not tmp_path.exists()


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
