"""A sweep of damage: one bit is turned over at each byte of everything that the pipeline stores.

Real processes write a segment, coverage, an object of the ledger, a checkpoint, a spooled batch and
a topic. Another process reads each of them with one bit changed, so that its death is seen. What
comes out is, for each kind, how often what was read was the same, refused, altered or deadly: the
last two must be 0.
"""

import argparse
import asyncio
import collections
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.errors import CollectorError
from collector.file_names import CHECKPOINT
from collector.files import checkpoint
from collector.ship.spool import Spool
from collector.topic.interface import Record
from collector.topic.local import LocalTopic
from indexer.errors import IndexerError
from indexer.keeper.fold import Fold
from indexer.ledger.stored import LedgerTable
from indexer.object_names import is_coverage
from indexer.store.local import LocalBucket
from indexer.table.table import Table, live
from load_tests.bench.indexer import Place
from load_tests.bench.logs import copy_logs
from query_api.scan.segment import ScanTask, scan_segment

CLUSTER = "local"
SAME, REFUSED, ALTERED, DEADLY = "same", "refused", "altered", "deadly"
_OUTCOMES = (SAME, REFUSED, ALTERED, DEADLY)
_EVER_NS = 2**63 - 1
_LINES = 400


class Refused(Exception):
    """What was read says itself that it is not what was written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One file that the pipeline has written, and how it is read."""

    kind: str
    path: Path


def write_all(folder: Path) -> list[Stored]:
    """Let the processes write one of each kind below ``folder``; return them."""
    pod = folder / "pods" / "shop_api-1_uid-1" / "api"
    pod.mkdir(parents=True)
    with (pod / "0.log").open("w") as log:
        for n in range(_LINES):
            log.write(f"2026-01-31T08:00:{n % 60:02d}.{n:09d}Z stdout F order {n * 7919} is paid\n")
    place = Place(folder, copy_logs([folder / "pods"], folder / "logs", 0))
    place.warm_up()
    bucket = LocalBucket(place.bucket)
    table = Table(bucket, CLUSTER)
    Fold(bucket, CLUSTER, 192, time.time_ns).advance(table)
    objects = [place.bucket / table.folder / each.name for each in live(table.snapshot())]
    [segment] = [each for each in objects if not is_coverage(_within(place.bucket, table, each))]
    coverage = next(each for each in objects if each != segment)
    ledger = place.bucket / CLUSTER / "ledger"
    [state] = [path.parent for path in place.full.parent.rglob(CHECKPOINT)]
    [topic] = place.full.glob("*/*.log")
    spool = Spool(folder / "spool")
    record = asyncio.run(_records(place.full))[0]
    spool.put(record.value, record.headers)
    [spooled] = (folder / "spool").iterdir()
    return [
        Stored("segment", segment),
        Stored("coverage", coverage),
        *(Stored("ledger", path) for path in sorted(ledger.rglob("*.parquet"))),
        Stored("checkpoint", state / CHECKPOINT),
        Stored("spooled batch", spooled),
        Stored("topic", topic),
    ]


def _within(bucket: Path, table: Table, path: Path) -> str:
    return str(path.relative_to(bucket / table.folder))


async def _records(root: Path) -> list[Record]:
    topic = LocalTopic(root)
    try:
        found = await topic.read({0: 0}, 1 << 30, 0)
    finally:
        await topic.close()
    return found.get(0, [])


def reader_of(stored: Stored, folder: Path) -> Callable[[], Any]:
    """Return what reads a file as the pipeline does; it raises an error of ours, or Refused."""
    bucket = LocalBucket(folder / "bucket")
    table = Table(bucket, CLUSTER)

    def segment() -> Any:
        name = str(stored.path.relative_to(folder / "bucket"))
        rows = []
        for query in ("", "order", "nowhere"):
            size = bucket.size(name)
            task = ScanTask("", name, size, 0, _EVER_NS, (), query, True, None, _LINES, 1 << 30)
            scanned = scan_segment(task, bucket)
            if scanned.error:
                raise Refused(scanned.error)
            rows.append(scanned.rows.to_pylist())
        return rows

    def coverage() -> Any:
        return table.coverage(_within(folder / "bucket", table, stored.path))

    def ledger() -> Any:
        return LedgerTable(bucket, CLUSTER).load()

    def state() -> Any:
        found = checkpoint.decode(stored.path.read_bytes())
        return _if_there(found)

    def spooled() -> Any:
        return _if_there(Spool(folder / "spool").get(0))

    def topic() -> Any:
        return asyncio.run(_records(stored.path.parent.parent))

    readers = {"segment": segment, "coverage": coverage, "ledger": ledger, "topic": topic}
    readers |= {"checkpoint": state, "spooled batch": spooled}
    return readers[stored.kind]


def _if_there(found: Any) -> Any:
    if found is None:
        raise Refused("it is damaged")
    return found


def outcome(read: Callable[[], Any], whole: Any) -> str:
    """Read a damaged file, and tell what came of it."""
    try:
        found = read()
    except (Refused, CollectorError, IndexerError):
        return REFUSED
    if found == whole:
        return SAME
    # Of a topic, positions may be missing: the indexer names them.
    is_part = isinstance(whole, list) and bool(whole) and isinstance(whole[0], Record)
    return REFUSED if is_part and all(record in whole for record in found) else ALTERED


def read_damaged(stored: Stored, folder: Path, begin: int, stride: int) -> Iterator[str]:
    """Yield the outcome of a flipped bit at each ``stride``-th byte from ``begin`` on."""
    read, data = reader_of(stored, folder), stored.path.read_bytes()
    whole = read()
    for at in range(begin, len(data), stride):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        stored.path.write_bytes(damaged)
        yield outcome(read, whole)
    stored.path.write_bytes(data)


def sweep(stored: Stored, folder: Path, stride: int) -> collections.Counter[str]:
    """Return how often each outcome came, by processes that may die of it."""
    data, at = stored.path.read_bytes(), 0
    counts: collections.Counter[str] = collections.Counter()
    while at < len(data):
        words = [sys.executable, "-m", "load_tests.damage", "--child", stored.kind]
        words += [str(stored.path), str(folder), str(at), str(stride)]
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False, text=True)
        outcomes = done.stdout.split()
        counts.update(outcomes)
        at += len(outcomes) * stride
        stored.path.write_bytes(data)
        if done.returncode:
            print(f"{stored.path}: reading it with byte {at} damaged ends by {done.returncode}")
            counts[DEADLY] += 1
            at += stride
    return counts


def _child(words: list[str]) -> int:
    kind, path, folder, begin, stride = words
    out = io.TextIOWrapper(sys.stdout.buffer, write_through=True)  # before the next one may end it
    for found in read_damaged(Stored(kind, Path(path)), Path(folder), int(begin), int(stride)):
        out.write(found + "\n")
    return 0


def main() -> int:
    """Sweep over everything; return 1 if anything was altered or deadly."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stride", type=int, default=1, help="every so many bytes one is damaged")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return _child(args.child)
    total: collections.Counter[str] = collections.Counter()
    print(
        f"| kind | bytes | {SAME} | {REFUSED} | {ALTERED} | {DEADLY} |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory(prefix="everyline-damage-") as place:
        for stored in write_all(Path(place)):
            size = stored.path.stat().st_size
            counts = sweep(stored, Path(place), args.stride)
            total += counts
            cells = " | ".join(str(counts[each]) for each in _OUTCOMES)
            print(f"| {stored.kind} | {size} | {cells} |", flush=True)
    return 1 if total[ALTERED] or total[DEADLY] else 0


if __name__ == "__main__":
    sys.exit(main())
