"""Flip one bit at a time of everything that is stored, and tell what readers make of it.

A folder as ``everyline up`` leaves it goes in; each object is read with one bit flipped, at each
byte or a stride of them, by the reader that the pipeline uses. Out comes how often what was read
was the same, was refused, or was something else, and how many processes ended: both must be 0.
"""

import argparse
import collections
import hashlib
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from collector.errors import CollectorError
from collector.files.checkpoint import decode as decode_checkpoint
from collector.topic.record_frame import frames
from indexer.errors import BucketError, IndexerError
from indexer.ledger.stored import LedgerTable
from indexer.ledger.streams import StreamsTable
from indexer.object_names import (
    checkpoint_version,
    delta_log_folder,
    is_coverage,
    ledger_folder,
    logs_folder,
    named_end_crc,
    named_version,
    streams_folder,
    vouched_version,
)
from indexer.segment.reader import SegmentReader
from indexer.store.bucket import Bucket
from indexer.store.local import LocalBucket
from indexer.table.delta_log import DeltaLog
from indexer.table.table import Table

SAME, REFUSED, UNNAMED, ALTERED, ENDED = "same", "refused", "refused unnamed", "altered", "ended"
_AT_ONCE = 200  # flips of one process: it takes longer to start than to read so many


class Harmed:
    """A bucket in which one object has other bytes."""

    def __init__(self, inner: Bucket, name: str, data: bytes) -> None:
        """Change nothing in ``inner``."""
        self._inner, self._name, self._data = inner, name, data

    def __getattr__(self, name: str) -> Any:
        """Pass on what does not read an object."""
        return getattr(self._inner, name)

    def get(self, name: str) -> bytes:
        """Return an object."""
        return self._data if name == self._name else self._inner.get(name)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return a part of an object."""
        if name != self._name:
            return self._inner.get_range(name, start, length)
        if start + length > len(self._data):
            raise BucketError(f"object {name} ends before byte {start + length}")
        return self._data[start : start + length]


@dataclass(frozen=True, slots=True)
class Stored:
    """One object: its bytes, and how they are read; a reader returns None for what it refuses."""

    kind: str
    name: str
    data: bytes
    read: Callable[[bytes], object]


def objects(folder: Path) -> Iterator[Stored]:
    """Yield what is stored in a folder of ``everyline up``."""
    root = folder / "bucket"
    bucket = LocalBucket(root)
    for cluster in sorted(each.name for each in root.iterdir()):
        for path in sorted((root / cluster).rglob("*.parquet")):
            name = path.relative_to(root).as_posix()
            data = path.read_bytes()
            if "_delta_log" in name:
                continue
            if name.startswith(streams_folder(cluster)):
                if named_end_crc(name) is None:
                    continue  # of an earlier version, and nothing vouches for it
                yield Stored("streams", name, data, _streams_reader(bucket, cluster, name))
            elif name.startswith(ledger_folder(cluster)):
                yield Stored("ledger", name, data, _ledger_reader(bucket, cluster, name))
            elif name.startswith(logs_folder(cluster)):
                is_segment = not is_coverage(name.removeprefix(logs_folder(cluster)))
                reader = _segment_reader if is_segment else _coverage_reader
                kind = "segment" if is_segment else "coverage"
                yield Stored(kind, name, data, reader(bucket, cluster, name))
        for of in (logs_folder(cluster), ledger_folder(cluster), streams_folder(cluster)):
            yield from _log_objects(bucket, of)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name in ("checkpoint", "checkpoint.previous"):
            yield Stored("checkpoint", name, path.read_bytes(), decode_checkpoint)
        elif path.suffix == ".log" and ("spool" in name or name.startswith("topic")):
            kind = "spool" if "spool" in name else "topic"
            yield Stored(kind, name, path.read_bytes(), _records)


def _log_objects(bucket: Bucket, folder: str) -> Iterator[Stored]:
    """Yield what a log has that says of itself what it is: others have written the rest."""
    names = sorted(bucket.names(delta_log_folder(folder)))
    vouched = {vouched_version(name) for name in names} - {None}
    for name in names:
        data = bucket.get(name)
        is_version = named_version(name) is not None and b'"crc32"' in data
        if is_version or checkpoint_version(name) in vouched:
            yield Stored("log", name, data, _log_reader(bucket, folder, name))


def _log_reader(bucket: Bucket, folder: str, name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        log = DeltaLog(cast(Bucket, Harmed(bucket, name, data)), folder)
        log.check_checkpoint()
        log.refresh()
        log.check(log.version)
        number = named_version(name)
        return repr([log.version, log.transactions, None if number is None else log.read(number)])

    return read


def _streams_reader(bucket: Bucket, cluster: str, name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        return StreamsTable(cast(Bucket, Harmed(bucket, name, data)), cluster).read().to_pylist()

    return read


def _segment_reader(bucket: Bucket, cluster: str, name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        harmed = cast(Bucket, Harmed(bucket, name, data))
        segment = SegmentReader(harmed, name, len(data))
        found = hashlib.sha256()
        for rows in segment.row_groups():
            found.update(repr(rows.to_pydict()).encode())
        return found.digest()

    return read


def _coverage_reader(bucket: Bucket, cluster: str, name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        table = Table(cast(Bucket, Harmed(bucket, name, data)), cluster)
        return table.coverage(name.removeprefix(table.folder))

    return read


def _ledger_reader(bucket: Bucket, cluster: str, name: str) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        ledger = LedgerTable(cast(Bucket, Harmed(bucket, name, data)), cluster).load()
        return repr([sorted(ledger.files.items()), ledger.positions, ledger.nodes])

    return read


def _records(data: bytes) -> object:
    return [(each.position, each.value, each.headers) for each, _ in frames(data)]


def _is_refusal(kind: str, found: object, whole: object) -> bool:
    """Return whether what is damaged was left out, and nothing else has changed."""
    if kind in ("spool", "topic"):
        records, before = cast("list[Any]", found), cast("list[Any]", whole)
        return len(records) < len(before) and all(each in before for each in records)
    return found is None


def outcome(stored: Stored, at: int, whole: object) -> str:
    """Return what becomes of an object of which one bit of byte ``at`` is flipped."""
    data = bytearray(stored.data)
    data[at] ^= 1 << at % 8
    try:
        found = stored.read(bytes(data))
    except (IndexerError, CollectorError) as error:
        return REFUSED if Path(stored.name).name in str(error) else UNNAMED
    except Exception as error:
        return f"unexpected {type(error).__name__}"
    if found == whole:
        return SAME
    return REFUSED if _is_refusal(stored.kind, found, whole) else ALTERED


def _child(stored: Stored, places: Iterable[int], results: Any) -> None:
    whole = stored.read(stored.data)
    for at in places:
        results.send((at, outcome(stored, at, whole)))
    results.close()


def sweep(stored: Stored, places: list[int]) -> Iterator[tuple[int, str]]:
    """Yield byte and outcome of each flip; a process that ends costs only the one it ended at."""
    processes = multiprocessing.get_context("fork")
    while places:
        receiver, sender = processes.Pipe(duplex=False)
        child = processes.Process(target=_child, args=(stored, places[:_AT_ONCE], sender))
        child.start()
        sender.close()
        done = 0
        try:
            while True:
                yield receiver.recv()
                done += 1
        except EOFError:
            child.join()
        if done < len(places[:_AT_ONCE]):
            yield places[done], f"{ENDED} by {child.exitcode}"
            done += 1
        places = places[done:]


def main(argv: list[str] | None = None) -> int:
    """Sweep; print a table of outcomes by kind; return 0 if no answer was altered or cut short."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of `everyline up`")
    parser.add_argument("--stride", type=int, default=1, help="bytes from one flip to the next")
    parser.add_argument("--objects", type=int, default=3, help="of each kind, at most")
    args = parser.parse_args(argv)
    counts: dict[str, collections.Counter[str]] = {}
    swept: collections.Counter[str] = collections.Counter()
    bad = 0
    for stored in objects(args.data):
        if swept[stored.kind] == args.objects or not stored.data:
            continue
        swept[stored.kind] += 1
        of_kind = counts.setdefault(stored.kind, collections.Counter())
        for at, how in sweep(stored, list(range(0, len(stored.data), args.stride))):
            of_kind[how] += 1
            if how not in (SAME, REFUSED):
                bad += 1
                print(f"{how}: {stored.kind} {stored.name}, byte {at}", file=sys.stderr)
    for kind, of_kind in counts.items():
        print(f"{kind}: " + ", ".join(f"{how} {n}" for how, n in sorted(of_kind.items())))
    return 1 if bad or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
