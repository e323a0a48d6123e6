"""A stop that is cut off at any wait: the runs after it go on, and the table has each line once."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import prometheus_client
import pytest
from deltalake import DeltaTable

from collector.topic.interface import Topic
from collector.topic.local import LocalTopic
from indexer.index import Indexer
from indexer.metrics import IndexerMetrics
from indexer.settings import IndexerSettings
from indexer.store.open import open_bucket
from indexer.table.table import Table
from tests.cancelling import cancelled_at
from tests.collector.node import HeldTopic, Node, content_of, lines

pytestmark = pytest.mark.slow  # a run for each wait

Open = Callable[[Path], Topic]
ANSWERING: Open = lambda folder: LocalTopic(folder, partitions=2)  # noqa: E731
PODS = [f"api-{number}" for number in range(4)]  # they go to both partitions


async def at_a_stop(node: Node, opened: Open) -> bytes:
    """Start a run and let it have batches of every kind on its way; return a file's content."""
    node.open_topic = lambda: opened(node.topic_folder)
    await node.start()
    for pod in PODS:
        node.write(node.file(pod=pod), lines(0, 5))
    await node.pass_time(2, acknowledged=False)  # handed to the topic
    for pod in PODS:
        node.write(node.file(pod=pod), lines(5, 5))
    await node.pass_time(2, acknowledged=False)  # into the spool, where the topic does not answer
    for pod in PODS:
        node.write(node.file(pod=pod), lines(10, 5))
    node.now += 1_000_000_000
    node.collector._scan()
    await node.collector.reader.read()  # in open packs, without a number
    assert sum(not lane.pack.empty for lane in node.collector.shipper.lanes.values()) == 2
    return lines(0, 15)


async def check_next_runs(node: Node, data: bytes) -> None:
    """Let two more runs go on, and check that the topic has each file once and whole."""
    node.open_topic = lambda: ANSWERING(node.topic_folder)
    for _ in range(2):
        await node.start()
        await node.pass_time(3)
        await node.stop()
    batches = await node.batches(whole_lanes=False)  # some may have come twice
    assert list(content_of(batches).values()) == [data] * len(PODS)
    assert list((node.state / "spool").glob("*")) == []
    wanted = [(pod, f"message {number}") for pod in PODS for number in range(data.count(b"\n"))]
    assert await rows_of(node) == Counter(wanted)


async def rows_of(node: Node) -> Counter[tuple[str, str]]:
    """Let an indexer commit what the topic has; return pod and message of each row."""
    topic, cluster = str(node.topic_folder), node.settings.cluster
    bucket = open_bucket(str(node.state.parent / "bucket"))
    settings = IndexerSettings(cluster=cluster, topic=topic, partitions="all")
    metrics = IndexerMetrics(prometheus_client.CollectorRegistry())
    indexer = Indexer(settings, lambda: LocalTopic(topic, partitions=0), bucket, metrics)
    try:
        await indexer.start()
        for _ in range(2):
            await indexer.turn()
            await indexer.flush()
        positions = indexer.status()["positions"]
    finally:
        await indexer.close()
    reader = LocalTopic(topic, partitions=0)
    assert positions == {number: (await reader.bounds(number))[1] for number in range(2)}
    rows = DeltaTable(Table(bucket, cluster).uri).to_pyarrow_table(columns=["pod", "message"])
    return Counter((row["pod"], row["message"]) for row in rows.to_pylist())


def held_open(folder: Path) -> list[str]:
    """Return the files below a folder that this process holds open."""
    places = map(os.path.realpath, Path("/proc/self/fd").iterdir())
    return [place for place in places if place.startswith(str(folder))]


@pytest.mark.parametrize("late", [False, True], ids=["as it waits", "as the wait ends"])
@pytest.mark.parametrize(
    ("opened", "drain_ms"),
    [(ANSWERING, 5_000), (HeldTopic, 120), (HeldTopic, 0)],
    ids=["topic answers", "topic does not answer", "no grace"],
)
async def test_a_stop_may_be_cancelled_at_any_wait(
    tmp_path: Path, opened: Open, drain_ms: int, late: bool
) -> None:
    wait, is_left = 0, True
    while is_left:
        wait += 1
        (folder := tmp_path / str(wait)).mkdir()
        node = Node(folder, spool_after_ms=10, drain_ms=drain_ms, flush_age_ms=10)
        data = await at_a_stop(node, opened)
        is_left = await cancelled_at(wait, node.collector.stop(), late=late)
        assert held_open(node.root) == []
        await node.close_topic()
        await check_next_runs(node, data)
    assert wait > (1 if opened is ANSWERING else 3)  # it may have answered before the stop


@pytest.mark.parametrize("late", [False, True], ids=["as it waits", "as the wait ends"])
@pytest.mark.parametrize("opened", [ANSWERING, HeldTopic], ids=["topic answers", "it does not"])
async def test_a_stop_may_cancel_a_turn_at_any_wait(
    tmp_path: Path, opened: Open, late: bool
) -> None:
    wait, is_left = 0, True
    while is_left:
        wait += 1
        (folder := tmp_path / str(wait)).mkdir()
        node = Node(folder, spool_after_ms=10, drain_ms=120, flush_age_ms=10)
        data = await at_a_stop(node, opened)
        node.now += 2_000_000_000  # a checkpoint is due
        is_left = await cancelled_at(wait, node.collector.turn(), late=late)
        await node.collector.stop()
        await node.close_topic()
        await check_next_runs(node, data)
    assert wait > 1


@pytest.mark.parametrize("late", [False, True], ids=["as it waits", "as the wait ends"])
async def test_the_end_of_a_topic_may_be_cancelled_at_any_wait(tmp_path: Path, late: bool) -> None:
    wait, is_left = 0, True
    while is_left:
        wait += 1
        (folder := tmp_path / str(wait)).mkdir()
        node = Node(folder, drain_ms=0, flush_age_ms=10)
        data = await at_a_stop(node, ANSWERING)
        await node.collector.stop()
        assert node.topic is not None
        is_left = await cancelled_at(wait, node.topic.close(), late=late)
        await check_next_runs(node, data)


async def test_a_stop_without_grace_spools_what_every_partition_has_of_deleted_files(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path, spool_after_ms=10, drain_ms=0, flush_age_ms=10)
    data = await at_a_stop(node, HeldTopic)
    for pod in PODS:
        node.file(pod=pod).unlink()  # it is held open, and read to its end
    assert not await node.collector.stop()
    await node.close_topic()
    await check_next_runs(node, data)
