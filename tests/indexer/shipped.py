"""What collectors ship, made by hand: files, ranges with any cuts, batches, and their way in.

``Way`` takes batches through the wire's bytes, the consumer, the assembly and the fold, one commit
at a time and without a table: what comes out is what an indexer would have committed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import zstandard

from collector.checksum import crc32
from collector.topic.interface import Record
from collector.wire.batch import Batch, Inventory, Replaces, Seen, encode, record_headers
from collector.wire.range import Range, Stream, file_id, open_outputs
from indexer.assemble import Assembled, assemble
from indexer.consume import Consumer
from indexer.ledger.ledger import Ledger
from indexer.ownership import Ownership
from indexer.table.coverage import Coverage, Position

CLUSTER = "test"
SECOND = 10**9
START_NS = 1_790_000_000 * SECOND
COMPRESSOR = zstandard.ZstdCompressor(level=1)


@dataclass(frozen=True)
class File:
    """One log file, as it is on disk."""

    data: bytes
    pod: str = "web"
    node: str = "node-1"

    @property
    def stream(self) -> Stream:
        return Stream("shop", self.pod, f"uid-{self.pod}", "app", 0)

    @property
    def id(self) -> bytes:
        return file_id(CLUSTER, self.node, self.stream, self.data.partition(b"\n")[0])

    def crc(self, end: int) -> int:
        return crc32(self.data[:end])

    def ranges(self, cuts: Iterable[int], end: int | None = None, start: int = 0) -> list[Range]:
        """Return ``[start, end)`` as ranges cut at ``cuts``, flagged as a collector does."""
        stop = len(self.data) if end is None else end
        places = sorted({start, stop, *(cut for cut in cuts if start < cut < stop)})
        state, torn = self._state(start)
        found = []
        for first, last in pairwise(places):
            data = self.data[first:last]
            after, torn_after = self._state(last)
            found.append(
                Range(
                    self.id, 0, first, data, data.count(b"\n"), self.crc(first), state, after, torn
                )
            )
            state, torn = after, torn_after
        return found

    def _state(self, at: int) -> tuple[int, bool]:
        """Return which events are open at ``at``, and whether that is inside a line."""
        return open_outputs(self.data[:at], 0), at > 0 and self.data[at - 1 : at] != b"\n"


@dataclass
class Run:
    """One run of a node's collector in one partition; numbers its batches."""

    node: str = "node-1"
    run: bytes = b"run-1".ljust(16)
    partition: int = 0
    sequence: int = 0

    def batch(self, *ranges: Range, of: Sequence[File] = (), **entries) -> Batch:
        """Return the next batch; ``of`` are the files that it speaks of."""
        number = self.sequence
        self.sequence += 1
        entries.setdefault("oldest_unacked", number)
        return Batch(
            cluster=CLUSTER,
            node=self.node,
            run=self.run,
            partition=self.partition,
            sequence=number,
            created_ns=START_NS + number * SECOND,
            files={file.id: file.stream for file in of},
            ranges=ranges,
            **entries,
        )

    def inventory(
        self,
        seen: Sequence[tuple[File, int, int]],
        *,
        began_s: float = 0,
        full: bool = True,
        partitions: tuple[int, ...] = (0,),
        errors: tuple[str, ...] = (),
        unborn: tuple = (),
        replaces: Replaces | None = None,
        epoch: int = 0,
    ) -> Batch:
        """Return the next batch, with an inventory of (file, size, acknowledged) in it."""
        found = Inventory(
            scan_began_ns=START_NS + int(began_s * SECOND),
            partitions=partitions,
            full=full,
            files=tuple(Seen(file.id, epoch, size, size, acked) for file, size, acked in seen),
            unborn=unborn,
            unchanged=0,
            errors=errors,
            replaces=replaces,
        )
        return self.batch(of=[file for file, _, _ in seen], inventory=found)


def followed(
    name: str, letter: Callable[[int, int, int], str], partition: int, known: Position | None
) -> Consumer:
    """Return a consumer that reads one partition, from where the table knows it."""
    consumer = Consumer(name, letter)
    consumer.own(partition)
    consumer.take_up(partition, known, "id")
    consumer.partitions[partition].move(Ownership.FOLLOWED)
    return consumer


@dataclass
class Way:
    """The way in: each call of ``commit`` is one commit of one indexer."""

    ledger: Ledger = field(default_factory=Ledger)
    commits: list[Coverage] = field(default_factory=list)
    done: list[Assembled] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    next_position: dict[int, int] = field(default_factory=dict)

    def commit(self, *batches: Batch | bytes, partition: int = 0, dense: bool = True) -> Coverage:
        """Commit records in this order; bytes are a record that is none."""
        return self.commit_at(
            [(self._position(partition), batch) for batch in batches], partition, dense=dense
        )

    def _position(self, partition: int) -> int:
        position = self.next_position.get(partition, 0)
        self.next_position[partition] = position + 1
        return position

    def skip(self, positions: int = 1, partition: int = 0) -> None:
        """Lose records of the topic."""
        self.next_position[partition] = self.next_position.get(partition, 0) + positions

    def commit_at(
        self, records: Sequence[tuple[int, Batch | bytes]], partition: int, *, dense: bool
    ) -> Coverage:
        """Commit records at these positions."""
        consumer = followed("logs", self._letter, partition, self.ledger.positions.get(partition))
        consumer.fetch({partition: [_record(*each) for each in records]})
        consumer.take(1 << 40, dense=dense)
        intake = consumer.partitions[partition].coming
        now_ns = START_NS + (1000 + len(self.commits)) * SECOND
        made = assemble([intake], self.ledger.files, now_ns, None)
        self.done.append(made)
        self.commits.append(made.coverage)
        self.ledger.apply(made.coverage, len(self.commits))
        return made.coverage

    def _letter(self, partition: int, position: int, crc: int) -> str:
        self.letters.append(f"letters/{partition}/{position}-{crc}")
        return self.letters[-1]


def _record(position: int, batch: Batch | bytes) -> Record:
    if isinstance(batch, bytes):
        return Record(position, batch, ())
    return Record(position, encode(batch, COMPRESSOR), record_headers(batch))
