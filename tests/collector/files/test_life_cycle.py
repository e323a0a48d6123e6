"""The stages of a file: real files go through every transition of the table, and no other one."""

import gzip
import itertools
import random
import shutil
from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from collector.errors import WrongStage
from collector.files.life_cycle import TRANSITIONS, LifeCycle, Stage
from tests.collector.node import (
    HeldTopic,
    Node,
    content_of,
    gaps_of,
    lines,
    seals_of,
)

UNBORN, FOLLOWED, MOVED, ENDED = Stage.UNBORN, Stage.FOLLOWED, Stage.MOVED, Stage.ENDED
SEALING, REMEMBERED, REPORTED = Stage.SEALING, Stage.REMEMBERED, Stage.REPORTED
SEALED, TRUNCATED, ERASED, GONE = Stage.SEALED, Stage.TRUNCATED, Stage.ERASED, Stage.GONE

Step = tuple[Stage, Stage]
EVERY = {(before, after) for before, all_after in TRANSITIONS.items() for after in all_after}
REACHED: set[Step] = set()
GIVEN_UP = "deleted files held more than held_bytes"


class Lives:
    """A node, a topic that can be held, and the steps that its files have gone."""

    def __init__(self, make: Callable[..., Node], folder: Path) -> None:
        self._make = make
        self.steps: set[Step] = set()
        self.refused: list[Step] = []
        self.plain = folder / "plain"
        self.topic: HeldTopic
        self.holds_from_start = False

    def node(self, **settings: Any) -> Node:
        """A node whose files end after two seconds, and which does not use its spool soon."""
        values = {"seal_quiet_ms": 2_000, "spool_after_ms": 600_000, "flush_age_ms": 100}
        node = self._make(**(values | settings))

        def open_topic() -> HeldTopic:
            self.topic = HeldTopic(node.topic_folder)
            self.topic.holds = self.holds_from_start
            return self.topic

        node.open_topic = open_topic
        return node

    def plain_node(self, **settings: Any) -> Node:
        """One with plain files, which are told apart by their inodes."""
        self.plain.mkdir()
        return self.node(plain_files=f"app={self.plain}/*.log", **settings)


@pytest.fixture
def lives(
    make: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lives]:
    lives = Lives(make, tmp_path)
    become = LifeCycle.become

    def noted(life: LifeCycle, stage: Stage) -> None:
        step = (life.stage, stage)
        try:
            become(life, stage)
        except WrongStage:
            lives.refused.append(step)
            raise
        lives.steps.add(step)

    monkeypatch.setattr(LifeCycle, "become", noted)
    yield lives
    assert not lives.refused


Test = Callable[[Lives], Awaitable[None]]


def reaches(*steps: Step) -> Callable[[Test], Test]:
    """Marks a test after which files have gone these steps."""
    REACHED.update(steps)

    def decorate(test: Test) -> Test:
        @wraps(test)
        async def run(lives: Lives) -> None:
            await test(lives)
            assert lives.steps >= set(steps), set(steps) - lives.steps

        return run

    return decorate


def stages(node: Node) -> list[Stage]:
    """Of all files that are held open."""
    return [tail.stage for tail in node.collector.watch.tails.values()]


def closed_stages(node: Node) -> list[Stage]:
    return [closed.stage for closed in node.collector.watch.files.closed.values()]


# -- the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), sorted(EVERY, key=str))
def test_a_stage_of_the_table_may_follow(before: Stage, after: Stage) -> None:
    life = LifeCycle(before)
    assert life.may_become(after)
    life.become(after)
    assert life.stage is after


@pytest.mark.parametrize(
    ("before", "after"), sorted(set(itertools.product(Stage, Stage)) - EVERY, key=str)
)
def test_a_stage_that_the_table_lacks_is_refused(before: Stage, after: Stage) -> None:
    life = LifeCycle(before)
    assert not life.may_become(after)
    with pytest.raises(WrongStage, match=f"{before.name} cannot become {after.name}"):
        life.become(after)
    assert life.stage is before


