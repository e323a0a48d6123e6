"""A lane: the numbered batches of one run in one partition, until the topic has them.

Numbers go in as batches are made, acknowledgements in any order; what comes out is told in the
order of the numbers, and nothing is forgotten that is neither in the topic nor in the spool.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from collector.ship.pack import Pack, Sent
from collector.topic.interface import Headers


@dataclass(slots=True, eq=False)
class OnItsWay:
    """A numbered batch that the topic does not have yet: in memory, in the spool, or in both."""

    wire_bytes: int
    headers: Headers
    sent: Sent | None  # None: only the spool has it
    value: bytes = b""  # empty: only the spool has it
    position: int = -1  # in the spool; -1: not there
    handed_ns: int = 0  # since when the topic has it to append; 0: it does not
    tries: int = 0  # how often it was given to the topic; answers to an earlier one do not count
    left: int = 0  # parts that the topic has still to acknowledge


@dataclass(eq=False)
class Lane:
    """One partition's part of one run: an open pack, and the batches that are on their way."""

    run: bytes
    partition: int
    pack: Pack = field(default_factory=Pack)
    next_sequence: int = 0
    pending: dict[int, OnItsWay] = field(default_factory=dict)
    order: deque[int] = field(default_factory=deque)  # the numbers on their way
    acked: set[int] = field(default_factory=set)
    next_spooled: int = 0  # everything before it is in the topic, or was told to be in the spool

    @property
    def oldest_unacked(self) -> int:
        """The number before which the topic has all."""
        return self.order[0] if self.order else self.next_sequence

    def put(self, number: int, item: OnItsWay) -> None:
        """Take a batch, whose number is above all others."""
        self.pending[number] = item
        self.order.append(number)

    def acknowledge(self, number: int) -> Iterator[OnItsWay]:
        """Yield, in order, the batches that the topic has now, and all before them."""
        self.acked.add(number)
        while self.order and self.order[0] in self.acked:
            first = self.order.popleft()
            self.acked.remove(first)
            yield self.pending.pop(first)

    def newly_spooled(self) -> Iterator[OnItsWay]:
        """Yield, in order, the batches that are in the spool now, with all before them."""
        self.next_spooled = max(self.next_spooled, self.oldest_unacked)
        while (item := self.pending.get(self.next_spooled)) is not None and item.position >= 0:
            self.next_spooled += 1
            yield item
