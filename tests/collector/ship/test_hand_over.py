"""What the topic says to a batch, and what comes of it."""

import asyncio
from pathlib import Path

from collector.errors import BatchTooLarge, TopicError
from collector.ship.batch_state import BatchState
from collector.topic.interface import Headers
from tests.collector.node import HeldTopic, line
from tests.collector.ship.shipping import Ship


class TopicOfParts(HeldTopic):
    """Takes no batch whole; of the first try in parts it refuses the first and then the second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.appends = 0
        self.refused = asyncio.Event()

    async def append(self, partition: int, value: bytes, headers: Headers) -> asyncio.Future[int]:
        self.appends += 1
        if self.appends == 1:
            raise BatchTooLarge(len(value))
        if self.appends == 3:
            self.waiting.pop(0)[3].set_exception(TopicError("not the first part"))
            await asyncio.sleep(0)
            self.refused.set()
            raise TopicError("not the second part")
        return await super().append(partition, value, headers)


async def test_a_batch_of_which_two_parts_are_refused_is_handed_again_once(tmp_path: Path) -> None:
    ship = Ship(tmp_path, TopicOfParts)
    assert isinstance(ship.topic, TopicOfParts)
    batch = await ship.send(b"".join(line(i) for i in range(100)))
    await ship.topic.refused.wait()
    await asyncio.sleep(0)
    states = [batch.state]
    assert ship.shipper.failed is None
    await ship.feed()
    states.append(batch.state)
    assert states == [BatchState.REFUSED, BatchState.HANDED_SPOOLED]
    assert len(ship.topic.waiting) == 1
    assert not ship.shipper.stalled
    await ship.answer(batch)
    assert ship.acknowledged == [batch.sent]
    await ship.topic.close()
