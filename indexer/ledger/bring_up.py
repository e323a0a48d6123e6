"""How a ledger is brought up to a version of the table: by the coverage of the versions since.

A ledger and the table go in; the ledger of a newer version comes out, whoever folds it.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence

from indexer.errors import ObjectMissing, VersionGone
from indexer.ledger.commit import Commit
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ledger.ledger import Ledger
from indexer.table.coverage import Coverage
from indexer.table.table import LogEntry, Table

Lookup = Callable[[Collection[bytes]], dict[FileKey, FileEntry]]
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
            commits = [(entry.version, list(map(Commit.of, of)))
                       for entry, of in zip(entries, found, strict=True)]  # fmt: skip
            changed = _fold(ledger, commits, lookup)
            if touched is not None:
                touched |= changed
            for entry, coverages in zip(entries, found, strict=True):
                if seen is not None:
                    seen(entry, coverages)
    except (VersionGone, ObjectMissing):
        ledger = fold_again(table, version, settles=ledger.settles)
    return ledger


def fold_again(table: Table, version: int, *, settles: bool = False) -> Ledger:
    """Return the fold of all coverage objects of a version; raise VersionGone if it is not kept."""
    ledger = Ledger(settles=settles)
    for coverage in table.all_coverage(table.snapshot(version)):
        ledger.apply(coverage, version)
    ledger.version = version
    return ledger


def _fold(
    ledger: Ledger, versions: Iterable[tuple[int, list[Commit]]], lookup: Lookup | None
) -> set[FileKey]:
    """Fold the commits of some versions; return the files that have changed.

    What only the entry of a file can tell, and the ledger does not have, is looked up before.
    """
    revived: dict[FileKey, FileEntry] = {}
    if lookup is not None:
        revived = lookup(ledger.unknown(itertools.chain(*(of for _, of in versions))))
        for key, past in revived.items():
            known = ledger.files.get(key)
            if key not in ledger.leaving and (known is None or not known.is_begun):
                ledger.revive(past)
    changed: set[FileKey] = set()
    for version, commits in versions:
        for commit in commits:
            changed |= ledger.fold(commit, version)
        ledger.version = version
    if ledger.settles:
        ledger.put_back(revived)
    return changed
