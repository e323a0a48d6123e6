"""What is in the files of a node: a batch, the spool, a local topic, a checkpoint.

The bytes of a file go in; what the collector's own readers make of them comes out, one item after
the other. Whatever is damaged is said, and what is whole around it is shown.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
import zstandard

from collector.errors import WireError
from collector.files import checkpoint
from collector.topic.interface import Record
from collector.topic.record_frame import stretches
from collector.wire.batch import Batch, decode, raw_bytes
from collector.wire.range import Range
from indexer.store.bucket import Bucket
from query_api.command.inspect_items import Item, fields_of, line_text
from query_api.errors import NotReadable

_LISTS = {"opens": "open", "seals": "seal", "gaps": "gap", "elided": "elided"}
_LISTS |= {"gone": "gone", "metas": "meta"}
_BAD_SPOOL = (
    "a collector that starts takes a damaged batch out of its spool, and reads the lines again or "
    "reports them in a gap"
)
_BAD_TOPIC = (
    "the next append cuts a torn end off; elsewhere the positions are missing, and `everyline "
    "gaps` names them"
)


def _batch(bucket: Bucket, name: str, lines: bool, position: int | None) -> Iterator[Item]:
    """Read a record's value that is a file by itself, such as a dead letter."""
    try:
        yield from _batch_items(bucket.get(name), lines)
    except WireError as error:
        raise NotReadable(
            f"holds no batch that can be read: {error}; inspect a file of a spool or of a local "
            "topic as such"
        ) from error


def _batch_items(wire: bytes, lines: bool) -> Iterator[Item]:
    batch = decode(wire, zstandard.ZstdDecompressor())
    yield "batch", {**_about(batch), "bytes": len(wire)}
    for file_id, stream in batch.files.items():
        yield "file", {"file_id": file_id, **fields_of(stream)}
    for each in batch.ranges:
        yield "range", _range(each)
    for name, what in _LISTS.items():
        for entry in getattr(batch, name):
            yield what, fields_of(entry)
    if batch.inventory is not None:
        about = fields_of(batch.inventory)
        seen, unborn = about.pop("files"), about.pop("unborn")
        yield "inventory", about
        yield from (("seen", each) for each in seen)
        yield from (("unborn", {**each.pop("stream"), **each}) for each in unborn)
    for each in batch.ranges if lines else ():
        at = each.start
        for line in each.data.splitlines(keepends=True):
            yield "line", {"file_id": each.file_id, "offset": at, "text": line_text(line)}
            at += len(line)


def _about(batch: Batch) -> dict[str, Any]:
    return {
        "cluster": batch.cluster,
        "node": batch.node,
        "run": batch.run,
        "partition": batch.partition,
        "sequence": batch.sequence,
        "oldest_unacked": batch.oldest_unacked,
        "part": batch.part,
        "parts": batch.parts,
        "created_ns": batch.created_ns,
        "ranges": len(batch.ranges),
        "raw_bytes": raw_bytes(batch),
    }


def _range(each: Range) -> dict[str, Any]:
    return {
        "file_id": each.file_id,
        "epoch": each.epoch,
        "start": each.start,
        "end": each.end,
        "lines": each.lines,
        "crc_before": each.crc_before,
        "crc_after": each.crc_after,
        "open_before": each.open_before,
        "open_after": each.open_after,
        "torn_before": each.torn_before,
        "format": each.format,
        "redacted": each.redacted,
    }


# -- records in frames -----------------------------------------------------------------------------


def _spool(bucket: Bucket, name: str, lines: bool, position: int | None) -> Iterator[Item]:
    stem = name.rpartition("/")[2].partition(".")[0]
    for record, item in _framed(bucket.get(name), _BAD_SPOOL):
        yield item
        if record is None:
            continue
        yield from _value_items(record, lines)
        if stem.isdecimal() and int(stem) != record.position:
            raise NotReadable(
                f"holds position {record.position}, not that of its name; {_BAD_SPOOL}"
            )


def _topic(bucket: Bucket, name: str, lines: bool, position: int | None) -> Iterator[Item]:
    is_there = position is None
    for record, item in _framed(bucket.get(name), _BAD_TOPIC):
        if position is None:
            yield item
        elif record is not None and record.position == position:
            is_there = True
            yield item
            yield from _value_items(record, lines)
    if not is_there:
        raise NotReadable(f"holds no record at position {position}; leave it out to see all")


def _value_items(record: Record, lines: bool) -> Iterator[Item]:
    try:
        yield from _batch_items(record.value, lines)
    except WireError:
        return  # the record's own item says so


def _framed(data: bytes, if_damaged: str) -> Iterator[tuple[Record | None, Item]]:
    """Yield records, and damaged stretches without one; raise at the end if there were any."""
    damaged: list[tuple[int, int]] = []
    records = 0
    for record, start, end in stretches(data):
        if record is None:
            damaged.append((start, end))
            yield None, ("damaged", {"start": start, "end": end, "bytes": end - start})
        else:
            records += 1
            yield record, ("record", _record(record, start, end))
    if not records:
        raise NotReadable(f"holds no whole record in its {len(data)} bytes; {if_damaged}")
    if damaged:
        size = sum(end - start for start, end in damaged)
        raise NotReadable(
            f"is damaged or torn in {size} of its {len(data)} bytes, from byte {damaged[0][0]} "
            f"on; {if_damaged}"
        )


def _record(record: Record, start: int, end: int) -> dict[str, Any]:
    found: dict[str, Any] = {"position": record.position, "start": start, "end": end}
    for name, value in record.headers:
        if name == "run":
            found[name] = value
        elif name == "sequence":
            found[name] = int.from_bytes(value, "big")
        else:
            found[f"{name}_bytes"] = len(value)
    try:
        about = _about(decode(record.value, zstandard.ZstdDecompressor()))
    except WireError as error:
        return {**found, "value_bytes": len(record.value), "no_batch": str(error)}
    chosen = ("node", "part", "parts", "created_ns", "ranges", "raw_bytes")
    return {**found, "value_bytes": len(record.value), **{name: about[name] for name in chosen}}


# -- the checkpoint --------------------------------------------------------------------------------


def _checkpoint(bucket: Bucket, name: str, lines: bool, position: int | None) -> Iterator[Item]:
    try:
        found = checkpoint.decode(bucket.get(name))
    except msgspec.DecodeError as error:
        raise NotReadable(
            f"is a checkpoint of another version: {error}; inspect it with that version"
        ) from error
    if found is None:
        raise NotReadable(
            "is damaged, or no checkpoint; a collector then takes checkpoint.previous beside it"
        )
    about = fields_of(found)
    lanes, files = about.pop("lanes"), about.pop("files")
    yield "checkpoint", about
    yield from (("lane", each) for each in lanes)
    for each in files:
        spooled = each.pop("spooled")
        tail: bytes = each.pop("tail")
        yield "file", {**each, "spooled": spooled and spooled["offset"], "tail_bytes": len(tail)}
    for file in found.files if lines else ():
        at = file.acked - len(file.tail)
        yield "line", {"path": file.path, "offset": at, "text": line_text(file.tail)}


READERS = {"batch": _batch, "spool": _spool, "topic": _topic, "checkpoint": _checkpoint}
"""By kind: (bucket, name in it, whether to show lines, position or None) -> items."""
