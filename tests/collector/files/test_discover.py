"""Scans that do not list what has not changed, and still see all that has."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.files.discover import Discovery, Scan
from collector.files.layout import Pods
from tests.collector.node import Node, content_of, gaps_of, line, lines

HOUR_NS = 3_600_000_000_000
SECOND = 1_000_000_000


class Clock:
    """The real time, or later by a while."""

    later_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.later_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for pod in ("web", "api"):
        add(tmp_path, pod, "0.log")
    return tmp_path


def add(root: Path, pod: str, name: str, data: bytes = b"x\n") -> Path:
    path = root / f"shop_{pod}_uid-{pod}" / "app" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
    return path


def names(scan: Scan) -> list[str]:
    assert not scan.errors
    return sorted(f"{found.stream.pod}/{found.path.name}" for found in scan.files)


def age(root: Path) -> None:
    """Make every directory look as if nothing had happened in it for an hour."""
    then = time.time_ns() - HOUR_NS
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            os.utime(path, ns=(then, then))


def test_each_change_of_a_directory_is_seen_by_the_next_scan(root: Path, clock: Clock) -> None:
    discovery = Discovery([(str(root), Pods("cri"))], clock)
    assert names(discovery.scan()) == ["api/0.log", "web/0.log"]
    for number in range(50):  # also changes within one tick of the file system's clock
        made = add(root, "web", f"{number + 1}.log")
        assert f"web/{made.name}" in names(discovery.scan())
        moved = made.rename(made.with_name(f"{made.name}.20260101-000000"))
        assert f"web/{moved.name}" in names(discovery.scan())
        moved.unlink()
        assert names(discovery.scan()) == ["api/0.log", "web/0.log"]


def test_a_quiet_directory_is_looked_at_again_within_seconds(root: Path, clock: Clock) -> None:
    age(root)
    discovery = Discovery([(str(root), Pods("cri"))], clock)
    first = discovery.scan()
    assert first.full_ns == first.began_ns
    add(root, "web", "1.log")
    clock.later_ns = SECOND
    second = discovery.scan()
    # What it has not looked into it does not speak of.
    assert names(second) == ["api/0.log", "web/0.log"]
    assert second.full_ns == first.began_ns < second.began_ns
    clock.later_ns = 10 * SECOND
    third = discovery.scan()
    assert names(third) == ["api/0.log", "web/0.log", "web/1.log"]
    assert third.full_ns == third.began_ns


def test_a_late_write_to_a_rotated_file_is_seen_in_an_unchanged_directory(
    root: Path, clock: Clock
) -> None:
    rotated = add(root, "web", "0.log.20260101-000000")
    age(root)
    discovery = Discovery([(str(root), Pods("cri"))], clock)
    discovery.scan()
    add(root, "web", rotated.name, b"late\n")
    clock.later_ns = 10 * SECOND
    sizes = {found.path: found.size for found in discovery.scan().files}
    assert sizes[rotated] == len(b"x\nlate\n")


def test_a_clock_that_steps_back_hides_nothing(root: Path, clock: Clock) -> None:
    age(root)
    discovery = Discovery([(str(root), Pods("cri"))], clock)
    discovery.scan()
    clock.later_ns = -HOUR_NS
    add(root, "web", "1.log")
    assert names(discovery.scan()) == ["api/0.log", "web/0.log", "web/1.log"]
    add(root, "web", "2.log")
    assert "web/2.log" in names(discovery.scan())


# -- clocks that step ----------------------------------------------------------------------------


class SteppingNode:
    """Directories whose times follow a clock that is set by hand, as a file system's do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = time.time_ns() // SECOND * SECOND

    def clock(self) -> int:
        return self.now

    def change(self, chance: random.Random, number: int) -> None:
        """Add, rotate or delete a file, and give its directories the time that it is."""
        folder = self.root / f"shop_pod{chance.randrange(6)}_uid" / "app"
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(folder.iterdir())
        if len(files) > 3:
            chance.choice(files).unlink()
        elif files and chance.random() < 0.5:
            path = chance.choice(files)
            path.rename(folder / f"0.log.{number:06}")
        else:
            (folder / f"{number}.log").touch()
        for path in (self.root, folder.parent, folder) if new else (folder,):
            os.utime(path, ns=(self.now, self.now))


