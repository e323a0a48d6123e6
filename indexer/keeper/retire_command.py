"""The command ``everyline retire NODE``: nothing more is waited for of a node that is gone.

A node's name goes in; a mark is committed to the table, like any coverage, with which every ledger
closes the node. What was never proved of it becomes a gap, so that an answer says no more than is
known. A node that comes back is waited for again as soon as its collector says anything.
"""

import argparse
import difflib
import sys
import time
from collections.abc import Mapping, Sequence

from collector.process import load_settings
from indexer.keeper.settings import KeeperSettings
from indexer.ledger.bring_up import bring_up
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.object_names import COVERAGE_FOLDER, new_name
from indexer.store.bucket import Bucket, put_own
from indexer.store.open import open_bucket
from indexer.table.coverage import Balance, Coverage, Retired, to_object
from indexer.table.table import NO_ROWS, Added, Table
from indexer.times import format_optional, format_time

SILENT_NS = 300_000_000_000
"""A node is not taken for gone before nothing has come of it for so long; collectors say something
every few seconds."""

DONE, REFUSED = 0, 1


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Retire nodes; return 0 if all are, 1 if one was refused."""
    parser = argparse.ArgumentParser(
        prog="everyline retire",
        description="Wait no longer for nodes that are gone for good.",
        epilog="Settings, such as --cluster and --bucket, are those of `everyline keeper`.",
        allow_abbrev=False,
    )
    parser.add_argument("node", nargs="+", help="name of a node, as `everyline status` shows it")
    parser.add_argument(
        "--why", required=True, help="who says that it is gone, and why: kept with the gap"
    )
    asked, rest = parser.parse_known_args(argv)
    settings = load_settings(KeeperSettings, "keeper", rest, environ)
    return retire(
        open_bucket(settings.bucket), settings.cluster, asked.node, asked.why, time.time_ns()
    )


def retire(bucket: Bucket, cluster: str, nodes: Sequence[str], why: str, now_ns: int) -> int:
    """Commit that nodes are gone for good, those that may be; say what becomes of each."""
    table = Table(bucket, cluster)
    ledger = bring_up(LedgerTable(bucket, cluster).load_live([]), table, table.version())
    found = [node for node in dict.fromkeys(nodes) if not _refused(ledger, node, now_ns)]
    if found:
        retired = [Retired(node, why) for node in found]
        coverage = Coverage(now_ns, [], [], [], [], [], Balance(), retired=retired)
        data = to_object(coverage)
        name = new_name(COVERAGE_FOLDER, data)
        put_own(bucket, table.folder + name, data)
        version = table.commit([Added(name, len(data), NO_ROWS)], {}, {})
        for node in found:
            mark = ledger.marks.get(node)
            until = format_optional(mark.until_ns or None) if mark else None
            proved = f"complete until {until}" if until else "never proved complete"
            print(f"{node}: retired by version {version}; it was {proved}")
    return DONE if len(found) == len({*nodes}) else REFUSED


def _refused(ledger: Ledger, node: str, now_ns: int) -> bool:
    """Say why a node is not retired, if it may not be."""
    why = ""
    if node in ledger.gone:
        why = "it is retired already"
    elif node not in ledger.marks and node not in ledger.totals.nodes:
        near = difflib.get_close_matches(node, {*ledger.marks, *ledger.totals.nodes}, 3)
        hint = f"; there are {', '.join(near)}" if near else "; `everyline status` lists them"
        why = f"nothing has ever come of a node of that name{hint}"
    elif node in ledger.marks:
        entries = (ledger.nodes[node, partition] for partition in ledger.marks[node].partitions)
        last_ns = max(entry.scan_began_ns for entry in entries)
        if now_ns - last_ns < SILENT_NS:
            why = (
                f"its collector has said something at {format_time(last_ns)}: stop that first, and "
                f"wait for {SILENT_NS // 60_000_000_000} minutes"
            )
    if why:
        print(f"{node}: not retired: {why}", file=sys.stderr)
    return bool(why)
