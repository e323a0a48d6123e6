"""One commit: assembled, uploaded and put into the table, or the batches that make it impossible.

What has come of some partitions goes in, and the ledger. Neither is changed here, so it may be done
in a thread while more is read: what a commit changes is in what it returns. The table decides what
it has become of a commit that ends with an error.
"""

from collections import ChainMap
from collections.abc import Callable, Collection, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from indexer.assemble import Assembled
from indexer.errors import BucketUnavailable, NotBalanced
from indexer.ledger.bring_up import bring_up
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.ownership import Uncommitted, app_id
from indexer.parse.described_time import PlainTimes
from indexer.recall import to_recall
from indexer.settings import IndexerSettings
from indexer.store.bucket import Bucket
from indexer.suspect import State, assemble_whole, suspects
from indexer.table.table import CLOSED, Added, Table
from indexer.times import HOUR_NS
from indexer.upload import upload

_UPLOADS_KEEP_NS = HOUR_NS  # far below the age at which a keeper sweeps what no version names


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit has added, and what was looked up for it: past files, and those asked for."""

    assembled: Assembled
    revived: Mapping[FileKey, FileEntry]
    looked_up: Set[bytes]


@dataclass(frozen=True, slots=True)
class Unbalanced:
    """Why nothing was committed: for each partition to blame its batches, by position."""

    suspects: Mapping[int, Mapping[int, str]]
    error: NotBalanced


class Committer:
    """The table of one cluster, for one thread at a time; all of its methods block."""

    def __init__(self, settings: IndexerSettings, bucket: Bucket, clock: Callable[[], int]) -> None:
        """``clock()`` gives ns since 1970.

        Raises SettingError if times of plain lines are described wrongly.
        """
        self._bucket = bucket
        self._clock = clock
        self._table = Table(bucket, settings.cluster)
        self._ledger_table = LedgerTable(bucket, settings.cluster)
        self._retention_ns = settings.retention_hours * HOUR_NS or None
        self._plain_times = PlainTimes.of(settings.plain_time_formats, settings.plain_time_zone)
        self._uploads = ThreadPoolExecutor(settings.upload_threads, "upload")

    def make(self) -> None:
        """Make the table unless it is there; raise TableError if that has other columns."""
        self._table.make()

    def load(self, partitions: Collection[int]) -> Ledger:
        """Return the ledger of the newest version: the keeper's, and what has come since.

        Of the files only the live ones of ``partitions``; ``commit`` finds the others.
        """
        # In this order: what a keeper folds meanwhile is not of a version that is to come.
        ledger = self._ledger_table.load_live(partitions)
        version = self._table.version()
        if ledger.version > version:
            ledger = Ledger()  # of a table that was recreated since: fold all of this one's
        return bring_up(ledger, self._table, version)

    def commit(
        self, cut: Mapping[int, Uncommitted], ledger: Ledger, looked_up: Set[bytes]
    ) -> Committed | Unbalanced:
        """Commit what has come of some partitions.

        ``ledger`` is that of the commit before, and ``looked_up`` are the files of which it has
        what there is. Raises PositionMoved if another indexer was faster, and NotBalanced if the
        whole does not balance, although each partition does.
        """
        began_ns = self._clock()
        asked = to_recall(cut.values(), ledger) - looked_up
        revived = self._revived(asked, ledger)
        files = ChainMap(revived, ledger.files) if revived else ledger.files
        state = State(files, self._clock(), self._retention_ns, self._plain_times)
        try:
            assembled, coverage = assemble_whole(list(cut.values()), state)
        except NotBalanced as error:
            if found := suspects(cut, state):
                return Unbalanced(found, error)
            raise
        added = upload(self._bucket, self._table.folder, assembled, coverage, self._uploads)
        if self._clock() - began_ns > _UPLOADS_KEEP_NS:
            raise BucketUnavailable(
                "what was uploaded may have been swept by now; uploading it again"
            )
        self._move_positions(added, cut, ledger)
        return Committed(assembled, revived, asked)

    def _revived(self, file_ids: Collection[bytes], ledger: Ledger) -> dict[FileKey, FileEntry]:
        """Look up past files, and add to each what the ledger knows of it."""
        beside = Ledger()
        for key, past in self._ledger_table.lookup(file_ids).items():
            if (known := ledger.files.get(key)) is not None:
                beside.files[key] = known
            beside.revive(past)
        return beside.files

    def _move_positions(
        self, added: list[Added], cut: Mapping[int, Uncommitted], ledger: Ledger
    ) -> None:
        expected: dict[str, int | None] = {}
        reached: dict[str, int] = {}
        for partition, each in cut.items():
            known = ledger.positions.get(partition)
            name = app_id(each.position)
            expected[name] = each.position.start if known else None
            reached[name] = each.position.end
            if old := each.replaces:
                expected[app_id(old)] = old.end if known else None
                expected[name] = None
                reached[app_id(old)] = CLOSED
        self._table.commit(added, expected, reached)

    def close(self) -> None:
        """Wait for uploads to end."""
        self._uploads.shutdown()