STEPS = {
    "an hour back": -3600,
    "an hour on": 3600,
    "to 1970": -(10**10),
    "a day on": 86_400,
    "to and fro": 0,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_clock_that_steps_hides_no_change_for_long(tmp_path: Path, step: int) -> None:
    node, chance = SteppingNode(tmp_path), random.Random(step)
    discovery = Discovery([(str(tmp_path), Pods("cri"))], node.clock)
    for number in range(1, 300):
        if number % 40 == 0:
            node.now = max(1, node.now + SECOND * (step or chance.choice([-7200, 7200, -3, 3])))
        node.change(chance, number)
        if chance.random() < 0.3:
            discovery.scan()
        node.now += chance.choice([1, 40, 6000]) * SECOND // 1000
        if chance.random() < 0.3:
            node.now += 10 * SECOND
            found = {each.path for each in discovery.scan().files}
            assert found == {*tmp_path.glob("*/*/*")}


def test_directories_of_the_future_cost_no_more_and_hide_nothing(
    root: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = 0
    listed: list[str] = []
    scandir = os.scandir

    def counted(path: str) -> Any:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    discovery = Discovery([(str(root), Pods("cri"))], clock, ticks=lambda: ticks)
    later = time.time_ns() + HOUR_NS
    for path in (root, *root.rglob("*")):
        os.utime(path, ns=(later, later))
    for _ in range(3):  # nothing can be told of the tick of a clock in which they were listed
        listed.clear()
        discovery.scan()
        assert len(listed) == 5
    for tick in (1, 2, 40, 41):
        listed.clear()
        ticks, clock.later_ns = tick * SECOND, tick * SECOND
        discovery.scan()
        assert len(listed) == (5 if tick == 1 else 0)
    made = add(root, "web", "1.log")
    clock.later_ns += 10 * SECOND
    assert "web/1.log" in names(discovery.scan())
    assert listed == [str(made.parent)]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_a_collector_whose_clock_steps_loses_nothing(
    make: Callable[..., Node], step: int
) -> None:
    node = make()
    path, contents = node.file(), [b""]
    await node.start()
    for number in range(8):
        contents[-1] += node.write(path, lines(100 * number, 20))
        node.now = max(SECOND, node.now + SECOND * (step or [-7200, 7200][number % 2]))
        await node.pass_time(3)
        contents[-1] += node.write(path, lines(100 * number + 50, 5))
        path.rename(node.file(rotated=f"20241027-02{number:04}"))
        contents.append(node.write(path, lines(100 * number + 80, 5)))
        await node.pass_time(12)
        assert sorted(content_of(await node.batches()).values()) == sorted(contents)
    batches = await node.batches()
    assert not gaps_of(batches)
    assert [batch.inventory for batch in batches[-20:] if batch.inventory]


async def test_a_clock_that_is_set_back_does_not_hold_back_half_a_line(
    make: Callable[..., Node],
) -> None:
    node = make()
    whole = node.write(node.file(), line(0) + line(1)[:20])
    await node.start()
    await node.pass_time(2)
    node.now -= 3600 * SECOND
    await node.pass_time(12)
    assert list(content_of(await node.batches()).values()) == [whole]


async def test_rotated_names_that_sort_wrongly_lose_nothing(make: Callable[..., Node]) -> None:
    """The kubelet names by local time: when summer ends, the newest file may sort first."""
    node = make()
    path, contents = node.file(), []
    stamps = ["20241027-025950", "20241027-020000", "20241027-020000.1", "20241027-015959"]
    for number, stamp in enumerate(stamps):
        contents.append(node.write(path, lines(100 * number, 20)))
        if number == 2:
            await node.start()
            await node.pass_time()
        path.rename(node.file(rotated=stamp))
        await node.pass_time(1) if number >= 2 else None
    contents.append(node.write(path, lines(900, 20)))
    await node.pass_time()
    await node.crash()
    await node.start()
    await node.pass_time(30)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(contents)
    assert not gaps_of(batches)
