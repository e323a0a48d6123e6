"""A partition's life in one indexer, step by step, on real local topics and buckets.

Each test says which states partition 0 has been in when it ends, and together they walk every
transition that there is.
"""

import asyncio
import contextlib
import functools
import shutil
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import pytest

from collector.errors import TopicUnavailable
from collector.topic.local import LocalTopic
from collector.wire import batch as wire_batch
from collector.wire.batch import Gone
from indexer import commit, ownership
from indexer.errors import BucketUnavailable, NoSuchTransition, TableUnavailable
from indexer.index import Indexer
from indexer.keeper.fold import Fold
from indexer.ledger.entries import LOST_RETENTION, TOPIC_RESET
from indexer.ownership import TRANSITIONS, Ownership, Partition
from indexer.store.open import open_bucket
from indexer.table.coverage import Position
from indexer.table.table import CLOSED, Table
from indexer.upload import upload
from tests.indexer.shipped import CLUSTER, START_NS, Run
from tests.indexer.test_index import FILES, HOUR_NS, Place, expected, resets, wire

FOREIGN = Ownership.FOREIGN
TAKING = Ownership.TAKING
CHECKING = Ownership.CHECKING
FOLLOWED = Ownership.FOLLOWED
COMMITTING = Ownership.COMMITTING
RESET = Ownership.RESET
STOPPED = Ownership.STOPPED
TAKEN_UP = (FOREIGN, TAKING, CHECKING, FOLLOWED)

WALKED: set[tuple[Ownership, Ownership]] = set()
"""Every transition that a test below walks."""


class Paths:
    """The states that partitions have been in, in this process."""

    def __init__(self) -> None:
        self.of: dict[int, list[Ownership]] = {}
        self.are_noted = True

    @contextlib.contextmanager
    def unnoted(self) -> Iterator[None]:
        """Leave out what another indexer does."""
        self.are_noted = False
        try:
            yield
        finally:
            self.are_noted = True


PATHS = Paths()


def walks(*path: Ownership) -> Callable:
    """Let a test fail unless partition 0 has taken this path when it ends."""
    WALKED.update(pairwise(path))

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        @functools.wraps(test)
        async def walked(**fixtures: object) -> None:
            move = Partition.move
            PATHS.of = {}

            def noted(self: Partition, to: Ownership, why: str = "") -> None:
                move(self, to, why)
                if PATHS.are_noted:
                    PATHS.of.setdefault(self.number, [FOREIGN]).append(to)

            with patch.object(Partition, "move", noted):
                await test(**fixtures)
            assert PATHS.of[0] == list(path)

        return walked

    return decorate


class Share:
    """A group that gives what the test says."""

    def __init__(self) -> None:
        self.now = frozenset({0, 1})

    async def mine(self) -> frozenset[int]:
        return self.now

    async def tell(self, positions: Mapping[int, int]) -> None:
        pass

    async def leave(self) -> None:
        pass


class Gate:
    """Holds the first upload until it is opened, and lets so many fail."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.held = threading.Event()
        self.failures = 0

    def upload(self, *args):
        if not self.held.is_set():
            self.held.set()
            assert self.open.wait(30)
        if self.failures:
            self.failures -= 1
            raise BucketUnavailable("injected")
        return upload(*args)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two partitions on local directories."""
    return Place(str(tmp_path / "topic"), open_bucket(str(tmp_path / "bucket")))


@pytest.fixture
def share(monkeypatch: pytest.MonkeyPatch) -> Share:
    """What every indexer's group gives it."""
    share = Share()
    monkeypatch.setattr("indexer.index.membership", lambda *_: share)
    return share


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr(commit, "upload", gate.upload)
    return gate


@contextlib.contextmanager
def away(bucket: Path) -> Iterator[None]:
    """Let a local bucket be away."""
    bucket.rename(bucket.with_name("away"))
    bucket.write_text("no directory")
    try:
        yield
    finally:
        bucket.unlink()
        bucket.with_name("away").rename(bucket)


async def others_commit(place: Place) -> None:
    """Let another indexer commit everything there is."""
    with PATHS.unnoted():
        await place.index()


