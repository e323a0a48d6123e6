"""A partition's life in one indexer: whose it is, whether it is read, and what has come of it.

                   position       same topic            cut
  FOREIGN --> TAKING ----> CHECKING ----> FOLLOWED ------------> COMMITTING
         share                 |            |   ^--------------    |   ^
                               |  recreated |     in the table     |   |
                               |            v                      |   |
                               +--------> RESET <------------------+   |
                                            |         recreated        |
                                            +--------------------------+
                                                         cut

  FOLLOWED, COMMITTING, RESET --- nothing more can be taken ---> STOPPED --- recreated ---> RESET
  all but FOREIGN, TAKING ------- what has come is void -------> TAKING
  all but FOREIGN --------------- it is another's -------------> FOREIGN

What has come is void once another indexer has committed the partition, or if it does not balance.
Reading goes on during a commit. So a partition that is RESET or STOPPED meanwhile stays that when
the commit ends.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from collector.topic.interface import Record
from indexer.assemble import Intake
from indexer.table.coverage import LastRecord, Position
from indexer.transition import changed


class Ownership(Enum):
    """The states of a partition in one indexer."""

    FOREIGN = auto()
    """It is another indexer's, or nobody's, and nothing is known of it here."""
    TAKING = auto()
    """It is ours, and not read: where to go on has yet to be learned from the table."""
    CHECKING = auto()
    """Where to go on is known, and nothing is read until the topic turns out to be the same."""
    FOLLOWED = auto()
    """Its records are read, and none that was read is on its way into the table."""
    COMMITTING = auto()
    """Records are on their way into the table, however often that is tried; the next are read."""
    RESET = auto()
    """Its topic was recreated: that is read, and the next commit closes the generation before."""
    STOPPED = auto()
    """Nothing more is read until somebody acts; what was read before is committed all the same."""


_O = Ownership
TRANSITIONS: Mapping[Ownership, frozenset[Ownership]] = {
    _O.FOREIGN: frozenset({_O.TAKING}),
    _O.TAKING: frozenset({_O.FOREIGN, _O.CHECKING}),
    _O.CHECKING: frozenset({_O.FOREIGN, _O.TAKING, _O.FOLLOWED, _O.RESET}),
    _O.FOLLOWED: frozenset({_O.FOREIGN, _O.TAKING, _O.COMMITTING, _O.RESET, _O.STOPPED}),
    _O.COMMITTING: frozenset({_O.FOREIGN, _O.TAKING, _O.FOLLOWED, _O.RESET, _O.STOPPED}),
    _O.RESET: frozenset({_O.FOREIGN, _O.TAKING, _O.COMMITTING, _O.STOPPED}),
    _O.STOPPED: frozenset({_O.FOREIGN, _O.TAKING, _O.RESET}),
}
"""Which state leads to which."""

READ = frozenset({_O.FOLLOWED, _O.COMMITTING, _O.RESET})
"""The states in which records are read."""


@dataclass
class Uncommitted(Intake):
    """What has come of a partition since its last commit, or since the one that is on its way.

    ``position`` starts where its commit does, and ends at the next record to take.
    """

    replaces: Position | None = None  # in the generation that its commit closes
    batch_positions: list[int] = field(default_factory=list)
    held_bytes: int = 0  # in memory: raw bytes, and more for each line

    @property
    def based_on(self) -> tuple[str, int]:
        """Return where the table must stand for its commit: ``app_id`` and version."""
        if self.replaces:
            return app_id(self.replaces), self.replaces.end
        return app_id(self.position), self.position.start

    @property
    def has_news(self) -> bool:
        """Whether a commit would add anything."""
        return self.position.end != self.position.start or bool(self.jumps)


class Partition:
    """One partition: its state, and what has come of it and is not in the table."""

    def __init__(self, position: Position) -> None:
        """Begin as another's; ``position`` is where one goes on of which the table knows none."""
        self._state = Ownership.FOREIGN
        self.number = position.partition
        self.coming = Uncommitted(position)
        self.cut: Uncommitted | None = None  # what the commit adds; the table needs it first
        self.fetched: deque[Record] = deque()  # not decoded yet
        self.refused: dict[int, str] = {}  # by position: why a record is buried that can be decoded
        self.letters_in_row = 0
        self.why_stopped = ""  # while STOPPED

    @property
    def state(self) -> Ownership:
        """Where in its life the partition is."""
        return self._state

    @property
    def is_read(self) -> bool:
        """Whether records may be read and decoded."""
        return self._state in READ

    @property
    def next_position(self) -> int:
        """Return the position to read from."""
        return self.fetched[-1].position + 1 if self.fetched else self.coming.position.end

    @property
    def committed(self) -> int:
        """Return up to where the table has it, as far as is known."""
        return (self.cut or self.coming).position.start

    def move(self, to: Ownership, why: str = "") -> None:
        """Change the state, as nothing else may; raise NoSuchTransition if it cannot become so."""
        self._state = changed(self._state, to, TRANSITIONS, f"partition {self.number}")
        self.why_stopped = why

    def void(self) -> None:
        """Drop what has come: the table says again where to go on."""
        self.move(Ownership.TAKING)
        self._begin(self.coming.position)

    def take_up(self, position: Position) -> None:
        """Go on at the end of this position."""
        self.move(Ownership.CHECKING)
        self._begin(position)

    def _begin(self, position: Position) -> None:
        self.coming, self.cut = Uncommitted(begun(position)), None
        self.fetched.clear()

    def cut_off(self) -> None:
        """Let what has come go into the next commit; what comes now goes on from there."""
        if self._state is not Ownership.STOPPED:
            self.move(Ownership.COMMITTING)
        self.cut, self.coming = self.coming, Uncommitted(begun(self.coming.position))

    def settle(self) -> None:
        """Note that what was cut off is in the table."""
        if self._state is Ownership.COMMITTING:
            self.move(Ownership.FOLLOWED)
        self.cut = None

    def stop(self, why: str) -> None:
        """Read nothing more until somebody acts."""
        self.move(Ownership.STOPPED, why)
        self.fetched.clear()


def app_id(position: Position) -> str:
    """Return the name under which a partition's position is kept in the Delta log."""
    return f"{position.topic}/{position.generation}/{position.partition}"


def begun(position: Position) -> Position:
    """Return the position, without records, that goes on where this one ends."""
    return Position(
        position.topic, position.identity, position.generation, position.partition,
        position.end, position.end, position.last,
    )  # fmt: skip


def moved_on(position: Position, end: int, last: LastRecord | None) -> Position:
    """Return the position with records up to ``end``, of which ``last`` is the last one known."""
    return Position(
        position.topic, position.identity, position.generation, position.partition,
        position.start, end, last,
    )  # fmt: skip
