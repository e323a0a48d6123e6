"""The table in the hands of one keeper: what may be taken out of it, and by whom.

Every commit of a keeper carries a number that must follow the one that its work was planned from.
So of two keepers one is refused, whatever the other has done meanwhile: nothing is compacted
twice, and nothing that was deleted comes back. Whoever is refused changes nothing for a while.

          take            commit                another keeper was faster
    IDLE ------> TAKEN ----------> COMMITTING ----------------------------> FORESTALLED
     ^           | ^ ^                 |                                      |     |
     |      take | | |  made, or error |                                      |     |
     |           +-+ +-----------------+                                      |     |
     |               ^                                                        |     |
     |               |          take: a job that is done outside of turns     |     |
     |               +--------------------------------------------------------+     |
     |                                                                              |
     |         standby_ms are over                              the turn stands by  |
     +------------------------------- STANDBY <-------------------------------------+
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto

from indexer.errors import PositionMoved
from indexer.object_names import COVERAGE_FOLDER, new_name
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Bucket, put_own
from indexer.store.checked_file import checked_name
from indexer.table.coverage import Coverage, to_object
from indexer.table.table import NO_ROWS, Added, Live, Table, live
from indexer.transition import changed

KEEPER = "keeper"
"""The ``app_id`` of every keeper; its version counts their commits."""


class Fence(Enum):
    """What one keeper may do with the table."""

    IDLE = auto()
    """Nothing is taken out of the table, so nothing may be committed."""
    TAKEN = auto()
    """A snapshot was taken, and what is planned from it may be committed."""
    COMMITTING = auto()
    """A commit is being made, under the number that follows the last one known."""
    FORESTALLED = auto()
    """Another keeper has committed since the snapshot: nothing of what it led to may be."""
    STANDBY = auto()
    """After that nothing may be taken, until ``standby_ms`` are over."""


_F = Fence
TRANSITIONS: Mapping[Fence, frozenset[Fence]] = {
    _F.IDLE: frozenset({_F.TAKEN}),
    _F.TAKEN: frozenset({_F.TAKEN, _F.COMMITTING}),
    _F.COMMITTING: frozenset({_F.TAKEN, _F.FORESTALLED}),
    _F.FORESTALLED: frozenset({_F.TAKEN, _F.STANDBY}),
    _F.STANDBY: frozenset({_F.IDLE}),
}
"""Which state leads to which."""


class FencedTable:
    """A table, and the number of the last keeper's commit that this one knows of."""

    def __init__(self, table: Table) -> None:
        """Take nothing yet."""
        self.table = table
        self._state = Fence.IDLE
        self.version = -1
        self._number: int | None = None

    @property
    def state(self) -> Fence:
        """What this keeper may do."""
        return self._state

    @property
    def bucket(self) -> Bucket:
        """Where the objects are."""
        return self.table.bucket

    def move(self, to: Fence) -> None:
        """Change the state, as nothing else may; raise NoSuchTransition if it cannot become so."""
        self._state = changed(self._state, to, TRANSITIONS, "the keeper's fence")

    def take(self) -> list[Live]:
        """Return the objects of the newest version; what is planned from them may be committed."""
        self.table.watch_removals()
        snapshot = self.table.snapshot()
        self.move(Fence.TAKEN)
        self.version = snapshot.version()
        self._number = snapshot.transaction_version(KEEPER)
        return live(snapshot)

    def reader(self, each: Live) -> SegmentReader:
        """Return the reader of a segment."""
        return SegmentReader(self.bucket, self.table.folder + each.name, each.size)

    def upload(self, folder: str, data: bytes) -> str:
        """Store a segment below a folder of the table; return its name."""
        name = checked_name(folder, data)
        put_own(self.bucket, self.table.folder + name, data)
        return name

    def upload_coverage(self, *commits: Coverage, folder: str = COVERAGE_FOLDER) -> Added:
        """Store a coverage object; return what adds it."""
        data = to_object(*commits)
        name = new_name(folder, data)
        put_own(self.bucket, self.table.folder + name, data)
        return Added(name, len(data), NO_ROWS)

    def commit(
        self, added: Sequence[Added], removed: Sequence[Live], *, same_rows: bool = False
    ) -> None:
        """Exchange objects; raise PositionMoved if another keeper has committed since ``take``."""
        self.move(Fence.COMMITTING)
        number = 0 if self._number is None else self._number + 1
        after = Fence.TAKEN
        try:
            self.version = self.table.commit(
                added, {KEEPER: self._number}, {KEEPER: number}, removed, same_rows=same_rows
            )
        except PositionMoved:
            after = Fence.FORESTALLED
            raise
        finally:
            self.move(after)
        self._number = number
