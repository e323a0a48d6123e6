"""A coverage object: what one commit adds, in bytes of files and positions of the topic.

It is a Parquet file without rows, a member of the table like any segment, whose content stands
before the footer as a zstd frame of an Avro record (``coverage.avsc``). A reader of the table sees
the rows of a commit together with their coverage, or neither.
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

from collector.batch import Gap, Gone, Inventory, Meta, Open, Seal
from indexer.errors import CoverageError
from indexer.segment import read_blob, write_parquet

_BLOB = "coverage"
_SCHEMA = fastavro.parse_schema(
    json.loads(resources.files("indexer").joinpath("coverage.avsc").read_text("utf-8"))
)


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
    """Everything that one commit adds, without the rows."""

    committed_ns: int
    positions: list[Position]
    lanes: list[LaneSpan]
    files: list[FileCover]
    notes: list[Note]
    jumps: list[Jump]
    balance: Balance


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


def to_object(coverage: Coverage) -> bytes:
    """Return the bytes of the coverage object."""
    body = io.BytesIO()
    plain: Any = msgspec.to_builtins(coverage, builtin_types=(bytes,))
    fastavro.schemaless_writer(body, _SCHEMA, plain)
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
    return write_parquet([], compressor.compress(body.getbuffer()), _BLOB)


def from_object(data: bytes) -> Coverage:
    """Return the coverage in an object's bytes; raise CoverageError if it holds none."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(data)).metadata
        blob = read_blob(metadata, _BLOB, lambda start, length: data[start : start + length])
        body = zstandard.decompress(blob)
        plain = fastavro.schemaless_reader(io.BytesIO(body), _SCHEMA, None)
        return msgspec.convert(plain, Coverage, builtin_types=(bytes,))
    except (pa.ArrowException, zstandard.ZstdError, EOFError, ValueError, KeyError) as error:
        raise CoverageError(f"{len(data)} bytes are no coverage object: {error}") from error
