"""The proof on a real node: what containers write arrives once, or a gap says where it is missing.

A real kubelet rotates, compresses and deletes the files of pods that write numbered lines, faster
than it can keep them; a real collector and a real indexer are stopped and killed meanwhile. Each
line's number is then looked for in the table.
"""

import asyncio
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from collector.topic.open import open_topic
from indexer.ledger.entries import LOST_ROTATED
from indexer.table.table import Table
from query_api.completeness.gaps import Gap
from tests.real_parts.guard import ROOT
from tests.real_parts.kubernetes_node import NODE, KubernetesNode
from tests.way import CLUSTER, Way, a_way, eventually

pytestmark = [pytest.mark.node, pytest.mark.real]

PADDING = 32
RATES = {"web": 10_000, "cart": 20_000, "pay": 30_000}
# The times of a collector as it is delivered: they are what a real node has to cope with.
COLLECTOR: dict[str, Any] = {
    "scan_interval_ms": 1_000,
    "flush_age_ms": 1_000,
    "seal_quiet_ms": 20_000,
}
# Two outputs of one container may swap their lines by this much.
SLACK_NS = 1_000_000_000

_LINE = re.compile(f"([a-z]+[.][0-9a-z]+) ([0-9]+) {'x' * PADDING}")
_TABLE = """
CREATE TEMP TABLE lines AS SELECT
    split_part(message, ' ', 1) AS writer, output::text AS output, message, partial,
    try_cast(split_part(message, ' ', 2) AS bigint) AS n,
    epoch_us(time) * 1000 + time_ns AS ns, pod_uid::text AS pod_uid, restart, file_id, "offset",
    regexp_full_match(message, ?) AS whole
FROM segments
"""
# Where the next number is not the one after: [first, last) is missing, or comes twice.
_STEPS = """
SELECT writer, output, before + 1, n, before_ns, ns, before_file FROM (
    SELECT *, lag(n, 1, -1) OVER w AS before, lag(ns) OVER w AS before_ns,
        lag(file_id) OVER w AS before_file
    FROM lines WHERE whole WINDOW w AS (PARTITION BY writer, output ORDER BY n)
) WHERE n <> before + 1
"""
_ENDS = """
SELECT writer, output, max(n), arg_max(ns, n), arg_max(file_id, n)
FROM lines WHERE whole GROUP BY writer, output
"""


@dataclass(frozen=True)
class Hole:
    """Numbers ``[first, end)`` of one output of a container that the table does not have.

    They were written between ``from_ns`` and ``to_ns``; the line before them is in ``file_id``.
    """

    writer: str
    output: str
    first: int
    end: int
    from_ns: int
    to_ns: int
    file_id: bytes | None


@pytest.fixture
def node() -> Iterator[KubernetesNode]:
    """A node that keeps three files of a container for some ten seconds in all."""
    running = KubernetesNode.start()
    yield running
    running.close()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    """A pipeline on local directories."""
    with a_way(tmp_path, str(tmp_path / "topic"), str(tmp_path / "bucket")) as way:
        yield way


def test_collectors_killed_on_a_real_node_lose_and_double_nothing_in_silence(
    node: KubernetesNode, way: Way
) -> None:
    """Ten times at random moments, while pods end, crash and are put in each other's place."""
    chance = random.Random(30)
    for name, rate in RATES.items():
        node.run_pod(name, rate, padding=PADDING)
    node.run_pod("flaky", 2_000, padding=PADDING, lines=15_000, code=1)
    way.collector(roots=node.logs, **COLLECTOR)
    way.indexer()
    events = {
        2: lambda: node.delete_pod("cart"),
        4: lambda: node.run_pod("cart", RATES["cart"], padding=PADDING),
        6: lambda: node.run_pod("web", RATES["web"], padding=PADDING),  # in its place
        8: lambda: node.delete_pod("flaky"),
    }
    for number in range(10):
        time.sleep(chance.uniform(2, 9))
        way.kill("collector")
        events.get(number, lambda: None)()
        way.collector(roots=node.logs, **COLLECTOR)
    finish(node, way)
    assert len(node.written()) >= 7  # three pods, three starts of one that crashes, and two more
    missing, twice = numbers(node, way)
    assert twice == []
    assert [hole for hole in missing if not is_told(hole, way.gaps(), streams(way))] == []


