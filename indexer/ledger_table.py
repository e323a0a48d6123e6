"""The ledger on storage: the Delta table ``ledger`` beside ``logs``, and how to bring it up.

The keeper writes what it has folded; readers take that and fold in the coverage objects of the
versions since, so that everybody sees the same ledger of the same version of the table.
"""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from indexer.bucket import Bucket
from indexer.coverage import Position
from indexer.entries import DeletedEntry, ExpiredEntry
from indexer.errors import ObjectMissing, TableUnavailable, VersionGone
from indexer.ledger import FileEntry, JumpEntry, LaneEntry, Ledger, NodeEntry
from indexer.table import Table, one_line

_FOLDED = "folded"
_KINDS: dict[str, type] = {
    "position": Position,
    "file": FileEntry,
    "lane": LaneEntry,
    "node": NodeEntry,
    "jump": JumpEntry,
    "expired": ExpiredEntry,
    "deleted": DeletedEntry,
}
_TIME = pa.timestamp("us", tz="UTC")
LEDGER_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("partition", pa.int32()),
        pa.field("node", pa.string()),
        pa.field("namespace", pa.string()),
        pa.field("pod", pa.string()),
        pa.field("container", pa.string()),
        pa.field("restart", pa.int32()),
        pa.field("file_id", pa.binary()),
        pa.field("epoch", pa.int32()),
        pa.field("covered_end", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("lost", pa.int32()),
        pa.field("first_time", _TIME),
        pa.field("last_time", _TIME),
        pa.field("entry", pa.binary(), nullable=False),  # MessagePack; the other columns show it
    ]
)


def _time(ns: int) -> datetime | None:
    return datetime.fromtimestamp(ns / 1e9, UTC) if ns else None


def _rows(ledger: Ledger) -> Iterator[dict[str, Any]]:
    for file in ledger.files.values():
        yield {
            "kind": "file",
            "partition": file.partition,
            "node": file.node,
            "namespace": file.namespace,
            "pod": file.pod,
            "container": file.container,
            "restart": file.restart,
            "file_id": file.file_id,
            "epoch": file.epoch,
            "covered_end": file.covered_end,
            "size": file.size,
            "lost": len(file.lost),
            "first_time": _time(file.first_ns),
            "last_time": _time(file.last_ns),
            "entry": msgspec.msgpack.encode(file),
        }
    for kind, entries in (
        ("position", ledger.positions.values()),
        ("lane", ledger.lanes.values()),
        ("node", ledger.nodes.values()),
        ("jump", ledger.jumps),
        ("expired", ledger.expired.values()),
        ("deleted", ledger.deleted.values()),
    ):
        for entry in entries:
            yield {
                "kind": kind,
                "partition": getattr(entry, "partition", None),
                "node": getattr(entry, "node", None),
                "entry": msgspec.msgpack.encode(entry),
            }


def _from_rows(rows: pa.Table, version: int) -> Ledger:
    ledger = Ledger(version=version)
    for kind, body in zip(
        rows.column("kind").to_pylist(), rows.column("entry").to_pylist(), strict=True
    ):
        entry: Any = msgspec.msgpack.decode(body, type=_KINDS[kind])
        if isinstance(entry, FileEntry):
            ledger.files[entry.file_id, entry.epoch] = entry
        elif isinstance(entry, LaneEntry):
            ledger.lanes[entry.run, entry.partition] = entry
        elif isinstance(entry, NodeEntry):
            ledger.nodes[entry.node, entry.partition] = entry
        elif isinstance(entry, Position):
            ledger.positions[entry.partition] = entry
        elif isinstance(entry, ExpiredEntry):
            ledger.expired[entry.namespace, entry.rule] = entry
        elif isinstance(entry, DeletedEntry):
            key = (entry.request, entry.namespace, entry.pod, entry.container)
            ledger.deleted[key] = entry
        else:
            ledger.jumps.append(entry)
    return ledger


class LedgerTable:
    """The Delta table ``ledger`` of one cluster."""

    def __init__(self, bucket: Bucket, cluster: str) -> None:
        """Name the table; nothing is read yet."""
        self._uri = f"{bucket.uri}/{cluster}/ledger"
        self._options = bucket.storage_options

    def load(self) -> Ledger:
        """Return the ledger as it was last folded; an empty one if it never was."""
        try:
            table = DeltaTable(self._uri, storage_options=self._options)
            version = table.transaction_version(_FOLDED)
            rows = table.to_pyarrow_table(columns=["kind", "entry"])
        except TableNotFoundError:
            return Ledger()
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot read {self._uri}: {one_line(error)}") from error
        return _from_rows(rows, -1 if version is None else version)

    def save(self, ledger: Ledger, before: int) -> bool:
        """Store the ledger if the stored one is still that of version ``before``.

        Returns False if another keeper was faster.
        """
        rows = pa.Table.from_pylist(list(_rows(ledger)), schema=LEDGER_SCHEMA)
        properties = CommitProperties(app_transactions=[Transaction(_FOLDED, ledger.version)])
        try:
            try:
                table = DeltaTable(self._uri, storage_options=self._options)
            except TableNotFoundError:
                table = DeltaTable.create(
                    self._uri, LEDGER_SCHEMA, mode="ignore", storage_options=self._options
                )
            stored = table.transaction_version(_FOLDED)
            if (-1 if stored is None else stored) != before:
                return False
            write_deltalake(table, rows, mode="overwrite", commit_properties=properties)
        except CommitFailedError:
            return False
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot write {self._uri}: {one_line(error)}") from error
        return True

    def sweep(self) -> int:
        """Delete objects that no ledger of the last day uses; return how many."""
        try:
            table = DeltaTable(self._uri, storage_options=self._options)
            gone = table.vacuum(retention_hours=24, dry_run=False, enforce_retention_duration=False)
            table.cleanup_metadata()
        except TableNotFoundError:
            return 0
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot sweep {self._uri}: {one_line(error)}") from error
        return len(gone)


def bring_up(ledger: Ledger, table: Table, version: int) -> Ledger:
    """Fold the coverage of every version up to ``version`` into ``ledger``, in place; return it.

    Where the log no longer reaches back to the ledger, or names objects that were merged since and
    are gone, all coverage objects are folded anew.
    """
    try:
        for entry in table.log(ledger.version, version):
            for coverage in itertools.chain.from_iterable(map(table.coverage, entry.coverage)):
                if coverage.version is None:  # else merged, and so folded before
                    ledger.apply(coverage, entry.version)
            ledger.version = entry.version
    except (VersionGone, ObjectMissing):
        ledger = Ledger()
        for coverage in table.all_coverage(table.snapshot(version)):
            ledger.apply(coverage, version)
        ledger.version = version
    return ledger