def test_every_stage_is_reached_and_every_file_can_be_forgotten() -> None:
    assert set(TRANSITIONS) == set(Stage)
    starts = {UNBORN, REMEMBERED, SEALED}
    assert {after for _, after in EVERY} | starts == set(Stage)
    leads = {GONE}
    while more := {before for before, after in EVERY if after in leads} - leads:
        leads |= more
    assert leads == set(Stage)


def test_every_transition_of_the_table_is_reached_by_a_test_of_real_files() -> None:
    assert REACHED == EVERY


# -- found, followed, sealed ---------------------------------------------------------------------


@reaches(
    (UNBORN, FOLLOWED), (FOLLOWED, MOVED), (MOVED, ENDED), (ENDED, SEALING), (SEALING, SEALED),
    (SEALED, GONE),
)  # fmt: skip
async def test_a_file_is_followed_sealed_and_forgotten(lives: Lives) -> None:
    node = lives.node(gone_after_ms=5_000)
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    await node.pass_time(2)
    assert stages(node) == [FOLLOWED]
    node.file().unlink()
    await node.pass_time(2)
    assert stages(node) == [MOVED]
    await node.pass_time(15)
    assert (stages(node), closed_stages(node)) == ([], [])
    batches = await node.batches()
    assert list(content_of(batches).values()) == [content]
    assert len(seals_of(batches)) == 1
    assert not gaps_of(batches)


@reaches((UNBORN, MOVED))
async def test_half_a_line_gets_its_name_when_no_more_can_come(lives: Lives) -> None:
    node = lives.node()
    node.write(node.file(), b"half")
    await node.start()
    await node.pass_time(2)
    assert stages(node) == [UNBORN]
    node.file().rename(node.file(rotated="1"))
    await node.pass_time(10)
    assert list(content_of(await node.batches()).values()) == [b"half"]


@reaches((UNBORN, GONE))
async def test_an_empty_file_that_has_ended_is_dropped(lives: Lives) -> None:
    node = lives.node()
    node.file().touch()
    await node.start()
    await node.pass_time(2)
    assert stages(node) == [UNBORN]
    node.file().unlink()
    await node.pass_time(6)
    assert (stages(node), closed_stages(node)) == ([], [])


@reaches((MOVED, FOLLOWED))
async def test_a_file_that_is_renamed_back_is_followed_again(lives: Lives) -> None:
    node = lives.node()
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    node.file().rename(node.file(rotated="1"))
    await node.pass_time(1)
    assert stages(node) == [MOVED]
    node.file(rotated="1").rename(node.file())
    await node.pass_time(10)
    assert stages(node) == [FOLLOWED]
    content += node.write(node.file(), lines(5, 5))
    await node.pass_time(3)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [content]
    assert not seals_of(batches)


@reaches((ENDED, MOVED), (ENDED, FOLLOWED))
async def test_a_file_that_has_ended_may_still_grow_or_come_back(lives: Lives) -> None:
    node = lives.node()
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    lives.topic.holds = True
    moved = node.file(rotated="1")
    node.file().rename(moved)
    await node.pass_time(5, acknowledged=False)
    assert stages(node) == [ENDED]
    content += node.write(moved, lines(5, 5))
    await node.pass_time(1, acknowledged=False)
    assert stages(node) == [MOVED]
    await node.pass_time(5, acknowledged=False)
    assert stages(node) == [ENDED]
    moved.rename(node.file())
    await node.pass_time(1, acknowledged=False)
    assert stages(node) == [FOLLOWED]
    await lives.topic.release()
    await node.pass_time(10)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [content]
    assert not seals_of(batches)


async def sealing(lives: Lives, node: Node, path: Path, moved: Path) -> None:
    """Rename a file that was read to its end, and hold its SEAL back."""
    await node.pass_time(2)
    path.rename(moved)
    await node.pass_time(1)
    lives.topic.holds = True
    await node.pass_time(3, acknowledged=False)
    assert stages(node) == [SEALING]


