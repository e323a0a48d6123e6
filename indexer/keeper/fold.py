"""The fold as a keeper does it: what the table has gained goes into the stored ledger.

The ledger is held between two folds without its settled files, and only what a fold has touched is
written. Files that were settled longer ago than any topic can send them again become past ones.
"""

import logging
from collections.abc import Callable

from indexer.errors import VersionGone
from indexer.ledger.bring_up import Seen, bring_up
from indexer.ledger.entries import FileKey
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.store.bucket import Bucket
from indexer.table.table import Table
from indexer.times import DAY_NS, HOUR_NS

_log = logging.getLogger(__name__)


class Fold:
    """One cluster's ledger as this keeper has folded and stored it, without settled files."""

    def __init__(
        self, bucket: Bucket, cluster: str, gone_live_hours: int, clock: Callable[[], int]
    ) -> None:
        """Read nothing yet; a file stays live for ``gone_live_hours`` after it was settled."""
        self._stored = LedgerTable(bucket, cluster)
        self._gone_live_hours = gone_live_hours
        self._clock = clock
        self.ledger: Ledger | None = None

    def advance(self, table: Table, seen: Seen | None = None) -> bool:
        """Fold in what the table has gained; return whether that was stored.

        Each version that was folded goes to ``seen`` with its coverage, also if it is not stored.

        Raises TableUnavailable if the table cannot be read or the ledger not be written, and
        VersionGone if the table was recreated under the ledger. ``ledger`` is None after an error
        and after another keeper was faster: the next call takes the stored one.
        """
        version = table.version()
        ledger = self.ledger or self._stored.load_settling()
        before = ledger.version
        if before > version:
            raise VersionGone(
                f"the ledger is of version {before}, the table of {version}: the table was made "
                "again; delete the ledger's folder to fold it again"
            )
        if before == version:
            self.ledger = ledger
            return False
        self.ledger = None
        touched: set[FileKey] = set()
        folded = bring_up(
            ledger, table, version, lookup=self._stored.lookup, touched=touched, seen=seen
        )
        split = split_ns(self._clock(), self._gone_live_hours)
        saved = self._stored.save(
            folded,
            before,
            touched if folded is ledger and before >= 0 else None,
            split,
        )
        if not saved:
            _log.warning("another keeper folded first; taking its ledger")
            return False
        self.ledger = folded
        return True

    def sweep(self) -> int:
        """Delete ledgers of more than a day ago; return how many objects went."""
        return self._stored.sweep()


def split_ns(now_ns: int, gone_live_hours: int) -> int:
    """Return the start of the day before which a file must be settled to be a past one."""
    return (now_ns - gone_live_hours * HOUR_NS) // DAY_NS * DAY_NS
