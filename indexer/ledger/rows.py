"""Entries of the ledger as rows of its table, and back.

Entries go in and Arrow tables come out, or the other way round, whole columns at a time. The entry
itself is MessagePack in ``entry``; the other columns show it to other programs, and sort and prune
it here. Of several rows of one file that of the latest version holds.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from indexer.ledger.entries import (
    DeletedEntry,
    ExpiredEntry,
    FileEntry,
    JumpEntry,
    LaneEntry,
    NodeEntry,
    RetiredEntry,
)
from indexer.ledger.ledger import Ledger
from indexer.ledger.settled import SECOND_NS, SettledFiles
from indexer.ledger.totals import StreamEntry
from indexer.schema import TIME
from indexer.table.coverage import Position

_KINDS = {
    "file": FileEntry,
    "position": Position,
    "lane": LaneEntry,
    "node": NodeEntry,
    "jump": JumpEntry,
    "expired": ExpiredEntry,
    "deleted": DeletedEntry,
    "retired": RetiredEntry,
    "stream": StreamEntry,
    "past": int,  # `past_ns` of the ledger
    "swept": int,  # its `swept_hour`
}
Prefixes = npt.NDArray[np.uint64]
LEDGER_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),  # of the table, when this was folded
        pa.field("partition", pa.int32()),
        pa.field("node", pa.string()),
        pa.field("namespace", pa.string()),
        pa.field("pod", pa.string()),
        pa.field("container", pa.string()),
        pa.field("restart", pa.int32()),
        pa.field("file_id", pa.binary()),
        pa.field("epoch", pa.int32()),
        pa.field("covered_end", pa.int64()),
        pa.field("size", pa.int64()),
        pa.field("lost", pa.int32()),
        pa.field("first_time", TIME),
        pa.field("last_time", TIME),
        pa.field("gone_time", TIME),
        pa.field("settled_time", TIME),
        pa.field("sealed", pa.bool_()),
        pa.field("entry", pa.binary(), nullable=False),
    ]
)
# In memory the entries of a column may be more than the 2 GiB that `binary` can hold.
ROW_SCHEMA = LEDGER_SCHEMA.set(
    LEDGER_SCHEMA.get_field_index("entry"), pa.field("entry", pa.large_binary(), nullable=False)
)


def file_rows(files: Sequence[FileEntry], version: int) -> pa.Table:
    """Return one row a file, as folded at ``version``."""
    encode = msgspec.msgpack.Encoder().encode
    columns = {
        "kind": ["file"] * len(files),
        "version": np.full(len(files), version),
        "first_time": _times(file.first_ns for file in files),
        "last_time": _times(file.last_ns for file in files),
        "gone_time": _times(file.gone_ns for file in files),
        "settled_time": _times(file.settled_ns for file in files),
        "lost": [len(file.lost) for file in files],
        "entry": [encode(file) for file in files],
    }
    for name in ROW_SCHEMA.names:
        if name not in columns:
            columns[name] = [getattr(file, name) for file in files]
    return pa.table(columns, schema=ROW_SCHEMA)


def left_rows(files: Sequence[FileEntry], version: int) -> pa.Table:
    """Return one row a settled file, to say among the open ones that it is there no more."""
    rows = file_rows(files, version)
    entry = pa.array([b""] * len(files), pa.large_binary())
    return rows.set_column(rows.column_names.index("entry"), ROW_SCHEMA.field("entry"), entry)


def without_left(rows: pa.Table) -> pa.Table:
    """Return the rows of open files less those that say that a file has left."""
    return rows.filter(pc.is_null(rows["settled_time"]))


def _times(found_ns: Iterable[int]) -> pa.Array:
    """Return times, of 0 none."""
    return pa.array([ns // 1000 or None for ns in found_ns], pa.int64()).cast(TIME)


def state_rows(ledger: Ledger) -> pa.Table:
    """Return everything of a ledger but its files."""
    found = [
        ("position", ledger.positions.values()),
        ("lane", ledger.lanes.values()),
        ("node", ledger.nodes.values()),
        ("jump", ledger.jumps),
        ("expired", ledger.expired.values()),
        ("deleted", ledger.deleted.values()),
        ("retired", ledger.retired),
        ("stream", ledger.totals.entries()),
        ("past", [ledger.past_ns]),
        ("swept", [ledger.swept_hour]),
    ]
    rows = [
        {
            "kind": kind,
            "version": ledger.version,
            "partition": getattr(entry, "partition", None),
            "node": getattr(entry, "node", None),
            "namespace": getattr(entry, "namespace", None),
            "entry": msgspec.msgpack.encode(entry),
        }
        for kind, entries in found
        for entry in entries
    ]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def entry_of(kind: str, body: bytes) -> Any:
    """Return the entry of a row, as its columns ``kind`` and ``entry`` have it.

    Raises KeyError for a kind that is not known, msgspec.DecodeError for a damaged entry.
    """
    return msgspec.msgpack.decode(body, type=_KINDS[kind])


def take_state(ledger: Ledger, rows: pa.Table) -> None:
    """Put what ``state_rows`` has made into a ledger."""
    for kind, body in zip(rows["kind"].to_pylist(), rows["entry"].to_pylist(), strict=True):
        entry = entry_of(kind, body)
        if isinstance(entry, LaneEntry):
            ledger.lanes[entry.run, entry.partition] = entry
        elif isinstance(entry, NodeEntry):
            ledger.nodes[entry.node, entry.partition] = entry
        elif isinstance(entry, Position):
            ledger.positions[entry.partition] = entry
        elif isinstance(entry, ExpiredEntry):
            ledger.expired[entry.namespace, entry.rule] = entry
        elif isinstance(entry, DeletedEntry):
            key = (entry.request, entry.namespace, entry.pod, entry.container)
            ledger.deleted[key] = entry
        elif isinstance(entry, JumpEntry):
            ledger.jumps.append(entry)
        elif isinstance(entry, RetiredEntry):
            ledger.retired.append(entry)
        elif isinstance(entry, StreamEntry):
            ledger.totals.take(entry)
        elif kind == "past":
            ledger.past_ns = entry
        else:
            ledger.swept_hour = entry
    ledger.index()


def take_files(ledger: Ledger, rows: pa.Table) -> None:
    """Put files into a ledger, each as its latest row has it."""
    decode = msgspec.msgpack.Decoder(FileEntry).decode
    for batch in latest(rows).select(["entry"]).to_batches(max_chunksize=65_536):
        for body in batch["entry"].to_pylist():
            entry = decode(body)
            ledger.files[entry.file_id, entry.epoch] = entry
    ledger.index()


SETTLED_COLUMNS = [
    "file_id", "epoch", "partition", "node", "size", "last_time", "settled_time", "sealed",
]  # fmt: skip


def take_settled(ledger: Ledger, rows: pa.Table) -> None:
    """Put settled files into a ledger as columns, those of an object at once, the oldest first."""
    if not rows.num_rows:
        return
    nodes = rows["node"].combine_chunks().dictionary_encode()
    node, partition = nodes.indices.to_numpy(), rows["partition"].to_numpy()
    heads = pc.binary_slice(rows["file_id"], 0, 16).cast(pa.binary(16)).combine_chunks()
    epochs = rows["epoch"].to_numpy().astype(">u4")
    keys = np.empty(rows.num_rows, np.dtype("S20"))
    parts = keys.view(np.uint8).reshape(-1, 20)
    parts[:, :16] = _bytes(heads).reshape(-1, 16)
    parts[:, 16:] = epochs.view(np.uint8).reshape(-1, 4)
    order = np.lexsort((partition, node))
    node, partition, keys = node[order], partition[order], keys[order]
    sizes = rows["size"].to_numpy()[order]
    last, seen = (_seconds(rows[name])[order] for name in ("last_time", "settled_time"))
    sealed = rows["sealed"].to_numpy()[order]
    begins = np.flatnonzero(np.diff(node, prepend=-1) | np.diff(partition, prepend=-1))
    names = nodes.dictionary.to_pylist()
    for start, end in zip(begins, [*begins[1:], len(node)], strict=True):
        place = (names[node[start]], int(partition[start]))
        of = slice(start, end)
        found = SettledFiles.of(keys[of], sizes[of], last[of], seen[of], sealed[of])
        before = ledger.settled.get(place)
        ledger.settled[place] = found if before is None else before.plus(found)


def _seconds(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return times in whole seconds since 1970, 0 of none."""
    found: npt.NDArray[np.int64] = pc.fill_null(times.cast(pa.int64()), 0).to_numpy()
    return found // (SECOND_NS // 1000)


