"""What a table's log must be whatever has happened, and the requests that write one.

A table goes in; what is doubled, missing or out of order in its log fails the test.
"""

import json
from collections import Counter

from indexer.object_names import COVERAGE_FOLDER, MERGED_FOLDER
from indexer.ownership import app_id
from indexer.table.table import CLOSED, Table, live

# Paths of requests to the object store; `=` may be escaped.
SEGMENT = r"/date(=|%3D)\d.*\.parquet$"
COVERAGE = r"/date(=|%3D)__HIVE.*\.parquet$"
LETTER = r"/dead_letters/"
LOG = r"/logs/_delta_log/\d{20}\.json$"


def check_log(table: Table) -> None:
    """Check that objects were added once and are whole, and each commit goes on from the last."""
    added: Counter[str] = Counter()
    transactions: dict[str, int] = {}
    ends: dict[str, int] = {}
    for version in range(table.snapshot().version() + 1):
        text = table.bucket.get(f"{table.folder}_delta_log/{version:020d}.json")
        actions = [json.loads(line) for line in text.splitlines()]
        for name in (action["add"]["path"] for action in actions if "add" in action):
            added[name] += 1
            if name.startswith(COVERAGE_FOLDER) and not name.startswith(MERGED_FOLDER):
                [coverage] = table.coverage(name)
                for each in coverage.positions:
                    assert ends.get(app_id(each), each.start) == each.start
                    ends[app_id(each)] = each.end
        for txn in (action["txn"] for action in actions if "txn" in action):
            assert transactions.get(txn["appId"], -1) <= txn["version"]
            transactions[txn["appId"]] = txn["version"]
    assert set(added.values()) <= {1}
    assert all(transactions[name] in (end, CLOSED) for name, end in ends.items())
    for there in live(table.snapshot()):
        assert table.bucket.size(table.folder + there.name) == there.size


def orphans(table: Table) -> set[str]:
    """Return the names of objects below the table that no version has ever named."""
    stored = set(table.bucket.names(table.folder))
    log = table.folder + "_delta_log/"
    named = {
        table.folder + name
        for entry in table.log(-1, table.snapshot().version())
        for name in entry.added
    }
    return {name for name in stored - named if not name.startswith(log)}
