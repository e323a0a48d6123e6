"""A batch: what a collector sends as one record of a topic, and its bytes on the wire.

Ranges and control entries of many files go in; out comes ``[magic][version][zstd frame of an Avro
Batch]``, whose schema is ``batch.avsc``. Each batch repeats the headers of its files, so it can be
read alone; old bytes stay readable by Avro's rules, with the schema that they were written with.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any

import fastavro
import zstandard

from collector.errors import NewerWireVersion, TornBatch
from collector.wire.range import STREAM_FIELDS, Range, Stream, Whose

MAGIC = b"ELB"
VERSION = 3
# No batch that a collector's settings allow is larger; a frame that claims more is torn or hostile.
RAW_BYTES_MAX = 64 << 20


def _parsed(name: str) -> Any:
    return fastavro.parse_schema(
        json.loads(resources.files("collector.wire").joinpath(name).read_text("utf-8"))
    )


_SCHEMA = _parsed("batch.avsc")
_OLD_SCHEMAS = {n: _parsed(f"batch-{n}.avsc") for n in range(1, VERSION)}


@dataclass(frozen=True, slots=True)
class Open:
    """A file was seen for the first time; ``previous`` is the one before it in its stream."""

    file_id: bytes
    epoch: int
    previous: bytes | None
    seen_ns: int


@dataclass(frozen=True, slots=True)
class Seal:
    """A file has ended: its final size, lines and CRC-32."""

    file_id: bytes
    epoch: int
    size: int
    lines: int
    crc: int
    why: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes ``[start, end)`` of a file are lost; ``end`` is a lower bound unless ``end_exact``.

    They were written after ``from_ns`` and before ``to_ns`` by the node's clock, where known.
    """

    file_id: bytes
    epoch: int
    start: int
    end: int
    end_exact: bool
    from_ns: int | None
    to_ns: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Elided:
    """Bytes ``[start, end)`` that a rule dropped on purpose; they count as covered."""

    file_id: bytes
    epoch: int
    start: int
    end: int
    lines: int
    crc_after: int
    rule: str


