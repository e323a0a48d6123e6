"""A coverage object: what one commit adds, in bytes of files and positions of the topic.

It is a Parquet file without rows, a member of the table like any segment, whose content stands
before the footer as a zstd frame of Avro records (``coverage.avsc``): one as an indexer commits it,
many where the keeper has merged objects. A reader of the table sees the rows of a commit together
with their coverage, or neither.
"""

import io
import json
from importlib import resources
from typing import Any

import fastavro
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from collector.wire.batch import Gap, Gone, Inventory, Meta, Open, Seal
from collector.wire.range import Stream
from indexer.errors import CoverageError
from indexer.segment.blob import read_blob, write_blob

_BLOBS = {3: "coverage-3", 2: "coverage-2", 1: "coverage"}  # of the first version: one record alone


def _parsed(name: str) -> Any:
    return json.loads(resources.files("indexer.table").joinpath(name).read_text("utf-8"))


def _array_of(name: str) -> Any:
    return fastavro.parse_schema({"type": "array", "items": _parsed(name)})


_SCHEMAS = {
    3: _array_of("coverage.avsc"),
    2: _array_of("coverage-2.avsc"),
    1: _array_of("coverage-1.avsc"),
}


class LastRecord(msgspec.Struct, frozen=True):
    """The record before a position: read again, it tells whether the topic is still the same."""

    position: int
    run: bytes
    sequence: int
    crc: int
    created_ns: int


class Position(msgspec.Struct, frozen=True):
    """Records ``[start, end)`` of a partition went into the commit."""

    topic: str
    identity: str
    generation: int
    partition: int
    start: int
    end: int
    last: LastRecord | None


class LaneSpan(msgspec.Struct, frozen=True):
    """Batches ``first`` to ``last`` of a lane came one after the other."""

    partition: int
    node: str
    run: bytes
    first: int
    last: int
    oldest_unacked: int
    first_created_ns: int
    last_created_ns: int


class Span(msgspec.Struct, frozen=True):
    """Bytes ``[start, end)`` of a file are rows of the table, or elided by ``rule``."""

    start: int
    end: int
    crc_after: int
    lines: int
    rows: int
    first_ns: int
    last_ns: int
    rule: str = ""
    # At its end, for the span that follows.
    parser_state: list[int] = msgspec.field(default_factory=list, name="events")


class FileCover(msgspec.Struct, frozen=True):
    """The spans of one file, one a range, in the order of the topic."""

    file_id: bytes
    epoch: int
    partition: int
    node: str
    namespace: str
    pod: str
    pod_uid: str
    container: str
    restart: int
    spans: list[Span]

    @property
    def stream(self) -> Stream:
        """Return the stream that wrote the file."""
        return Stream.of(self)


class Note(msgspec.Struct, frozen=True):
    """One control entry of a collector as it came; ``body`` is MessagePack."""

    partition: int
    node: str
    run: bytes
    sequence: int
    kind: str
    body: bytes


class Jump(msgspec.Struct, frozen=True):
    """Positions ``[start, end)`` of a partition that no commit will ever cover."""

    partition: int
    type: str
    start: int
    end: int
    from_ns: int | None
    to_ns: int | None
    proof: str
    object: str = ""


class Expired(msgspec.Struct, frozen=True):
    """Rows of a namespace that a rule of retention has removed from one hour's partition."""

    namespace: str
    hour: int  # since 1970
    rows: int
    rule: str


class Deleted(msgspec.Struct, frozen=True):
    """Rows of a file, by offset, that a request has removed; their bytes stay covered."""

    request: str
    namespace: str
    pod: str
    container: str
    file_id: bytes
    epoch: int
    offsets: list[int]
    first_ns: int
    last_ns: int


class Retired(msgspec.Struct, frozen=True):
    """A node that has gone for good: nothing more is waited for of it."""

    node: str
    why: str


class Balance(msgspec.Struct, frozen=True):
    """The two equations of a commit."""

    shipped_bytes: int = 0
    covered_bytes: int = 0
    elided_bytes: int = 0
    trimmed_bytes: int = 0
    dead_letter_bytes: int = 0
    lines: int = 0
    rows: int = 0
    joined: int = 0

    @property
    def holds(self) -> bool:
        """Whether every byte and every line has gone somewhere."""
        gone = self.covered_bytes + self.elided_bytes + self.trimmed_bytes + self.dead_letter_bytes
        return self.shipped_bytes == gone and self.lines == self.rows + self.joined


class Coverage(msgspec.Struct, frozen=True):
    """Everything that one commit adds, without the rows.

    ``version`` is the table's, known once the keeper has merged the commit's object with others.
    """

    committed_ns: int
    positions: list[Position]
    lanes: list[LaneSpan]
    files: list[FileCover]
    notes: list[Note]
    jumps: list[Jump]
    balance: Balance
    expired: list[Expired] = []
    deleted: list[Deleted] = []
    retired: list[Retired] = []
    version: int | None = None


Control = Open | Seal | Gap | Gone | Meta | Inventory
_KINDS: dict[str, type] = {
    kind.__name__.lower(): kind for kind in (Open, Seal, Gap, Gone, Meta, Inventory)
}


def note_body(entry: Control) -> tuple[str, bytes]:
    """Return kind and body of a note."""
    return type(entry).__name__.lower(), msgspec.msgpack.encode(entry)


def note_entry(note: Note) -> Control:
    """Return the control entry that a note holds."""
    entry: Control = msgspec.msgpack.decode(note.body, type=_KINDS[note.kind])
    return entry


def to_object(*commits: Coverage) -> bytes:
    """Return the bytes of a coverage object of one commit or several.

    They are of the oldest version that can hold them, so that readers of that go on.
    """
    version = 3 if any(commit.retired for commit in commits) else 2
    body = io.BytesIO()
    plain: Any = msgspec.to_builtins(commits, builtin_types=(bytes,))
    fastavro.schemaless_writer(body, _SCHEMAS[version], plain)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    return write_blob(compressor.compress(body.getbuffer()), _BLOBS[version])


def from_object(data: bytes) -> list[Coverage]:
    """Return the coverage of each commit in an object; raise CoverageError if it holds none."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(data)).metadata

        def blob(name: str) -> bytes:
            return read_blob(metadata, name, lambda start, length: data[start : start + length])

        found = ((version, blob(name)) for version, name in _BLOBS.items())
        version, body = next((each for each in found if each[1]), (1, b""))
        body = zstandard.decompress(body)
        if version == 1:  # one record is an array of one, without its count
            body = b"\x02" + body + b"\x00"
        # What later versions have added, msgspec knows; Avro would take twice as long for it.
        plain = fastavro.schemaless_reader(io.BytesIO(body), _SCHEMAS[version])
        return msgspec.convert(plain, list[Coverage], builtin_types=(bytes,))
    except (pa.ArrowException, zstandard.ZstdError, EOFError, ValueError, KeyError) as error:
        raise CoverageError(f"{len(data)} bytes are not a coverage object: {error}") from error
