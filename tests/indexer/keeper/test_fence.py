"""The keeper's fence, step by step: who may take what, and who has to stand by.

Each test hands back the states that its keeper has been in, and together they walk every transition
that there is.
"""

import functools
from collections import deque
from collections.abc import Callable
from itertools import pairwise

import pytest

from indexer.errors import BucketUnavailable, NoSuchTransition, PositionMoved, TableUnavailable
from indexer.keeper import fence
from indexer.keeper.fence import TRANSITIONS, Fence, FencedTable
from indexer.keeper.jobs import Jobs
from indexer.store.bucket import Bucket
from indexer.table.table import Table
from tests.indexer.keeper.test_keeper import Clock
from tests.indexer.kept import Kept, PodFile, before_commit
from tests.way import lines

IDLE = Fence.IDLE
TAKEN = Fence.TAKEN
COMMITTING = Fence.COMMITTING
FORESTALLED = Fence.FORESTALLED
STANDBY = Fence.STANDBY

WALKED: set[tuple[Fence, Fence]] = set()
"""Every transition that a test below walks."""


def walks(*path: Fence) -> Callable:
    """Let a test fail unless the states that it hands back are these."""
    WALKED.update(pairwise(path))

    def decorate(test: Callable[..., list[Fence]]) -> Callable[..., None]:
        @functools.wraps(test)
        def walked(**fixtures: object) -> None:
            assert test(**fixtures) == list(path)

        return walked

    return decorate


def watched(fenced: FencedTable) -> list[Fence]:
    """Return the states that a fence is in from now on, as it goes."""
    path, move = [fenced.state], fenced.move

    def noted(to: Fence) -> None:
        move(to)
        path.append(to)

    fenced.move = noted  # type: ignore[method-assign]
    return path


@pytest.fixture
def kept(store: Bucket) -> Kept:
    """Four commits."""
    kept = Kept(store)
    kept.commit(*(PodFile(lines(0, 10), pod=pod) for pod in "abcd"))
    return kept


def rival_compacts(kept: Kept, jobs: Jobs) -> None:
    """Let another keeper compact before the next commit of these jobs, and only then."""
    rivals = [kept.jobs()]

    def rival() -> None:
        if rivals:
            rivals.pop().compact()

    before_commit(jobs, rival)


@walks(IDLE, TAKEN, COMMITTING, TAKEN)
def test_what_is_planned_from_what_was_taken_is_committed(kept: Kept) -> list[Fence]:
    jobs = kept.jobs()
    path = watched(jobs.fenced)
    jobs.compact()
    assert len(kept.segments()) == 1
    assert kept.table.snapshot().transaction_version(fence.KEEPER) == 0
    return path


@walks(IDLE, TAKEN, TAKEN, COMMITTING, TAKEN)
def test_the_next_job_takes_the_table_anew(kept: Kept) -> list[Fence]:
    jobs = kept.jobs()
    path = watched(jobs.fenced)
    jobs.scrub()
    kept.jobs().compact()
    kept.commit(PodFile(lines(0, 10), pod="e"), PodFile(lines(0, 10), pod="f"))
    jobs.compact()
    assert len(kept.rows()) == 60
    assert kept.table.snapshot().transaction_version(fence.KEEPER) == 1
    return path