@reaches((SEALING, MOVED), (SEALING, FOLLOWED))
async def test_a_file_that_grows_while_its_seal_is_on_its_way_is_sealed_again(lives: Lives) -> None:
    node = lives.node()
    moved = node.file(rotated="1")
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    await sealing(lives, node, node.file(), moved)
    content += node.write(moved, lines(5, 5))
    await node.pass_time(1, acknowledged=False)
    assert stages(node) == [MOVED]
    await lives.topic.release()
    await node.pass_time(1)
    lives.topic.holds = True
    await node.pass_time(4, acknowledged=False)
    assert stages(node) == [SEALING]
    moved.rename(node.file())
    await node.pass_time(1, acknowledged=False)
    assert stages(node) == [FOLLOWED]
    await lives.topic.release()
    await node.pass_time(2)
    node.file().rename(moved)
    await node.pass_time(6)
    assert closed_stages(node) == [SEALED]
    batches = await node.batches()
    assert list(content_of(batches).values()) == [content]
    (seal,) = seals_of(batches).values()
    assert seal.size == len(content)
    assert not gaps_of(batches)


async def test_a_deleted_file_that_grows_while_its_seal_is_on_its_way_is_read_on(
    lives: Lives,
) -> None:
    node = lives.node()
    content = node.write(node.file(), lines(0, 5))
    moved = node.file(rotated="1")
    await node.start()
    await sealing(lives, node, node.file(), moved)
    with moved.open("ab") as writer:
        moved.unlink()
        await node.pass_time(1, acknowledged=False)
        writer.write(late := lines(5, 5))
    await node.pass_time(1, acknowledged=False)
    await lives.topic.release()
    await node.pass_time(10)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [content + late]
    (seal,) = seals_of(batches).values()
    assert seal.size == len(content + late)


# -- other content -------------------------------------------------------------------------------


@reaches((FOLLOWED, TRUNCATED), (TRUNCATED, ERASED), (ERASED, GONE))
async def test_a_file_that_is_truncated_is_reported_and_forgotten(lives: Lives) -> None:
    node = lives.node(gone_after_ms=5_000)
    old = node.write(node.file(), lines(100, 5))
    await node.start()
    await node.pass_time(2)
    lives.topic.holds = True
    node.file().write_bytes(new := lines(200, 3))
    await node.pass_time(2, acknowledged=False)
    assert (stages(node), closed_stages(node)) == ([FOLLOWED], [TRUNCATED])
    await lives.topic.release()
    await node.pass_time(1)
    assert closed_stages(node) == [ERASED]
    await node.pass_time(15)
    assert (stages(node), closed_stages(node)) == ([FOLLOWED], [])
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([old, new])
    (gap,) = gaps_of(batches)
    assert gap.reason == "truncated"


@reaches((MOVED, TRUNCATED), (ENDED, TRUNCATED))
async def test_a_renamed_file_that_is_overwritten_is_another_file(lives: Lives) -> None:
    node = lives.node()
    path, moved = node.file(), node.file(rotated="1")
    contents = [node.write(path, lines(100, 5))]
    await node.start()
    await node.pass_time(2)
    path.rename(moved)
    await node.pass_time(1)
    contents.append(lines(200, 9))
    moved.write_bytes(contents[-1])
    await node.pass_time(1)
    lives.topic.holds = True
    contents[-1] += node.write(moved, lines(209, 1))
    await node.pass_time(4, acknowledged=False)
    assert stages(node) == [ENDED]
    contents.append(lines(300, 10))  # of the same size, so that only its bytes tell
    moved.write_bytes(contents[-1])
    await node.pass_time(1, acknowledged=False)
    await lives.topic.release()
    await node.pass_time(10)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(contents)
    assert [gap.reason for gap in gaps_of(batches)] == ["truncated"] * 2


@reaches((SEALING, TRUNCATED))
async def test_a_seal_that_comes_after_its_file_was_overwritten_ends_no_other(lives: Lives) -> None:
    node = lives.node()
    path, moved = node.file(), node.file(rotated="1")
    old = node.write(path, lines(100, 5))
    await node.start()
    await sealing(lives, node, path, moved)
    moved.write_bytes(new := lines(200, 5))
    await node.pass_time(2, acknowledged=False)
    await lives.topic.release()
    await node.pass_time(1)
    assert (stages(node), closed_stages(node)) == ([ENDED], [ERASED])
    new += node.write(moved, lines(205, 5))
    await node.pass_time(10)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([old, new])
    assert {seal.size for seal in seals_of(batches).values()} == {len(old), len(new)}


