"""The table in the hands of one keeper: what may be taken out of it, and by whom.

Every commit of a keeper carries a number that must follow the one that its work was planned from.
So of two keepers one is refused, whatever the other has done meanwhile: nothing is compacted
twice, and nothing that was deleted comes back.
"""

from collections.abc import Sequence

from indexer.names import COVERAGE_FOLDER, new_name
from indexer.store.bucket import Bucket, put_own
from indexer.table.coverage import Coverage, to_object
from indexer.table.table import NO_ROWS, Added, Live, Table, live

KEEPER = "keeper"
"""The ``app_id`` of every keeper; its version counts their commits."""


class FencedTable:
    """A table, and the number of the last keeper's commit that this one knows of."""

    def __init__(self, table: Table) -> None:
        """Take nothing yet."""
        self.table = table
        self.version = -1
        self._number: int | None = None

    @property
    def bucket(self) -> Bucket:
        """Where the objects are."""
        return self.table.bucket

    def take(self) -> list[Live]:
        """Return the objects of the newest version; what is planned from them may be committed."""
        self.table.watch_removals()
        snapshot = self.table.snapshot()
        self.version = snapshot.version()
        self._number = snapshot.transaction_version(KEEPER)
        return live(snapshot)

    def read(self, each: Live) -> bytes:
        """Return an object's bytes."""
        return self.bucket.get(self.table.folder + each.name)

    def upload(self, folder: str, data: bytes) -> str:
        """Store an object below a folder of the table; return its name."""
        name = new_name(folder, data)
        put_own(self.bucket, self.table.folder + name, data)
        return name

    def upload_coverage(self, *commits: Coverage, folder: str = COVERAGE_FOLDER) -> Added:
        """Store a coverage object; return what adds it."""
        data = to_object(*commits)
        return Added(self.upload(folder, data), len(data), NO_ROWS)

    def commit(
        self, added: Sequence[Added], removed: Sequence[Live], *, same_rows: bool = False
    ) -> None:
        """Exchange objects; raise PositionMoved if another keeper has committed since ``take``."""
        number = 0 if self._number is None else self._number + 1
        self.version = self.table.commit(
            added, {KEEPER: self._number}, {KEEPER: number}, removed, same_rows=same_rows
        )
        self._number = number
