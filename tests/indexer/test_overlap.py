"""While a commit is on its way the next one is read, up to a bound, and nothing overtakes it."""

import asyncio
import threading
from pathlib import Path

import pytest

from indexer import commit, index
from indexer.errors import BucketUnavailable
from indexer.store.open import open_bucket
from indexer.table.table import Table
from indexer.upload import upload
from tests.indexer.shipped import File
from tests.indexer.test_index import Place, expected
from tests.way import cri

MIB = 1 << 20


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Two partitions on local directories."""
    return Place(str(tmp_path / "topic"), open_bucket(str(tmp_path / "bucket")))


class Gate:
    """Holds each upload until it is opened; fails as often as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.held = threading.Event()
        self.failures = 0

        def held(*args):
            self.held.set()
            assert self.open.wait(30)
            if self.failures:
                self.failures -= 1
                raise BucketUnavailable("injected")
            return upload(*args)

        monkeypatch.setattr(commit, "upload", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def ship_large(place: Place, first: int, last: int) -> None:
    """Send records of 256 KiB of lines, numbered, to partition 0."""
    line = cri(1, "x" * 1000)
    for number in range(first, last):
        file = File(line * (MIB // 4 // len(line)), pod=f"large-{number}")
        await place.send((0, place.runs[0].batch(*file.ranges([]), of=[file])))


async def turns(indexer: index.Indexer, count: int) -> None:
    for _ in range(count):
        await asyncio.wait_for(indexer.turn(), 20)


@pytest.mark.slow
@pytest.mark.parametrize("failures", [0, 2])
async def test_what_is_read_while_a_commit_is_on_its_way_goes_into_the_next(
    place: Place, gate: Gate, failures: int
) -> None:
    gate.failures = failures
    await place.ship(0, 0, 20)
    await place.ship(1, 0, 10)
    async with place.indexer(flush_age_ms=10) as indexer:
        while not gate.held.is_set():
            await turns(indexer, 1)
        await place.ship(0, 20, 40)
        await place.ship(1, 10, 30)
        before = indexer.status()["buffered_bytes"]
        await turns(indexer, 4)
        assert indexer.status()["buffered_bytes"] > before
        assert indexer.status()["positions"] == {0: 0, 1: 0}
        assert place.table.snapshot().version() == 0
        gate.open.set()
        await place.drain(indexer)
    assert place.rows() == expected(40, 30)
    assert place.gaps() == []
    assert place.table.snapshot().version() == 2


async def test_reading_waits_when_the_buffer_is_full_and_goes_on_after_the_commit(
    place: Place, gate: Gate
) -> None:
    await ship_large(place, 0, 24)
    bounds = {"flush_bytes": MIB, "buffer_bytes": 2 * MIB, "fetch_bytes": 65_536}
    async with place.indexer(None, **bounds) as indexer:
        while (held := indexer.status()["buffered_bytes"]) < 2 * MIB - MIB // 4:
            await turns(indexer, 1)
        waiting = asyncio.create_task(indexer.turn())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert held <= 2 * MIB + MIB // 4 + 65_536
        assert indexer.status()["buffered_bytes"] <= 2 * MIB + MIB // 4 + 65_536
        assert indexer._metrics.buffer_full._value.get() == 1
        gate.open.set()
        await asyncio.wait_for(waiting, 20)
        await place.drain(indexer)
    assert len({pod for pod, _, _ in place.rows()}) == 24


async def test_a_buffer_that_is_smaller_than_a_record_still_lets_it_through(place: Place) -> None:
    await ship_large(place, 0, 3)
    line = cri(1, "x" * 1000)
    file = File(line * (3 * MIB // len(line)), pod="large-9")
    await place.send((0, place.runs[0].batch(*file.ranges([]), of=[file])))
    async with place.indexer(flush_bytes=8 * MIB, buffer_bytes=MIB) as indexer:
        await place.drain(indexer)
    assert len({pod for pod, _, _ in place.rows()}) == 4


async def test_a_commit_that_was_made_and_answered_with_an_error_costs_nothing_read_since(
    place: Place, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, failing = Table.commit, [True]

    def answered_with_an_error(self: Table, *args):
        version = made(self, *args)
        if failing.pop() if failing else False:
            raise BucketUnavailable("injected")
        return version

    monkeypatch.setattr(Table, "commit", answered_with_an_error)
    await place.ship(0, 0, 20)
    async with place.indexer(flush_age_ms=10) as indexer:
        while not gate.held.is_set():
            await turns(indexer, 1)
        await place.ship(0, 20, 40)
        await turns(indexer, 3)
        gate.open.set()
        reads, read = [], indexer._topic.read

        async def noting(positions, *args):
            reads.append(positions[0])
            return await read(positions, *args)

        monkeypatch.setattr(indexer._topic, "read", noting)
        await place.drain(indexer)
    assert set(reads) <= {4}  # nothing is read twice
    assert place.rows() == expected(40)
    assert place.gaps() == []
