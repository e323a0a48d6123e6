"""The way of a batch: each transition of the table happens, and nothing else can.

A transition is shown by what topic, disk and clock do to a shipper, never by setting a state.
"""

from collections.abc import AsyncIterator, Callable
from itertools import product
from pathlib import Path

import pytest

from collector.ship.batch_state import TRANSITIONS, BatchState, Event
from collector.ship.lane import Lane, PendingBatch
from tests.collector.ship.shipping import Ship

Scenario = Callable[[Ship], AsyncIterator[PendingBatch]]
"""Yields a batch in the first state, and ends when the event has happened to it."""

SCENARIOS: dict[tuple[BatchState, Event], Scenario] = {}


def shows(state: BatchState, event: Event) -> Callable[[Scenario], Scenario]:
    def note(scenario: Scenario) -> Scenario:
        assert (state, event) not in SCENARIOS
        SCENARIOS[state, event] = scenario
        return scenario

    return note


@shows(BatchState.PACKED, Event.HAND)
async def a_new_batch_goes_to_the_topic_if_the_spool_cannot_be_written(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    (ship.folder / "spool").touch()  # where the directory should be
    ship.shipper.urgent = True
    sending = await ship.begin(ship.send())
    yield ship.newest
    await ship.end(sending)
    assert [each[2] for each in ship.topic.waiting] == [ship.newest.headers]


@shows(BatchState.PACKED, Event.SPOOL)
async def a_new_batch_goes_into_the_spool_alone_while_that_is_the_way(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    ship.shipper.urgent = True
    sending = await ship.begin(ship.send())
    yield ship.newest
    await ship.end(sending)
    assert list(ship.backlog.unfed) == [ship.newest]
    assert not ship.topic.waiting


@shows(BatchState.HANDED, Event.REFUSE)
async def the_topic_refuses_a_batch(ship: Ship) -> AsyncIterator[PendingBatch]:
    batch = await ship.send()
    yield batch
    await ship.refuse(batch)
    assert ship.shipper.stalled


@shows(BatchState.HANDED, Event.ACK)
async def the_topic_has_a_batch_before_the_one_before_it(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    await ship.send()
    second = await ship.send()
    yield second
    await ship.answer(second)
    assert not ship.acknowledged


@shows(BatchState.HANDED, Event.SPOOL)
async def a_batch_that_the_topic_does_not_answer_is_spooled(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    batch = await ship.send()
    yield batch
    await ship.spool_all()
    assert ship.spooled == [batch.sent]


@shows(BatchState.REFUSED, Event.HAND)
async def a_refused_batch_is_handed_again(ship: Ship) -> AsyncIterator[PendingBatch]:
    batch = await ship.send()
    (ship.folder / "spool").touch()
    await ship.refuse(batch)
    yield batch
    await ship.feed()
    assert not ship.shipper.stalled


@shows(BatchState.REFUSED, Event.SPOOL)
async def a_refused_batch_is_spooled_until_it_is_handed_again(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    batch = await ship.send()
    await ship.refuse(batch)
    yield batch
    await ship.shipper.tend()
    assert not ship.topic.waiting


@shows(BatchState.SPOOLED, Event.HAND)
async def the_spool_feeds_a_batch_to_the_topic(ship: Ship) -> AsyncIterator[PendingBatch]:
    batch = await ship.send_into_spool()
    assert not batch.value
    yield batch
    await ship.feed()
    assert [each[1] for each in ship.topic.waiting] == [batch.value]


@shows(BatchState.SPOOLED, Event.LOSE)
async def a_batch_is_damaged_in_the_spool(ship: Ship) -> AsyncIterator[PendingBatch]:
    await ship.send()  # what comes after it cannot leave the lane
    batch = await ship.send_into_spool()
    [path] = (ship.folder / "spool").glob("*.log")
    path.write_bytes(path.read_bytes()[:-1])
    yield batch
    await ship.feed()


@shows(BatchState.HANDED_SPOOLED, Event.REFUSE)
async def the_topic_refuses_a_batch_that_the_spool_has_too(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    batch = await ship.send()
    await ship.spool_all()
    yield batch
    await ship.refuse(batch)


@shows(BatchState.REFUSED_SPOOLED, Event.HAND)
async def a_refused_batch_that_the_spool_has_too_is_handed_again(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    batch = await ship.send()
    await ship.refuse(batch)
    await ship.shipper.tend()
    yield batch
    await ship.feed()
    assert [each[2] for each in ship.topic.waiting] == [batch.headers]


@shows(BatchState.HANDED_SPOOLED, Event.ACK)
async def the_topic_has_a_spooled_batch_before_the_one_before_it(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    await ship.send()
    second = await ship.send()
    await ship.spool_all()
    yield second
    await ship.answer(second)


@shows(BatchState.ACKED, Event.SPOOL)
async def a_batch_that_waits_for_the_one_before_it_is_spooled_behind_that(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    first, second = await ship.send(), await ship.send()
    await ship.answer(second)
    yield second
    await ship.spool_all()
    assert ship.spooled == [first.sent, second.sent]


@shows(BatchState.ACKED, Event.SETTLE)
async def the_topic_has_all_before_a_batch(ship: Ship) -> AsyncIterator[PendingBatch]:
    first, second = await ship.send(), await ship.send()
    await ship.answer(second)
    yield second
    await ship.answer(first)
    assert ship.acknowledged == [first.sent, second.sent]


@shows(BatchState.ACKED_SPOOLED, Event.SETTLE)
async def the_topic_has_all_before_a_spooled_batch(ship: Ship) -> AsyncIterator[PendingBatch]:
    first, second = await ship.send(), await ship.send()
    await ship.spool_all()
    await ship.answer(second)
    yield second
    await ship.answer(first)
    assert ship.acknowledged == [first.sent, second.sent]
    ship.backlog.forget_acked(ship.backlog.acked)
    assert len(ship.spool) == 0


@shows(BatchState.LOST, Event.SETTLE)
async def the_topic_has_all_before_a_lost_batch(ship: Ship) -> AsyncIterator[PendingBatch]:
    first = await ship.send()
    lost = await ship.send_into_spool()
    [path] = (ship.folder / "spool").glob("*.log")
    path.unlink()
    await ship.feed()
    third = await ship.send()
    await ship.answer(third)
    yield lost
    await ship.answer(first)
    assert ship.acknowledged[-1] == third.sent
    assert ship.shipper.unacked_bytes == 0


@shows(BatchState.DONE, Event.SPOOL)
async def the_topic_has_a_batch_before_the_disk_has_written_it(
    ship: Ship,
) -> AsyncIterator[PendingBatch]:
    batch = await ship.send()
    ship.shipper.urgent = True
    saving = await ship.begin(ship.shipper.tend())
    await ship.answer(batch)
    yield batch
    await ship.end(saving)
    assert ship.backlog.spooled_positions == []
    ship.backlog.forget_acked(ship.backlog.acked)
    assert not list((ship.folder / "spool").iterdir())


@pytest.mark.parametrize(
    ("state", "event"), SCENARIOS, ids=[each.__name__ for each in SCENARIOS.values()]
)
async def test_each_transition_happens(tmp_path: Path, state: BatchState, event: Event) -> None:
    ship = Ship(tmp_path)
    steps = SCENARIOS[state, event](ship)
    batch = await anext(steps)
    assert batch.state is state
    assert [each async for each in steps] == []
    assert batch.state is TRANSITIONS[state, event]
    await ship.topic.close()


def test_each_transition_of_the_table_is_shown() -> None:
    assert SCENARIOS.keys() == TRANSITIONS.keys()


@pytest.mark.parametrize(
    ("state", "event"), sorted(set(product(BatchState, Event)) - TRANSITIONS.keys(), key=str)
)
def test_what_the_table_lacks_is_refused_and_changes_nothing(
    state: BatchState, event: Event
) -> None:
    batch = PendingBatch(Lane(b"r" * 16, 0), 0, 0, (), begins=state)
    with pytest.raises(ValueError, match=f"{state.value} cannot be {event.value}"):
        batch.move(event)
    assert batch.state is state


def test_every_state_leads_to_the_end_of_the_way() -> None:
    for begin in BatchState:
        reached = {begin}
        while new := {after for (s, _), after in TRANSITIONS.items() if s in reached} - reached:
            reached |= new
        assert BatchState.DONE in reached


def test_nothing_that_the_spool_has_is_in_memory_only_again() -> None:
    for (state, event), following in TRANSITIONS.items():
        assert following.in_spool or not state.in_spool or event is Event.SETTLE
