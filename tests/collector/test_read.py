"""Whose turn it is: no pod waits for a noisy one, and what is deleted soonest comes first."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.files.time_left import Rotation
from tests.collector.node import HeldTopic, Node, content_of, lines, ranges_of

Make = Callable[..., Node]
ROTATION = Rotation(log_bytes=10 << 20, log_files=5, check_s=10)


async def test_small_pods_do_not_wait_for_the_backlog_of_a_noisy_one(make: Make) -> None:
    node = make(partitions=1, read_bytes=65_536, batch_raw_bytes=65_536, flush_age_ms=10)
    noisy = node.write(node.file(pod="noisy"), lines(0, 60_000))
    quiet = [node.write(node.file(pod=f"quiet-{i}"), lines(100_000 + i * 10, 5)) for i in range(20)]
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([noisy, *quiet])
    names = {file: stream.pod for batch in batches for file, stream in batch.files.items()}
    order = [(names[each.file_id], len(each.data)) for batch in batches for each in batch.ranges]
    last = max(i for i, (pod, _) in enumerate(order) if pod != "noisy")
    before = sum(size for pod, size in order[:last] if pod == "noisy")
    assert before <= 2 * 65_536 < len(noisy) // 10


async def test_a_pod_with_many_files_gets_no_more_than_one_with_a_single_file(make: Make) -> None:
    node = make(partitions=1, read_bytes=65_536, batch_raw_bytes=65_536, flush_age_ms=10)
    for restart in range(8):
        node.write(node.file(restart, pod="many"), lines(restart * 10_000, 3000))
    node.write(node.file(pod="one"), lines(200_000, 3000))
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    names = {file: stream.pod for batch in batches for file, stream in batch.files.items()}
    order = [(names[each.file_id], len(each.data)) for batch in batches for each in batch.ranges]
    last = max(i for i, (pod, _) in enumerate(order) if pod == "one")
    sizes = {pod: sum(n for p, n in order[: last + 1] if p == pod) for pod in ("many", "one")}
    assert sizes["many"] <= sizes["one"] + 2 * 65_536


async def test_what_is_deleted_soonest_is_read_first(make: Make) -> None:
    node = make(partitions=1, read_bytes=65_536, flush_age_ms=10, unacked_bytes=1 << 20)
    held = HeldTopic(node.topic_folder)
    node.open_topic = lambda: held
    await node.start()
    for pod in ("a-stays", "b-goes", "c-stays"):
        node.write(node.file(pod=pod), lines(ord(pod[0]) * 1000, 5))
    node.now += 500_000_000  # before the next scan
    node.collector.watch.apply(node.collector._discovery.scan())
    node.file(pod="b-goes").unlink()
    await node.pass_time(2, acknowledged=False)
    await held.release()
    await node.pass_time(3)
    batches = await node.batches()
    names = {file: stream.pod for batch in batches for file, stream in batch.files.items()}
    first, *_ = ranges_of(batches)
    assert names[first[0]] == "b-goes"


@pytest.mark.parametrize(
    ("newer", "current", "rate", "seconds"),
    [
        (0, 0, 0.0, math.inf),
        (4, 0, 1 << 20, 10),  # the oldest goes at the next rotation
        (4, 10 << 20, 1 << 20, 0),
        (1, 0, 10 << 20, 1 + 3 * 10),  # it rotates at each look, however much is written
        (0, 5 << 20, 1 << 19, 10 + 4 * 20),
    ],
)
def test_the_time_left_follows_the_kubelets_rotation(
    newer: int, current: int, rate: float, seconds: float
) -> None:
    assert ROTATION.seconds_left(newer, current, rate) == pytest.approx(seconds)


@given(st.integers(0, 9), st.integers(0, 1 << 30), st.floats(1, 1e9))
def test_an_older_file_never_outlives_a_newer_one(newer: int, current: int, rate: float) -> None:
    older = ROTATION.seconds_left(newer + 1, current, rate)
    assert older <= ROTATION.seconds_left(newer, current, rate)
