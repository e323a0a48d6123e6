"""What the tables beside ``logs`` have in common: they are folded from it, version by version.

A table goes in; out comes up to which version it has folded ``logs``. Every commit carries that
number, so of two keepers that go on from one version one is refused.
"""

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError

from indexer.errors import BucketUnavailable, TableDamaged, TableUnavailable
from indexer.object_names import folder_uri
from indexer.store.bucket import Bucket
from indexer.table.delta_log import DeltaLog

_APP_ID = "folded"


def folded_version(table: DeltaTable) -> int:
    """Return the version of ``logs`` that a table was folded up to; -1 if it never was."""
    version = table.transaction_version(_APP_ID)
    return -1 if version is None else version


def folded_up_to(version: int) -> CommitProperties:
    """Return what a commit carries that brings a table up to a version of ``logs``."""
    return CommitProperties(app_transactions=[Transaction(_APP_ID, version)])


class FoldedLog:
    """The log of a table that is folded from ``logs``, looked at before the table is believed."""

    def __init__(self, bucket: Bucket, folder: str) -> None:
        """Read nothing yet."""
        self._log = DeltaLog(bucket, folder)
        self._uri = folder_uri(bucket.uri, folder)

    def opened(self, options: dict[str, str]) -> DeltaTable:
        """Return the newest version; raise TableDamaged for a log that is not what was written."""
        try:
            try:
                table = DeltaTable(self._uri, storage_options=options)
            except TableNotFoundError:
                raise
            except (DeltaError, OSError):
                self._log.explain()
                raise
            self._log.check(table.version())
        except TableDamaged as error:
            raise TableDamaged(
                f"{error}; or delete all of {self._uri}: the keeper folds it again"
            ) from error
        except BucketUnavailable as error:
            raise TableUnavailable(f"cannot read {self._uri}: {error}") from error
        return table


def sweep(table: DeltaTable) -> int:
    """Delete objects that nothing of the last day uses; return how many."""
    gone = table.vacuum(retention_hours=24, dry_run=False, enforce_retention_duration=False)
    table.cleanup_metadata()
    return len(gone)