def _bytes(fixed: pa.Array) -> npt.NDArray[np.uint8]:
    width = fixed.type.byte_width
    whole = np.frombuffer(fixed.buffers()[1], np.uint8)
    return whole[fixed.offset * width :][: len(fixed) * width]


def latest(rows: pa.Table) -> pa.Table:
    """Return of each file only its latest row, sorted by ``file_id`` and ``epoch``."""
    keys = ("file_id", "epoch", "version")
    order = pc.sort_indices(rows, sort_keys=[(key, "ascending") for key in keys])
    ids, epochs = (rows[key].take(order).combine_chunks() for key in keys[:2])
    other = pc.or_(pc.not_equal(ids[1:], ids[:-1]), pc.not_equal(epochs[1:], epochs[:-1]))
    is_last = np.ones(rows.num_rows, np.bool_)
    is_last[:-1] = other.to_numpy(zero_copy_only=False)
    return rows.take(order.filter(pa.array(is_last)))


def prefixes(ids: pa.ChunkedArray) -> Prefixes:
    """Return the first eight bytes of each ``file_id``, as numbers that sort like the ids."""
    heads = pc.binary_slice(ids, 0, 8).cast(pa.binary(8)).combine_chunks()
    found = np.frombuffer(heads.buffers()[1], ">u8")[heads.offset :][: len(heads)]
    return found.astype(np.uint64)
