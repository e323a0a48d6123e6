"""A process that ends, or is stopped for long, at any step of a commit loses and doubles nothing.

Real processes on a real Kafka, and a real S3 server behind a proxy that holds the very request at
which the process is killed.
"""

import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.settings import KeeperSettings
from indexer.object_names import MERGED_FOLDER
from indexer.store.open import open_bucket
from indexer.table.table import live
from tests.indexer.place import COVERAGE, LOG, SEGMENT, check_log, orphans
from tests.indexer.shipped import File, Run
from tests.indexer.test_index import Place
from tests.real_parts.fault_proxy import Action, FaultProxy, Hold, cutting, passing
from tests.real_parts.kafka import Broker
from tests.real_parts.s3 import Bucket
from tests.way import CLUSTER, Way, a_way, cri, environment, eventually

Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Step:
    """A step of a commit: the n-th PUT of a path, and whether the server has done it already."""

    path: str
    number: int = 1
    done: bool = False


BEFORE_UPLOADS = Step(SEGMENT)
BETWEEN_SEGMENTS = Step(SEGMENT, 2)
AFTER_COVERAGE = Step(COVERAGE, done=True)
BEFORE_COMMIT = Step(LOG)
AFTER_COMMIT = Step(LOG, done=True)

# When the request that a dead process has sent reaches the server.
NEVER, AT_ONCE, AT_LAST = "never", "at once", "at last"


@contextmanager
def held_at(proxy: FaultProxy, step: Step, begin: Callable[[], Process], then: Action):
    """Give the process of ``begin()``, and its held request, when it is at a step of a commit."""
    hold = Hold(then, done=step.done)
    fault = proxy.arm(hold, "PUT", step.path, first=step.number)
    process = begin()
    hold.wait(60)
    yield process, hold
    hold.release()
    assert fault.struck == 1


def kill_at(
    proxy: FaultProxy,
    step: Step,
    begin: Callable[[], Process],
    go_on: Callable[[], None],
    arrives: str,
) -> None:
    """Kill a process with SIGKILL at a step of its commit, and let others go on.

    ``begin()`` starts the process, or gives one that runs something to commit, and returns it;
    ``go_on()`` returns when others are at the end. What was held arrives never, or at once, before
    they start, or at last, when they are done.
    """
    then = cutting() if arrives == NEVER else passing
    with held_at(proxy, step, begin, then) as (process, hold):
        process.kill()
        process.wait()
        if arrives == AT_ONCE:
            hold.release()
        go_on()


# Lines of two hours, so that each commit has two segments.
LINES = [cri(n).replace(b"T12:", b"T13:") if n % 2 else cri(n) for n in range(1000)]
FILE = File(b"".join(LINES))


class Pipeline:
    """Indexers as processes, and what they have to read; their bucket is behind the proxy."""

    def __init__(self, way: Way, place: Place, proxy: FaultProxy) -> None:
        self.way = way
        self.place = place
        self.proxy = proxy
        self.sent = 0

    def indexer(self, name: str = "indexer", **more: Any) -> Process:
        """Start an indexer, of no group if it is not told."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.proxy.endpoint)
            return self.way.indexer(name, **{"partitions": 0, **more})

    def keeper(self) -> Process:
        """Start a keeper that does each job once."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.proxy.endpoint)
            return self.way.keeper(**KEEPING)

    def send(self) -> None:
        """Send the next twenty lines in two batches."""
        at = [len(b"".join(LINES[:n])) for n in range(0, 1001, 10)]
        ranges = FILE.ranges(at, start=at[self.sent], end=at[self.sent + 2])
        batches = [(0, self.place.runs[0].batch(each, of=[FILE])) for each in ranges]
        asyncio.run(self.place.send(*batches))
        self.sent += 2

    def committed(self) -> bool:
        """Whether all that was sent is in the table."""
        name = self.place.topic.rpartition("/")[2]
        return self.place.table.snapshot().transaction_version(f"{name}/0/0") == self.sent

    def check(self) -> None:
        """Check that each line is in the table once, and that nobody is told of a gap."""
        rows = [("web", 0, f"line {n}") for n in range(10 * self.sent)]
        assert self.place.rows() == rows
        assert self.place.gaps() == []
        check_log(self.place.table)


@pytest.fixture
def pipeline(
    tmp_path: Path,
    kafka: Broker,
    bucket: Bucket,
    fault_proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Pipeline]:
    """A Kafka topic of one partition, and an empty table."""
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    topic = f"kafka://{kafka.bootstrap}/{asyncio.run(kafka.new_topic(1))}"
    url = f"s3://{bucket.name}/prefix"
    with a_way(tmp_path, topic, url) as way:
        pipeline = Pipeline(way, Place(topic, open_bucket(url), partitions=1), fault_proxy)
        pipeline.place.runs = [Run()]
        pipeline.place.table.make()
        yield pipeline


KILLS = {
    "before the uploads": (BEFORE_UPLOADS, NEVER),
    "between two segments": (BETWEEN_SEGMENTS, AT_LAST),
    "after the coverage": (AFTER_COVERAGE, AT_ONCE),
    "before the commit": (BEFORE_COMMIT, NEVER),
    "before a commit that arrives after the death": (BEFORE_COMMIT, AT_ONCE),
    "before a commit that arrives after another's": (BEFORE_COMMIT, AT_LAST),
    "after the commit": (AFTER_COMMIT, AT_ONCE),
}