def test_what_a_kubelet_deletes_while_no_collector_runs_is_a_gap_of_each_pod(
    node: KubernetesNode, way: Way
) -> None:
    for name, rate in RATES.items():
        node.run_pod(name, rate, padding=PADDING)
    way.collector(roots=node.logs, **COLLECTOR)
    way.indexer()
    eventually(lambda: len(node.written()) == len(RATES))
    time.sleep(12)
    assert way.stop("collector") == 0
    time.sleep(60)
    way.collector(roots=node.logs, **COLLECTOR)
    time.sleep(12)
    finish(node, way)
    missing, twice = numbers(node, way)
    assert twice == []
    # One hole of each output of each pod, and one gap of each pod.
    outputs = [(writer, output) for writer in node.written() for output in ("stderr", "stdout")]
    assert sorted((hole.writer, hole.output) for hole in missing) == sorted(outputs)
    gaps = way.gaps()
    assert sorted(gap.file.pod for gap in gaps if gap.file) == sorted(f"{n}-{NODE}" for n in RATES)
    assert {gap.type for gap in gaps} == {LOST_ROTATED}
    assert all(is_told(hole, gaps, streams(way)) for hole in missing)
    # The first byte of a gap is the first one after the last line that is there.
    assert {hole.file_id for hole in missing} == {gap.file.file_id for gap in gaps if gap.file}
    for gap in gaps:
        assert gap.file is not None
        assert gap.start == gap.file.covered_end
        assert not gap.end_exact  # nobody has seen how long the file became
        assert way.verdict(gap.file.pod) == "incomplete"


