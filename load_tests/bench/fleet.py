"""What the ledger of a fleet costs: to fold, to follow, to ask, to start with, to hold.

A number of files that were settled goes in; 4,000 nodes, 20,000 live streams and a month's gaps are
the same for each. Out come seconds and bytes of a keeper and a replica that go on from there.
Nothing is shipped: coverage is made as indexers would commit it.
"""

import gc
import itertools
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from collector.process import look_for_cycles_rarely
from collector.wire.batch import Inventory, Replaces, Seen
from collector.wire.range import Stream
from indexer.ledger.entries import LOST_ROTATED, Covered, FileEntry, LaneEntry, Lost, NodeEntry
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.ledger.totals import StreamEntry
from indexer.object_names import COVERAGE_FOLDER, new_name
from indexer.query.scope import Scope
from indexer.store.open import open_bucket
from indexer.table.coverage import (
    Balance,
    Coverage,
    FileCover,
    LaneSpan,
    Note,
    Span,
    note_body,
    to_object,
)
from indexer.table.table import NO_ROWS, Added, Table
from query_api.completeness.replica import Replica
from query_api.completeness.verdict import Trouble, judge

FILES = (100_000, 1_000_000, 8_000_000)
NODES, STREAMS_A_NODE, PARTITIONS, SPREAD, INDEXERS = 4_000, 5, 64, 4, 16
ON_DISK = 4  # settled files of a stream that its inventories still list
GAPS = 1_000
ROLLOUT = 1_000
_CLUSTER = "fleet"
_SECOND = 1_000_000_000
_NOW_NS = 1_790_000_000 * _SECOND
_SIZE = 10_000_000
_STORED_AT_ONCE = 250_000
_RUNS = 7


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians, in seconds and bytes."""

    files: int
    keeper_start_s: float
    replica_start_s: float
    fold_s: float
    refresh_s: float
    everything_s: float
    namespace_s: float
    pod_s: float
    rollout_s: float
    replica_bytes: int
    keeper_bytes: int
    verdict: str


def _node(number: int) -> str:
    return f"ip-10-{number // 256:03d}-{number % 256:03d}.eu-central-1.compute.internal"


def _stream(node: int, number: int) -> Stream:
    pod = f"checkout-{(node * STREAMS_A_NODE + number) % 400:03d}-7d9f8b6c5d-{node:04x}{number}"
    uid = f"{node:08x}-0000-4000-8000-{number:012x}"
    return Stream(f"team-{(node + number) % 120:03d}", pod, uid, "main", 0)


def _partition(node: int, number: int) -> int:
    return (node * 7 + number % SPREAD * 17) % PARTITIONS


def _run(node: int, generation: int = 0) -> bytes:
    return node.to_bytes(8, "big") + generation.to_bytes(8, "big")


def _file_id(node: int, number: int, order: int) -> bytes:
    # As good as random, as ids are.
    value = (((node << 8 | number) << 32) + order) * 0x9E3779B97F4A7C15F39CC0605CEDC835
    return (value % (1 << 128)).to_bytes(16, "big")


def _entry(node: int, number: int, order: int, settled_ns: int) -> FileEntry:
    covered = Covered(0, _SIZE, settled_ns - 10 * _SECOND, settled_ns, [-1, -1, -1, 0, 0])
    return FileEntry(
        file_id=_file_id(node, number, order),
        epoch=0,
        partition=_partition(node, number),
        node=_node(node),
        **_stream(node, number).fields(),
        covered=[covered],
        end_crcs=b"\0" * 12 * 16,
        size=_SIZE,
        sealed=True,
        settled_ns=settled_ns,
        lines=60_000,
        rows=60_000,
    )


def _places() -> Iterator[tuple[int, int]]:
    return itertools.product(range(NODES), range(STREAMS_A_NODE))


def write(folder: Path, files: int) -> None:
    """Store the ledger of the fleet after so many settled files, the last ones a minute ago."""
    bucket = open_bucket(str(folder))
    Table(bucket, _CLUSTER).make()
    table = LedgerTable(bucket, _CLUSTER)
    ledger = Ledger(version=0, settles=True)
    each = files // (NODES * STREAMS_A_NODE)
    draw = random.Random(files)
    for node, number in _places():
        place, stream = (_node(node), _partition(node, number)), _stream(node, number)
        file = _entry(node, number, each, 0)
        file.sealed, file.settled_ns = False, 0
        file.covered[0].first_ns, file.covered[0].last_ns = _NOW_NS - _SECOND, _NOW_NS
        ledger.files[file.file_id, 0] = file
        totals = [_NOW_NS - 30 * 86_400 * _SECOND, _NOW_NS, 1, _SIZE, each + 1, 1]
        ledger.totals.take(StreamEntry(place[0], **stream.fields(), numbers=totals))
        if place not in ledger.nodes:
            ledger.nodes[place] = NodeEntry(
                node=place[0],
                partition=place[1],
                run=_run(node),
                partitions=sorted({_partition(node, n) for n in range(STREAMS_A_NODE)}),
                full_run=_run(node),
                complete_until_ns=_NOW_NS - draw.randrange(10 * _SECOND),
                scan_began_ns=_NOW_NS,
            )
            ledger.lanes[_run(node), place[1]] = LaneEntry(
                run=_run(node), partition=place[1], node=place[0], last_ns=_NOW_NS
            )
    for number in range(GAPS):
        file = _entry(number, 0, each + 1, 0)
        at_ns = _NOW_NS - draw.randrange(30 * 86_400) * _SECOND
        file.lost.append(
            Lost(LOST_ROTATED, _SIZE, _SIZE + 100, True, at_ns, at_ns + 1, "x", "y", at_ns)
        )
        ledger.files[file.file_id, 0] = file
    ledger.swept_hour = _NOW_NS // _SECOND // 3600
    if not table.save(ledger, -1, set(ledger.files)):
        raise AssertionError("somebody else writes here")
    keys = ((node, number, order) for order in range(each) for node, number in _places())
    span_s = 86_000  # so that all are of the last day
    for start in itertools.count(0, _STORED_AT_ONCE):
        part = list(itertools.islice(keys, _STORED_AT_ONCE))
        if not part:
            break
        settled_ns = _NOW_NS - 60 * _SECOND - int(span_s * (1 - start / files)) * _SECOND
        for key in part:
            file = _entry(*key, settled_ns)
            ledger.leaving[file.file_id, 0] = file
        ledger.version += 1
        table.save(ledger, ledger.version - 1, set(ledger.leaving))


def _commit(
    turn: int, sequences: dict[tuple[int, int], int], sizes: dict[bytes, int], each: int
) -> Coverage:
    """Return what one of the indexers commits: eight seconds of its part of the fleet."""
    covers: list[FileCover] = []
    notes: list[Note] = []
    lanes: list[LaneSpan] = []
    mine = range(turn % INDEXERS, PARTITIONS, INDEXERS)
    now_ns = _NOW_NS + turn * _SECOND
    by_lane: dict[tuple[int, int], list[int]] = {}
    for node, number in _places():
        if _partition(node, number) in mine:
            by_lane.setdefault((node, _partition(node, number)), []).append(number)
    for (node, partition), numbers in by_lane.items():
        sequence = sequences.get((node, partition), 0)
        sequences[node, partition] = sequence + 1
        seen = []
        for number in numbers:
            file_id = _file_id(node, number, each)
            start = sizes.get(file_id, _SIZE)
            sizes[file_id] = start + 1_000
            span = Span(start, start + 1_000, 1, 6, 6, now_ns, now_ns, "", [-1, -1, -1, 0, 0])
            stream = _stream(node, number).fields()
            name = _node(node)
            covers.append(
                FileCover(file_id=file_id, epoch=0, partition=partition, node=name, **stream,
                          spans=[span])
            )  # fmt: skip
            seen.append(Seen(file_id, 0, start + 1_000, start + 1_000, start))
        found = Inventory(now_ns, (partition,), False, tuple(seen), (), 0, (), None)
        notes.append(Note(partition, _node(node), _run(node), sequence, *note_body(found)))
        times = (now_ns, now_ns)
        lanes.append(
            LaneSpan(partition, _node(node), _run(node), sequence, sequence, sequence, *times)
        )
    return Coverage(now_ns, [], lanes, covers, notes, [], Balance())


def _new_run(node: int, each: int) -> Coverage:
    """Return what is committed of a node that has been restarted: all that it knows."""
    now_ns = _NOW_NS + 100 * _SECOND
    covers, notes, lanes = [], [], []
    by_partition: dict[int, list[int]] = {}
    for number in range(STREAMS_A_NODE):
        by_partition.setdefault(_partition(node, number), []).append(number)
    for partition, numbers in by_partition.items():
        seen = []
        for number, order in itertools.product(numbers, range(each - ON_DISK, each + 1)):
            file_id, stream = _file_id(node, number, order), _stream(node, number).fields()
            covers.append(
                FileCover(file_id=file_id, epoch=0, partition=partition, node=_node(node),
                          **stream, spans=[])
            )  # fmt: skip
            seen.append(Seen(file_id, 0, _SIZE, _SIZE, _SIZE))
        replaces = Replaces(_run(node), 0)
        found = Inventory(now_ns, tuple(by_partition), True, tuple(seen), (), 0, (), replaces)
        notes.append(Note(partition, _node(node), _run(node, 1), 0, *note_body(found)))
        lanes.append(LaneSpan(partition, _node(node), _run(node, 1), 0, 0, 0, now_ns, now_ns))
    return Coverage(now_ns, [], lanes, covers, notes, [], Balance())


def _apply(ledger: Ledger, commits: Iterable[Coverage]) -> None:
    for coverage in commits:
        ledger.apply(coverage, ledger.version + 1)


def _seconds(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def _held_bytes() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)


def _measure(folder: str, files: int) -> Measured:
    """Be a keeper and then a replica of the fleet; a process of its own calls this."""
    look_for_cycles_rarely()  # as keepers and the query service do
    bucket = open_bucket(folder)
    each = files // (NODES * STREAMS_A_NODE)
    before = _held_bytes()
    began = time.perf_counter()
    ledger = LedgerTable(bucket, _CLUSTER).load_settling()
    keeper_start_s = time.perf_counter() - began
    gc.freeze()
    keeper_bytes = _held_bytes() - before
    sequences: dict[tuple[int, int], int] = {}
    sizes: dict[bytes, int] = {}
    commits = [_commit(turn, sequences, sizes, each) for turn in range(_RUNS)]
    folded = [_seconds(partial(_apply, ledger, [coverage])) for coverage in commits]
    rollout = [_new_run(node, each) for node in range(ROLLOUT)]
    rollout_s = _seconds(partial(_apply, ledger, rollout))
    del ledger
    table = Table(bucket, _CLUSTER)
    stored = LedgerTable(bucket, _CLUSTER).load_live([]).version
    while table.version() < stored:  # the table that the ledger is of
        _add(table, Coverage(_NOW_NS, [], [], [], [], [], Balance()))
    replica = Replica(bucket, _CLUSTER, 4)
    replica_start_s = _seconds(replica.refresh)
    gc.freeze()  # as the query service does
    refreshed = []
    for coverage in commits:
        _add(table, coverage)
        refreshed.append(_seconds(replica.refresh))
    replica_bytes = _held_bytes() - before
    to_ns = _NOW_NS - 20 * _SECOND
    month_ns = 30 * 86_400 * _SECOND
    scopes = {
        name: Scope(to_ns - month_ns, to_ns, equals)
        for name, equals in {
            "everything": {},
            "namespace": {"namespace": ("team-007",)},
            "pod": {"pod": (_stream(7, 0).pod,)},
        }.items()
    }
    asked = {
        name: statistics.median(
            _seconds(partial(judge, replica.newest, scope, _CLUSTER, Trouble()))
            for _ in range(_RUNS)
        )
        for name, scope in scopes.items()
    }
    verdict = judge(replica.newest, scopes["pod"], _CLUSTER, Trouble()).verdict
    return Measured(
        files,
        keeper_start_s,
        replica_start_s,
        statistics.median(folded),
        statistics.median(refreshed),
        asked["everything"],
        asked["namespace"],
        asked["pod"],
        rollout_s,
        replica_bytes,
        keeper_bytes,
        verdict,
    )


def _add(table: Table, coverage: Coverage) -> None:
    data = to_object(coverage)
    name = new_name(COVERAGE_FOLDER, data)
    table.bucket.put(table.folder + name, data)
    table.commit([Added(name, len(data), NO_ROWS)], {}, {})


def measure(folder: Path, files: int) -> Measured:
    """Write the ledger of a fleet with so many settled files, and measure what goes on from it."""
    place = folder / f"fleet-{files}"
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        pool.apply(write, (place, files))
    with context.Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(_measure, (str(place), files))


def print_measured(found: Sequence[Measured]) -> None:
    """Print a Markdown table, and how much each grows from the fewest files to the most."""
    print(
        f"{NODES} nodes, {NODES * STREAMS_A_NODE} live streams, {GAPS} gaps; a commit is eight "
        f"seconds of one in {INDEXERS} of them; a rollout restarts {ROLLOUT} nodes.\n"
    )
    heads = (
        "settled files", "start of a keeper s", "of a replica s", "fold a commit ms",
        "refresh a replica ms", "verdict of all ms", "a namespace ms", "a pod ms", "rollout s",
        "replica MB", "keeper MB",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print(f"|{'---|' * len(heads)}")
    rows = [
        (
            each.keeper_start_s, each.replica_start_s, each.fold_s * 1e3, each.refresh_s * 1e3,
            each.everything_s * 1e3, each.namespace_s * 1e3, each.pod_s * 1e3, each.rollout_s,
            each.replica_bytes / 1e6, each.keeper_bytes / 1e6,
        )
        for each in found
    ]  # fmt: skip
    for each, row in zip(found, rows, strict=True):
        print(f"| {each.files} | {' | '.join(f'{value:.1f}' for value in row)} |")
    growth = (last / first for first, last in zip(rows[0], rows[-1], strict=True))
    times = found[-1].files / found[0].files
    print(f"| x {times:.0f} | {' | '.join(f'x {value:.1f}' for value in growth)} |")
    print("| aim at the most | | | | 20 | 5 | 5 | 5 | 60 | 500 | 2000 |\n")
