"""From ranges and control entries to batches of a size that the topic takes.

What is handed over waits in one pack a partition until it is large or old enough; a pack becomes a
batch, and a batch that turns out too large is cut into several with the same content. Nothing that
goes in is left out: what no cut can make small enough becomes a GAP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import zstandard

from collector.wire import batch as wire
from collector.wire.batch import Batch, Elided, Gap, Gone, Inventory, Meta, Open, Seal
from collector.wire.range import Range, Stream, split

Entry = Open | Seal | Gap | Elided | Gone
_PLACES: dict[type, str] = {
    Range: "ranges",
    Open: "opens",
    Seal: "seals",
    Gap: "gaps",
    Elided: "elided",
    Gone: "gone",
    Meta: "metas",
}
_ENTRY_BYTES = 64
_META_BYTES = 512
SENT_HEADER = "sent"
"""The header under which the spool keeps what is remembered of a batch."""


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of a batch until the topic has it; the spool keeps it beside the batch."""

    partition: int
    ends: tuple[tuple[bytes, int, int], ...]  # file_id, epoch, how far the batch brings the file
    entries: tuple[tuple[str, bytes, int], ...]  # kind, file_id, epoch
    pods: dict[str, int]  # raw bytes of each pod's ranges


def sent(batch: Batch) -> Sent:
    """Return what is to be remembered of ``batch``."""
    ends: dict[tuple[bytes, int], int] = {}
    pods: dict[str, int] = {}
    for each in batch.ranges:
        pod = batch.files[each.file_id].pod_uid
        pods[pod] = pods.get(pod, 0) + len(each.data)
    pieces = [(each.file_id, each.epoch, each.end) for each in batch.ranges]
    pieces += [(each.file_id, each.epoch, each.end) for each in batch.elided]
    for name, epoch, end in pieces:
        ends[name, epoch] = max(ends.get((name, epoch), 0), end)
    kinds = (("seal", batch.seals), ("gap", batch.gaps), ("gone", batch.gone))
    return Sent(
        batch.partition,
        tuple((*key, end) for key, end in ends.items()),
        tuple((kind, e.file_id, e.epoch) for kind, entries in kinds for e in entries),
        pods,
    )


@dataclass(slots=True)
class Pack:
    """What waits to become the next batch of one partition."""

    files: dict[bytes, Stream] = field(default_factory=dict)
    content: list[Range | Entry | Meta] = field(default_factory=list)
    inventory: Inventory | None = None
    raw_bytes: int = 0
    opened_ns: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self.content or self.inventory)

    def add(self, stream: Stream, entry: Range | Entry, now_ns: int) -> None:
        """Take a range or a control entry of one file."""
        self.opened_ns = self.opened_ns or now_ns
        self.files[entry.file_id] = stream
        self.content.append(entry)
        self.raw_bytes += _ENTRY_BYTES
        if isinstance(entry, Range):
            self.raw_bytes += len(entry.data)

    def add_meta(self, meta: Meta, now_ns: int) -> None:
        """Take what is known of a pod."""
        self.opened_ns = self.opened_ns or now_ns
        self.content.append(meta)
        self.raw_bytes += _META_BYTES

    def batch(self, empty: Batch) -> Batch:
        """Return ``empty`` with what waits in it."""
        return filled(replace(empty, files=self.files, inventory=self.inventory), self.content)


def filled(batch: Batch, content: Sequence[Range | Entry | Meta]) -> Batch:
    """Return the batch with this content instead, and the headers of only its files."""
    by_place: dict[str, list[Any]] = {place: [] for place in _PLACES.values()}
    named = set()
    for each in content:
        by_place[_PLACES[type(each)]].append(each)
        if not isinstance(each, Meta):
            named.add(each.file_id)
    if batch.inventory is not None:
        named.update(seen.file_id for seen in batch.inventory.files)
    files = {i: stream for i, stream in batch.files.items() if i in named}
    values: dict[str, Any] = {place: tuple(each) for place, each in by_place.items()}
    return replace(batch, files=files, **values)


def _content(batch: Batch) -> list[Range | Entry | Meta]:
    # OPEN first: it tells what the rest speaks of.
    return [
        *batch.opens, *batch.metas, *batch.ranges, *batch.elided, *batch.gaps, *batch.seals,
        *batch.gone,
    ]  # fmt: skip


def halves(batch: Batch) -> Sequence[Batch]:
    """Return two smaller batches with the same content, or nothing if it cannot be cut."""
    content = _content(batch)
    alone = replace(batch, inventory=None)
    if batch.inventory is not None:
        return (filled(alone, content), filled(batch, [])) if content else ()
    if len(content) > 1:
        middle = len(content) // 2
        return filled(alone, content[:middle]), filled(alone, content[middle:])
    if len(batch.ranges) == 1 and len(batch.ranges[0].data) > 1:
        left, right = split(batch.ranges[0])
        return filled(alone, [left]), filled(alone, [right])
    return ()


def cut(batch: Batch, fits: Callable[[Batch], bool]) -> list[Batch]:
    """Return batches that ``fits`` takes and that together hold what ``batch`` holds.

    What cannot be made small enough is given up: a range as a GAP, an inventory without a trace,
    which leaves its node unknown, never complete.
    """
    if fits(batch):
        return [batch]
    if parts := halves(batch):
        return [piece for half in parts for piece in cut(half, fits)]
    if batch.ranges:
        return [filled(batch, [_gap(batch.ranges[0], "larger than the topic accepts")])]
    return [] if batch.inventory is not None else [batch]


def encode_parts(batch: Batch, bytes_max: int, compressor: zstandard.ZstdCompressor) -> list[bytes]:
    """Return the parts of a batch that the topic has refused, none above ``bytes_max``.

    All keep its number, and say which part of how many they are.
    """

    def encoded(part: Batch) -> bytes:
        return wire.encode(part, compressor)

    # Their place among the parts is not known yet, and may take a few bytes more.
    parts = cut(batch, lambda part: len(encoded(part)) <= bytes_max - 16)
    return [encoded(replace(part, part=i, parts=len(parts))) for i, part in enumerate(parts)]


def without_pod(batch: Batch, pod_uid: str, now_ns: int, why: str) -> Batch:
    """Return the batch with GAPs in place of the ranges of one pod."""
    content = [
        _gap(each, why, now_ns)
        if isinstance(each, Range) and batch.files[each.file_id].pod_uid == pod_uid
        else each
        for each in _content(batch)
    ]
    return filled(batch, content)


def _gap(lost: Range, why: str, now_ns: int | None = None) -> Gap:
    return Gap(
        file_id=lost.file_id,
        epoch=lost.epoch,
        start=lost.start,
        end=lost.end,
        end_exact=True,
        from_ns=None,
        to_ns=now_ns,
        reason=why,
    )
