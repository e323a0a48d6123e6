"""A thousand collectors and one API server, in simulated time: never do they ask at once.

The collectors' own code runs, on an event loop whose clock leaps from timer to timer; the server is
a model that counts requests, and is away, overloaded or forgetful when a test says so.
"""

import asyncio
import contextlib
import random
import selectors
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from collector.errors import MetadataError, MetadataExpired
from collector.labels.metadata import Metadata, MetadataSettings
from collector.labels.schedule import Schedule
from collector.labels.source import Change, Listing

pytestmark = pytest.mark.slow

FLEET = 1_000
MOST = FLEET * 5 // 100
SETTINGS = MetadataSettings(metadata_source="api")
SPREAD_S = SETTINGS.metadata_spread_ms / 1000
RETRY_MOST_S = SETTINGS.metadata_retry_most_ms / 1000


class LeapingSelector(selectors.DefaultSelector):
    """Never waits: the time that it should have waited has passed at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list:
        assert timeout is not None, "nobody will ever wake up"
        self.now += timeout
        return super().select(0)


class Model:
    """An API server: counts what it is asked, and answers as a test wants it to."""

    def __init__(self, time: Callable[[], float]) -> None:
        self.time = time
        self.asked: list[float] = []
        self.refused: list[float] = []
        self.away = False
        self.lists_per_second = FLEET
        self.versions_known = 0  # watches from versions below are refused
        self.broken = asyncio.Event()

    def _ask(self) -> None:
        self.asked.append(self.time())
        if self.away:
            raise MetadataError("connection refused")

    async def list(self) -> Listing:
        self._ask()
        second = int(self.time())
        taken = sum(int(at) == second for at in self.asked[-FLEET:])
        if taken > self.lists_per_second:
            self.refused.append(self.time())
            raise MetadataError("too many requests", retry_after_s=1)
        return Listing([], str(max(self.versions_known, 1)))

    async def watch(self, version: str, seconds: int) -> AsyncGenerator[Change, None]:
        self._ask()
        if int(version) < self.versions_known:
            raise MetadataExpired("too old resource version")
        yield Change()
        broken = self.broken
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await broken.wait()
                if int(version) < self.versions_known:
                    raise MetadataExpired("too old resource version")

    def break_watches(self) -> None:
        self.broken.set()
        self.broken = asyncio.Event()

    def most_in_a_second(self) -> int:
        """The most requests in any span of one second that begins with one of them."""
        most = start = 0
        for end, at in enumerate(self.asked):
            while self.asked[start] <= at - 1:
                start += 1
            most = max(most, end - start + 1)
        return most


class Fleet:
    """A thousand collectors of one server; ``now`` is in seconds since they started at once."""

    def __init__(self, state: Path, selector: LeapingSelector) -> None:
        self._selector = selector
        self.server = Model(lambda: selector.now)
        self.collectors = [
            Metadata(
                SETTINGS, f"node-{number}", state, self._clock, random.Random(number),
                source=self.server,
            )
            for number in range(FLEET)
        ]  # fmt: skip

    def _clock(self) -> int:
        return int(self._selector.now * 1e9) + 1

    def current(self, since: float) -> int:
        """How many collectors have had an answer since."""
        return sum(each.last_success_ns / 1e9 > since for each in self.collectors)


def run(state: Path, story: Callable) -> Fleet:
    """Start a fleet at once, let ``story(fleet)`` happen, stop it."""
    selector = LeapingSelector()

    async def whole() -> Fleet:
        fleet = Fleet(state, selector)
        tasks = [asyncio.create_task(each.run()) for each in fleet.collectors]
        await story(fleet)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return fleet

    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(whole())
    finally:
        loop.close()


def test_a_fleet_that_starts_at_once_asks_spread_out(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await asyncio.sleep(SPREAD_S)
        assert fleet.current(since=0) == FLEET
        await asyncio.sleep(3_600)  # and so are the ends of watches

    fleet = run(tmp_path, story)
    assert fleet.server.most_in_a_second() <= MOST
    later = Counter(int(at) for at in fleet.server.asked if at > SPREAD_S + 600)
    assert max(later.values()) <= 0.02 * FLEET


@pytest.mark.parametrize("away_s", [5, 3_600])
def test_a_server_that_comes_back_is_not_overrun(tmp_path: Path, away_s: int) -> None:
    async def story(fleet: Fleet) -> None:
        await asyncio.sleep(1_000)
        fleet.server.away = True
        fleet.server.break_watches()
        await asyncio.sleep(away_s)
        fleet.server.away = False
        back = 1_000 + away_s
        await asyncio.sleep(RETRY_MOST_S)
        assert fleet.current(since=back) == FLEET

    fleet = run(tmp_path, story)
    assert fleet.server.most_in_a_second() <= MOST
    assert sum(1_300 <= at < 1_000 + away_s for at in fleet.server.asked) <= FLEET * away_s / 200


def test_an_overloaded_server_is_asked_ever_more_rarely(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        fleet.server.lists_per_second = 5
        await asyncio.sleep(3_600)
        assert fleet.current(since=0) == FLEET

    fleet = run(tmp_path, story)
    assert fleet.server.refused, "the server was never overloaded"
    assert fleet.server.most_in_a_second() <= MOST


def test_a_version_that_is_forgotten_for_all_makes_no_storm_of_lists(tmp_path: Path) -> None:
    async def story(fleet: Fleet) -> None:
        await asyncio.sleep(1_000)
        fleet.server.versions_known = 2
        fleet.server.break_watches()
        await asyncio.sleep(SPREAD_S)
        assert fleet.current(since=1_000) == FLEET

    assert run(tmp_path, story).server.most_in_a_second() <= MOST


def test_collectors_do_not_fall_into_step() -> None:
    schedule = Schedule(random.Random(1), spread_s=1, retry_most_s=1, watch_s=300, poll_s=60)
    for draw, least, most in ((schedule.next_watch, 300, 600), (schedule.next_poll, 30, 90)):
        drawn = [draw() for _ in range(1_000)]
        assert least <= min(drawn) <= least * 1.05
        assert most * 0.95 <= max(drawn) <= most
