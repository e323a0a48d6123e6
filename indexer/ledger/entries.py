"""What the ledger holds: one entry for each file, lane, node and jump in positions.

The fold changes them, readers look at them. Each is stored as it is, so a field that is added
needs a default, and none changes its meaning.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from collector.wire.range import Stream, Whose
from indexer.ledger.intervals import holes
from indexer.table.coverage import Jump

LOST_TOPIC = "LOST_TOPIC"  # the topic acknowledged it and does not have it
LOST_RETENTION = "LOST_RETENTION"  # the topic deleted it before it was read
TOPIC_RESET = "TOPIC_RESET"  # the topic was recreated
LOST_ROTATED = "LOST_ROTATED"  # the file went before it was read to its end
UNACCOUNTED = "UNACCOUNTED"  # a new run of the collector knows nothing of the file
NODE_RETIRED = "NODE_RETIRED"  # its node has gone for good before it was proved complete
UNPARSED = "UNPARSED"  # a dead letter

GAP_TYPES = (
    LOST_TOPIC, LOST_RETENTION, TOPIC_RESET, LOST_ROTATED, UNACCOUNTED, NODE_RETIRED, UNPARSED,
)  # fmt: skip

ENDS_KEPT = 256
"""Range ends of a file whose running CRC is remembered; a replay starts at one of the latest."""

_END = struct.Struct("<QI")  # packed, since there are millions of files

FileKey = tuple[bytes, int]
LaneKey = tuple[bytes, int]
NodeKey = tuple[str, int]
"""A node and a partition."""


class Covered(msgspec.Struct):
    """Bytes ``[start, end)`` without a hole, and the times of the rows in them (0: none)."""

    start: int
    end: int
    first_ns: int
    last_ns: int
    parser_state: list[int] = msgspec.field(default_factory=list, name="events")  # at its end


class Lost(msgspec.Struct):
    """Bytes ``[start, end)`` that are not there; ``end`` is a lower bound unless exact."""

    type: str
    start: int
    end: int
    end_exact: bool
    from_ns: int | None
    to_ns: int | None
    reason: str
    proof: str
    found_ns: int


class FileEntry(msgspec.Struct, kw_only=True):
    """One file: who wrote it, what of it is covered, what is lost."""

    file_id: bytes
    epoch: int
    partition: int
    node: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int
    covered: list[Covered] = []
    end_crcs: bytes = b""  # the latest range ends, each as _END
    lost: list[Lost] = []
    size: int = 0  # the largest size that a collector has seen
    seen_ns: int = 0
    sealed: bool = False
    gone_ns: int = 0  # when it was first reported to have left the disk; 0: it has not
    settled_ns: int = 0  # since when all of it is covered and no more is expected; 0: it is not so
    previous: bytes | None = None
    lines: int = 0
    rows: int = 0
    elided: int = 0

    @property
    def stream(self) -> Stream:
        """Return the stream that wrote the file."""
        return Stream.of(self)

    @property
    def ends(self) -> dict[int, int]:
        """Return the running CRC-32 at each of the latest range ends, by offset."""
        return dict(_END.iter_unpack(self.end_crcs))

    def add_end(self, offset: int, crc: int) -> None:
        """Remember a range end, and no more than ENDS_KEPT of them."""
        if 0 <= offset < 1 << 63 and 0 <= crc < 1 << 32:  # no other value is ever compared
            self.end_crcs = (self.end_crcs + _END.pack(offset, crc))[-ENDS_KEPT * _END.size :]

    @property
    def goes_on(self) -> bool:
        """Return whether more may be written to it, for all that is known."""
        return not (self.sealed or self.gone_ns)

    @property
    def is_begun(self) -> bool:
        """Return whether its beginning is covered, or something of it known to be lost."""
        return bool(self.lost) or (bool(self.covered) and self.covered[0].start == 0)

    @property
    def is_whole(self) -> bool:
        """Return whether all that it will ever hold is covered; collectors name no empty file."""
        if self.lost or self.goes_on or len(self.covered) != 1:
            return False
        return self.covered[0].start == 0 and self.covered[0].end >= self.size

    @property
    def covered_bytes(self) -> int:
        """Return how many bytes are covered."""
        return sum(part.end - part.start for part in self.covered)

    @property
    def covered_end(self) -> int:
        """Return where the last covered byte ends."""
        return self.covered[-1].end if self.covered else 0

    @property
    def last_ns(self) -> int:
        """Return the latest time of a row; 0 if there is none."""
        return max((part.last_ns for part in self.covered), default=0)

    @property
    def first_ns(self) -> int:
        """Return the earliest time of a row; 0 if there is none."""
        return min((part.first_ns for part in self.covered if part.first_ns), default=0)


class LaneHole(msgspec.Struct):
    """Batches ``first`` to ``last`` that the topic acknowledged and that never came."""

    first: int
    last: int
    from_ns: int | None
    to_ns: int | None
    proof: str
    found_ns: int
    explained: bool = False  # a full inventory since then has named the bytes


class SeenNumbers(msgspec.Struct):
    """Batches ``first`` to ``last`` came, and when the collector made these two."""

    first: int
    last: int
    first_created_ns: int
    last_created_ns: int


class LaneEntry(msgspec.Struct, kw_only=True):
    """The numbers of one run in one partition."""

    run: bytes
    partition: int
    node: str
    seen: list[SeenNumbers] = []
    oldest_unacked: int = 0
    holes: list[LaneHole] = []
    last_ns: int = 0  # when something was last said of it


class BlindSpot(msgspec.Struct):
    """Whose files a node's collector cannot ship, since it cannot see or name them; "" is any.

    ``since_ns`` is how far its node was complete before a scan has told of it.
    """

    namespace: str
    pod: str
    container: str
    since_ns: int = 0
    why: str = "a file has no complete first line"

    @property
    def whose(self) -> Whose:
        """Return namespace, pod and container."""
        return self.namespace, self.pod, self.container

    @property
    def names(self) -> tuple[str, ...]:
        """Return those of the three that are known: what lies below starts with them."""
        return tuple(filter(None, self.whose))


class PendingInventory(msgspec.Struct):
    """An inventory whose sizes are not all covered yet."""

    scan_began_ns: int
    sequence: int
    wanted: list[tuple[bytes, int, int]]  # file_id, epoch, size
    proves: bool  # the scan saw everything
    blind_spots: list[BlindSpot] = msgspec.field(default_factory=list, name="unnamed")


class NodeEntry(msgspec.Struct, kw_only=True):
    """One node in one partition: how far its files there are complete, in its own clock.

    Whatever lies in one of its ``blind_spots`` is complete no further than that says.
    """

    node: str
    partition: int
    run: bytes
    partitions: list[int]
    full_run: bytes = b""  # the run of its last full inventory
    complete_until_ns: int = 0
    scan_began_ns: int = 0
    pending: list[PendingInventory] = []
    holds_back: str = ""
    errors: list[str] = []
    blind_spots: list[BlindSpot] = msgspec.field(default_factory=list, name="unnamed")


class JumpEntry(msgspec.Struct, kw_only=True):
    """Positions that were passed over; a full inventory of each node explains what it lost.

    Nobody knows beforehand whose records they were, so every other node may have had some.
    """

    jump: Jump
    found_ns: int
    explained_by: list[str] = []


class RetiredEntry(msgspec.Struct, frozen=True):
    """A node that was retired: of what it wrote after the first time nothing is proved."""

    node: str
    complete_until_ns: int
    retired_ns: int
    partitions: list[int]
    why: str


class ExpiredEntry(msgspec.Struct):
    """Hours ``[first, end)`` since 1970 from which a namespace's rows have expired."""

    namespace: str
    rule: str
    hours: list[tuple[int, int]]
    rows: int


