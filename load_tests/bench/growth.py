"""What a commit and a plan cost once a table has many segments.

A number of segments goes in; out come seconds of a commit and of a plan on a table whose Delta log
names so many. The objects themselves are not there: neither looks at them.
"""

import json
import random
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from indexer.object_names import segment_folder
from indexer.query.scope import Scope
from indexer.store.local import LocalBucket
from indexer.table.table import Added, Table
from query_api.scan.plan import Segments

SEGMENTS = (100, 10_000, 50_000)
_ADDS_A_COMMIT = 1_000
_RUNS = 7
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_HOURS = 720
_POD = "checkout-6d5f4c7b9-x2x4z"


@dataclass(frozen=True, slots=True)
class Grown:
    """Seconds at a number of segments, medians; ``planned`` segments are left of an hour."""

    segments: int
    first_commit_s: float  # of a process that has just started
    commit_s: float
    open_s: float  # of the snapshot that a query service holds
    plan_s: float
    planned: int


def _added(number: int, draw: random.Random) -> Added:
    begin = _BEGIN + timedelta(hours=number % _HOURS)
    low = begin + timedelta(seconds=draw.random() * 3000)
    high = low + timedelta(seconds=draw.random() * 590)
    space = f"space-{number % 40:02d}"
    bounds = [
        {
            "time": f"{time_:%Y-%m-%dT%H:%M:%S.%f}Z",
            "namespace": space,
            "pod": f"{_POD}-{number % 997}",
            "container": "main",
            "pod_uid": str(uuid.UUID(int=number)),
            "node": f"node-{number % 1000}",
            "output": output,
            "level": level,
        }
        for time_, output, level in ((low, "stderr", "debug"), (high, "stdout", "warn"))
    ]
    stats = {
        "numRecords": 50_000,
        "minValues": bounds[0],
        "maxValues": bounds[1],
        "nullCount": dict.fromkeys(bounds[0], 0),
    }
    date = begin.date().isoformat()
    name = f"{segment_folder(date, begin.hour)}{number:032x}-{draw.getrandbits(32):08x}.parquet"
    return Added(name, 1 << 20, json.dumps(stats), date, begin.hour)


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def grow(folder: Path, count: int) -> Grown:
    """Make a table of ``count`` segments and measure it."""
    bucket = LocalBucket(folder / f"grown-{count}")
    draw = random.Random(count)
    table = Table(bucket, "local")
    table.make()
    for start in range(0, count, _ADDS_A_COMMIT):
        numbers = range(start, min(start + _ADDS_A_COMMIT, count))
        table.commit([_added(number, draw) for number in numbers], {}, {})
    # Another process comes to it.
    table = Table(bucket, "local")
    position: int | None = None

    def commit() -> None:
        nonlocal position
        reached = 0 if position is None else position + 1
        added = [_added(count, draw)]
        table.commit(added, {"logs/0/0": position}, {"logs/0/0": reached})
        position = reached

    first_commit_s = _seconds(commit)
    commit_s = statistics.median(_seconds(commit) for _ in range(_RUNS))
    began = time.perf_counter()
    segments = Segments(pa.table(table.snapshot().get_add_actions(flatten=True)))
    open_s = time.perf_counter() - began
    from_ns = int((_BEGIN + timedelta(hours=_HOURS // 2)).timestamp()) * 10**9
    scope = Scope(from_ns, from_ns + 3_600 * 10**9, {"namespace": ("space-00", "space-08")})
    plan_s = statistics.median(_seconds(lambda: segments.plan(scope)) for _ in range(_RUNS))
    return Grown(count, first_commit_s, commit_s, open_s, plan_s, len(segments.plan(scope)))


def print_grown(found: list[Grown]) -> None:
    """Print a Markdown table."""
    print(
        "| segments | first commit ms | commit ms | open a snapshot ms | plan an hour ms | left |"
    )
    print("|---|---|---|---|---|---|")
    for each in found:
        times = (each.first_commit_s, each.commit_s, each.open_s, each.plan_s)
        shown = " | ".join(f"{seconds * 1000:.1f}" for seconds in times)
        print(f"| {each.segments} | {shown} | {each.planned} |")
    print()
