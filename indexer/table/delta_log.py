"""The Delta log of one table: reading on where one was, and adding a version that nobody else has.

Commits go in as actions of the Delta protocol; out comes the version that has them, or the news
that somebody was faster. What it costs depends on what is new, never on the size of the table:
libraries that materialise a table's files at each commit need a second for 50,000 of them.
Source: the Delta transaction log protocol (github.com/delta-io/delta, PROTOCOL.md).
"""

import contextlib
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collector.checksum import crc32
from indexer.errors import (
    BucketError,
    ObjectExists,
    ObjectMissing,
    PositionMoved,
    TableDamaged,
    TableError,
)
from indexer.object_names import (
    LAST_CHECKPOINT,
    checkpoint_crc_name,
    checkpoint_name,
    checkpoint_version,
    delta_log_folder,
    folder_uri,
    named_version,
    version_name,
    vouched_version,
)
from indexer.store.bucket import Bucket

_log = logging.getLogger(__name__)

Action = Mapping[str, Mapping[str, Any]]
"""One action of the protocol: its kind, and what it says."""

RESTORE = "restore it from a backup, or from an older version that the store keeps of it"
"""What to do about an object that nothing else can be made from."""

ENGINE = "everyline"
"""Who has committed, as a version says it."""

_CRC = "crc32"  # of all before its value, which ends the version
_BEHIND_CRC = '"}}'

