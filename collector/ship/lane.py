"""A lane: the numbered batches of one run in one partition, until the topic has them.

Numbers go in as batches are made, answers of the topic in any order; batches come out in the order
of the numbers, and none is forgotten that is neither in the topic nor in the spool.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import InitVar, dataclass, field

from collector.ship.batch_state import BatchState, Event, after
from collector.ship.pack import Pack, Sent
from collector.topic.interface import Headers

IN_THE_SPOOL = Sent(0, (), (), {})
"""Stands for what is remembered of a batch while only the spool remembers it."""


@dataclass(slots=True, eq=False)
class PendingBatch:
    """A numbered batch on its way; ``state`` says who has it, and which of its data count."""

    lane: "Lane"
    number: int
    wire_bytes: int
    headers: Headers
    sent: Sent = IN_THE_SPOOL
    value: bytes = b""  # while it is in memory
    position: int = 0  # in the spool, while it is there
    handed_ns: int = 0  # when the topic was last given it
    tries: int = 0  # how often it was given to the topic; answers to an earlier one do not count
    left: int = 0  # parts that the topic has still to acknowledge
    begins: InitVar[BatchState] = BatchState.PACKED
    _state: BatchState = field(init=False)

    def __post_init__(self, begins: BatchState) -> None:
        self._state = begins

    @property
    def state(self) -> BatchState:
        """Where it is on its way; only ``move`` changes it."""
        return self._state

    def move(self, event: Event) -> None:
        """Follow what has happened to it; raise ValueError if that cannot happen now."""
        self._state = after(self._state, event)


@dataclass(eq=False)
class Lane:
    """One partition's part of one run: an open pack, and the batches that are on their way."""

    run: bytes
    partition: int
    pack: Pack = field(default_factory=Pack)
    next_sequence: int = 0
    pending: OrderedDict[int, PendingBatch] = field(default_factory=OrderedDict)
    next_spooled: int = 0  # everything before it is in the topic, or was reported as spooled

    @property
    def first(self) -> PendingBatch | None:
        """The batch that all others wait for."""
        return next(iter(self.pending.values()), None)

    @property
    def oldest_unacked(self) -> int:
        """The number before which the topic has all."""
        first = self.first
        return self.next_sequence if first is None else first.number

    def put(self, pending: PendingBatch) -> None:
        """Take a batch: it comes after all that are there."""
        self.pending[pending.number] = pending

    def settled(self) -> Iterator[PendingBatch]:
        """Take out and yield, in order, the batches that wait for nothing any more."""
        while (first := self.first) is not None and first.state.over:
            del self.pending[first.number]
            yield first

    def newly_spooled(self) -> Iterator[PendingBatch]:
        """Yield, in order, the batches that are in the spool now, with all before them."""
        self.next_spooled = max(self.next_spooled, self.oldest_unacked)
        while (
            pending := self.pending.get(self.next_spooled)
        ) is not None and pending.state.in_spool:
            self.next_spooled += 1
            yield pending
