"""A stop while the disk is slow: each batch is in the spool once, and the next run goes on."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.ship.batch_state import BatchState
from collector.ship.spool import Spool
from collector.topic.local import LocalTopic
from tests.collector.node import HeldTopic, Node, content_of, lines
from tests.collector.ship.shipping import Ship, SlowSpool


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "spool").iterdir())


@pytest.mark.parametrize("handed", [False, True], ids=["new", "handed to the topic"])
async def test_a_batch_that_is_being_spooled_as_the_grace_ends_is_spooled_once(
    tmp_path: Path, handed: bool
) -> None:
    ship = Ship(tmp_path)
    if handed:
        await ship.send()
    else:
        ship.add()
    ship.shipper.urgent = True
    stopping = await ship.begin(ship.shipper.drain(0))
    batch = ship.newest
    await ship.end(stopping)
    assert len(files(tmp_path)) == 1
    assert batch.state is (BatchState.HANDED_SPOOLED if handed else BatchState.SPOOLED)
    assert [sent.ends for sent in ship.spooled] == [((b"f" * 16, 0, len(lines(0, 1))),)]
    await ship.topic.close()


async def test_whoever_cancels_a_write_into_the_spool_waits_for_its_end(tmp_path: Path) -> None:
    ship = Ship(tmp_path)
    batch = await ship.send()
    ship.shipper.urgent = True
    saving = await ship.begin(ship.shipper.tend())
    for _ in range(3):
        saving.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await ship.end(saving)
    assert batch.state is BatchState.HANDED_SPOOLED
    assert ship.spooled == [batch.sent]
    await ship.topic.close()


async def test_a_batch_that_lies_in_the_spool_twice_is_sent_once(tmp_path: Path) -> None:
    before = Ship(tmp_path)
    await before.send_into_spool()
    await before.send_into_spool()
    for position in (0, 1):
        record = before.spool.get(position)
        assert record is not None
        before.spool.put(record.value, record.headers)
    await before.topic.close()

    ship = Ship(tmp_path, run=2)
    records, lost = ship.spool.recover([(0, 1)])
    assert (len(records), lost) == (4, 0)
    assert len(ship.shipper.recover(records)) == 2
    assert ship.shipper.spooled_numbers((1).to_bytes(16, "big"), 0) == (0, 1)
    assert ship.backlog.spooled_positions == [(0, 1)]
    await ship.feed()
    assert len(ship.topic.waiting) == 2
    for *_, future in ship.topic.waiting:
        future.set_result(0)
    await asyncio.sleep(0)
    assert ship.shipper.unacked_bytes == 0
    assert len(ship.acknowledged) == 2
    assert not +ship.backlog.pods
    ship.backlog.forget_acked(ship.backlog.acked)
    assert files(tmp_path) == []
    await ship.topic.close()


async def test_the_runs_after_a_stop_without_grace_go_on(make: Callable[..., Node]) -> None:
    node = make(spool_after_ms=10, drain_ms=0, flush_age_ms=10, partitions=1)
    node.open_topic = lambda: HeldTopic(node.topic_folder)
    await node.start()
    data = node.write(node.file(), lines(0, 5))
    await node.pass_time(2, acknowledged=False)
    spool = SlowSpool(node.state / "spool")
    spool.recover([])
    node.collector.backlog.spool = spool
    data += node.write(node.file(), lines(5, 5))
    node.now += 1_000_000_000
    node.collector._scan()
    await node.collector.reader.read()
    spool.may_write.clear()
    spool.writing.clear()
    stopping = asyncio.create_task(node.collector.stop())
    assert await asyncio.to_thread(spool.writing.wait, 30)
    spool.may_write.set()
    assert not await stopping
    await node.close_topic()

    found, _ = Spool(node.state / "spool").recover([])
    names = [record.headers[:2] for record in found]
    assert len(names) == len(set(names)), "a batch is in the spool twice"
    node.open_topic = lambda: LocalTopic(node.topic_folder, partitions=2)
    for _ in range(2):
        await node.start()
        await node.pass_time(3)
        await node.stop()
    assert list(content_of(await node.batches()).values()) == [data]
