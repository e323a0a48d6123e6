"""From the container's file to the table, with real processes, on all topics and buckets."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from indexer.errors import TableError
from indexer.table.table import Table
from tests.real_parts.kafka import Broker, SecuredBroker
from tests.real_parts.s3 import Bucket
from tests.way import CLUSTER, Way, a_way, cri, environment, eventually, lines

pytestmark = pytest.mark.real


@pytest.fixture(params=["local", "servers"])
def way(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Way]:
    """A pipeline on local directories, or on a real Kafka and a real S3 server."""
    if request.param == "local":
        topic, bucket = str(tmp_path / "topic"), str(tmp_path / "bucket")
    else:
        broker: Broker = request.getfixturevalue("kafka")
        store: Bucket = request.getfixturevalue("bucket")
        for name, value in environment(store).items():
            monkeypatch.setenv(name, value)
        topic = f"kafka://{broker.bootstrap}/{asyncio.run(broker.new_topic(3))}"
        bucket = f"s3://{store.name}/prefix"
    with a_way(tmp_path, topic, bucket, partitions=3) as way:
        yield way


def generate(
    way: Way, seed: int, seconds: float, rotate_bytes: int = 40_000
) -> "subprocess.Popen[bytes]":
    """Start pods that write and rotate for a while."""
    words = (
        f"--out {way.logs} --pods 6 --seconds {seconds} --lines-per-second 900 "
        f"--rotate-bytes {rotate_bytes} --keep 1000 --seed {seed}"
    ).split()
    way.logs.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "load_tests.generate", *words])
    way.processes["generate"] = process
    return process


def test_every_message_comes_back_byte_for_byte_once_and_in_order(way: Way) -> None:
    assert generate(way, seed=1, seconds=3).wait() == 0
    way.write("empty", b"")
    way.collector()
    way.indexer()
    eventually(way.covers_everything)
    assert way.differs() == []
    assert way.gaps() == []


def test_a_line_is_searchable_within_ten_seconds_of_its_writing(way: Way) -> None:
    way.collector(flush_age_ms=1000, scan_interval_ms=1000)
    way.indexer(flush_age_ms=2000)
    path = way.write("web", lines(0, 10))
    eventually(lambda: way.covers(path))
    way.write("web", lines(10, 20))
    eventually(lambda: way.covers(path), timeout_s=10)


def test_killing_collector_and_indexer_ten_times_each_loses_and_doubles_nothing(way: Way) -> None:
    """At random moments, while files grow and rotate."""
    chance = random.Random(20)
    writer = generate(way, seed=2, seconds=25)
    way.collector()
    way.indexer()
    for name in ["collector", "indexer"] * 10:
        time.sleep(chance.uniform(0.2, 1.8))
        way.kill(name)
        way.collector() if name == "collector" else way.indexer()
    assert writer.wait() == 0
    eventually(way.covers_everything, timeout_s=120)
    assert way.differs() == []
    assert way.gaps() == []


def test_a_second_indexer_that_was_paused_changes_nothing_that_readers_see(way: Way) -> None:
    way.collector()
    way.write("web", lines(0, 1000))
    first = way.indexer("first")
    eventually(lambda: way.covers(way.logs / "shop_web_web-uid/app/0.log"))
    way.indexer("second")
    eventually(lambda: '"ready": true' in way.status("second"))
    first.send_signal(signal.SIGSTOP)
    path = way.write("web", lines(1000, 3000))
    eventually(lambda: way.covers(path))
    first.send_signal(signal.SIGCONT)
    way.write("web", lines(3000, 4000))
    eventually(lambda: way.covers(path))
    time.sleep(2)
    assert way.differs() == []
    assert way.gaps() == []


def test_a_stop_sends_what_was_read_and_a_start_goes_on(way: Way) -> None:
    way.collector()
    path = way.write("web", lines(0, 500))
    way.indexer()
    eventually(lambda: way.covers(path))
    assert way.stop("collector") == 0
    assert way.stop("indexer") == 0
    way.write("web", lines(500, 900))
    way.collector()
    way.indexer()
    eventually(lambda: way.covers(path))
    assert way.differs() == []
    assert way.gaps() == []


def test_bad_input_is_kept_or_named_and_everything_else_goes_on(way: Way) -> None:
    way.collector()
    way.indexer()
    way.write("torn", cri(1) + b"a line without a timestamp\n" + cri(2))
    way.write("bytes", cri(1, "caf\u00e9").replace(b"\xc3\xa9", b"\xff\xfe") + cri(2, "\0\0"))
    way.write("long", cri(1, "x" * 1_000_000) + cri(2))
    way.write("open", cri(1, "a head ", tag="P") + cri(2, "of stderr", "stderr"))
    way.write("empty", b"")
    way.write("unborn", b"no newline yet")
    good = way.write("good", lines(0, 100))
    eventually(
        lambda: all(way.covers(p) for p in way.logs.glob("*/*/*.log") if p.stat().st_size > 14)
    )
    way.write("unborn", b" but now\n")
    eventually(way.covers_everything)
    way.write("good", lines(100, 200))
    eventually(lambda: way.covers(good))
    assert way.differs() == []
    assert way.gaps() == []


def test_a_password_changed_at_the_broker_holds_up_collector_and_indexer_until_they_get_it(
    tmp_path: Path,
) -> None:
    broker = SecuredBroker.start()
    password = tmp_path / "password"
    password.write_text(broker.users["shipper"])
    login: dict[str, Any] = {
        "kafka_tls": "true",
        "kafka_tls_ca": broker.authority.certificate,
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "shipper",
        "kafka_sasl_password_file": password,
    }
    topic = f"kafka://{broker.sasl}/{asyncio.run(broker.new_topic(2))}"
    try:
        with a_way(tmp_path, topic, str(tmp_path / "bucket"), partitions=2) as way:
            way.collector(**login)
            way.indexer(**login)
            path = way.write("web", lines(0, 100))
            eventually(lambda: way.covers(path))
            broker.kill()
            broker.set_plain_password("shipper", "of the next month")
            broker.restart()
            way.write("web", lines(100, 200))
            refused = "authentication failed for user 'shipper' by PLAIN"
            eventually(lambda: refused in way.said("collector"))
            eventually(lambda: refused in way.said("indexer"))
            password.write_text("of the next month")
            way.write("web", lines(200, 300))
            eventually(way.covers_everything)
            assert way.differs() == []
            assert way.gaps() == []
            assert (way.stop("collector"), way.stop("indexer")) == (0, 0)
            assert "next month" not in way.said("collector") + way.said("indexer")
    finally:
        broker.close()


def test_lines_of_docker_and_of_plain_files_come_back_as_they_were_written(tmp_path: Path) -> None:
    log = tmp_path / "docker" / "abc" / "abc-json.log"
    log.parent.mkdir(parents=True)
    written = [
        b'{"log":"line %d of%s","stream":"stdout","time":"2026-03-01T12:00:00.%09dZ"}'
        % (number, b" a part" if number % 5 else b" a whole\\n", number)
        for number in range(200)
    ]
    # Parts are joined up to the first that ends its line; the last ones wait for theirs in vain.
    texts = [b"line %d of%s" % (n, b" a part" if n % 5 else b" a whole") for n in range(200)]
    events = [texts[0], *(b"".join(texts[n : n + 5]) for n in range(1, 200, 5))]
    log.write_bytes(b"\n".join(written) + b"\n")
    link = tmp_path / "pods" / "shop_web_web-uid" / "app" / "0.log"
    link.parent.mkdir(parents=True)
    link.symlink_to(log)
    plain = [b'10.0.0.%d - "GET /" \xff stdout P 200' % (number % 7) for number in range(200)]
    (tmp_path / "access.log").write_bytes(b"\n".join(plain) + b"\n")
    with a_way(tmp_path, str(tmp_path / "topic"), str(tmp_path / "bucket")) as way:
        way.collector(
            roots="",
            docker_roots=way.logs,
            link_targets=tmp_path / "docker",
            plain_files=f"proxy={tmp_path}/access.*",
        )
        way.indexer()

        def rows() -> list[bytes]:
            try:
                table = Table(way.opened(), CLUSTER)
                found = DeltaTable(table.uri).to_pyarrow_table(columns=["message", "raw"])
            except (TableError, TableNotFoundError):
                return []
            return [row["raw"] or row["message"].encode() for row in found.to_pylist()]

        eventually(lambda: sorted(rows()) == sorted(events + plain))
        assert way.gaps() == []