async def look(indexer: Indexer) -> None:
    """Turn once, and look whether the topic is still the same."""
    indexer._check_due_s = 0.0
    await indexer.turn()


async def until_held(indexer: Indexer, gate: Gate) -> None:
    """Turn until a commit is on its way."""
    async with asyncio.timeout(30):
        while not gate.held.is_set():
            await indexer.turn()


def newer() -> bytes:
    """Return a batch of ten lines of partition 0, in the next wire version."""
    record = bytearray(wire(Run().batch()))
    record[3] += 1
    return bytes(record)


# -- ours, and no longer ours ----------------------------------------------------------------


@walks(*TAKEN_UP, COMMITTING, FOLLOWED)
async def test_what_has_come_is_committed_and_reading_goes_on(place: Place) -> None:
    await place.ship(0, 0, 10)
    await place.index()
    assert place.rows() == expected(10)


@walks(*TAKEN_UP, FOREIGN)
async def test_a_share_that_goes_to_another_is_known_no_more(place: Place, share: Share) -> None:
    await place.ship(1, 0, 10)
    async with place.indexer() as indexer:
        await indexer.turn()
        share.now = frozenset({1})
        await indexer.turn()
        assert indexer.status()["positions"] == {1: 1}


@walks(FOREIGN, TAKING, FOREIGN)
async def test_a_share_that_goes_before_the_table_could_be_asked_was_never_read(
    place: Place, share: Share, tmp_path: Path
) -> None:
    await place.ship(0, 0, 10)
    share.now = frozenset()
    async with place.indexer() as indexer:
        with away(tmp_path / "bucket"):
            share.now = frozenset({0})
            for _ in range(2):
                with pytest.raises(TableUnavailable):
                    await indexer.turn()
            assert indexer.status()["positions"] == {}
        share.now = frozenset()
        await indexer.turn()
        assert indexer.status()["buffered_bytes"] == 0


@walks(*TAKEN_UP)
async def test_a_share_whose_table_was_away_is_taken_up_once_that_is_back(
    place: Place, share: Share, tmp_path: Path
) -> None:
    await place.ship(0, 0, 10)
    share.now = frozenset()
    async with place.indexer() as indexer:
        share.now = frozenset({0})
        with away(tmp_path / "bucket"), pytest.raises(TableUnavailable):
            await indexer.turn()
        await indexer.turn()
        assert indexer.status()["positions"] == {0: 0}
        assert indexer.status()["buffered_bytes"] > 0