# So many commits of others in a row between a look at the log and an own try are no bad luck.
_TRIES = 100


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a table, as its commit has it."""

    number: int
    added: tuple[Mapping[str, Any], ...]  # each as its action says it
    removed: tuple[str, ...]
    transactions: Mapping[str, int]


class DeltaLog:
    """The log below ``folder`` of a bucket, and how far it was read; for one thread at a time."""

    def __init__(self, bucket: Bucket, folder: str) -> None:
        """Read nothing yet."""
        self._bucket = bucket
        self._table_folder = folder
        self._folder = delta_log_folder(folder)
        self.version = -1
        self.transactions: dict[str, int] = {}
        """Of each ``app_id`` the version last stored, as of ``version``."""
        self._checked = -1  # up to where entries were looked at for readers
        self._checked_checkpoint = -1
        self.removed: set[str] | None = None
        """Objects that versions read since it was made have removed; None: nobody asks."""

    def read(self, number: int) -> Version:
        """Return a version; raise ObjectMissing if there is none, or none any more."""
        name = self._name(number)
        body = self._bucket.get(name)
        try:
            actions = [json.loads(line) for line in body.splitlines() if line.strip()]
            _check(body, actions)
            return _version(number, actions)
        except (ValueError, KeyError, TypeError) as error:
            raise TableDamaged(
                f"{name} in {self._bucket.uri} is damaged ({type(error).__name__}: {error}); "
                f"{RESTORE}"
            ) from error

    def refresh(self) -> None:
        """Read on to the newest version; raise TableError if there is no table.

        Raises TableDamaged, which names the object, for one of the log that is not what was
        written, or is missing between others.
        """
        is_first = self.version < 0
        if is_first:
            self._begin()
        while True:
            try:
                self._apply(self.read(self.version + 1))
            except ObjectMissing:
                if self.version < 0 or self._is_there():
                    break
                self._begin()  # what comes next was cleaned up, or the table recreated
        if self.version < 0:
            uri = folder_uri(self._bucket.uri, self._table_folder)
            raise TableError(f"no table at {uri}; start an indexer first")
        if is_first:
            self._check_end()

    def _check_end(self) -> None:
        """Raise TableDamaged if there are versions behind one that is missing."""
        names = self._bucket.names(self._folder)
        last = max((number for name in names if (number := named_version(name)) is not None),
                   default=-1)  # fmt: skip
        while self.version < last:
            try:
                self._apply(self.read(self.version + 1))  # it came between reading and listing
            except ObjectMissing as error:
                if self.checkpoint() > self.version:  # and was cleaned up since
                    self._begin()
                    continue
                raise TableDamaged(
                    f"{self._name(self.version + 1)} in {self._bucket.uri} is missing, and later "
                    f"versions are there; {RESTORE}"
                ) from error

    def check_checkpoint(self) -> None:
        """Look at the last checkpoint before a library decodes it; raise TableDamaged.

        One that was looked at before is not read again.
        """
        version = self.checkpoint()
        if version not in (-1, self._checked_checkpoint):
            self._read_checkpoint(version)
            self._checked_checkpoint = version

    def check(self, version: int) -> None:
        """Look at what a reader of ``version`` reads that was not looked at before.

        Libraries pass over an entry that is empty, and show an older table. Raises TableDamaged.
        """
        if self._checked < 0:
            self._checked = self.checkpoint()
        for number in range(self._checked + 1, version + 1):
            with contextlib.suppress(ObjectMissing):  # cleaned up, or the library says so
                self.read(number)
        self._checked = max(self._checked, version)

    def explain(self) -> None:
        """Raise TableDamaged if a table cannot be opened since an object of its log is damaged."""
        try:
            DeltaLog(self._bucket, self._table_folder).refresh()
        except TableDamaged:
            raise
        except (BucketError, TableError):
            return  # the store may be away, or the table may not be made yet

    def commit(self, actions: Sequence[Action], expected: Mapping[str, int | None]) -> None:
        """Add a version with these actions, which must differ from those of any other commit.

        ``expected`` gives what each ``app_id`` stands at. Raises PositionMoved if one of them
        stands elsewhere, or an object that would be removed is removed already.
        """
        body = _body(actions)
        removes = {action["remove"]["path"] for action in actions if "remove" in action}
        for _ in range(_TRIES):
            self.refresh()
            for app_id, version in expected.items():
                if self.transactions.get(app_id) != version:
                    raise PositionMoved(f"{app_id} is no longer at {version}")
            if gone := removes & (self.removed or set()):
                raise PositionMoved(f"{len(gone)} objects are removed already, such as {min(gone)}")
            if self._put(self.version + 1, body):
                self._apply(_version(self.version + 1, actions))
                return
        raise PositionMoved(f"{_TRIES} other commits were faster, one after the other")

    def _put(self, number: int, body: bytes) -> bool:
        """Store a version; return False if there is another one of this number already."""
        try:
            self._bucket.put(self._name(number), body)
        except ObjectExists:
            # After an answer that was lost, a retry meets what it has stored itself.
            try:
                if self._bucket.get(self._name(number)) != body:
                    return False
            except ObjectMissing:  # somebody has taken it back
                return False
        if self.checkpoint() > number and not self._is_there():
            # Whoever sleeps for more than a day finds room where old versions were cleaned up.
            self._bucket.delete(self._name(number))
            self.version = -1
            raise PositionMoved(f"version {number} has been over for long")
        return True

    def _is_there(self) -> bool:
        """Return whether the version read last is in the log: a table may have been recreated."""
        try:
            self._bucket.size(self._name(self.version))
        except ObjectMissing:
            return self.checkpoint() == self.version  # and all before it cleaned up
        return True

    def _begin(self) -> None:
        """Take the transactions of the last checkpoint, if there is one."""
        version = self.checkpoint()
        self.transactions = {}
        if version >= 0:
            data = self._read_checkpoint(version)
            try:
                column = pq.read_table(pa.BufferReader(data), columns=["txn"]).column("txn")
            except (pa.ArrowException, OSError) as error:
                raise self._damaged_checkpoint(version, error) from error
            for each in column.drop_null().to_pylist():
                if each["appId"] is not None:
                    self.transactions[each["appId"]] = each["version"]
        self.version = version

    def vouch_for_checkpoint(self) -> None:
        """Store the CRC-32 of the last checkpoint, and delete those of checkpoints that are gone.

        Whoever has written it calls this; one that nobody vouches for is believed as it is.
        """
        version = self.checkpoint()
        data = self._bucket.get(self._folder + checkpoint_name(version))
        with contextlib.suppress(ObjectExists):
            name = self._folder + checkpoint_crc_name(version)
            self._bucket.put(name, f"{crc32(data):08x}".encode())
        names = list(self._bucket.names(self._folder))
        kept = {checkpoint_version(name) for name in names}
        for name in names:
            if (of := vouched_version(name)) is not None and of not in kept:
                self._bucket.delete(name)

    def _read_checkpoint(self, version: int) -> bytes:
        """Return the bytes of a checkpoint, once they are what was written; raise TableDamaged."""
        try:
            data = self._bucket.get(self._folder + checkpoint_name(version))
        except ObjectMissing as error:
            raise self._damaged_checkpoint(version, error) from error
        try:
            crc = self._bucket.get(self._folder + checkpoint_crc_name(version))
        except ObjectMissing:
            return data  # of an earlier version, or of somebody else
        if crc != f"{crc32(data):08x}".encode():
            why = ValueError(f"{checkpoint_crc_name(version)} gives another CRC-32")
            raise self._damaged_checkpoint(version, why)
        return data

    def _damaged_checkpoint(self, version: int, error: Exception) -> TableDamaged:
        return TableDamaged(
            f"{self._folder}{checkpoint_name(version)} in {self._bucket.uri} is damaged or missing "
            f"({' '.join(str(error).split())}); {self._instead_of(version)}"
        )

    def checkpoint(self) -> int:
        """Return the version of the last checkpoint; -1 if there is none.

        Where the object that says so is damaged, the checkpoints that are there say it.
        """
        name = self._folder + LAST_CHECKPOINT
        try:
            data = self._bucket.get(name)
        except ObjectMissing:
            return -1
        try:
            found = json.loads(data)
            version, parts = int(found["version"]), found.get("parts")
        except (ValueError, KeyError, TypeError, AttributeError):
            _log.warning("damaged; going on from the newest checkpoint", extra={"object": name})
            return max(self._checkpoints(), default=-1)
        if parts:
            raise TableError(f"the checkpoint of {self._folder} has parts; nobody else may write")
        return version

    def _checkpoints(self) -> list[int]:
        names = self._bucket.names(self._folder)
        return [each for name in names if (each := checkpoint_version(name)) is not None]

    def _instead_of(self, version: int) -> str:
        """Return what to do about a checkpoint that cannot be read."""
        try:
            begins = max((each for each in self._checkpoints() if each < version), default=-1)
            for number in range(begins + 1, version + 1):
                self._bucket.size(self._name(number))
        except ObjectMissing:
            return RESTORE
        return f"delete it and {LAST_CHECKPOINT} beside it: the log before it still has everything"

    def _apply(self, version: Version) -> None:
        self.transactions.update(version.transactions)
        if self.removed is not None:
            self.removed.update(version.removed)
        self.version = version.number

    def _name(self, number: int) -> str:
        return self._folder + version_name(number)


def _body(actions: Sequence[Action]) -> bytes:
    """Return the bytes of a version: what it says of the commit is last, and ends with a CRC-32."""
    info: dict[str, Any] = {}
    for action in actions:
        info |= action.get("commitInfo", {})
    last = {"commitInfo": {**info, _CRC: "0" * 8}}
    ordered = [*(action for action in actions if "commitInfo" not in action), last]
    text = "\n".join(json.dumps(action, separators=(",", ":")) for action in ordered)
    before = text.removesuffix("0" * 8 + _BEHIND_CRC).encode()
    return before + f"{crc32(before):08x}{_BEHIND_CRC}".encode()


def _check(body: bytes, actions: Sequence[Action]) -> None:
    """Raise ValueError for a version that is not what was written, as far as that can be told.

    Those of the library, and of earlier versions, have no checksum, but say who has committed.
    """
    infos = [action["commitInfo"] for action in actions if "commitInfo" in action]
    if not infos:
        raise ValueError("it is empty, or ends before its last line")
    is_checked = "commitInfo" in actions[-1] and infos[-1].get("engineInfo") == ENGINE
    if _CRC in infos[-1] or (is_checked and len(actions) > 1):
        before = body.rstrip().removesuffix(_BEHIND_CRC.encode())
        if f"{crc32(before[:-8]):08x}".encode() != before[-8:]:
            raise ValueError("its CRC-32 is another")


def _version(number: int, actions: Sequence[Action]) -> Version:
    def of(kind: str) -> list[Mapping[str, Any]]:
        return [action[kind] for action in actions if kind in action]

    if not all(isinstance(action, dict) for action in actions):
        raise TypeError("a line of it is no action")
    if any("path" not in each for each in of("add")):
        raise ValueError("what it adds has no path")
    return Version(
        number,
        tuple(of("add")),
        tuple(each["path"] for each in of("remove")),
        {each["appId"]: each["version"] for each in of("txn")},
    )


# -- the actions of a commit ---------------------------------------------------------------------

Values = Mapping[str, str | None]
"""What an object has of each column that partitions the table."""


def commit_info(now_ms: int, mode: str, partition_by: Sequence[str] = ()) -> Action:
    """Return who commits, when and how; no two are the same."""
    return {
        "commitInfo": {
            "timestamp": now_ms,
            "operation": "WRITE",
            "operationParameters": {"mode": mode, "partitionBy": json.dumps(partition_by)},
            "engineInfo": ENGINE,
            "txnId": uuid.uuid4().hex,
        }
    }


def add_action(
    name: str, size: int, stats: str, values: Values, now_ms: int, *, data_change: bool = True
) -> Action:
    """Return that an object is there from now on."""
    return {
        "add": {
            "path": name,
            "partitionValues": values,
            "size": size,
            "modificationTime": now_ms,
            "dataChange": data_change,
            "stats": stats,
        }
    }


def remove_action(
    name: str, size: int, values: Values, now_ms: int, *, data_change: bool = True
) -> Action:
    """Return that an object is no longer there."""
    return {
        "remove": {
            "path": name,
            "deletionTimestamp": now_ms,
            "dataChange": data_change,
            "extendedFileMetadata": True,
            "partitionValues": values,
            "size": size,
        }
    }


def txn_action(app_id: str, version: int, now_ms: int) -> Action:
    """Return how far something stands."""
    return {"txn": {"appId": app_id, "version": version, "lastUpdated": now_ms}}
