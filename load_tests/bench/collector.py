"""The collector: CPU a GB beside `zstd -1`, a share of a core for idle files, memory for busy ones.

Logs go in, and a broker if there is one; out come costs, and what the collector had left undone
when it was measured, so that a figure cannot look good because the work was not done.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from collector.files import checkpoint
from load_tests.bench.broker import Kafka
from load_tests.bench.cost import Cost, Everyline, cost_so_far, end, run_everyline
from load_tests.bench.logs import Logs, pieces

IDLE_FILES = 5_000
BUSY_FILES = 500
_IDLE_WINDOWS = 3
_WINDOW_S = 10.0  # as long as from one inventory to the next
_SETTLE_S = 70.0  # the inventory that tells of all these files is sent, and they have rested
_BUSY_S = 30.0
_BUSY_PIECE_BYTES = 2_000
_BUSY_TURN_S = 0.1
_QUIET_S = 3600


@dataclass(frozen=True, slots=True)
class Collecting:
    """A collector's flags, in a folder that is new for each run."""

    folder: Path
    root: Path
    topic: str

    @classmethod
    def again(cls, folder: Path, root: Path, kafka: Kafka | None = None) -> "Collecting":
        """Return a collector of ``root`` with no checkpoint and an empty topic."""
        place = folder / f"collector-{time.monotonic_ns()}"
        return cls(place, root, kafka.new_topic() if kafka else f"{place}/topic")

    @property
    def words(self) -> list[str]:
        """Return its command's words, but for the address of its page."""
        state = f"--state={self.folder}/state"
        return ["collector", f"--roots={self.root}", f"--topic={self.topic}", state]

    def acked_bytes(self) -> int:
        """Return how many raw bytes the checkpoint says that the topic has."""
        state = checkpoint.load(self.folder / "state")
        return sum(file.acked for file in state.files) if state else 0

    def ship(self, compiled: Path, raw_bytes: int) -> Cost:
        """Ship everything and stop; no page is asked, since each answer costs CPU too."""
        running = Everyline.start(compiled, self.words)
        running.wait_until(lambda: self.acked_bytes() >= raw_bytes)
        return end(running.process)


def ship(folder: Path, logs: Logs, kafka: Kafka | None = None) -> Cost:
    """Ship the logs to a new topic."""
    return Collecting.again(folder, logs.root, kafka).ship(folder, logs.raw_bytes)


def start(folder: Path) -> Cost:
    """Start and stop a collector that finds nothing: what a process costs by itself."""
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    words = Collecting.again(folder, empty).words
    return run_everyline(folder, words, lambda status: bool(status.get("ready")))


@dataclass(frozen=True, slots=True)
class Idle:
    """``share`` of a core for files that nobody writes to."""

    share: float
    peak_bytes: int


def idle(folder: Path, logs: Logs, files: int = IDLE_FILES) -> Idle:
    """Measure a collector whose files have all been shipped, and have been quiet for an hour."""
    root = folder / "idle"
    texts = pieces(logs, 300)
    for number in range(files):
        (path := _path(root, number)).parent.mkdir(parents=True)
        path.write_bytes(next(texts))
    long_ago = time.time() - _QUIET_S
    for path in (root, *root.glob("*"), *root.glob("*/*"), *root.glob("*/*/*")):
        os.utime(path, (long_ago, long_ago))
    running = Everyline.start(folder, Collecting.again(folder, root).words)
    running.wait_until(lambda: _has_all(running.status(), files))
    time.sleep(_SETTLE_S)
    shares = []
    for _ in range(_IDLE_WINDOWS):
        before, began = cost_so_far(running.process.pid).cpu_s, time.monotonic()
        time.sleep(_WINDOW_S)
        used = cost_so_far(running.process.pid).cpu_s - before
        shares.append(used / (time.monotonic() - began))
    return Idle(statistics.median(shares), end(running.process).peak_bytes)


def _has_all(status: Mapping[str, object], files: int) -> bool:
    left = (status.get("unread_bytes"), status.get("unacked_bytes"))
    return status.get("files") == files and left == (0, 0)


def _path(root: Path, number: int) -> Path:
    return root / f"space_pod-{number}_{number:032x}" / "main" / "0.log"


@dataclass(frozen=True, slots=True)
class Busy:
    """What ``raw_bytes`` have cost that were written in ``seconds`` to many files at once.

    ``left_bytes`` were not in the topic when the writing ended.
    """

    cost: Cost
    raw_bytes: int
    seconds: float
    left_bytes: int


def busy(folder: Path, logs: Logs, kafka: Kafka | None, files: int = BUSY_FILES) -> Busy:
    """Measure a collector while every file grows ten times a second."""
    root = folder / "busy"
    texts = pieces(logs, _BUSY_PIECE_BYTES)
    with contextlib.ExitStack() as stack:
        grown = []
        for number in range(files):
            (path := _path(root, number)).parent.mkdir(parents=True)
            grown.append(stack.enter_context(path.open("ab", buffering=0)))
        collecting = Collecting.again(folder, root, kafka)
        running = Everyline.start(folder, collecting.words)
        running.wait_until(lambda: bool(running.status().get("ready")))
        began, raw_bytes = time.monotonic(), 0
        while (passed := time.monotonic() - began) < _BUSY_S:
            raw_bytes += sum(file.write(next(texts)) or 0 for file in grown)
            time.sleep(max(0.0, began + passed + _BUSY_TURN_S - time.monotonic()))
        left_bytes = raw_bytes - collecting.acked_bytes()
        running.wait_until(lambda: collecting.acked_bytes() >= raw_bytes)
    return Busy(end(running.process), raw_bytes, passed, left_bytes)
