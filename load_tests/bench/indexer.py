"""The indexer and a scan of what it has written, beside what zstd needs for the same bytes.

Logs go in by way of a local topic; out come costs and ratios, and a table for others to measure.
"""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from collector.topic.local import LocalTopic
from load_tests.bench.collector import Collecting
from load_tests.bench.cost import Cost, run_everyline, run_zstd
from load_tests.bench.logs import Logs

_ZSTD, _INDEXER, START = "`zstd -3`", "indexer", "indexer, its start alone"
_UNZSTD, _SCAN = "`zstd -d`", "scan of `message`"


class Place:
    """A topic with all lines and one with none, and the tables made of them."""

    def __init__(self, folder: Path, logs: Logs) -> None:
        """Fill the topics."""
        self._folder = folder
        self._logs = logs
        self._packed = folder / "packed"
        collecting = Collecting.again(folder, logs.root)
        collecting.ship(folder, logs.raw_bytes)
        self.full = Path(collecting.topic)
        (empty := folder / "no-pods").mkdir()
        nothing = Collecting.again(folder, empty)
        run_everyline(folder, nothing.words, lambda status: bool(status.get("ready")))
        self._empty = Path(nothing.topic)

    def warm_up(self) -> None:
        """Compile modules and kernels, if this is the first time."""
        self._index(self.full, self.bucket)

    @property
    def bucket(self) -> Path:
        """The bucket with the table of all lines."""
        return self._folder / "bucket"

    def steps(self) -> dict[str, Callable[[], Cost]]:
        """Return what is measured in turns, by name."""
        raw, packed = str(self._logs.raw), str(self._packed)
        return {
            _ZSTD: lambda: run_zstd("-3", raw, "-o", packed),
            START: lambda: self._index(self._empty, self._folder / "no-bucket"),
            _INDEXER: lambda: self._index(self.full, self.bucket),
            _UNZSTD: lambda: run_zstd("-d", packed, "-o", os.devnull),
            _SCAN: self._scan,
        }

    def _index(self, topic: Path, bucket: Path) -> Cost:
        """Commit a whole topic to a new table."""
        shutil.rmtree(bucket, ignore_errors=True)
        topic = linked(topic, self._folder / "topic")
        end = asyncio.run(LocalTopic(topic, partitions=0).bounds(0))[1]
        words = ["indexer", f"--topic={topic}", f"--bucket={bucket}"]
        return run_everyline(
            self._folder, words, lambda status: status.get("positions") == {"0": end}
        )

    def _scan(self) -> Cost:
        """Look for a phrase that no filter excludes and no row has, in a process of its own."""
        command = [sys.executable, "-m", "load_tests.bench", "--scan", str(self.bucket)]
        measured = subprocess.run(command, check=True, capture_output=True, text=True)
        return Cost(float(measured.stdout))

    def print_ratios(self, costs: Mapping[str, Cost]) -> None:
        """Print ratios of medians."""
        cpu = {name: cost.cpu_s for name, cost in costs.items()}
        steady = (cpu[_INDEXER] - cpu[START]) / cpu[_ZSTD]
        ratio = f"{cpu[_INDEXER] / cpu[_ZSTD]:.2f} ({steady:.2f} without its start)"
        print(f"- {_INDEXER} / {_ZSTD}: {ratio}; aim: 3.5")
        print(f"- speed of a {_SCAN} / {_UNZSTD}: {cpu[_UNZSTD] / cpu[_SCAN]:.2f}; aim: 0.8\n")


def linked(topic: Path, copy: Path) -> Path:
    """Return a topic of the same files: an indexer deletes those that it has committed."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(topic, copy, copy_function=os.link)
    return copy