def test_an_indexer_killed_at_any_step_of_its_commit_loses_and_doubles_nothing(
    pipeline: Pipeline, fault_proxy: FaultProxy, subtests: pytest.Subtests
) -> None:
    table = pipeline.place.table
    process = pipeline.indexer()
    for name, (step, arrives) in KILLS.items():
        made = step == AFTER_COMMIT or (step == BEFORE_COMMIT and arrives == AT_ONCE)
        before = orphans(table)

        def begin() -> Process:
            pipeline.send()
            return process

        def go_on() -> None:
            nonlocal process
            eventually(lambda: pipeline.committed() == made)  # noqa: B023
            process = pipeline.indexer()
            eventually(pipeline.committed)

        with subtests.test(name):
            kill_at(fault_proxy, step, begin, go_on, arrives)
            pipeline.check()
            # Two segments and a coverage object, as far as the killed process has come.
            left = len(orphans(table) - before)
            assert left == 0 if made else left <= 3
            assert step.path == SEGMENT or made or left > 0


def test_an_indexer_that_wakes_up_after_another_has_gone_on_changes_nothing_and_goes_on(
    pipeline: Pipeline, fault_proxy: FaultProxy, subtests: pytest.Subtests
) -> None:
    """It is stopped within its commit, and what it has sent arrives when it is overtaken."""
    first = pipeline.indexer("first")

    def begin() -> Process:
        pipeline.send()
        return first

    for step in (BEFORE_UPLOADS, BEFORE_COMMIT, AFTER_COMMIT):
        with (
            subtests.test(str(step)),
            held_at(fault_proxy, step, begin, passing) as (process, hold),
        ):
            process.send_signal(signal.SIGSTOP)
            pipeline.indexer("second")
            pipeline.send()
            eventually(pipeline.committed)
            hold.release()
            process.send_signal(signal.SIGCONT)
            assert pipeline.way.stop("second") == 0
            pipeline.send()
            eventually(pipeline.committed)
            pipeline.check()
    assert pipeline.way.stop("first") == 0


def test_a_member_that_sleeps_through_its_session_within_a_commit_comes_back_to_its_group(
    pipeline: Pipeline, fault_proxy: FaultProxy
) -> None:
    """The group gives its partition to another meanwhile, and back when that one leaves."""
    share = {"partitions": "", "group_session_ms": 6_000}
    pipeline.send()
    with held_at(
        fault_proxy, BEFORE_COMMIT, lambda: pipeline.indexer("first", **share), passing
    ) as (process, hold):
        process.send_signal(signal.SIGSTOP)
        pipeline.indexer("second", **share)
        pipeline.send()
        eventually(pipeline.committed)
        hold.release()
        process.send_signal(signal.SIGCONT)
        pipeline.send()
        eventually(pipeline.committed)
        assert pipeline.way.stop("second") == 0
        pipeline.send()
        eventually(pipeline.committed)
    assert "another indexer committed first" in pipeline.way.said("first")
    assert pipeline.way.stop("first") == 0
    pipeline.check()


# -- a keeper --------------------------------------------------------------------------------

# What is worth doing with a table of a few lines; of each job no second turn.
KEEPING: dict[str, Any] = {"compact_inputs_min": 2, "compact_settle_ms": 0, "gather_objects_min": 2}

KEEPER_KILLS = {
    "before coverage is merged": (Step(COVERAGE), NEVER),
    "before the commit of merged coverage": (Step(LOG), AT_ONCE),
    "after the upload of the first hour": (Step(SEGMENT, done=True), NEVER),
    "between two hours": (Step(SEGMENT, 2), AT_LAST),
    "before a commit that arrives after the death": (Step(LOG, 2), AT_ONCE),
    "before a commit that arrives after another's": (Step(LOG, 2), AT_LAST),
    "after a commit": (Step(LOG, 2, done=True), AT_LAST),
}


def keep(place: Place) -> None:
    """Do in this process what a keeper does with a table."""
    settings = KeeperSettings(cluster=CLUSTER, **KEEPING)
    jobs = Jobs(settings, place.bucket, KeeperMetrics(prometheus_client.CollectorRegistry()))
    jobs.fold()
    jobs.gather()
    jobs.compact()
    objects = live(place.table.snapshot())
    assert sorted(each.hour for each in objects if each.hour is not None) == [12, 13]
    assert all(each.name.startswith(MERGED_FOLDER) for each in objects if each.is_coverage)


def test_a_keeper_killed_at_any_step_of_its_jobs_loses_and_doubles_nothing(
    pipeline: Pipeline, fault_proxy: FaultProxy, subtests: pytest.Subtests
) -> None:
    place = pipeline.place
    for name, (step, arrives) in KEEPER_KILLS.items():
        for _ in range(2):
            pipeline.send()
            asyncio.run(place.index())
        with subtests.test(name):
            kill_at(fault_proxy, step, pipeline.keeper, lambda: keep(place), arrives)
            pipeline.check()


def test_a_keeper_that_wakes_up_after_another_has_gone_on_changes_nothing(
    pipeline: Pipeline, fault_proxy: FaultProxy
) -> None:
    """And indexers have gone on, too."""
    for _ in range(2):
        pipeline.send()
        asyncio.run(pipeline.place.index())
    with held_at(fault_proxy, Step(LOG, 2), pipeline.keeper, passing) as (process, hold):
        process.send_signal(signal.SIGSTOP)
        keep(pipeline.place)
        pipeline.send()
        asyncio.run(pipeline.place.index())
        before = pipeline.place.table.snapshot().version()
        hold.release()
        process.send_signal(signal.SIGCONT)
        eventually(lambda: '"standby": true' in pipeline.way.status("keeper"))
    assert pipeline.way.stop("keeper") == 0
    assert pipeline.place.table.snapshot().version() == before
    pipeline.check()
