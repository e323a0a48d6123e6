"""Loss on purpose: every lost byte is in a gap that says what is known, and nothing else is.

Real processes, a real Kafka and a real S3 server; the damage is done to files, to the topic's
directory and through Kafka's own administration.
"""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from collector.files import checkpoint
from collector.topic.record_frame import frames
from indexer.ledger.entries import LOST_RETENTION, LOST_ROTATED, LOST_TOPIC, TOPIC_RESET
from indexer.query.scope import Scope
from query_api.completeness.gaps import LOST, STAMP_SLACK_NS, UNKNOWN, Gap
from query_api.completeness.replica import Replica
from query_api.completeness.verdict import Trouble, judge
from tests.real_parts.kafka import Broker
from tests.way import CLUSTER, Way, a_way, eventually, lines

pytestmark = pytest.mark.real


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Way]:
    """A pipeline on local directories."""
    with a_way(tmp_path, str(tmp_path / "topic"), str(tmp_path / "bucket")) as way:
        yield way


@pytest.fixture
def on_kafka(tmp_path: Path, kafka: Broker) -> Iterator[Way]:
    """A pipeline on a real Kafka topic of one partition."""
    topic = f"kafka://{kafka.bootstrap}/{asyncio.run(kafka.new_topic(1))}"
    with a_way(tmp_path, topic, str(tmp_path / "bucket")) as way:
        yield way


def only_file_gap(way: Way, kind: str) -> Gap:
    """Return the one gap of a file of this type; fail if there are others."""
    gaps = [gap for gap in way.gaps() if gap.file is not None]
    assert [gap.type for gap in gaps] == [kind]
    return gaps[0]


def test_a_file_deleted_while_the_collector_was_down_is_a_gap_from_its_acknowledged_end(
    local: Way,
) -> None:
    local.collector()
    local.indexer()
    path = local.write("web", lines(0, 100))
    other = local.write("other", lines(0, 100))
    eventually(lambda: local.covers(path) and local.covers(other))
    acknowledged = path.stat().st_size
    local.kill("collector")
    local.write("web", lines(100, 200))
    path.unlink()
    local.collector()
    eventually(lambda: local.gaps())
    gap = only_file_gap(local, LOST_ROTATED)
    assert (gap.start, gap.end, gap.end_exact) == (acknowledged, acknowledged, False)
    assert gap.state == UNKNOWN  # nobody has seen a byte beyond
    assert gap.file is not None
    assert (gap.file.pod, gap.file.container) == ("web", "app")
    assert gap.from_ns == gap.file.last_ns - STAMP_SLACK_NS  # after the last line that is there
    assert gap.to_ns is not None
    assert local.verdict("web") == "incomplete"
    assert local.verdict("other") == "unknown"  # of the last moments, and of nothing else


def test_bytes_that_were_seen_and_then_deleted_unread_are_lost_up_to_a_lower_bound(
    local: Way,
) -> None:
    local.collector()
    local.indexer()
    path = local.write("web", lines(0, 100))
    eventually(lambda: local.covers(path))
    start = path.stat().st_size
    # An event that does not end is seen by the scan and not read on.
    local.stop("collector")
    local.collector(event_wait_ms=600_000)
    head = b"2026-03-01T12:00:00.1Z stdout P a head without an end\n"
    local.write("web", head)
    size = path.stat().st_size
    eventually(lambda: any(f.size == size for f in local.ledger().files.values()))
    local.kill("collector")
    path.unlink()
    local.collector()
    eventually(lambda: local.gaps())
    gap = only_file_gap(local, LOST_ROTATED)
    assert (gap.start, gap.end, gap.end_exact, gap.state) == (start, size, False, LOST)
    assert local.verdict("web") == "incomplete"


def test_a_batch_cut_out_of_the_local_topic_is_found_to_the_byte(local: Way) -> None:
    local.collector(inventory_interval_ms=60_000)
    path = local.write("web", lines(0, 10))
    other = local.write("other", lines(0, 10))
    records = local.folder / "topic/0/00000000000000000000.log"

    def count() -> int:
        return len(list(frames(records.read_bytes()))) if records.exists() else 0

    ends = []
    for first in (10, 20, 30, 40):
        before = count()
        local.write("web", lines(first, first + 10))
        eventually(lambda before=before: count() > before)  # type: ignore[misc]
        ends.append(path.stat().st_size)
    assert local.stop("collector") == 0
    found = list(frames(records.read_bytes()))
    data = records.read_bytes()
    starts = [0, *(end for _, end in found)]
    cut = len(found) - 3
    records.write_bytes(data[: starts[cut]] + data[starts[cut + 1] :])
    local.indexer()
    local.collector()
    local.write("other", lines(10, 20))
    eventually(lambda: local.covers(other) and any(gap.file for gap in local.gaps()))
    gap = only_file_gap(local, LOST_TOPIC)
    assert gap.file is not None
    assert gap.file.pod == "web"
    assert gap.start in ends
    assert gap.end in ends
    assert gap.end_exact
    assert gap.state == LOST
    [jump] = [gap for gap in local.gaps() if gap.positions is not None]
    assert jump.positions == (cut, cut + 1)
    [hole] = [gap for gap in local.gaps() if gap.batches is not None]
    assert hole.batches is not None
    assert hole.batches[0] == hole.batches[1]
    # A later inventory has named the bytes, so other streams are whole again.
    eventually(lambda: all(gap.explained for gap in local.gaps() if gap.file is None))
    assert local.verdict("web") == "incomplete"
    assert local.verdict("other") == "unknown"


