"""What the pipeline costs on given logs, beside what zstd needs for the same bytes.

Directories in the kubelet's layout go in; out come ratios, each of two things measured in turns in
one run: collector and `zstd -1`, indexer and `zstd -3`, a scan and `zstd -d`. Speeds of machines
differ by a factor of three and change by the minute; the ratios hardly do.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltalake import DeltaTable

from collector.topic_local import LocalTopic
from indexer.bucket import open_bucket
from indexer.table import COVERAGE_FOLDER
from query_api.scan import ScanTask, scan_segment

RUNS = 5
_DEADLINE_S = 300
_FOREVER_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds (user and system) of one process, and its peak memory in bytes (0: not known).

    The peak is what /proc says of the running process: the one that wait4 tells is at least that
    of the process that has forked it.
    """

    cpu_s: float
    peak_bytes: int


def wait_for(process: "subprocess.Popen[bytes]", peak_bytes: int = 0) -> Cost:
    """Wait for a process to end and return what it has cost; fail if it failed."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{process.args!r} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, peak_bytes)


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def run_zstd(*words: str) -> Cost:
    """Run the command zstd on one thread."""
    return wait_for(subprocess.Popen(["zstd", "--single-thread", "-q", "-f", *words]))


def run_everyline(
    words: Sequence[str], port: int, done: Callable[[dict[str, object]], bool]
) -> Cost:
    """Run one of Everyline's processes until its status page says that it is done."""
    command = [sys.executable, "-m", "query_api.cli", *words, f"--listen=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until = time.monotonic() + _DEADLINE_S
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
                if done(json.load(answer)):
                    break
        except OSError:
            continue
    peak_bytes = _peak_bytes(process.pid)
    process.terminate()
    return wait_for(process, peak_bytes)


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run of the benchmark keeps its files."""

    folder: Path
    roots: list[Path]
    raw: Path

    def collect(self) -> Cost:
        """Ship every file to a new topic."""
        for name in ("topic", "state"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        roots = os.pathsep.join(str(root) for root in self.roots)
        words = ["collector", f"--roots={roots}", f"--topic={self.folder}/topic"]
        words.append(f"--state={self.folder}/state")
        wanted = self.raw.stat().st_size

        def done(status: dict[str, object]) -> bool:
            idle = status.get("unread_bytes") == 0 and status.get("unacked_bytes") == 0
            return idle and bool(status.get("files")) and self.acknowledged() >= wanted

        return run_everyline(words, free_port(), done)

    def acknowledged(self) -> int:
        """Return how many raw bytes the checkpoint says that the topic has."""
        from collector import checkpoint

        state = checkpoint.load(self.folder / "state")
        return sum(file.acked for file in state.files) if state else 0

    def start_collector(self) -> Cost:
        """Start and stop a collector that finds nothing: what a process costs by itself."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        words = ["collector", f"--roots={empty}", f"--topic={self.folder}/no-topic"]
        words.append(f"--state={self.folder}/no-state")
        return run_everyline(words, free_port(), lambda status: bool(status.get("ready")))

    def index(self) -> Cost:
        """Commit the whole topic to a new table."""
        shutil.rmtree(self.folder / "bucket", ignore_errors=True)
        end = _end_of(self.folder / "topic")
        words = ["indexer", f"--topic={self.folder}/topic", f"--bucket={self.folder}/bucket"]
        return run_everyline(
            words, free_port(), lambda status: status.get("positions") == {"0": end}
        )

    def start_indexer(self) -> Cost:
        """Start and stop an indexer on a topic that holds one record without a line."""
        shutil.rmtree(self.folder / "no-bucket", ignore_errors=True)
        end = _end_of(self.folder / "no-topic")
        words = ["indexer", f"--topic={self.folder}/no-topic", f"--bucket={self.folder}/no-bucket"]
        return run_everyline(
            words, free_port(), lambda status: status.get("positions") == {"0": end}
        )

    def scan(self) -> Cost:
        """Look for a phrase that is nowhere in `message`, in a process of its own."""
        table = f"{self.folder}/bucket/local/logs"
        command = [sys.executable, "-m", "load_tests.bench", "--scan", table]
        measured = subprocess.run(command, check=True, capture_output=True, text=True)
        return Cost(float(measured.stdout), 0)


def _end_of(topic: Path) -> int:
    import asyncio

    return asyncio.run(LocalTopic(topic, partitions=0).bounds(0))[1]


def scan_cpu_s(table: str) -> float:
    """Return the CPU seconds of one scan of `message` over a table, without the start-up."""
    actions = DeltaTable(table).get_add_actions(flatten=True)
    names = zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True)
    tasks = [
        ScanTask(table, name, size, 0, _FOREVER_NS, (), '"no line says this"', True, None, 10)
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


def stored(place: Place) -> dict[str, int]:
    """Return the bytes of the table's objects by kind."""
    folder = place.folder / "bucket/local/logs"
    sizes = {"segments": 0, "coverage": 0, "log": 0}
    for path in folder.rglob("*"):
        if path.is_file():
            first = path.relative_to(folder).parts[0]
            kinds = {COVERAGE_FOLDER.partition("/")[0]: "coverage", "_delta_log": "log"}
            kind = kinds.get(first, "segments")
            sizes[kind] += path.stat().st_size
    return sizes


def measure(place: Place) -> None:
    """Run everything in turns and print medians and ratios."""
    raw, packed = place.raw, place.folder / "packed.zst"
    raw_bytes = raw.stat().st_size
    place.start_collector()
    place.collect()
    place.index()  # compiles the kernels, if this is the first time
    costs: dict[str, list[Cost]] = {}
    for _ in range(RUNS):
        for name, step in (
            ("zstd -1", lambda: run_zstd("-1", str(raw), "-o", str(packed))),
            ("collector", place.collect),
            ("collector, idle", place.start_collector),
            ("zstd -3", lambda: run_zstd("-3", str(raw), "-o", str(packed))),
            ("indexer", place.index),
            ("indexer, idle", place.start_indexer),
            ("zstd -d", lambda: run_zstd("-d", str(packed), "-o", os.devnull)),
            ("scan", place.scan),
        ):
            costs.setdefault(name, []).append(step())
    print(f"{raw_bytes / 1e6:.1f} MB in {len(list(_files(place.roots)))} files; medians of {RUNS}")
    print(f"{'':18}{'CPU s':>8}{'CPU s/GB':>10}{'MB/s':>8}{'peak MB':>9}")
    cpu = {name: statistics.median(cost.cpu_s for cost in each) for name, each in costs.items()}
    for name, seconds in cpu.items():
        peak = statistics.median(cost.peak_bytes for cost in costs[name]) / 1e6
        speed = raw_bytes / 1e6 / seconds
        shown = f"{peak:9.0f}" if peak else ""
        print(f"{name:18}{seconds:8.3f}{seconds / raw_bytes * 1e9:10.2f}{speed:8.0f}{shown}")
    print()
    for ours, theirs in (("collector", "zstd -1"), ("indexer", "zstd -3")):
        steady = cpu[ours] - cpu[f"{ours}, idle"]
        print(f"{ours} / {theirs}: {cpu[ours] / cpu[theirs]:.2f}"
              f" ({steady / cpu[theirs]:.2f} without its start)")  # fmt: skip
    print(f"speed of a scan / zstd -d: {cpu['zstd -d'] / cpu['scan']:.2f}")
    sizes = stored(place)
    shares = ", ".join(f"{kind} {size / raw_bytes:.2%}" for kind, size in sizes.items())
    print(f"stored / raw: {sum(sizes.values()) / raw_bytes:.2%} ({shares})")


def _files(roots: Sequence[Path]) -> list[Path]:
    return [path for root in roots for path in sorted(root.glob("*/*/*.log*"))]


def main() -> int:
    """Measure; or, with --scan, print the CPU seconds of one scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", action="append", help="[NODE=]DIR in the kubelet's layout")
    parser.add_argument("--scan", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scan:
        print(scan_cpu_s(args.scan))
        return 0
    if shutil.which("zstd") is None:
        raise SystemExit("bench: the command zstd is missing; apt-get install zstd")
    roots = [Path(logs.rpartition("=")[2]).resolve() for logs in args.logs or ()]
    files = _files(roots)
    if not files:
        raise SystemExit("bench: no NAMESPACE_POD_UID/CONTAINER/N.log below --logs")
    with tempfile.TemporaryDirectory(prefix="everyline-bench-") as folder:
        raw = Path(folder) / "raw"
        with raw.open("wb") as joined:
            for path in files:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, joined)
        measure(Place(Path(folder), roots, raw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
