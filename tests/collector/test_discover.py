"""Scans that do not list what has not changed, and still see all that has."""

import os
import time
from pathlib import Path

import pytest

from collector.discover import Discovery, Scan

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
    discovery = Discovery([root], clock)
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
    discovery = Discovery([root], clock)
    first = discovery.scan()
    assert first.full_ns == first.began_ns
    add(root, "web", "1.log")
    clock.later_ns = SECOND
    second = discovery.scan()
    # What it has not looked into it does not speak of.
    assert names(second) == ["api/0.log", "web/0.log"]
    assert second.full_ns == first.began_ns < second.began_ns
    clock.later_ns = 6 * SECOND
    third = discovery.scan()
    assert names(third) == ["api/0.log", "web/0.log", "web/1.log"]
    assert third.full_ns == third.began_ns


def test_a_late_write_to_a_rotated_file_is_seen_in_an_unchanged_directory(
    root: Path, clock: Clock
) -> None:
    rotated = add(root, "web", "0.log.20260101-000000")
    age(root)
    discovery = Discovery([root], clock)
    discovery.scan()
    add(root, "web", rotated.name, b"late\n")
    clock.later_ns = 6 * SECOND
    sizes = {found.path: found.size for found in discovery.scan().files}
    assert sizes[rotated] == len(b"x\nlate\n")


def test_a_clock_that_steps_back_hides_nothing(root: Path, clock: Clock) -> None:
    age(root)
    discovery = Discovery([root], clock)
    discovery.scan()
    clock.later_ns = -HOUR_NS
    add(root, "web", "1.log")
    assert names(discovery.scan()) == ["api/0.log", "web/0.log", "web/1.log"]
    add(root, "web", "2.log")
    assert "web/2.log" in names(discovery.scan())