@walks(IDLE, TAKEN, COMMITTING, TAKEN, TAKEN, COMMITTING, TAKEN)
def test_a_commit_that_the_store_did_not_take_is_made_from_the_table_as_it_is_then(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> list[Fence]:
    jobs = kept.jobs()
    path = watched(jobs.fenced)

    def no_answer(*_: object) -> None:
        raise BucketUnavailable("injected")

    with monkeypatch.context() as patched:
        patched.setattr(jobs.fenced.table._log, "commit", no_answer)
        with pytest.raises(TableUnavailable):
            jobs.compact()
    assert len(kept.segments()) == 4
    jobs.compact()
    assert len(kept.segments()) == 1
    return path


@walks(IDLE, TAKEN, COMMITTING, FORESTALLED, TAKEN, COMMITTING, TAKEN)
def test_a_job_that_is_done_by_itself_takes_the_table_anew_after_it_was_forestalled(
    kept: Kept,
) -> list[Fence]:
    jobs = kept.jobs()
    path = watched(jobs.fenced)
    rival_compacts(kept, jobs)
    with pytest.raises(PositionMoved):
        jobs.compact()
    kept.commit(PodFile(lines(0, 10), pod="e"), PodFile(lines(0, 10), pod="f"))
    jobs.compact()
    assert len(kept.rows()) == 60
    return path


@walks(IDLE, TAKEN, TAKEN, COMMITTING, FORESTALLED, STANDBY, IDLE, TAKEN, TAKEN)
def test_a_keeper_that_is_forestalled_stands_by_for_standby_ms_and_then_goes_on(
    kept: Kept,
) -> list[Fence]:
    clock = Clock()
    keeper = kept.keeper(clock, standby_ms=100_000, gather_objects_min=100)
    path = watched(keeper.jobs.fenced)
    rival_compacts(kept, keeper.jobs)
    keeper.turn()
    assert keeper.jobs.fenced.state is STANDBY
    assert keeper.status()["standby"]
    clock.now_s += 99
    keeper.turn()
    assert keeper.status()["standby"]
    clock.now_s += 1
    assert not keeper.status()["standby"]
    keeper.turn()
    assert keeper.jobs.metrics.standby._value.get() == 0
    return path


def test_each_transition_of_the_fence_is_walked_by_a_test_above() -> None:
    assert {(now, to) for now, leads_to in TRANSITIONS.items() for to in leads_to} == WALKED


# -- what the table of transitions lacks -----------------------------------------------------


def test_nothing_is_committed_that_was_not_planned_from_what_was_taken(kept: Kept) -> None:
    [segment, *_] = kept.segments()
    with pytest.raises(NoSuchTransition, match=r"IDLE, .* to COMMITTING$"):
        kept.jobs().fenced.commit([], [segment])
    assert segment in kept.segments()


def test_after_a_refusal_nothing_more_is_committed_of_what_was_planned(kept: Kept) -> None:
    jobs = kept.jobs()
    [segment, *_] = jobs.fenced.take()
    kept.jobs().compact()
    with pytest.raises(PositionMoved):
        jobs.fenced.commit([], [segment])
    with pytest.raises(NoSuchTransition, match=r"FORESTALLED, .* to COMMITTING$"):
        jobs.fenced.commit([], [segment])
    assert len(kept.rows()) == 40


def test_a_keeper_that_stands_by_can_take_nothing(kept: Kept) -> None:
    keeper = kept.keeper(Clock())
    rival_compacts(kept, keeper.jobs)
    keeper.turn()
    with pytest.raises(NoSuchTransition, match=r"STANDBY, .* to TAKEN$"):
        keeper.jobs.compact()


@pytest.mark.parametrize(
    ("now", "to"),
    [(now, to) for now in Fence for to in Fence if to not in TRANSITIONS[now]],
    ids=lambda state: state.name,
)
def test_what_the_fence_lacks_is_refused_and_changes_nothing(
    now: Fence, to: Fence, store: Bucket
) -> None:
    fenced = FencedTable(Table(store, "test"))
    paths = deque([[IDLE]])
    while (path := paths.popleft())[-1] is not now:
        paths.extend([*path, each] for each in TRANSITIONS[path[-1]])
    for state in path[1:]:
        fenced.move(state)
    with pytest.raises(NoSuchTransition, match=rf"fence is {now.name}, .* to {to.name}$"):
        fenced.move(to)
    assert fenced.state is now


def test_the_drawing_and_the_table_name_every_state() -> None:
    assert set(TRANSITIONS) == set(Fence)
    assert all(state.name in (fence.__doc__ or "") for state in Fence)
