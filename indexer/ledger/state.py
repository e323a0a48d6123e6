"""All that a ledger holds besides its files, and what the fold keeps up of it for questions.

Only fields are here: the fold changes them, and so does what forgets.
"""

from typing import NamedTuple

from msgspec import field

from indexer.ledger.entries import (
    DeletedEntry,
    Entries,
    ExpiredEntry,
    JumpEntry,
    LaneEntry,
    LaneKey,
    NodeEntry,
    NodeKey,
    RetiredEntry,
)
from indexer.ledger.files import FileLedger
from indexer.table.coverage import Position


class Mark(NamedTuple):
    """How far a node is complete (0: nothing is proved), and in which partition it is no further.

    ``partitions`` are those in which it has an entry.
    """

    until_ns: int
    partition: int
    partitions: tuple[int, ...]


class LedgerState(FileLedger):
    """The fields of a ledger."""

    version: int = -1
    positions: dict[int, Position] = field(default_factory=dict)
    lanes: Entries[LaneKey, LaneEntry] = field(default_factory=Entries)
    nodes: Entries[NodeKey, NodeEntry] = field(default_factory=Entries)
    jumps: list[JumpEntry] = field(default_factory=list)
    retired: list[RetiredEntry] = field(default_factory=list)
    # By namespace and rule; by request and container.
    expired: Entries[tuple[str, str], ExpiredEntry] = field(default_factory=Entries)
    deleted: Entries[tuple[str, str, str, str], DeletedEntry] = field(default_factory=Entries)
    past_ns: int = 0
    # Kept up by the fold, and made again by ``index``.
    holed: dict[NodeKey, frozenset[LaneKey]] = field(default_factory=dict)  # lanes with holes
    marks: dict[str, Mark] = field(default_factory=dict)  # by node
    blind: frozenset[NodeKey] = frozenset()  # entries with blind spots
    # Nodes that were retired, and of which no inventory has come since.
    gone: dict[str, None] = field(default_factory=dict)
