"""The keeper's turns: each job when it is due, one keeper at a time, and nothing stops the rest."""

import json
import time

import pytest

from indexer.errors import BucketUnavailable
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