@dataclass(frozen=True, slots=True)
class Meta:
    """What Kubernetes says of a pod besides its name, as of ``seen_ns`` by the node's clock."""

    namespace: str
    pod: str
    pod_uid: str
    seen_ns: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_kind: str
    owner: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A file is no longer on disk, and nothing of it is left to send."""

    file_id: bytes
    epoch: int


@dataclass(frozen=True, slots=True)
class Seen:
    """One file in an inventory: bytes on disk, read, and acknowledged by the topic."""

    file_id: bytes
    epoch: int
    size: int
    read: int
    acked: int


@dataclass(frozen=True, slots=True)
class Unborn:
    """A file without a complete line: it has no name yet, only a stream and a size."""

    stream: Stream
    size: int


@dataclass(frozen=True, slots=True)
class Unseen:
    """A place that a scan did not look into, and whose files lie there: "" stands for any."""

    namespace: str
    pod: str
    container: str
    path: str
    why: str

    @property
    def whose(self) -> Whose:
        """Return whose files lie there."""
        return self.namespace, self.pod, self.container

    def __str__(self) -> str:
        """Return what an operator reads."""
        return f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Replaces:
    """The run that this one follows: numbers of its lane below ``oldest_unacked`` were sent."""

    run: bytes
    oldest_unacked: int
    spooled: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a full scan that began at ``scan_began_ns`` found of one partition's files.

    ``errors`` names what it could not look into, where files of any stream may lie: then the scan
    proves nothing of its node. Of the streams of what is ``unseen``, it proves nothing either.
    """

    scan_began_ns: int
    partitions: tuple[int, ...]
    full: bool
    files: tuple[Seen, ...]
    unborn: tuple[Unborn, ...]
    unchanged: int
    errors: tuple[str, ...]
    replaces: Replaces | None
    unseen: tuple[Unseen, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Ranges and control entries of one lane; ``files`` names the stream of each file."""

    cluster: str
    node: str
    run: bytes
    partition: int
    sequence: int
    oldest_unacked: int
    created_ns: int
    files: Mapping[bytes, Stream]
    ranges: tuple[Range, ...] = ()
    opens: tuple[Open, ...] = ()
    seals: tuple[Seal, ...] = ()
    gaps: tuple[Gap, ...] = ()
    elided: tuple[Elided, ...] = ()
    gone: tuple[Gone, ...] = ()
    metas: tuple[Meta, ...] = ()
    inventory: Inventory | None = None
    part: int = 0
    parts: int = 1


def record_headers(batch: Batch) -> tuple[tuple[str, bytes], ...]:
    """Return the record headers: run and sequence, readable without the body."""
    return (("run", batch.run), ("sequence", batch.sequence.to_bytes(8, "big")))


_ENTRIES: dict[str, type] = {
    "opens": Open,
    "seals": Seal,
    "gaps": Gap,
    "elided": Elided,
    "gone": Gone,
}
_SCALARS = ("cluster", "node", "run", "partition", "sequence", "oldest_unacked", "part", "parts")


def _plain(entry: Any, index: Mapping[bytes, int]) -> dict[str, Any]:
    values = _fields(entry)
    values["file"] = index[values.pop("file_id")]
    return values


def _fields(entry: Any) -> dict[str, Any]:
    return {field.name: getattr(entry, field.name) for field in fields(entry)}


class _Body:
    """Takes over the bytes that fastavro has written, where a BytesIO would copy them."""

    taken: bytes | bytearray = b""

    def write(self, data: bytes | bytearray) -> None:
        self.taken = self.taken + data if self.taken else data


def encode(batch: Batch, compressor: zstandard.ZstdCompressor) -> bytes:
    """Return the wire bytes of ``batch``; its ``files`` must name every file it speaks of."""
    index = {file_id: i for i, file_id in enumerate(batch.files)}
    record: dict[str, Any] = {name: getattr(batch, name) for name in _SCALARS}
    record["created_ns"] = batch.created_ns
    record["files"] = [
        {"file_id": file_id, **stream.fields()} for file_id, stream in batch.files.items()
    ]
    record["ranges"] = [_plain(entry, index) for entry in batch.ranges]
    for name in _ENTRIES:
        record[name] = [_plain(entry, index) for entry in getattr(batch, name)]
    record["metas"] = [_fields(meta) for meta in batch.metas]
    record["inventory"] = batch.inventory and _plain_inventory(batch.inventory, index)
    body: Any = _Body()  # all that fastavro needs of a file
    fastavro.schemaless_writer(body, _SCHEMA, record)
    return MAGIC + bytes([VERSION]) + compressor.compress(body.taken)


def _plain_inventory(inventory: Inventory, index: Mapping[bytes, int]) -> dict[str, Any]:
    return {
        "scan_began_ns": inventory.scan_began_ns,
        "partitions": list(inventory.partitions),
        "full": inventory.full,
        "files": [_plain(seen, index) for seen in inventory.files],
        "unborn": [{**u.stream.fields(), "size": u.size} for u in inventory.unborn],
        "unchanged": inventory.unchanged,
        "errors": list(inventory.errors),
        "unseen": [_fields(place) for place in inventory.unseen],
        "replaces": inventory.replaces
        and {
            "run": inventory.replaces.run,
            "oldest_unacked": inventory.replaces.oldest_unacked,
            "spooled": list(inventory.replaces.spooled),
        },
    }


def decode(wire: bytes, decompressor: zstandard.ZstdDecompressor) -> Batch:
    """Return the batch in ``wire``.

    Raises TornBatch for bytes that are not a batch, NewerWireVersion for a version above ours.
    """
    if wire[: len(MAGIC)] != MAGIC or len(wire) <= len(MAGIC):
        raise TornBatch(f"{len(wire)} bytes do not start with a batch's magic")
    if (version := wire[len(MAGIC)]) > VERSION:
        raise NewerWireVersion(
            f"wire version {version} is newer than {VERSION}; upgrade the reader first"
        )
    written, wanted = (
        (_SCHEMA, None) if version == VERSION else (_OLD_SCHEMAS.get(version), _SCHEMA)
    )
    if written is None:
        raise TornBatch(f"wire version {version} does not exist")
    try:
        frame = memoryview(wire)[len(MAGIC) + 1 :]
        if not 0 <= zstandard.frame_content_size(frame) <= RAW_BYTES_MAX:
            raise TornBatch("its zstd frame states no size, or one above the limit")
        body = decompressor.decompress(frame)
        record: Any = fastavro.schemaless_reader(io.BytesIO(body), written, wanted)
        return _from_record(record)
    except (zstandard.ZstdError, EOFError, ValueError, IndexError, KeyError, TypeError) as error:
        raise TornBatch(f"{len(wire)} bytes are not a batch: {error}") from error


def _stream(record: Mapping[str, Any]) -> Stream:
    return Stream(*(record[name] for name in STREAM_FIELDS))


def _from_record(record: dict[str, Any]) -> Batch:
    ids = [file["file_id"] for file in record["files"]]

    def entries(kind: type, plain: list[dict[str, Any]]) -> tuple[Any, ...]:
        for entry in plain:
            if entry["file"] < 0:
                raise IndexError("negative file index")
            entry["file_id"] = ids[entry.pop("file")]
        return tuple(kind(**entry) for entry in plain)

    inventory = record["inventory"]
    if inventory is not None:
        replaces = inventory["replaces"]
        inventory = Inventory(
            scan_began_ns=inventory["scan_began_ns"],
            partitions=tuple(inventory["partitions"]),
            full=inventory["full"],
            files=entries(Seen, inventory["files"]),
            unborn=tuple(Unborn(_stream(u), u["size"]) for u in inventory["unborn"]),
            unchanged=inventory["unchanged"],
            errors=tuple(inventory["errors"]),
            unseen=tuple(Unseen(**place) for place in inventory["unseen"]),
            replaces=replaces
            and Replaces(replaces["run"], replaces["oldest_unacked"], tuple(replaces["spooled"])),
        )
    values: dict[str, Any] = {name: record[name] for name in (*_SCALARS, "created_ns")}
    values |= {name: entries(kind, record[name]) for name, kind in _ENTRIES.items()}
    values["metas"] = tuple(Meta(**meta) for meta in record["metas"])
    return Batch(
        **values,
        files={file["file_id"]: _stream(file) for file in record["files"]},
        ranges=entries(Range, record["ranges"]),
        inventory=inventory,
    )


def raw_bytes(batch: Batch) -> int:
    """Return how many bytes of log the batch carries."""
    return sum(len(entry.data) for entry in batch.ranges)