class DeletedEntry(msgspec.Struct):
    """Rows of one container that a request has deleted, and the times between which they lay."""

    request: str
    namespace: str
    pod: str
    container: str
    rows: int
    first_ns: int
    last_ns: int
    deleted_ns: int  # when the first of them went


_Key = TypeVar("_Key")
_Entry = TypeVar("_Entry", bound=msgspec.Struct)


def copied(entry: _Entry) -> _Entry:
    """Return an entry that can be changed while the given one stays as it is.

    They share what the fold replaces and never changes: spans, losses, waiting inventories.
    """
    if isinstance(entry, FileEntry):
        return msgspec.structs.replace(entry, lost=list(entry.lost))
    if isinstance(entry, NodeEntry):
        return msgspec.structs.replace(entry, pending=list(entry.pending))
    return msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=type(entry))


class Entries(dict[_Key, _Entry]):
    """Entries by key; a branch shares those of its origin until it is to change them."""

    _owned: set[_Key] | None = None  # None: all

    def branch(self) -> "Entries[_Key, _Entry]":
        """Return entries that can be changed by ``own`` while these stay as they are."""
        made = Entries(self)
        made._owned = set()
        return made

    def own(self, key: _Key) -> _Entry | None:
        """Return an entry that may be changed; None if there is none."""
        entry = self.get(key)
        if entry is None or self._owned is None or key in self._owned:
            return entry
        self._owned.add(key)
        self[key] = entry = copied(entry)
        return entry


def joined(parts: Iterable[SeenNumbers]) -> list[SeenNumbers]:
    """Return numbers in order, those that follow each other as one; changes the parts."""
    found: list[SeenNumbers] = []
    for part in sorted(parts, key=lambda each: each.first):
        if found and part.first <= found[-1].last + 1:
            last = found[-1]
            if part.last > last.last:
                last.last, last.last_created_ns = part.last, part.last_created_ns
        else:
            found.append(part)
    return found


def missing(file: FileEntry, end: int) -> Iterator[tuple[int, int]]:
    """Yield the holes in the covered bytes of ``[0, end)``."""
    return holes(((part.start, part.end) for part in file.covered), 0, end)
