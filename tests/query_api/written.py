"""A table as collectors and an indexer leave it, written by the real parts without processes.

A test says which lines a node ships, what is lost and what its inventories say; every call is one
commit of segments and coverage, made by the indexer's own functions.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from collector.checksum import crc32
from collector.wire.batch import Batch, Gap, Inventory, Seal, Seen, Unborn, Unseen
from collector.wire.range import Range, Stream, file_id
from indexer.assemble import Intake, assemble
from indexer.ledger.ledger import Ledger
from indexer.object_names import COVERAGE_FOLDER, new_name, segment_folder
from indexer.store.bucket import Bucket
from indexer.store.checked_file import checked_name
from indexer.table.coverage import Coverage, Jump, LaneSpan, Position, to_object
from indexer.table.table import NO_ROWS, Added, Table
from indexer.times import format_time

CLUSTER = "test"
SECOND = 10**9
HOUR = 3_600 * SECOND
START_NS = 1_790_000_000 * SECOND // HOUR * HOUR


@dataclass(frozen=True)
class Line:
    """One line of one container."""

    time_ns: int
    message: str
    pod: str = "api-1"
    namespace: str = "shop"
    container: str = "app"
    output: str = "stdout"

    @property
    def stream(self) -> Stream:
        return Stream(self.namespace, self.pod, f"uid-{self.pod}", self.container, 0)

    @property
    def bytes(self) -> bytes:
        text = f"{format_time(self.time_ns)} {self.output} F {self.message}\n"
        return text.encode("utf-8", "surrogateescape")


@dataclass
class File:
    """What a collector knows of one file."""

    id: bytes
    stream: Stream
    size: int = 0
    crc: int = 0


@dataclass
class Node:
    """One collector run."""

    name: str
    run: bytes
    sequence: int = 0
    files: dict[Stream, File] = field(default_factory=dict)


class Written:
    """Writes one table; ``version`` is that of the last commit."""

    def __init__(self, bucket: Bucket, cluster: str = CLUSTER) -> None:
        self.bucket = bucket
        self.table = Table(bucket, cluster)
        self.table.make()
        self.ledger = Ledger()
        self.nodes: dict[str, Node] = {}
        self.position = 0
        self.version = 0
        self.now_ns = START_NS + 50 * HOUR  # of the next commit

    def node(self, name: str = "node-1") -> Node:
        return self.nodes.setdefault(name, Node(name, uuid.uuid4().bytes))

    def ship(self, *lines: Line, node: str = "node-1", partition: int = 0) -> int:
        """Commit a batch of lines; return the table's version."""
        ranges, files = [], {}
        for stream in dict.fromkeys(line.stream for line in lines):
            of = [line.bytes for line in lines if line.stream == stream]
            file = self.file(stream, of[0], node)
            data = b"".join(of)
            ranges.append(Range(file.id, 0, file.size, data, len(of), file.crc))
            file.size += len(data)
            file.crc = crc32(data, file.crc)
            files[file.id] = stream
        return self.commit([self.batch(node, partition, files=files, ranges=tuple(ranges))])

    def file(self, stream: Stream, first_line: bytes, node: str = "node-1") -> File:
        """Return the file of a stream."""
        known = self.node(node).files
        if stream not in known:
            name = file_id(CLUSTER, node, stream, first_line.rstrip(b"\n"))
            known[stream] = File(name, stream)
        return known[stream]

    def inventory(
        self,
        began_ns: int,
        node: str = "node-1",
        partition: int = 0,
        partitions: Sequence[int] = (0,),
        errors: Sequence[str] = (),
        unborn: Sequence[Unborn] = (),
        unseen: Sequence[Unseen] = (),
        acked: int | None = None,
    ) -> int:
        """Commit what a full scan of the node found; ``acked`` of each file, or all."""
        files = self.node(node).files.values()
        seen = tuple(
            Seen(f.id, 0, f.size, f.size, f.size if acked is None else acked) for f in files
        )
        told = (tuple(unborn), 0, tuple(errors), None, tuple(unseen))
        found = Inventory(began_ns, tuple(partitions), True, seen, *told)
        named = {f.id: f.stream for f in files}
        return self.commit([self.batch(node, partition, files=named, inventory=found)])

    def lose(self, stream: Stream, end: int, exact: bool, from_ns: int, to_ns: int) -> int:
        """Commit a collector's entry: the file is gone from its covered end on."""
        file = self.node().files[stream]
        gap = Gap(file.id, 0, file.size, end, exact, from_ns, to_ns, "deleted while away")
        return self.commit([self.batch("node-1", 0, files={file.id: stream}, gaps=(gap,))])

    def seal(self, stream: Stream, size: int) -> int:
        """Commit that a file has ended."""
        file = self.node().files[stream]
        seal = Seal(file.id, 0, size, 0, 0, "renamed")
        return self.commit([self.batch("node-1", 0, files={file.id: stream}, seals=(seal,))])

    def jump(self, kind: str, positions: int, partition: int = 0) -> int:
        """Commit that positions of the topic were passed over."""
        start, self.position = self.position, self.position + positions
        jump = Jump(partition, kind, start, self.position, START_NS, START_NS + SECOND, "test")
        return self.commit([], [jump])

    def batch(self, node: str, partition: int, **entries) -> Batch:
        """Return the next batch of a node's lane."""
        state = self.node(node)
        number = state.sequence
        state.sequence += 1
        return Batch(
            CLUSTER, node, state.run, partition, number, number, START_NS + number, **entries
        )

    def commit(self, batches: Sequence[Batch], jumps: Sequence[Jump] = ()) -> int:
        """Commit batches as an indexer does; return the table's version."""
        partition = batches[0].partition if batches else jumps[0].partition
        known = self.ledger.positions.get(partition)
        start = known.end if known else 0
        end = jumps[-1].end if jumps else start + len(batches)
        self.position = end
        position = Position("logs", "", 0, partition, start, end, None)
        lanes = [
            LaneSpan(partition, b.node, b.run, b.sequence, b.sequence, b.oldest_unacked,
                     b.created_ns, b.created_ns)
            for b in batches
        ]  # fmt: skip
        intake = Intake(position, list(batches), lanes, list(jumps))
        assembled = assemble([intake], self.ledger.files, self.now_ns, None)
        added = []
        for segment in assembled.segments:
            name = checked_name(segment_folder(segment.date, segment.hour), segment.data)
            self.bucket.put(self.table.folder + name, segment.data)
            added.append(Added(name, len(segment.data), segment.stats, segment.date, segment.hour))
        added.append(self._upload(assembled.coverage))
        app = f"logs/0/{partition}"
        expected = {app: start if known else None}
        self.table.commit(added, expected, {app: end})
        self.version = self.table.snapshot().version()
        self.ledger.apply(assembled.coverage, self.version)
        return self.version

    def add(self, coverage: Coverage) -> None:
        """Commit coverage alone, as a keeper does."""
        self.version = self.table.commit([self._upload(coverage)], {}, {})

    def _upload(self, coverage: Coverage) -> Added:
        data = to_object(coverage)
        name = new_name(COVERAGE_FOLDER, data)
        self.bucket.put(self.table.folder + name, data)
        return Added(name, len(data), NO_ROWS)
