"""The states of a batch between its pack and the topic, and the only ways from one to the next.

A state and an event go in, the next state comes out. What the table lacks is refused: it would
mean that a batch is sent, spooled or acknowledged twice, or forgotten.

Until the topic has it; SPOOL leads from left to right, and nothing leads back:

           in memory only                     in the spool

    made    PACKED ---------- SPOOL -------> SPOOLED    found from a run before
              | HAND                           | HAND   (LOSE -----> LOST)
              v                                v
            HANDED ---------- SPOOL -------> HANDED_SPOOLED
            |    ^                           |    ^
     REFUSE |    | HAND               REFUSE |    | HAND
            v    |                           v    |
            REFUSED --------- SPOOL -------> REFUSED_SPOOLED

Once nothing more is to come of it; DONE stays DONE if a SPOOL that had begun before ends then:

            HANDED                           HANDED_SPOOLED
              | ACK                            | ACK
              v                                v
            ACKED ----------- SPOOL -------> ACKED_SPOOLED          LOST
              | SETTLE                         | SETTLE               | SETTLE
              v                                v                      v
            DONE                             DONE                   DONE
"""

from collections.abc import Mapping
from enum import Enum


class BatchState(Enum):
    """Who has a batch on its way."""

    PACKED = "packed"
    """Numbered and encoded; it is in memory and nowhere else."""
    HANDED = "handed"
    """The topic was given it and has not answered; it is not in the spool."""
    REFUSED = "refused"
    """The topic did not accept it and will be given it again; it is not in the spool."""
    SPOOLED = "spooled"
    """Only the spool has it, and will feed it to the topic."""
    HANDED_SPOOLED = "handed and spooled"
    """The topic was given it and has not answered; the spool has it too."""
    REFUSED_SPOOLED = "refused and spooled"
    """The topic did not accept it and will be given it again; the spool has it too."""
    ACKED = "acknowledged"
    """The topic has it, but not yet all before it in its lane; it is not in the spool."""
    ACKED_SPOOLED = "acknowledged and spooled"
    """The topic has it, but not yet all before it in its lane; the spool has it too."""
    LOST = "lost"
    """Only the spool had it, and cannot read it: its number will be missing in the topic."""
    DONE = "done"
    """It has left its lane, as all before it had; what the spool has of it is to be forgotten."""

    @property
    def in_spool(self) -> bool:
        """Whether the spool has it, and it is not yet to be forgotten."""
        return self in _IN_SPOOL

    @property
    def in_memory(self) -> bool:
        """Whether its bytes are in memory, and what is remembered of it."""
        return self not in _ELSEWHERE

    @property
    def handed(self) -> bool:
        """Whether the topic has still to answer."""
        return self in _HANDED

    @property
    def over(self) -> bool:
        """Whether nothing more is to come of it: it leaves its lane after all before it."""
        return self in _OVER


class Event(Enum):
    """What happens to a batch."""

    HAND = "handed to the topic"
    REFUSE = "refused by the topic"
    ACK = "acknowledged by the topic"
    SPOOL = "written into the spool"
    LOSE = "found damaged in the spool"
    SETTLE = "taken out of its lane"


_IN_SPOOL = {
    BatchState.SPOOLED,
    BatchState.HANDED_SPOOLED,
    BatchState.REFUSED_SPOOLED,
    BatchState.ACKED_SPOOLED,
    BatchState.LOST,
}
_ELSEWHERE = {BatchState.SPOOLED, BatchState.LOST, BatchState.DONE}
_HANDED = {BatchState.HANDED, BatchState.HANDED_SPOOLED}
_OVER = {BatchState.ACKED, BatchState.ACKED_SPOOLED, BatchState.LOST}

TRANSITIONS: Mapping[tuple[BatchState, Event], BatchState] = {
    (BatchState.PACKED, Event.HAND): BatchState.HANDED,
    (BatchState.PACKED, Event.SPOOL): BatchState.SPOOLED,
    (BatchState.HANDED, Event.REFUSE): BatchState.REFUSED,
    (BatchState.HANDED, Event.ACK): BatchState.ACKED,
    (BatchState.HANDED, Event.SPOOL): BatchState.HANDED_SPOOLED,
    (BatchState.REFUSED, Event.HAND): BatchState.HANDED,
    (BatchState.REFUSED, Event.SPOOL): BatchState.REFUSED_SPOOLED,
    (BatchState.SPOOLED, Event.HAND): BatchState.HANDED_SPOOLED,
    (BatchState.SPOOLED, Event.LOSE): BatchState.LOST,
    (BatchState.HANDED_SPOOLED, Event.REFUSE): BatchState.REFUSED_SPOOLED,
    (BatchState.HANDED_SPOOLED, Event.ACK): BatchState.ACKED_SPOOLED,
    (BatchState.REFUSED_SPOOLED, Event.HAND): BatchState.HANDED_SPOOLED,
    (BatchState.ACKED, Event.SPOOL): BatchState.ACKED_SPOOLED,
    (BatchState.ACKED, Event.SETTLE): BatchState.DONE,
    (BatchState.ACKED_SPOOLED, Event.SETTLE): BatchState.DONE,
    (BatchState.LOST, Event.SETTLE): BatchState.DONE,
    (BatchState.DONE, Event.SPOOL): BatchState.DONE,
}


def after(state: BatchState, event: Event) -> BatchState:
    """Return the state that follows; raise ValueError if the event cannot happen in this one."""
    following = TRANSITIONS.get((state, event))
    if following is None:
        raise ValueError(f"a batch that is {state.value} cannot be {event.value}")
    return following
