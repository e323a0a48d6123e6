"""The keeper's turns: each job when it is due, one keeper at a time, and nothing stops the rest."""

import json
import time
from itertools import pairwise

import pytest

from indexer.errors import BucketUnavailable, PositionMoved
from indexer.keeper.jobs import ExpireJob
from indexer.keeper.run import Keeper
from indexer.object_names import MERGED_FOLDER
from indexer.store.bucket import Bucket
from tests.indexer.kept import Kept, PodFile, before_commit
from tests.way import lines


class Clock:
    """A monotonic clock that stands still until it is set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def kept(store: Bucket) -> Kept:
    """Four commits."""
    kept = Kept(store)
    kept.commit(*(PodFile(lines(0, 10), pod=pod) for pod in "abcd"))
    return kept


@pytest.fixture
def clock() -> Clock:
    """A clock for one keeper."""
    return Clock()


def test_a_first_turn_folds_merges_coverage_and_compacts(kept: Kept, clock: Clock) -> None:
    before = kept.rows()
    keeper = kept.keeper(clock)
    pause_s = keeper.turn()
    assert pause_s == 30  # the next fold
    assert (len(kept.segments()), len(kept.coverage())) == (1, 1)
    assert kept.rows() == before
    status = json.loads(json.dumps(keeper.status()))
    assert status["ready"]
    assert status["failing"] == {}
    assert status["folded_version"] == 4


def test_a_job_is_done_when_it_is_due_and_not_before(kept: Kept, clock: Clock) -> None:
    keeper = kept.keeper(clock, compact_interval_ms=60_000, fold_interval_ms=10_000)
    keeper.turn()
    kept.commit(PodFile(lines(0, 10), pod="e"), PodFile(lines(0, 10), pod="f"))
    clock.now_s += 59
    keeper.turn()
    assert len(kept.segments()) == 3
    assert keeper.jobs.metrics.folded_at_version == kept.table.snapshot().version()
    clock.now_s += 1
    assert keeper.turn() == 9
    assert len(kept.segments()) == 1


def test_a_keeper_that_meets_another_one_stands_by_and_goes_on_folding(
    kept: Kept, clock: Clock
) -> None:
    keeper = kept.keeper(clock, standby_ms=100_000)
    rivals = [kept.jobs()]

    def rival() -> None:
        if rivals:
            rivals.pop().compact()

    before_commit(keeper.jobs, rival)
    keeper.turn()
    assert keeper.jobs.metrics.standby._value.get() == 1
    kept.commit(PodFile(lines(0, 10), pod="e"), PodFile(lines(0, 10), pod="f"))
    clock.now_s += 70
    assert keeper.turn() == 30  # it waits for its next fold, and does not spin
    clock.now_s += 20
    keeper.turn()
    assert len(kept.segments()) == 3
    assert keeper.jobs.metrics.folded_at_version == kept.table.snapshot().version()
    clock.now_s += 90  # nobody has gone on: it takes over
    keeper.turn()
    assert keeper.jobs.metrics.standby._value.get() == 0
    assert len(kept.segments()) == 1
    assert len(kept.rows()) == 60


def test_a_job_that_fails_is_named_and_the_others_go_on(kept: Kept, clock: Clock) -> None:
    keeper = kept.keeper(clock)
    read = keeper.jobs.fenced.bucket.get_range

    injected = ["injected"]

    def failing(name: str, start: int, length: int) -> bytes:
        if "/date=2026" in name and injected:  # the scrubber comes after the compaction
            raise BucketUnavailable(injected.pop())
        return read(name, start, length)

    keeper.jobs.fenced.bucket.get_range = failing  # type: ignore[method-assign]
    keeper.turn()
    assert keeper.status()["failing"] == {"compact": "injected"}
    assert len(kept.coverage()) == 1
    clock.now_s += 60
    keeper.turn()
    assert keeper.status()["failing"] == {}
    assert len(kept.segments()) == 1


def broken(keeper: Keeper, name: str, error: BaseException) -> list[float]:
    """Let a job of a keeper fail in a way that nobody has foreseen; return when it was tried."""
    [job] = [job for job in keeper.jobs.in_turn if job.name == name]
    tried: list[float] = []

    class Broken(type(job)):  # type: ignore[misc]
        def __call__(self) -> None:
            tried.append(keeper.jobs.means.monotonic())
            raise error

    job.__class__ = Broken
    return tried


class Panic(BaseException):
    """What Rust raises is no Exception."""


JOBS = [
    "fold", "streams", "checkpoint", "expire", "delete", "gather", "compact", "scrub", "vacuum",
    "sweep",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "error"),
    [
        *((name, ValueError("odd")) for name in JOBS),
        *(("expire", error) for error in (MemoryError("odd"), Panic("odd"), PositionMoved("odd"))),
    ],
)
def test_whatever_a_job_raises_the_others_are_done(
    kept: Kept, clock: Clock, name: str, error: BaseException
) -> None:
    keeper = kept.keeper(clock)
    assert [job.name for job in keeper.jobs.in_turn] == JOBS
    tried = broken(keeper, name, error)
    for _ in range(2):
        keeper.turn()
        clock.now_s += 30_000
    keeper.turn()
    assert len(tried) >= 2
    status = json.loads(json.dumps(keeper.status()))
    assert status["failing"].keys() == {name}
    assert "odd" in status["failing"][name]
    assert status["failures_in_row"] == {name: len(tried)}
    succeeded = {each for each, at in status["succeeded_ns"].items() if at}
    assert succeeded == set(JOBS) - {name}


def test_a_job_that_fails_for_long_makes_the_keeper_unhealthy_and_not_dead(
    kept: Kept, clock: Clock
) -> None:
    keeper = kept.keeper(clock, unhealthy_after_ms=100_000)
    broken(keeper, "expire", ValueError("odd"))
    began_ns = kept.now_ns
    keeper.turn()
    assert keeper.status()["healthy"]
    kept.now_ns += 100_000_000_000
    status = keeper.status()
    assert (status["alive"], status["healthy"]) == (True, False)
    assert status["failing_since_ns"] == {"expire": began_ns}
    assert status["unhealthy"] == {"expire": "ValueError: odd"}
    [job] = [job for job in keeper.jobs.in_turn if job.name == "expire"]
    job.__class__ = ExpireJob
    clock.now_s += 3600
    keeper.turn()
    status = keeper.status()
    assert (status["healthy"], status["failing"], status["unhealthy"]) == (True, {}, {})


def test_a_job_that_does_not_come_to_an_end_makes_the_keeper_unhealthy(
    kept: Kept, clock: Clock
) -> None:
    keeper = kept.keeper(clock, unhealthy_after_ms=100_000)
    keeper.turn()
    keeper.jobs.compact.begin()
    assert keeper.status()["healthy"]
    kept.now_ns += 100_000_000_000
    assert keeper.status()["unhealthy"].keys() == {"compact"}
    keeper.jobs.compact.succeed()
    assert keeper.status()["healthy"]


def test_a_job_that_cannot_succeed_by_itself_is_tried_less_and_less(
    kept: Kept, clock: Clock
) -> None:
    keeper = kept.keeper(clock, delete_interval_ms=60_000)
    tried = broken(keeper, "delete", ValueError("odd"))
    while len(tried) < 7:
        keeper.turn()
        clock.now_s += 10
    assert [b - a for a, b in pairwise(tried)] == [60, 120, 240, 480, 600, 600]


def test_a_job_that_waits_for_the_store_is_tried_as_often_as_ever(kept: Kept, clock: Clock) -> None:
    keeper = kept.keeper(clock, delete_interval_ms=60_000)
    tried = broken(keeper, "delete", BucketUnavailable("away"))
    while len(tried) < 4:
        keeper.turn()
        clock.now_s += 10
    assert [b - a for a, b in pairwise(tried)] == [60, 60, 60]


def test_failures_of_jobs_that_another_keeper_does_are_not_this_ones(
    kept: Kept, clock: Clock
) -> None:
    keeper = kept.keeper(clock, unhealthy_after_ms=1000)
    broken(keeper, "expire", ValueError("odd"))
    rivals = [kept.jobs()]

    def rival() -> None:
        if rivals:
            rivals.pop().compact()

    before_commit(keeper.jobs, rival)
    keeper.turn()
    kept.now_ns += 10_000_000_000
    assert keeper.status()["standby"]
    assert keeper.status()["healthy"]


def test_what_no_version_names_is_swept_once_it_is_old_and_nothing_else(
    kept: Kept,
) -> None:
    """An object that a commit is about to add is younger than any that goes."""
    kept.now_ns = time.time_ns()
    jobs = kept.jobs()
    jobs.compact()
    kept.bucket.put(kept.table.folder + "date=2026-03-01/hour=12/about-to-commit.parquet", b"x")
    stored = kept.stored()
    named = {kept.table.folder + each.name for each in kept.objects()}
    assert len(stored.keys() - named) == 5
    jobs.vacuum()
    assert kept.stored() == stored
    old = kept.jobs(vacuum_age_hours=0)  # less than a setting may be
    old.vacuum()
    assert kept.stored().keys() == named
    assert len(kept.rows()) == 40
    assert old.metrics.vacuumed_objects._value.get() == 5


def test_a_keeper_without_a_table_waits_for_one(store: Bucket, clock: Clock) -> None:
    kept = Kept(store)
    for name in list(store.names(kept.table.folder)):
        store.delete(name)
    keeper: Keeper = kept.keeper(clock)
    keeper.turn()
    assert "start an indexer first" in keeper.status()["failing"]["fold"]
    assert not keeper.status()["ready"]
    kept.table.make()
    kept.commit(PodFile(lines(0, 3)))
    clock.now_s += 60
    keeper.turn()
    assert keeper.status()["ready"]


def test_a_damaged_segment_holds_up_no_other_and_no_other_job(kept: Kept, clock: Clock) -> None:
    kept.commit(PodFile(lines(0, 10), namespace="bank"))
    kept.jobs(compact_target_bytes=1 << 20).compact()
    [victim] = kept.segments()  # rows of it stay, so that it has to be read
    kept.commit(PodFile(lines(0, 10), pod="z"))
    name = kept.table.folder + victim.name
    damaged = kept.bucket.get(name)[:40] + b"x" * 40
    kept.bucket.delete(name)
    kept.bucket.put(name, damaged)
    keeper = kept.keeper(clock, retention="shop=1", compact_inputs_min=100)
    keeper.turn()
    assert victim.name in keeper.status()["failing"]["expire"]
    assert kept.segments() == [victim]
    assert any(each.name.startswith(MERGED_FOLDER) for each in kept.coverage())


def test_a_long_job_lets_others_be_done_and_goes_on_at_once(kept: Kept, clock: Clock) -> None:
    kept.commit(PodFile(lines(0, 10), pod="e"), PodFile(lines(0, 10), pod="f"))
    keeper = kept.keeper(
        clock, compact_target_bytes=1 << 16, compact_memory_bytes=64 << 20, job_most_ms=10
    )
    clock_ns = keeper.jobs.means.clock

    def later() -> int:
        kept.now_ns += 20_000_000
        return clock_ns()

    keeper.jobs.means.clock = later
    assert keeper.turn() == 0
    assert len(kept.segments()) == 5
    keeper.turn()
    assert len(kept.segments()) == 4


def test_vacuum_and_sweep_are_done_first_a_vacuum_interval_after_the_start(
    kept: Kept, clock: Clock
) -> None:
    keeper = kept.keeper(clock, vacuum_interval_ms=7_200_000, sweep_interval_ms=3_600_000)

    def times(job: str) -> float:
        name = "everyline_keeper_job_seconds_count"
        return keeper.jobs.metrics.registry.get_sample_value(name, {"job": job}) or 0

    for after_s, vacuums, sweeps in ((0, 0, 0), (7199, 0, 0), (1, 1, 1), (3600, 1, 2)):
        clock.now_s += after_s
        keeper.turn()
        assert (times("vacuum"), times("sweep")) == (vacuums, sweeps)
