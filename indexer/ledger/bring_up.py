"""How a ledger is brought up to a version of the table: by the coverage of the versions since.

A ledger and the table go in; the ledger of a newer version comes out, whoever folds it.
"""

import itertools
from collections.abc import Callable, Collection, Sequence

from indexer.errors import ObjectMissing, VersionGone
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ledger.files import Commit
from indexer.ledger.ledger import Ledger
from indexer.table.coverage import Coverage
from indexer.table.table import LogEntry, Table

Lookup = Callable[[Collection[bytes], int | None], dict[FileKey, FileEntry]]
"""Return files as they were settled up to a version; None: up to the newest."""
Seen = Callable[[LogEntry, Sequence[Coverage]], None]

_VERSIONS_AT_ONCE = 64


def bring_up(
    ledger: Ledger,
    table: Table,
    version: int,
    *,
    lookup: Lookup | None = None,
    touched: set[FileKey] | None = None,
    seen: Seen | None = None,
) -> Ledger:
    """Fold the coverage of every version up to ``version`` into ``ledger``, in place; return it.

    Where the log no longer reaches back to the ledger, or names objects that were merged since and
    are gone, all coverage objects are folded again, into another ledger. ``lookup`` finds the
    settled files of a ledger without them; the keys of files that have changed are added to
    ``touched``, and each version that was folded goes to ``seen`` with its coverage.
    """
    log = table.log(ledger.version, version)
    try:
        while entries := list(itertools.islice(log, _VERSIONS_AT_ONCE)):
            found = [
                list(itertools.chain.from_iterable(map(table.coverage, entry.coverage)))
                for entry in entries
            ]
            for entry, coverages in zip(entries, found, strict=True):
                for coverage in coverages:
                    changed = _fold(ledger, Commit.of(coverage), entry.version, lookup)
                    if touched is not None:
                        touched |= changed
                ledger.version = entry.version
                if seen is not None:
                    seen(entry, coverages)
    except (VersionGone, ObjectMissing):
        ledger = fold_again(table, version, Ledger(settles=ledger.settles), lookup)
    return ledger


def fold_again(
    table: Table, version: int, ledger: Ledger | None = None, lookup: Lookup | None = None
) -> Ledger:
    """Fold all coverage objects of a version into an empty ledger and return it.

    Raises VersionGone if the version is not kept.
    """
    ledger = Ledger() if ledger is None else ledger
    for coverage in table.all_coverage(table.snapshot(version)):
        _fold(ledger, Commit.of(coverage), version, lookup)
    ledger.version = version
    return ledger


def _fold(ledger: Ledger, commit: Commit, version: int, lookup: Lookup | None) -> set[FileKey]:
    """Fold a commit; return the files that have changed.

    What only the entry of a file can tell, and the ledger does not have, is looked up before.
    """
    revived: dict[FileKey, FileEntry] = {}
    otherwise: set[FileKey] = set()
    if lookup is not None and (unknown := ledger.unknown(commit)):
        for key, past in _looked_up(ledger, unknown, lookup).items():
            known = ledger.files.get(key)
            if key not in ledger.leaving and (known is None or not known.is_begun):
                revived[key] = past
                if known is not None:
                    otherwise.add(key)
                ledger.revive(past)
                if commit.settled is not None:
                    commit.settled.pop(key, None)
    changed = ledger.fold(commit, version)
    if ledger.settles:
        changed |= ledger.put_back(revived, otherwise)
    return changed


def _looked_up(
    ledger: Ledger, unknown: Collection[bytes], lookup: Lookup
) -> dict[FileKey, FileEntry]:
    """Return files as they were settled by now, or later if nothing earlier is stored any more.

    A ledger that is behind the stored one knows itself what it has an entry of.
    """
    found = lookup(unknown, ledger.version)
    if missing := {*unknown} - {file_id for file_id, _ in found}:
        later = lookup(missing, None)
        found |= {key: file for key, file in later.items() if key not in ledger.files}
    return found