@reaches((FOLLOWED, REPORTED), (REPORTED, MOVED))
async def test_a_plain_file_that_was_copied_and_truncated_goes_on_as_its_copy(lives: Lives) -> None:
    node = lives.plain_node()
    log, copy = lives.plain / "a.log", lives.plain / "a.log.1"
    first = node.write(log, lines(0, 50))
    await node.start()
    await node.pass_time(2)
    first += node.write(log, lines(50, 5))
    shutil.copyfile(log, copy)
    log.write_bytes(second := lines(100, 3))
    await node.pass_time(10)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])


@reaches((SEALING, REPORTED), (REPORTED, MOVED))
async def test_a_sealed_file_that_was_compressed_and_overwritten_goes_on_as_its_copy(
    lives: Lives,
) -> None:
    node = lives.plain_node()
    log, moved = lives.plain / "a.log", lives.plain / "a.log.1"
    first = node.write(log, lines(100, 5))
    await node.start()
    await sealing(lives, node, log, moved)
    (lives.plain / "a.log.2.gz").write_bytes(gzip.compress(first))
    moved.write_bytes(second := lines(200, 5))
    await node.pass_time(1, acknowledged=False)
    assert set(stages(node)) == {ENDED, MOVED}  # its size and time tell nothing of the change
    await lives.topic.release()
    await node.pass_time(10)
    assert closed_stages(node) == [SEALED, SEALED]
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    assert sum(len(each.data) for b in batches for each in b.ranges) == len(first + second)


# -- the rest is given up ------------------------------------------------------------------------


@reaches((MOVED, REPORTED), (REPORTED, SEALED))
async def test_a_file_that_goes_on_growing_after_its_deletion_is_given_up(lives: Lives) -> None:
    node = lives.node(held_bytes=0)
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    await node.pass_time(2)
    node.write(node.file(), lines(5, 5))
    node.file().unlink()
    await node.pass_time(2)
    assert (stages(node), closed_stages(node)) == ([], [SEALED])
    (gap,) = gaps_of(await node.batches())
    assert (gap.start, gap.reason, gap.end_exact) == (len(content), GIVEN_UP, False)


@reaches((ENDED, REPORTED), (REPORTED, SEALED))
async def test_a_deleted_file_that_may_hold_no_disk_is_given_up(lives: Lives) -> None:
    node = lives.node(held_bytes=0, seal_quiet_ms=0)
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    await node.pass_time(2)
    node.write(node.file(), lines(5, 5))
    node.file().unlink()
    await node.pass_time(2)
    assert (stages(node), closed_stages(node)) == ([], [SEALED])
    (gap,) = gaps_of(await node.batches())
    assert (gap.start, gap.reason) == (len(content), GIVEN_UP)


async def test_what_is_given_up_is_reported_though_a_late_scan_has_said_something_of_it(
    lives: Lives,
) -> None:
    node = lives.node(held_bytes=0, scan_late_ms=10_000)
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    await node.pass_time(2)
    node.write(node.file(), lines(5, 5))
    node.file().unlink()
    node.now += 30_000_000_000
    await node.pass_time(2)
    gaps = {(gap.reason, gap.start) for gap in gaps_of(await node.batches())}
    assert gaps == {("a scan came late", len(content)), (GIVEN_UP, len(content))}


# -- another run ---------------------------------------------------------------------------------


@reaches((REMEMBERED, FOLLOWED), (REMEMBERED, MOVED))
async def test_a_restart_goes_on_with_what_it_finds(lives: Lives) -> None:
    node = lives.node()
    first = node.write(node.file(), lines(0, 5))
    second = node.write(node.file(1), lines(100, 5))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    node.file().rename(node.file(rotated="1"))
    await node.start()
    assert sorted(stages(node), key=str) == [FOLLOWED, MOVED]
    assert not closed_stages(node)
    await node.pass_time(3)
    assert sorted(content_of(await node.batches()).values()) == sorted([first, second])


