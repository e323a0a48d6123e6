"""The command ``python -m load_tests.bench``: which parts to measure, and the report.

Folders in the kubelet's layout go in, and folders of other text; a report in Markdown comes out,
ready to be kept.
"""

import argparse
import contextlib
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import load_tests.bench
from indexer.allocator import keep_pages
from indexer.object_names import logs_folder
from load_tests.bench import (
    clickhouse,
    collector,
    come_and_go,
    fleet,
    growth,
    indexer,
    rsyslog,
    table,
)
from load_tests.bench.broker import Kafka, open_kafka
from load_tests.bench.cost import Cost, median, print_costs, run_zstd
from load_tests.bench.logs import Logs, copy_logs, log_files, wrap_text
from load_tests.bench.profile import print_profile, profile

# Beside each part how many bytes it needs at least: so many that a process' start hardly counts,
# or each line once, since copies would change what is stored.
PARTS = {
    "ship": 1_000_000_000,
    "idle": 0,
    "busy": 0,
    "index": 1_000_000_000,
    "profile": 0,
    "stored": 0,
    "growth": 0,
}
_RUNS = 5


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


def profiled(folder: Path, logs: Logs, kafka: Kafka | None) -> None:
    """Measure each step of the indexer."""
    place = indexer.Place(folder, logs)
    keep_pages()  # as an indexer does when it starts
    found = profile(place.full, folder)
    print_profile(found, logs.raw_bytes)
    zstd = run_zstd("-3", str(logs.raw), "-o", str(folder / "packed"))
    print(f"- `zstd -3`: {zstd.cpu_s * 1e9 / logs.raw_bytes:.3f} ms/MB\n")


def stored(folder: Path, logs: Logs, kafka: Kafka | None) -> None:
    """Measure what is stored, fresh and compacted, what compacting costs, and ClickHouse."""
    place = indexer.Place(folder, logs)
    place.warm_up()
    fresh, raw_mb = table.stored(place.bucket), logs.raw_bytes / 1e6
    before, copy = table.segments(place.bucket), folder / "compacted"
    costs, passed = [], []
    for _ in range(_RUNS + 1):  # the first loads kernels
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(place.bucket, copy)
        cost, wall_s = table.compact_all(copy)
        costs.append(cost)
        passed.append(wall_s)
    table.print_stored({"fresh": fresh, "compacted": table.stored(copy)}, logs.raw_bytes)
    for kind, bucket in (("fresh", place.bucket), ("compacted", copy)):
        print(f"- false positives of the filter, {kind}: {table.false_positives(bucket):.2%};"
              " aim: 1 %")  # fmt: skip
    cpu_s, wall_s = median(costs[1:]).cpu_s, statistics.median(passed[1:])
    if (after := table.segments(copy)) < before:
        print(f"- compaction of {before} segments to {after}: {raw_mb / cpu_s:.0f} MB raw a CPU"
              f" second, {raw_mb / wall_s:.0f} MB/s on the clock")  # fmt: skip
    else:
        print("- there is nothing to compact")
    if install := clickhouse.missing():
        print(f"- left out ClickHouse, which is not installed: {install}\n")
        return
    for kind, indexed in (("plain", False), ("with a `text` index", True)):
        done = clickhouse.insert(folder, place.bucket / logs_folder("local"), indexed=indexed)
        cpu_s = done.insert_s + done.merge_s
        print(f"- ClickHouse, {kind}: {raw_mb / cpu_s:.0f} MB raw a CPU second"
              f" (CPU s: insert {done.insert_s:.2f}, of it reading our rows {done.read_s:.2f},"
              f" merge {done.merge_s:.2f}), stored / raw"
              f" {done.stored_bytes / logs.raw_bytes:.2%},"
              f" {done.rows} rows")  # fmt: skip
    print()


def grown(folder: Path, logs: Logs, kafka: Kafka | None) -> None:
    """Measure commits and plans on tables of many segments."""
    growth.print_grown([growth.grow(folder, count) for count in growth.SEGMENTS])
    fleet.print_measured([fleet.measure(folder, files) for files in fleet.FILES])
    come_and_go.print_simulated(list(come_and_go.simulate()))


_MEASURES = {
    "ship": ship, "idle": idle, "busy": busy, "index": index, "profile": profiled,
    "stored": stored, "growth": grown,
}  # fmt: skip
_OF_EACH_TEXT = ("index", "profile", "stored")


def _given(
    stack: contextlib.ExitStack, logs: Sequence[str], texts: Sequence[str]
) -> dict[str, list[Path]]:
    """Return the roots in the kubelet's layout, by the name of the text."""
    found = {"logs": [Path(each.rpartition("=")[2]).resolve() for each in logs]}
    for text in texts:
        name, _, folder = text.partition("=")
        if not folder or not name.isalnum():
            raise SystemExit(f"bench: --text {text}: expected NAME=DIR")
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="everyline-bench-"))
        wrap_text(name, Path(folder), Path(root))
        found[name] = [Path(root)]
    for name, roots in found.items():
        if not log_files(roots) and (name != "logs" or logs):
            raise SystemExit(f"bench: no NAMESPACE_POD_UID/CONTAINER/N.log of {name}")
    return {name: roots for name, roots in found.items() if log_files(roots)}


def main() -> int:
    """Measure what was asked for; or, with --scan, print the CPU seconds of one scan."""
    parser = argparse.ArgumentParser(description=(load_tests.bench.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--logs", action="append", default=[], help="[NODE=]DIR in the kubelet's layout"
    )
    parser.add_argument("--text", action="append", default=[], help="NAME=DIR of other text files")
    parser.add_argument("--only", action="append", choices=PARTS, help="what to measure")
    parser.add_argument("--kafka", default="", help="HOST:PORT of a broker; else one is started")
    parser.add_argument("--scan", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.scan:
        print(table.scan_cpu_s(args.scan))
        return 0
    if shutil.which("zstd") is None:
        raise SystemExit("bench: the command zstd is missing; apt-get install zstd")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    wanted = args.only or list(PARTS)
    with contextlib.ExitStack() as stack:
        given = _given(stack, args.logs, args.text)
        if not given:
            raise SystemExit("bench: name the logs to measure with, --logs DIR or --text NAME=DIR")
        needs_kafka = "ship" in wanted or "busy" in wanted
        kafka = stack.enter_context(open_kafka(args.kafka)) if needs_kafka else None
        for part in wanted:
            names = list(given) if part in _OF_EACH_TEXT else list(given)[:1]
            for name in names:
                _measure(part, name, given[name], kafka)
    return 0


def _measure(part: str, name: str, roots: Sequence[Path], kafka: Kafka | None) -> None:
    with tempfile.TemporaryDirectory(prefix="everyline-bench-") as place:
        folder = Path(place)
        logs = copy_logs(roots, folder / "logs", PARTS[part])
        print(f"## {part}, {name}: {logs.raw_bytes / 1e6:.0f} MB, {logs.lines} lines,"
              f" {logs.files} files\n", flush=True)  # fmt: skip
        _MEASURES[part](folder, logs, kafka)


if __name__ == "__main__":
    sys.exit(main())
