"""A node under pressure: 200 containers write and rotate while what reads them is killed.

A kubelet of load_tests writes by the clock; the collector is killed twenty times and Kafka is away
for half a minute. Then the kubelet's truth, the table and the ledger must tell the same of every
line. On a slow machine the kubelet is held up while a collector takes long to start: what it
deletes before anybody can have read it is lost by the machine, and shows nothing else.
"""

import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from load_tests.account import Account, account_for
from tests.real_parts.kafka import Broker
from tests.way import CLUSTER, Way, a_way, eventually

pytestmark = pytest.mark.real

SECONDS = 45
KILLS = 20
KAFKA_LEAVES_S, KAFKA_IS_BACK_S = 8, 38
STARTED = '"message": "collecting"'
START_S = 1.0  # what a start takes at most before the kubelet is held up
_COLLECTOR = {
    "flush_age_ms": 200,
    "event_wait_ms": 500,  # as most runs live for two seconds only
    "scan_interval_ms": 200,
    "inventory_interval_ms": 1_000,
    "inventory_full_interval_ms": 5_000,
    "seal_quiet_ms": 2_500,
    "spool_after_ms": 500,
    "checkpoint_interval_ms": 200,
}


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker of one's own, to stop."""
    broker = Broker.start()
    yield broker
    broker.close()


def kubelet(way: Way, seed: int, **rates: Any) -> "subprocess.Popen[bytes]":
    """Start a node of 200 containers, which write until it is told to stop."""
    flags = {"root": way.logs, "truth": way.folder / "truth", "seconds": 10 * SECONDS, "seed": seed}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in (flags | rates).items()]
    process = subprocess.Popen([sys.executable, "-m", "load_tests.kubelet", *words])
    way.processes["kubelet"] = process
    return process


def soak(folder: Path, broker: Broker, seed: int, rates: dict[str, Any], **more: Any) -> Account:
    """Let a node write while its collector is killed and Kafka is away; account for its lines."""
    topic = f"kafka://{broker.bootstrap}/{asyncio.run(broker.new_topic(3))}"
    with a_way(folder, topic, str(folder / "bucket"), partitions=3) as way:
        way.indexer()
        collector = {**_COLLECTOR, **more}
        way.collector(**collector)
        eventually(lambda: '"ready": true' in way.status("indexer"))
        kubelet(way, seed, **rates)
        damage(way, broker, random.Random(seed), collector)
        assert way.stop("kubelet") == 0
        return settled(way)


def has_started(way: Way, times: int) -> bool:
    """Return whether that many collectors have looked at the files by now."""
    return way.said("collector").count(STARTED) >= times


def held_up_s(way: Way, times: int) -> float:
    """Wait until that many collectors have looked at the files; return how long the kubelet stood.

    It waits for nobody else: files grow, rotate and go while a collector is away.
    """
    with contextlib.suppress(AssertionError):
        eventually(partial(has_started, way, times), START_S)
        return 0.0
    kubelet, since = way.processes["kubelet"], time.monotonic()
    kubelet.send_signal(signal.SIGSTOP)
    try:
        eventually(partial(has_started, way, times))
    finally:
        kubelet.send_signal(signal.SIGCONT)
    return time.monotonic() - since


def damage(way: Way, broker: Broker, chance: random.Random, collector: dict[str, Any]) -> None:
    """Kill the collector every few seconds, and stop the broker for half a minute."""
    began = time.monotonic()  # later by the time for which the kubelet stood
    plan: list[tuple[float, Callable[[], object]]] = [
        (KAFKA_LEAVES_S, broker.kill),
        (KAFKA_IS_BACK_S, broker.restart),
    ]
    for number in range(KILLS):
        # It must have looked at the files since the last time, or no file is ever read.
        began += held_up_s(way, number + 1)
        time.sleep(chance.uniform(0.0, 0.5))
        at = (number + chance.uniform(0.5, 1.5)) * SECONDS / (KILLS + 1)
        time.sleep(max(began + at - time.monotonic(), 0))
        if plan and time.monotonic() - began >= plan[0][0]:
            plan.pop(0)[1]()
        way.kill("collector")
        way.collector(**collector)
    for at, act in plan:
        time.sleep(max(began + at - time.monotonic(), 0))
        act()
    time.sleep(max(began + SECONDS - time.monotonic(), 0))


def settled(way: Way) -> Account:
    """Return the account of all lines, as soon as none of them can still be on its way."""
    found = Account()

    def is_settled() -> bool:
        nonlocal found
        found = account_for(way.folder / "truth", way.bucket, CLUSTER, "node-1")
        return found.settled

    with contextlib.suppress(AssertionError):  # what is missing says more than that it is late
        eventually(is_settled, timeout_s=90)
    return found


def test_twenty_kills_and_an_outage_of_kafka_lose_and_double_nothing_of_rotating_files(
    tmp_path: Path, broker: Broker
) -> None:
    rates = {
        "lines_per_s": 2_000,
        "max_bytes": 8_000,  # a noisy container reaches it within each tick or two
        "max_files": 24,  # longer than some starts take, and shorter than Kafka is away
        "restarts_per_min": 20,
        "pods_per_min": 20,
        "linger_ticks": 10,
    }
    found = soak(tmp_path, broker, 1, rates)
    assert found.wrong == []
    assert found.files > 1_000
    assert (found.arrived, found.lost) == (found.lines, 0)


def test_a_full_spool_loses_the_bytes_that_gaps_name_and_no_others(
    tmp_path: Path, broker: Broker
) -> None:
    rates = {
        "lines_per_s": 5_000,  # ten times what spool and memory hold, while Kafka is away
        "max_bytes": 15_000,
        "max_files": 12,
        "restarts_per_min": 20,
        "pods_per_min": 20,
        "linger_ticks": 10,
    }
    small = {"spool_bytes": 1 << 20, "unacked_bytes": 1 << 20, "held_bytes": 1 << 20}
    found = soak(tmp_path, broker, 2, rates, **small)
    assert found.wrong == []
    assert found.lost > 1_000
    assert found.arrived + found.lost == found.lines
