"""The indexer and a scan of what it has written, beside what zstd needs for the same bytes.

Logs go in by way of a local topic; out come costs, ratios, and how much is stored.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from deltalake import DeltaTable

from collector.topic_local import LocalTopic
from indexer.bucket import open_bucket
from indexer.table import COVERAGE_FOLDER
from load_tests.bench.collector import Collecting
from load_tests.bench.cost import Cost, run_everyline, run_zstd
from load_tests.bench.logs import Logs
from query_api.scan import ScanTask, scan_segment

_FOREVER_NS = 1 << 62
_ZSTD, _INDEXER, START = "`zstd -3`", "indexer", "indexer, its start alone"
_UNZSTD, _SCAN = "`zstd -d`", "scan of `message`"


class Place:
    """A topic with all lines and one with none, and the tables made of them."""

    def __init__(self, folder: Path, logs: Logs) -> None:
        """Fill the topics."""
        self._folder = folder
        self._logs = logs
        self._packed = folder / "packed"
        collecting = Collecting.anew(folder, logs.root)
        collecting.ship(folder, logs.raw_bytes)
        self._full = Path(collecting.topic)
        (empty := folder / "no-pods").mkdir()
        nothing = Collecting.anew(folder, empty)
        run_everyline(folder, nothing.words, lambda status: bool(status.get("ready")))
        self._empty = Path(nothing.topic)

    def warm_up(self) -> None:
        """Compile modules and kernels, if this is the first time."""
        self._index(self._full, self._bucket)

    @property
    def _bucket(self) -> Path:
        return self._folder / "bucket"

    def steps(self) -> dict[str, Callable[[], Cost]]:
        """Return what is measured in turns, by name."""
        raw, packed = str(self._logs.raw), str(self._packed)
        return {
            _ZSTD: lambda: run_zstd("-3", raw, "-o", packed),
            START: lambda: self._index(self._empty, self._folder / "no-bucket"),
            _INDEXER: lambda: self._index(self._full, self._bucket),
            _UNZSTD: lambda: run_zstd("-d", packed, "-o", os.devnull),
            _SCAN: self._scan,
        }

    def _index(self, topic: Path, bucket: Path) -> Cost:
        """Commit a whole topic to a new table."""
        shutil.rmtree(bucket, ignore_errors=True)
        end = asyncio.run(LocalTopic(topic, partitions=0).bounds(0))[1]
        words = ["indexer", f"--topic={topic}", f"--bucket={bucket}"]
        return run_everyline(
            self._folder, words, lambda status: status.get("positions") == {"0": end}
        )

    def _scan(self) -> Cost:
        """Look for a phrase that no filter excludes and no row has, in a process of its own."""
        table = f"{self._bucket}/local/logs"
        command = [sys.executable, "-m", "load_tests.bench", "--scan", table]
        measured = subprocess.run(command, check=True, capture_output=True, text=True)
        return Cost(float(measured.stdout))

    def print_ratios(self, costs: Mapping[str, Cost]) -> None:
        """Print ratios of medians, and the bytes of the table's objects by kind."""
        cpu = {name: cost.cpu_s for name, cost in costs.items()}
        steady = (cpu[_INDEXER] - cpu[START]) / cpu[_ZSTD]
        ratio = f"{cpu[_INDEXER] / cpu[_ZSTD]:.2f} ({steady:.2f} without its start)"
        print(f"- {_INDEXER} / {_ZSTD}: {ratio}")
        print(f"- speed of a {_SCAN} / {_UNZSTD}: {cpu[_UNZSTD] / cpu[_SCAN]:.2f}")
        sizes, raw_bytes = _stored(self._bucket / "local/logs"), self._logs.raw_bytes
        shares = ", ".join(f"{kind} {size / raw_bytes:.2%}" for kind, size in sizes.items())
        print(f"- stored / raw: {sum(sizes.values()) / raw_bytes:.2%} ({shares})\n")


def scan_cpu_s(table: str) -> float:
    """Return the CPU seconds of one scan of `message` over a table, without the start-up."""
    actions = DeltaTable(table).get_add_actions(flatten=True)
    names = zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True)
    tasks = [
        ScanTask(table, name, size, 0, _FOREVER_NS, (), '"nolinesaysthis"', True, None, 10)
        for name, size in names
        if not name.startswith(COVERAGE_FOLDER)
    ]
    _scan(tasks)  # as in a service that has been running
    began = time.process_time()
    _scan(tasks)
    return time.process_time() - began


def _scan(tasks: Sequence[ScanTask]) -> None:
    bucket = open_bucket(tasks[0].bucket)
    for task in tasks:
        scanned = scan_segment(task, bucket)
        if scanned.error or len(scanned.rows):
            raise SystemExit(scanned.error or "a row matched")


def _stored(folder: Path) -> dict[str, int]:
    sizes = {"segments": 0, "coverage": 0, "log": 0}
    kinds = {COVERAGE_FOLDER.partition("/")[0]: "coverage", "_delta_log": "log"}
    for path in folder.rglob("*"):
        if path.is_file():
            kind = kinds.get(path.relative_to(folder).parts[0], "segments")
            sizes[kind] += path.stat().st_size
    return sizes
