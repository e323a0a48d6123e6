"""Single files of the ledger: the entry of each, and which one came before and behind it.

A snapshot and a file go in; its entry comes out, also of a file that is settled, which is looked up
on storage. Of one that has settled since the keeper's last fold only its size and its node are
known.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator

from indexer.ledger.entries import Covered, FileEntry, FileKey
from indexer.ledger.settled import SECOND_NS
from indexer.ledger.stored import LedgerTable
from indexer.store.bucket import Bucket
from query_api.completeness.replica import Snapshot

_STEPS_MAX = 16  # from the last file of a stream back to the one that is asked about
_LOOKED_UP_MAX = 256  # one question asks for the same file more than once


class Files:
    """The files of one cluster; its methods may be called from any thread.

    They raise TableUnavailable and TableDamaged.
    """

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Read nothing yet."""
        self._table = LedgerTable(bucket, cluster)
        self._lock = threading.Lock()
        self._looked_up: OrderedDict[tuple[bytes, int], dict[FileKey, FileEntry]] = OrderedDict()

    def find(self, snapshot: Snapshot, key: FileKey) -> FileEntry | None:
        """Return the entry of a file as of a snapshot; without names if these are not at hand."""
        if (file := snapshot.ledger.files.get(key)) is not None:
            return file
        return self._stored(snapshot, key[0]).get(key) or _settled(snapshot, key)

    def _stored(self, snapshot: Snapshot, file_id: bytes) -> dict[FileKey, FileEntry]:
        asked = file_id, snapshot.version
        with self._lock:
            if asked not in self._looked_up:
                self._looked_up[asked] = self._table.lookup([file_id], snapshot.version)
                if len(self._looked_up) > _LOOKED_UP_MAX:
                    self._looked_up.popitem(last=False)
            return self._looked_up[asked]

    def before(self, snapshot: Snapshot, file: FileEntry) -> FileKey | None:
        """Return the file before this one in its stream, if that is known."""
        if file.epoch:
            key = (file.file_id, file.epoch - 1)
            return None if self.find(snapshot, key) is None else key
        if not file.previous:
            return None
        last = max(self._epochs(snapshot, file.previous), default=None)
        if last is None:
            return None
        key = (file.previous, last)
        found = self.find(snapshot, key)
        return key if found is not None and found.stream == file.stream else None

    def behind(self, snapshot: Snapshot, file: FileEntry) -> FileKey | None:
        """Return the file that follows this one in its stream, if that is known."""
        key = (file.file_id, file.epoch + 1)
        if self.find(snapshot, key) is not None:
            return key
        stream = file.stream
        ours = (each for each in snapshot.ledger.files.values() if each.pod_uid == file.pod_uid)
        for head in ours:
            at = head
            if at.stream != stream or at.node != file.node:
                continue
            for _ in range(_STEPS_MAX):
                if at.previous == file.file_id:
                    return at.file_id, 0
                found = self.find(snapshot, (at.previous, 0)) if at.previous else None
                if found is None or found.stream != stream:
                    break
                at = found
        return None

    def _epochs(self, snapshot: Snapshot, file_id: bytes) -> Iterator[int]:
        stored = [epoch for _, epoch in self._stored(snapshot, file_id)]
        yield from stored
        epoch = max(stored, default=-1) + 1
        while self.find(snapshot, (file_id, epoch)) is not None:
            yield epoch
            epoch += 1


def _settled(snapshot: Snapshot, key: FileKey) -> FileEntry | None:
    for (node, partition), files in snapshot.ledger.settled.items():
        [settled] = files.find([key])
        if settled is not None:
            last_ns = settled.last_s * SECOND_NS
            return FileEntry(
                file_id=key[0],
                epoch=key[1],
                partition=partition,
                node=node,
                namespace="",
                pod="",
                pod_uid="",
                container="",
                restart=0,
                covered=[Covered(0, settled.size, 0, last_ns)],
                size=settled.size,
                sealed=True,
            )
    return None
