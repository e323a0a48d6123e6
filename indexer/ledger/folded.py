"""What the tables beside ``logs`` have in common: they are folded from it, version by version.

Rows go in with the version of ``logs`` that they are folded up to, and come out once they are what
was written. Every commit carries that number, so of two keepers that go on from one version one is
refused.
"""

import contextlib
import io
import itertools
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from indexer.errors import (
    BucketError,
    BucketUnavailable,
    ObjectDamaged,
    TableDamaged,
    TableUnavailable,
)
from indexer.object_names import folder_uri
from indexer.store.bucket import Bucket, put_own
from indexer.store.checked_file import CheckedFile, add_checksums, checked_name
from indexer.table.delta_log import DeltaLog, add_action, commit_info, remove_action, txn_action
from indexer.table.table import LOG_CONFIGURATION, one_line

_log = logging.getLogger(__name__)

_APP_ID = "folded"
_CHECKPOINT_VERSIONS = 100  # who opens the table reads no more of them one by one
_WHOLE_BYTES = 8 << 20  # an object of so few bytes is read by one request
_TAIL_BYTES = 256 << 10  # read first of others; holds most footers


@dataclass(frozen=True, slots=True)
class Member:
    """An object of the table."""

    name: str
    size: int
    rows: int


def members(table: DeltaTable) -> list[Member]:
    """Return the objects of a snapshot, by name."""
    actions = pa.table(table.get_add_actions())
    columns = (actions[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    return sorted(itertools.starmap(Member, zip(*columns, strict=True)), key=lambda o: o.name)


def folded_version(table: DeltaTable) -> int:
    """Return the version of ``logs`` that a table was folded up to; -1 if it never was."""
    version = table.transaction_version(_APP_ID)
    return -1 if version is None else version


class FoldedTable:
    """The Delta table in a folder of a bucket; log and objects are checked before they are used."""

    def __init__(self, bucket: Bucket, folder: str, schema: pa.Schema) -> None:
        """Read nothing yet; ``schema`` is what others see of the rows."""
        self.uri = folder_uri(bucket.uri, folder)
        self._bucket = bucket
        self._folder = folder
        self._schema = schema
        self._log = DeltaLog(bucket, folder)

    def opened(self) -> DeltaTable:
        """Return the newest version; raise TableNotFoundError, or as ``reading`` does."""
        try:
            try:
                self._log.check_checkpoint()
                table = DeltaTable(self.uri, storage_options=self._bucket.storage_options)
            except TableNotFoundError:
                raise
            except (DeltaError, OSError):
                self._log.explain()
                raise
            self._log.check(table.version())
        except TableDamaged as error:
            raise self._damaged(error) from error
        except BucketUnavailable as error:
            raise TableUnavailable(f"cannot read {self.uri}: {error}") from error
        return table

    def made(self) -> DeltaTable:
        """Return the newest version; make the table if it is not there."""
        with contextlib.suppress(TableNotFoundError):
            return self.opened()
        try:
            return DeltaTable.create(
                self.uri,
                self._schema,
                mode="ignore",
                configuration=LOG_CONFIGURATION,
                # A second try would put the same schema, under another id, into version 1.
                commit_properties=CommitProperties(max_commit_retries=0),
                storage_options=self._bucket.storage_options,
            )
        except (DeltaError, OSError):
            return self.opened()  # another keeper was faster, or this says what is wrong

    def rows(
        self,
        each: Member,
        columns: Sequence[str] | None = None,
        wanted: pc.Expression | None = None,
    ) -> pa.Table:
        """Return columns of an object, of the row groups that may hold rows that are wanted.

        What is read is checked before Arrow decodes it.
        """
        file = CheckedFile(self._bucket, self._folder + each.name, each.size)
        file.footer(each.size if each.size <= _WHOLE_BYTES else _TAIL_BYTES)
        fragment = ds.ParquetFileFormat().make_fragment(file)
        return fragment.to_table(schema=self._schema, columns=columns, filter=wanted)

    def put(self, start: str, rows: pa.Table, **written: Any) -> Member:
        """Store rows as an object whose name begins with ``start``; a commit is to name it.

        ``written`` are arguments of Parquet's writer.
        """
        body = io.BytesIO()
        pq.write_table(rows, body, compression="zstd", store_schema=False, **written)
        add_checksums(body)
        data = body.getvalue()
        name = checked_name(start, data)
        put_own(self._bucket, self._folder + name, data)
        return Member(name, len(data), rows.num_rows)

    def commit(
        self, added: Sequence[Member], removed: Sequence[Member], before: int, version: int
    ) -> None:
        """Bring the table from the fold of one version of ``logs`` to that of another, at once.

        Raises PositionMoved if somebody else was faster.
        """
        now_ms = time.time_ns() // 1_000_000
        actions = [
            commit_info(now_ms, "Overwrite" if removed else "Append"),
            *(add_action(e.name, e.size, json.dumps({"numRecords": e.rows}), {}, now_ms)
              for e in added),
            *(remove_action(each.name, each.size, {}, now_ms) for each in removed),
            txn_action(_APP_ID, version, now_ms),
        ]  # fmt: skip
        try:
            self._log.commit(actions, {_APP_ID: None if before < 0 else before})
        except BucketUnavailable as error:
            raise TableUnavailable(f"cannot commit to {self.uri}: {error}") from error
        if self._log.version % _CHECKPOINT_VERSIONS == 0:
            try:
                self.opened().create_checkpoint()
                self._log.vouch_for_checkpoint()
            except (DeltaError, OSError, BucketError) as error:
                what = {"table": self.uri, "error": one_line(error)}
                _log.warning("cannot write a checkpoint; going on without", extra=what)

    def sweep(self) -> int:
        """Delete objects that nothing of the last day uses; return how many."""
        try:
            table = self.opened()
            gone = table.vacuum(retention_hours=24, dry_run=False, enforce_retention_duration=False)
            table.cleanup_metadata()
        except TableNotFoundError:
            return 0
        except (DeltaError, OSError) as error:
            raise TableUnavailable(f"cannot sweep {self.uri}: {one_line(error)}") from error
        return len(gone)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Say of whatever goes wrong which table it is; raise TableDamaged or TableUnavailable."""
        try:
            yield
        except ObjectDamaged as error:
            raise self._damaged(error) from error
        except (BucketError, DeltaError, pa.ArrowException, OSError) as error:
            raise TableUnavailable(f"cannot read {self.uri}: {one_line(error)}") from error

    def _damaged(self, error: Exception) -> TableDamaged:
        return TableDamaged(f"{error}; or delete all of {self.uri}: the keeper folds it again")