@walks(FOREIGN, TAKING, CHECKING, FOREIGN)
async def test_nothing_is_read_before_the_topic_was_compared_with_the_table(
    place: Place, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.ship(0, 0, 10)
    share.now = frozenset()
    async with place.indexer() as indexer:
        share.now = frozenset({0})

        async def no_answer(*_: object) -> None:
            raise TopicUnavailable("injected")

        with monkeypatch.context() as patched:
            patched.setattr(LocalTopic, "bounds", no_answer)
            for _ in range(2):
                with pytest.raises(TopicUnavailable):
                    await indexer.turn()
        assert indexer.status()["positions"] == {0: 0}
        share.now = frozenset()
        await indexer.turn()
        assert indexer.status()["buffered_bytes"] == 0


@walks(*TAKEN_UP, COMMITTING, FOREIGN)
async def test_a_share_that_goes_while_its_commit_cannot_be_made_leaves_nothing_behind(
    place: Place, share: Share, tmp_path: Path
) -> None:
    await place.ship(0, 0, 10)
    async with place.indexer() as indexer:
        await indexer.turn()
        share.now = frozenset()
        with away(tmp_path / "bucket"), pytest.raises(TableUnavailable):
            await indexer.turn()
        assert indexer.status()["positions"] == {}
        await indexer.turn()
        assert place.table.snapshot().version() == 0


# -- rivals ----------------------------------------------------------------------------------


@walks(*TAKEN_UP, COMMITTING, TAKING, CHECKING, FOLLOWED, COMMITTING, FOLLOWED)
async def test_what_another_has_committed_is_void_here_and_taken_up_behind_it(place: Place) -> None:
    await place.ship(0, 0, 10)
    async with place.indexer() as indexer:
        await indexer.turn()
        await place.ship(0, 10, 20)
        await others_commit(place)
        await indexer.flush()
        assert indexer.status()["positions"][0] == 2
        await place.ship(0, 20, 30)
        await place.drain(indexer)
    assert place.rows() == expected(30)


@walks(*TAKEN_UP, TAKING, CHECKING, FOLLOWED)
async def test_a_partition_that_is_only_read_is_taken_up_anew_if_another_commits_it(
    place: Place,
) -> None:
    """That is found when a commit for another partition is refused."""
    await place.ship(1, 0, 10)
    async with place.indexer() as indexer:
        await indexer.turn()
        await place.ship(0, 0, 10)
        await others_commit(place)
        await indexer.flush()
        assert indexer.status()["positions"] == {0: 1, 1: 1}
    assert place.rows() == expected(10, 10)


@walks(FOREIGN, TAKING, CHECKING, TAKING, CHECKING, FOLLOWED)
async def test_a_partition_that_another_commits_before_it_was_compared_is_taken_up_anew(
    place: Place, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.ship(0, 0, 10)
    await place.ship(1, 0, 10)
    share.now = frozenset({1})
    async with place.indexer() as indexer:
        await indexer.turn()
        share.now = frozenset({0, 1})

        with monkeypatch.context() as patched:

            async def late(*_: object) -> None:
                patched.undo()
                await others_commit(place)
                raise TopicUnavailable("injected")

            patched.setattr(LocalTopic, "bounds", late)
            with pytest.raises(TopicUnavailable):
                await indexer.turn()
        assert indexer.status()["positions"] == {0: 1, 1: 1}
    assert place.rows() == expected(10, 10)


# -- recreated -------------------------------------------------------------------------------


@walks(FOREIGN, TAKING, CHECKING, RESET, COMMITTING, FOLLOWED)
async def test_a_topic_that_was_made_anew_while_nobody_looked_is_read_as_the_next_generation(
    place: Place,
) -> None:
    await place.ship(0, 0, 10)
    await others_commit(place)
    shutil.rmtree(place.topic)
    await place.ship(0, 10, 20)
    await place.index()
    assert place.rows() == expected(20)
    assert resets(place) == [(TOPIC_RESET, (1, 1))]
    assert place.ledger().positions[0].generation == 1


@walks(*TAKEN_UP, COMMITTING, FOLLOWED, RESET, COMMITTING, FOLLOWED)
async def test_a_topic_that_is_made_anew_under_an_indexer_is_the_next_generation(
    place: Place,
) -> None:
    await place.ship(0, 0, 10)
    async with place.indexer() as indexer:
        await place.drain(indexer)
        shutil.rmtree(place.topic)
        await place.ship(0, 10, 20)
        await look(indexer)
        await indexer.flush()
    assert place.rows() == expected(20)
    assert place.table.snapshot().transaction_version("local/0/0") == CLOSED


@walks(*TAKEN_UP, COMMITTING, RESET, COMMITTING, FOLLOWED)
async def test_a_topic_that_is_made_anew_during_a_commit_is_closed_by_the_next_one(
    place: Place, gate: Gate
) -> None:
    await place.ship(0, 0, 10)
    async with place.indexer(flush_age_ms=10) as indexer:
        await until_held(indexer, gate)
        shutil.rmtree(place.topic)
        await place.ship(0, 10, 20)
        await look(indexer)
        gate.open.set()
        await indexer.flush()
    assert place.rows() == expected(20)
    assert place.ledger().positions[0].generation == 1
    assert place.table.snapshot().version() == 2


@walks(*TAKEN_UP, RESET, TAKING, CHECKING, FOLLOWED)
async def test_a_generation_that_another_has_closed_is_not_closed_again(
    place: Place, gate: Gate
) -> None:
    gate.open.set()
    await place.ship(0, 0, 10)
    await place.ship(1, 0, 10)
    await others_commit(place)
    gate.open.clear()
    gate.held.clear()
    async with place.indexer(flush_age_ms=10) as indexer:
        await place.ship(1, 10, 20)
        await until_held(indexer, gate)
        shutil.rmtree(place.topic)
        await place.ship(0, 10, 20)
        await place.ship(1, 10, 20)
        await look(indexer)
        await others_commit(place)
        gate.open.set()
        await indexer.flush()
        assert indexer.status()["positions"] == {0: 1, 1: 1}
    assert place.rows() == expected(20, 20)
    assert place.ledger().positions[0].generation == 1


@walks(*TAKEN_UP, COMMITTING, RESET, FOREIGN)
async def test_a_share_that_goes_after_its_topic_was_made_anew_is_left_to_the_next_one(
    place: Place, share: Share, gate: Gate
) -> None:
    await place.ship(0, 0, 10)
    async with place.indexer(flush_age_ms=10) as indexer:
        await until_held(indexer, gate)
        shutil.rmtree(place.topic)
        await place.ship(0, 0, 20)
        await look(indexer)
        share.now = frozenset({1})
        gate.failures = 1 << 30
        gate.open.set()
        async with asyncio.timeout(30):
            while 0 in indexer.status()["positions"]:
                with contextlib.suppress(BucketUnavailable):
                    await indexer.turn()
        gate.failures = 0
    share.now = frozenset({0, 1})
    await others_commit(place)
    assert place.rows() == expected(20)


# -- stopped ---------------------------------------------------------------------------------


@walks(*TAKEN_UP, STOPPED, FOREIGN)
async def test_a_partition_that_is_stopped_can_be_given_to_another(
    place: Place, share: Share
) -> None:
    await place.send((0, newer()))
    async with place.indexer() as indexer:
        await indexer.turn()
        assert "upgrade the reader" in indexer.status()["stopped"][0]
        share.now = frozenset({1})
        await indexer.turn()
        assert indexer.status()["stopped"] == {}


@walks(*TAKEN_UP, COMMITTING, STOPPED)
async def test_a_partition_that_is_stopped_during_a_commit_stays_so_when_that_is_made(
    place: Place, gate: Gate
) -> None:
    await place.ship(0, 0, 10)
    async with place.indexer(flush_age_ms=10) as indexer:
        await until_held(indexer, gate)
        await place.ship(0, 10, 20)
        await place.send((0, newer()))
        async with asyncio.timeout(30):
            while not indexer.status()["stopped"]:
                await indexer.turn()
        gate.open.set()
        await indexer.flush()
        assert indexer.status()["positions"][0] == 2
        assert 0 in indexer.status()["stopped"]
    assert place.rows() == expected(20)


@walks(*TAKEN_UP, STOPPED, TAKING, CHECKING, FOLLOWED)
async def test_a_partition_that_is_stopped_goes_on_once_another_got_over_the_record(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await place.send((0, newer()))
    await place.ship(1, 0, 10)
    async with place.indexer() as indexer:
        await indexer.turn()
        assert 0 in indexer.status()["stopped"]
        with monkeypatch.context() as next_release:
            decode = wire_batch.decode

            def known(data: bytes, *args):
                return decode(data[:3] + wire(Run().batch())[3:4] + data[4:], *args)

            next_release.setattr(wire_batch, "decode", known)
            await others_commit(place)
        await indexer.flush()
        assert indexer.status()["stopped"] == {}
        assert indexer.status()["positions"] == {0: 1, 1: 1}


@walks(*TAKEN_UP, STOPPED, RESET, COMMITTING, FOLLOWED)
async def test_a_partition_that_is_stopped_goes_on_in_a_topic_that_is_made_anew(
    place: Place,
) -> None:
    await place.send((0, newer()))
    async with place.indexer() as indexer:
        await indexer.turn()
        assert 0 in indexer.status()["stopped"]
        shutil.rmtree(place.topic)
        await place.ship(0, 0, 10)
        await look(indexer)
        await indexer.flush()
        assert indexer.status()["healthy"]
    assert place.rows() == expected(10)


@walks(*TAKEN_UP, RESET, STOPPED)
async def test_a_new_generation_that_cannot_be_read_closes_the_one_before_all_the_same(
    place: Place,
) -> None:
    await place.ship(0, 0, 10)
    await others_commit(place)
    async with place.indexer() as indexer:
        shutil.rmtree(place.topic)
        await place.send((0, newer()))
        await look(indexer)
        assert 0 in indexer.status()["stopped"]
        await indexer.flush()
    assert place.table.snapshot().transaction_version("local/0/0") == CLOSED
    assert (TOPIC_RESET, (1, 1)) in resets(place)


@walks(*TAKEN_UP, STOPPED)
async def test_what_the_topic_deletes_behind_a_stopped_partition_is_a_gap(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.topic.local.FILE_BYTES", 1)  # a file for each record
    await place.send((0, newer()), (0, newer()), (0, newer()))
    async with place.indexer() as indexer:
        await indexer.turn()
        assert 0 in indexer.status()["stopped"]
        await indexer._topic.forget(0, 2)
        await look(indexer)
        await indexer.flush()
    assert resets(place) == [(LOST_RETENTION, (0, 1))]


# -- the table -------------------------------------------------------------------------------


def test_each_transition_of_the_life_cycle_is_walked_by_a_test_above() -> None:
    assert {(now, to) for now, leads_to in TRANSITIONS.items() for to in leads_to} == WALKED


def shortest(to: Ownership) -> list[Ownership]:
    """Return the states from ``FOREIGN``, without it, to this one."""
    paths = deque([[FOREIGN]])
    while (path := paths.popleft())[-1] is not to:
        paths.extend([*path, each] for each in TRANSITIONS[path[-1]])
    return path[1:]


@pytest.mark.parametrize(
    ("now", "to"),
    [(now, to) for now in Ownership for to in Ownership if to not in TRANSITIONS[now]],
    ids=lambda state: state.name,
)
def test_what_the_life_cycle_lacks_is_refused_and_changes_nothing(
    now: Ownership, to: Ownership
) -> None:
    partition = Partition(Position("local", "", 0, 7, 0, 0, None))
    for state in shortest(now):
        partition.move(state)
    with pytest.raises(NoSuchTransition, match=f"partition 7 is {now.name}, .* to {to.name}$"):
        partition.move(to)
    assert partition.state is now


def test_the_drawing_and_the_table_name_every_state() -> None:
    assert set(TRANSITIONS) == set(Ownership)
    assert all(state.name in (ownership.__doc__ or "") for state in Ownership)


# -- what a commit changes -------------------------------------------------------------------


async def test_a_commit_that_is_made_changes_nothing_here_before_the_loop_takes_it_over(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, made_it, go_on = Table.commit, threading.Event(), threading.Event()

    def slowly(self: Table, *args):
        version = made(self, *args)
        made_it.set()
        assert go_on.wait(30)
        return version

    monkeypatch.setattr(Table, "commit", slowly)
    await place.ship(0, 0, 10)
    async with place.indexer(flush_age_ms=10) as indexer:
        async with asyncio.timeout(30):
            while not made_it.is_set():
                await indexer.turn()
        assert place.table.snapshot().version() == 1
        assert (indexer._ledger.positions, dict(indexer._ledger.files)) == ({}, {})
        assert indexer.status()["positions"] == {0: 0, 1: 0}
        go_on.set()
        await indexer.flush()
        assert indexer._ledger.positions[0].end == 1
        assert indexer.status()["positions"] == {0: 1, 1: 0}


async def test_a_file_that_was_looked_up_for_a_commit_is_taken_over_once_that_is_made(
    place: Place, gate: Gate
) -> None:
    gate.open.set()
    key = (FILES[0].id, 0)
    await place.ship(0, 0, 30)
    await place.send((0, place.runs[0].batch(of=[FILES[0]], gone=(Gone(*key),))))
    await place.index()
    assert Fold(place.bucket, CLUSTER, 24, lambda: START_NS + 48 * HOUR_NS).advance(place.table)
    async with place.indexer() as indexer:
        await place.ship(0, 10, 40)  # ten lines of it are new
        await indexer.turn()
        gate.failures = 1
        with pytest.raises(BucketUnavailable):
            await indexer.flush()
        assert key not in indexer._ledger.files
        await indexer.flush()
        assert indexer._ledger.files[key].covered[0].start == 0
    assert place.rows() == expected(40)
