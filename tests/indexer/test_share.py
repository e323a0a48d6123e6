"""Indexers share a topic: whoever comes, goes or sleeps, each row is in the table once."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from collector.errors import CollectorError, SettingError
from indexer.errors import IndexerError
from indexer.index import Indexer
from indexer.settings import IndexerSettings
from indexer.share import membership
from indexer.store.open import open_bucket
from tests.indexer.test_index import Place, expected
from tests.real_parts.kafka import Broker
from tests.way import a_way, eventually

SHARED = {"partitions": "", "flush_age_ms": 200, "group_session_ms": 6_000}


@pytest.fixture
async def place(kafka: Broker, tmp_path: Path) -> Place:
    """Two partitions of a new Kafka topic, whose name is that of the group too."""
    name = await kafka.new_topic(2)
    bucket = open_bucket(str(tmp_path / "bucket"))
    return Place(f"kafka://{kafka.bootstrap}/{name}", bucket)


async def until(true: Callable[[], object], what: str) -> None:
    """Wait for something that happens in this process."""
    try:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within a minute: {what}") from None


async def run(indexer: Indexer) -> None:
    """Go on as the process does."""
    while True:
        try:
            await indexer.turn()
        except (IndexerError, CollectorError) as error:
            if not error.retriable:
                raise


def share(indexer: Indexer) -> set[int]:
    return set(indexer.status()["positions"])


async def joined(place: Place, first: Indexer, other: Indexer, turn: int) -> None:
    """Let another indexer do a part of the work."""
    running = asyncio.create_task(run(other))
    await until(lambda: len(share(other)) == len(share(first)) == 1, "one each")
    await place.ship(0, 10 * turn, 10 * turn + 10)
    await place.ship(1, 10 * turn, 10 * turn + 10)
    done = {0: turn + 1, 1: turn + 1}
    await until(
        lambda: first.status()["positions"] | other.status()["positions"] == done, "both commit"
    )
    running.cancel()
    await asyncio.wait([running])


async def test_indexers_that_come_and_go_share_the_work_and_double_nothing(
    place: Place,
) -> None:
    shared = SHARED | {"group": place.topic.rpartition("/")[2]}
    async with AsyncExitStack() as first_ends:
        first = await first_ends.enter_async_context(place.indexer(None, **shared))
        running = asyncio.create_task(run(first))
        await until(lambda: share(first) == {0, 1}, "the first has all")
        await place.ship(0, 0, 20)
        await place.ship(1, 0, 20)
        await until(lambda: first.status()["positions"] == {0: 2, 1: 2}, "it commits")
        for turn in (2, 3):
            async with place.indexer(None, **shared) as other:
                await joined(place, first, other, turn)
            await until(lambda: share(first) == {0, 1}, "the other has left")
        running.cancel()
        await asyncio.wait([running])
    assert place.rows() == expected(40, 40)
    assert place.gaps() == []


async def test_partitions_that_are_taken_away_are_committed_before_they_go(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = frozenset({0, 1})

    class Told:
        """A group that gives what the test says."""

        async def mine(self) -> frozenset[int]:
            return mine

        async def tell(self, positions: object) -> None:
            pass

        async def leave(self) -> None:
            pass

    monkeypatch.setattr("indexer.index.membership", lambda *_: Told())
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 20)
    async with place.indexer() as indexer:
        while indexer.status()["buffered_bytes"] < 1_800:
            await indexer.turn()
        mine = frozenset({1})
        await indexer.turn()
        assert indexer.status()["positions"] == {1: 2}
        assert place.rows() == expected(20, 20)
        await place.ship(1, 20, 30)
        while indexer.status()["buffered_bytes"] < 400:
            await indexer.turn()

        def away(*_: object) -> None:
            raise IndexerError("injected")

        with monkeypatch.context() as patch:
            patch.setattr("indexer.commit.upload", away)
            mine = frozenset()
            await indexer.turn()
        assert indexer.status()["positions"] == {}
        mine = frozenset({0, 1})
        await place.drain(indexer)
        await indexer.turn()
        await place.drain(indexer)
    assert place.rows() == expected(20, 30)


async def test_an_indexer_that_slept_longer_than_its_session_commits_nothing_twice(
    place: Place, tmp_path: Path
) -> None:
    with a_way(tmp_path, place.topic, place.bucket.uri) as way:
        flags = SHARED | {"group": place.topic.rpartition("/")[2], "log_level": "info"}
        names = ("one", "two")
        processes = [way.indexer(name, **flags) for name in names]

        def shares() -> list[str]:
            return sorted(way.status(name).partition('"positions": ')[2][:5] for name in names)

        eventually(lambda: shares() == ['{"0":', '{"1":'])
        await place.ship(0, 0, 20)
        await place.ship(1, 0, 20)
        eventually(
            lambda: {p: at.end for p, at in place.ledger().positions.items()} == {0: 2, 1: 2}
        )
        processes[0].send_signal(signal.SIGSTOP)
        await place.ship(0, 20, 40)
        await place.ship(1, 20, 40)
        eventually(
            lambda: {p: at.end for p, at in place.ledger().positions.items()} == {0: 4, 1: 4}
        )
        processes[0].send_signal(signal.SIGCONT)
        eventually(lambda: shares() == ['{"0":', '{"1":'])
        await place.ship(0, 40, 60)
        await place.ship(1, 40, 60)
        eventually(
            lambda: {p: at.end for p, at in place.ledger().positions.items()} == {0: 6, 1: 6}
        )
        assert [way.stop(name) for name in names] == [0, 0]
    assert place.rows() == expected(60, 60)
    assert place.gaps() == []


def test_partitions_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(SettingError, match="write numbers as in 0,1,2, or all"):
        membership(IndexerSettings(partitions="0;1"), None)  # type: ignore[arg-type]