def test_a_run_that_is_killed_leaves_nothing_of_its_node(tmp_path: Path) -> None:
    code = (
        "import time\n"
        "from tests.real_parts.kubernetes_node import KubernetesNode\n"
        "node = KubernetesNode.start()\n"
        "node.run_pod('web', 100)\n"
        "while not node.written(): time.sleep(0.1)\n"
        "print(node.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    mounts = Path("/proc/mounts").read_text()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout is not None
        folder = run.stdout.readline().decode().strip()
        assert Path(folder).exists()
        assert left_of(folder)
        run.send_signal(signal.SIGKILL)
        run.wait()
    eventually(lambda: not left_of(folder), timeout_s=30)
    assert Path("/proc/mounts").read_text() == mounts


def left_of(folder: str) -> list[str]:
    """Return what is there of a node: its folder, its cgroups, processes that name it."""
    left = []
    try:
        left += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{Path(folder).name}")]
    except FileNotFoundError:  # they are being removed just now
        left.append("cgroups")
    left += [folder] if Path(folder).exists() else []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if folder in words or words.startswith("/write_lines"):
            left.append(words)
    return left


# -- the end of a run, and what has come of it -----------------------------------------------------


def finish(node: KubernetesNode, way: Way) -> None:
    """End all pods, and wait until all that they have written and that is there is in the table."""
    for name in node.pods():
        node.delete_pod(name)
    eventually(lambda: is_quiet(node))
    idle = ('"unread_bytes": 0', '"unacked_bytes": 0', '"ready": true')
    eventually(lambda: all(word in way.status("collector") for word in idle))
    assert way.stop("collector") == 0
    topic = open_topic(way.topic)
    _, end = asyncio.run(topic.bounds(0))
    asyncio.run(topic.close())
    eventually(lambda: way.ledger().positions[0].end == end, timeout_s=120)


def is_quiet(node: KubernetesNode) -> bool:
    """Return whether nobody has written for a while."""
    before = node.written()
    time.sleep(3)
    return node.written() == before


def numbers(node: KubernetesNode, way: Way) -> tuple[list[Hole], list[tuple[Any, ...]]]:
    """Return the numbers that are missing in the table, and those that are there twice."""
    containers = node.written()
    table = Table(way.opened(), CLUSTER)
    segments = DeltaTable(table.uri, storage_options=table.bucket.storage_options)
    with duckdb.connect() as sql:
        sql.register("segments", segments.to_pyarrow_dataset())
        sql.execute(_TABLE, [_LINE.pattern])
        join_fragments(sql, list(containers))
        steps = sql.execute(_STEPS).fetchall()
        ends = {row[:2]: row[2:] for row in sql.execute(_ENDS).fetchall()}
    twice = [step for step in steps if step[2] > step[3]]
    missing = [
        Hole(writer, output, first, end, from_ns or started_ns(writer), to_ns, file_id)
        for writer, output, first, end, from_ns, to_ns, file_id in steps
        if first < end
    ]
    for writer, written in containers.items():
        for output in ("stdout", "stderr"):
            count = getattr(written, output)
            last, from_ns, file_id = ends.pop((writer, output), (-1, started_ns(writer), None))
            assert last < count, f"{writer} has not written {last} to {output}"
            if last + 1 < count:
                hole = Hole(writer, output, last + 1, count, from_ns, written.last_ns, file_id)
                missing.append(hole)
    assert not ends, f"nobody has written {ends}"
    return missing, twice


def started_ns(writer: str) -> int:
    """Return when a container was started, which is in its name."""
    return int(writer.rpartition(".")[2], 36)


def join_fragments(sql: duckdb.DuckDBPyConnection, known: list[str]) -> None:
    """Put lines together that the runtime has cut: the head ends a file, the rest begins the next.

    Each rotation may cut one of each output, and either half may be stamped first. A half whose
    other half is missing stays out.
    """
    sql.execute("UPDATE lines SET whole = false WHERE NOT list_contains(?, writer)", [known])
    parts = "SELECT pod_uid, restart, output, message, ns, file_id FROM lines WHERE NOT whole AND "
    heads = sql.execute(parts + "partial").fetchall()
    rests = sql.execute(parts + "NOT partial").fetchall()
    for *stream, head, ns, file_id in heads:
        for *other, rest, rest_ns, _ in rests:
            line = _LINE.fullmatch(head + rest)
            near = abs(rest_ns - ns) < 10**9  # the next rotation is seconds away
            if line is not None and near and stream == other and line[1] in known:
                sql.execute(
                    "INSERT INTO lines (writer, output, n, ns, file_id, whole) "
                    "VALUES (?, ?, ?, ?, ?, true)",
                    [line[1], stream[2], int(line[2]), ns, file_id],
                )


def streams(way: Way) -> dict[str, tuple[str, int]]:
    """Return pod uid and restart of each container that has a line in the table."""
    table = Table(way.opened(), CLUSTER)
    segments = DeltaTable(table.uri, storage_options=table.bucket.storage_options)
    with duckdb.connect() as sql:
        sql.register("segments", segments.to_pyarrow_dataset())
        rows = sql.execute(
            "SELECT DISTINCT split_part(message, ' ', 1), pod_uid::text, restart FROM segments"
        ).fetchall()
    return {writer: (uid, restart) for writer, uid, restart in rows}


def is_told(hole: Hole, gaps: list[Gap], streams: dict[str, tuple[str, int]]) -> bool:
    """Return whether gaps of its stream cover all the time in which a hole was written."""
    at = hole.from_ns + SLACK_NS
    for gap in sorted(gaps, key=lambda gap: gap.from_ns or 0):
        file = gap.file
        if file is None or (file.pod_uid, file.restart) != streams.get(hole.writer):
            continue
        if (gap.from_ns or 0) <= at:
            at = max(at, gap.to_ns or sys.maxsize)
    return at >= hole.to_ns
