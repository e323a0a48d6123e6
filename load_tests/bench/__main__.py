"""The command ``python -m load_tests.bench``: which parts to measure, and the report.

Folders in the kubelet's layout go in; a report in Markdown comes out, ready to be kept.
"""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import load_tests.bench
from load_tests.bench import collector, indexer, rsyslog
from load_tests.bench.broker import Kafka, open_kafka
from load_tests.bench.cost import Cost, median, print_costs, run_zstd
from load_tests.bench.logs import Logs, copy_logs, log_files

PARTS = ("ship", "idle", "busy", "index")
SHIP_BYTES = 1_000_000_000  # so much that the start of a process hardly counts
_RUNS = 3


def in_turns(steps: Mapping[str, Callable[[], Cost]]) -> dict[str, Cost]:
    """Run each step a few times, in turns; return the medians."""
    costs: dict[str, list[Cost]] = {name: [] for name in steps}
    for _ in range(_RUNS):
        for name, step in steps.items():
            costs[name].append(step())
    return {name: median(each) for name, each in costs.items()}


def ship(folder: Path, logs: Logs, kafka: Kafka | None) -> None:
    """Measure the collector beside zstd and, where there is a broker, beside rsyslog."""
    zstd, local, start = "`zstd -1`", "collector, local topic", "collector, its start alone"
    to_kafka, other = "collector, Kafka", "rsyslog, imfile to omkafka"
    steps: dict[str, Callable[[], Cost]] = {
        zstd: lambda: run_zstd("-1", str(logs.raw), "-o", str(folder / "packed")),
        local: lambda: collector.ship(folder, logs),
        start: lambda: collector.start(folder),
    }
    if kafka is not None:
        steps[to_kafka] = lambda: collector.ship(folder, logs, kafka)
        if not (install := rsyslog.missing()):
            steps[other] = lambda: rsyslog.ship(folder, logs, kafka)
        else:
            print(f"Left out rsyslog, which is not installed: {install}\n")
    collector.start(folder)  # compiles its modules
    costs = in_turns(steps)
    print_costs(costs, logs.raw_bytes, {start})
    cpu = {name: cost.cpu_s for name, cost in costs.items()}
    for name in (local, to_kafka):
        if name in cpu:
            steady = (cpu[name] - cpu[start]) / cpu[zstd]
            ratio = f"{cpu[name] / cpu[zstd]:.2f} ({steady:.2f} without its start)"
            print(f"- {name} / {zstd}: {ratio}; aim: 1.5")
    if other in cpu:
        steady = (cpu[to_kafka] - cpu[start]) / cpu[other]
        ratio = f"{cpu[to_kafka] / cpu[other]:.3f} ({steady:.3f} without its start)"
        print(f"- {to_kafka} / {other}: {ratio}; aim: 0.1")
    print()


def idle(folder: Path, logs: Logs, kafka: Kafka | None) -> None:
    """Measure the collector with thousands of files that nobody writes to."""
    found = collector.idle(folder, logs)
    print(f"- {collector.IDLE_FILES} idle files: {found.share:.1%} of a core; aim: below 2 %;"
          f" peak memory {found.peak_bytes / 1e6:.0f} MB\n")  # fmt: skip


def busy(folder: Path, logs: Logs, kafka: Kafka | None) -> None:
    """Measure the collector with hundreds of files that grow all the time."""
    found = collector.busy(folder, logs, kafka)
    speed = found.raw_bytes / 1e6 / found.seconds
    share = found.cost.cpu_s / found.seconds
    print(f"- {collector.BUSY_FILES} files growing by {speed:.1f} MB/s in all,"
          f" {'Kafka' if kafka else 'local topic'}: peak memory {found.cost.peak_bytes / 1e6:.0f}"
          f" MB; aim: below 100 MB; {share:.0%} of a core,"
          f" {found.left_bytes / 1e6 / speed:.1f} s behind at the end\n")  # fmt: skip


def index(folder: Path, logs: Logs, kafka: Kafka | None) -> None:
    """Measure the indexer and a scan beside zstd."""
    place = indexer.Place(folder, logs)
    place.warm_up()
    costs = in_turns(place.steps())
    print_costs(costs, logs.raw_bytes, {indexer.START})
    place.print_ratios(costs)


def main() -> int:
    """Measure what was asked for; or, with --scan, print the CPU seconds of one scan."""
    parser = argparse.ArgumentParser(description=(load_tests.bench.__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", action="append", help="[NODE=]DIR in the kubelet's layout")
    parser.add_argument("--only", action="append", choices=PARTS, help="what to measure")
    parser.add_argument("--kafka", default="", help="HOST:PORT of a broker; else one is started")
    parser.add_argument("--scan", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scan:
        print(indexer.scan_cpu_s(args.scan))
        return 0
    if shutil.which("zstd") is None:
        raise SystemExit("bench: the command zstd is missing; apt-get install zstd")
    roots = [Path(logs.rpartition("=")[2]).resolve() for logs in args.logs or ()]
    if not log_files(roots):
        raise SystemExit("bench: no NAMESPACE_POD_UID/CONTAINER/N.log below --logs")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    wanted = args.only or PARTS
    measures = {"ship": ship, "idle": idle, "busy": busy, "index": index}
    with contextlib.ExitStack() as stack:
        needs_kafka = "ship" in wanted or "busy" in wanted
        kafka = stack.enter_context(open_kafka(args.kafka)) if needs_kafka else None
        for part in wanted:
            with tempfile.TemporaryDirectory(prefix="everyline-bench-") as name:
                folder = Path(name)
                logs = copy_logs(roots, folder / "logs", SHIP_BYTES if part == "ship" else 0)
                print(f"## {part}: {logs.raw_bytes / 1e6:.0f} MB, {logs.lines} lines,"
                      f" {logs.files} files\n", flush=True)  # fmt: skip
                measures[part](folder, logs, kafka)
    return 0


if __name__ == "__main__":
    sys.exit(main())