def test_records_that_kafka_deleted_before_they_were_read_are_a_gap_with_exact_bytes(
    on_kafka: Way,
) -> None:
    way = on_kafka
    way.collector()
    path = way.write("web", lines(0, 100))
    way.indexer()
    eventually(lambda: way.covers(path))
    start = path.stat().st_size
    way.stop("indexer")
    position = way.ledger().positions[0].end
    way.write("web", lines(100, 200))
    eventually(lambda: acked(way) >= path.stat().st_size)
    end = path.stat().st_size
    deleted_to = asyncio.run(delete_records(way.topic))
    assert deleted_to > position
    way.indexer()
    way.write("web", lines(200, 300))
    eventually(lambda: any(gap.file for gap in way.gaps()))
    [jump] = [gap for gap in way.gaps() if gap.positions is not None]
    assert (jump.type, jump.positions) == (LOST_RETENTION, (position, deleted_to))
    gap = only_file_gap(way, LOST_TOPIC)
    assert (gap.start, gap.end, gap.end_exact) == (start, end, True)
    assert gap.file is not None
    assert gap.from_ns is not None
    assert way.verdict("web") == "incomplete"


def test_a_topic_that_was_deleted_and_created_again_starts_a_new_generation_with_a_gap(
    on_kafka: Way,
) -> None:
    way = on_kafka
    way.collector()
    path = way.write("web", lines(0, 100))
    way.indexer()
    eventually(lambda: way.covers(path))
    start = path.stat().st_size
    way.stop("indexer")
    way.write("web", lines(100, 200))
    eventually(lambda: acked(way) >= path.stat().st_size)
    end = path.stat().st_size
    way.stop("collector")
    asyncio.run(make_anew(way.topic))
    way.indexer()
    way.collector()
    way.write("web", lines(200, 300))
    eventually(lambda: any(gap.file for gap in way.gaps()))
    assert way.ledger().positions[0].generation == 1
    [reset] = [gap for gap in way.gaps() if gap.type == TOPIC_RESET]
    assert reset.positions is not None
    gap = only_file_gap(way, LOST_TOPIC)
    assert (gap.start, gap.end, gap.end_exact) == (start, end, True)
    assert way.verdict("web") == "incomplete"
    size = path.stat().st_size
    eventually(
        lambda: any(f.covered_end == size for f in way.ledger().files.values() if f.pod == "web")
    )


def acked(way: Way) -> int:
    """Return how much of the largest file the checkpoint says that the topic has."""
    from collector.files import checkpoint

    state = checkpoint.load(way.folder / "collector")
    return max((file.acked for file in state.files), default=0) if state else 0


async def delete_records(topic: str) -> int:
    """Delete every record of a topic's only partition; return where it now starts."""
    brokers, _, name = topic.removeprefix("kafka://").partition("/")
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        at = TopicPartition(name, 0)
        low = await admin.delete_records({at: RecordsToDelete(before_offset=-1)})
        return int(low[at])
    finally:
        await admin.close()


async def make_anew(topic: str) -> None:
    """Delete a topic and create it again under the same name."""
    brokers, _, name = topic.removeprefix("kafka://").partition("/")
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.delete_topics([name])
        while name in await admin.list_topics():
            await asyncio.sleep(0.1)
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


def remembered_bytes(way: Way, pod: str) -> int:
    """Return the size of a pod's file as the collector's checkpoint has it."""
    state = checkpoint.load(way.folder / "collector")
    return max((f.size for f in state.files if f.pod == pod), default=-1) if state else -1


def test_an_answer_about_the_time_of_lost_lines_is_incomplete_though_none_arrived(
    local: Way,
) -> None:
    local.collector(flush_age_ms=600_000, inventory_interval_ms=600_000)  # read, and not sent
    local.indexer()
    eventually(lambda: '"ready": true' in local.status("collector"))
    written_ns = time.time_ns()
    stamp = datetime.fromtimestamp(written_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    path = local.write("web", f"{stamp} stdout F a line\n".encode() * 100)
    size = path.stat().st_size
    eventually(lambda: remembered_bytes(local, "web") == size)
    time.sleep(2)  # the collector goes on to scan
    local.write("nudge", lines(0, 1))  # so that it writes the checkpoint with a later scan
    eventually(lambda: remembered_bytes(local, "nudge") > 0)
    local.kill("collector")
    path.unlink()
    local.collector()
    eventually(lambda: local.gaps())
    gap = only_file_gap(local, LOST_ROTATED)
    assert (gap.start, gap.end) == (0, size)
    assert gap.from_ns is None or gap.from_ns <= written_ns
    replica = Replica(local.opened(), CLUSTER, 1)
    half_ns = 500_000_000
    second = Scope(written_ns - half_ns, written_ns + half_ns, equals={"pod": ("web",)})
    assert judge(replica.refresh(), second, CLUSTER, Trouble()).verdict == "incomplete"


def test_an_open_that_was_lost_with_a_run_is_sent_again(local: Way) -> None:
    local.collector(flush_age_ms=600_000)
    path = local.write("web", lines(0, 100))
    eventually(lambda: remembered_bytes(local, "web") > 0)
    local.kill("collector")
    local.collector()
    local.indexer()
    eventually(lambda: local.covers(path))
    [file] = local.ledger().files.values()
    assert file.seen_ns > 0
