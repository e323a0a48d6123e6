"""The command ``everyline ledger``: prove that the stored ledger is what the coverage says.

All coverage objects of the version that the ledger was folded at are folded again; what differs
from the stored one is named, entry by entry. ``--rebuild`` puts the new one in its place.
"""

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from collector.process import load_settings
from indexer.keeper.fold import split_ns
from indexer.keeper.settings import KeeperSettings
from indexer.ledger.bring_up import fold_again
from indexer.ledger.entries import JumpEntry
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.ledger.totals import StreamEntry
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.table import Table

_SHOWN = 20


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Check or rebuild; return 0 if the ledger was right or is now, 1 if it is not."""
    parser = argparse.ArgumentParser(
        prog="everyline ledger",
        description="Fold all coverage again and compare it with the stored ledger.",
        epilog="Settings, such as --cluster and --bucket, are those of `everyline keeper`.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="list every entry that differs")
    what.add_argument(
        "--rebuild", action="store_true", help="replace the stored ledger; stop the keeper first"
    )
    asked, rest = parser.parse_known_args(argv)
    settings = load_settings(KeeperSettings, "keeper", rest, environ)
    bucket = open_bucket(settings.bucket)
    if asked.rebuild:
        return rebuild(bucket, settings)
    return check(bucket, settings.cluster)


def check(bucket: Bucket, cluster: str) -> int:
    """Print what differs; return 1 if anything does. Raises VersionGone for a version not kept."""
    stored = LedgerTable(bucket, cluster).load()
    if stored.version < 0:
        print(f"no ledger of {cluster} has been folded yet")
        return 1
    found = differences(stored, fold_again(Table(bucket, cluster), stored.version))
    shown = list(itertools.islice(found, _SHOWN))
    more = sum(1 for _ in found)
    for line in shown:
        print(line)
    if more:
        print(f"and {more} more")
    same = "differs from" if shown else "equals"
    files = f"{len(stored.files)} files, version {stored.version}"
    print(f"the ledger of {cluster} ({files}) {same} its coverage folded again")
    return 1 if shown else 0


def rebuild(bucket: Bucket, settings: KeeperSettings) -> int:
    """Fold all coverage of the newest version, and store that; return 1 if a keeper was faster."""
    table = Table(bucket, settings.cluster)
    stored = LedgerTable(bucket, settings.cluster)
    before = stored.load_live([]).version
    ledger = fold_again(table, table.version())
    files = len(ledger.files)
    split = split_ns(time.time_ns(), settings.gone_live_hours)
    if not stored.save(ledger, before, None, split):
        print("another keeper has folded meanwhile: nothing was changed; stop it and try again")
        return 1
    print(f"the ledger of {settings.cluster} is rebuilt: {files} files, version {ledger.version}")
    return 0


def differences(stored: Ledger, refolded: Ledger) -> Iterator[str]:
    """Yield a line for each field of an entry that differs, and each entry that one lacks."""
    for kind in ("positions", "files", "lanes", "nodes", "expired", "deleted"):
        yield from _compared(kind, getattr(stored, kind), getattr(refolded, kind))
    yield from _compared("jumps", _jumps(stored), _jumps(refolded))
    yield from _compared("streams", _streams(stored), _streams(refolded))
    if stored.retired != refolded.retired:
        yield f"retired nodes: {stored.retired!r}, folded again {refolded.retired!r}"


def _jumps(ledger: Ledger) -> dict[tuple[Any, ...], JumpEntry]:
    """Return jumps by where they are: between partitions their order means nothing."""
    return {
        (each.jump.partition, each.jump.start, each.jump.end, each.jump.type, each.found_ns): each
        for each in ledger.jumps
    }


def _streams(ledger: Ledger) -> dict[tuple[Any, ...], StreamEntry]:
    return {
        (each.node, each.namespace, each.pod, each.pod_uid, each.container, each.restart): each
        for each in ledger.totals.entries()
    }


def _compared(kind: str, stored: Mapping[Any, Any], refolded: Mapping[Any, Any]) -> Iterator[str]:
    for key in [*stored, *(key for key in refolded if key not in stored)]:
        of = f"{kind} {_shown(key)}"
        if key not in refolded:
            yield f"{of}: stored, and not in the coverage"
        elif key not in stored:
            yield f"{of}: in the coverage, and not stored"
        elif stored[key] != refolded[key]:
            old, new = (msgspec.structs.asdict(each[key]) for each in (stored, refolded))
            for name in old:
                if old[name] != new[name]:
                    yield f"{of}: {name} is {old[name]!r}, folded again {new[name]!r}"


def _shown(key: Any) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return "/".join(part.hex() if isinstance(part, bytes) else str(part) for part in parts)