@reaches(
    (REMEMBERED, REPORTED), (REPORTED, SEALED), (SEALED, FOLLOWED), (SEALED, MOVED),
    (REPORTED, FOLLOWED), (REPORTED, MOVED),
)  # fmt: skip
async def test_a_file_that_was_missing_goes_on_when_it_is_found_again(lives: Lives) -> None:
    node = lives.node()
    paths = {node.file(pod=pod): lines(100 * i, 5) for i, pod in enumerate(("a", "b"))}
    for path, content in paths.items():
        node.write(path, content)
    await node.start()
    await node.pass_time(3)
    await node.crash()
    for holds, stage in ((False, SEALED), (True, REPORTED)):
        away = [path.rename(node.root.parent / path.parts[-3]) for path in paths]
        lives.holds_from_start = holds
        await node.start()
        await node.pass_time(4, acknowledged=not holds)
        assert closed_stages(node) == [stage] * 2
        places = (node.file(pod="a"), node.file(pod="b", rotated="1"))
        for old, new in zip(away, places, strict=True):
            old.rename(new)
        await node.pass_time(1, acknowledged=False)
        assert stages(node) == [FOLLOWED, MOVED]
        await lives.topic.release()
        await node.pass_time(2)
        places[1].rename(node.file(pod="b"))
        for path in paths:
            paths[path] += node.write(path, lines(500, 5))
        await node.pass_time(3)
        await node.crash()
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(paths.values())
    assert sum(len(each.data) for b in batches for each in b.ranges) == sum(
        map(len, paths.values())
    )


@reaches((REMEMBERED, SEALED))
async def test_a_seal_in_the_spool_of_the_run_before_counts(lives: Lives) -> None:
    node = lives.node(spool_after_ms=2_000)
    content = node.write(node.file(), lines(0, 5))
    await node.start()
    lives.topic.holds = True
    await node.pass_time(8, acknowledged=False)
    node.file().unlink()
    await node.pass_time(1, acknowledged=False)
    (node.state / "checkpoint.tmp").mkdir()  # from here on nothing is remembered
    await node.pass_time(8, acknowledged=False)
    assert closed_stages(node) == [SEALED]
    await node.crash()
    (node.state / "checkpoint.tmp").rmdir()
    await node.start()
    assert closed_stages(node) == [REMEMBERED]
    await node.turn()
    assert closed_stages(node) == [SEALED]
    await node.pass_time(3)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [content]
    assert len([seal for batch in batches for seal in batch.seals]) == 1
    assert not gaps_of(batches)


# -- anything at any time ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_no_order_of_events_asks_for_a_step_that_the_table_lacks(
    lives: Lives, seed: int
) -> None:
    random_ = random.Random(seed)
    node = lives.plain_node(gone_after_ms=8_000, spool_after_ms=3_000, held_bytes=20_000)
    numbers = itertools.count(0, 10)
    place = lives.plain if seed % 2 else node.file().parent

    def act(path: Path) -> None:
        beside = path.with_name(f"{path.name.removesuffix('.gz')}.{next(numbers)}")
        match random_.randrange(9):
            case 0 | 1 | 2:
                node.write(path, lines(next(numbers), random_.randrange(1, 5)))
            case 3:
                path.rename(beside)
            case 4 if not path.name.endswith(".log"):
                path.rename(path.with_name("0.log"))
            case 5:
                path.unlink()
            case 6:
                path.write_bytes(lines(next(numbers), random_.randrange(5)))
            case 7:
                shutil.copyfile(path, beside)
            case 8:
                beside.with_name(f"{beside.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()

    await node.start()
    for step in range(60):
        node.write(place / "0.log", lines(next(numbers), 2))
        await node.pass_time(random_.choice([1, 1, 3]), acknowledged=False)
        for path in random_.sample(sorted(place.iterdir()), 1):
            if path.exists():
                act(path)
        lives.topic.holds = random_.random() < 0.3
        if not lives.topic.holds:
            await lives.topic.release()
        if step % 20 == 19:
            await node.crash()
            lives.holds_from_start = random_.random() < 0.5
            await node.start()
    await lives.topic.release()
    await node.pass_time(20)
    assert {FOLLOWED, *stages(node)} == {FOLLOWED}
    assert len(lives.steps) > 8
