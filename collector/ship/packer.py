"""From entries to numbered batches, one open pack and one lane a partition.

Ranges and control entries go in; out come batches of this run, each with the next number of its
lane and encoded as it goes on the wire. No number is left out, and none is used twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import zstandard

from collector.ship.lane import Lane, PendingBatch
from collector.ship.pack import Entry, Pack, halves, sent
from collector.wire import batch as wire
from collector.wire.batch import Batch, Inventory, Meta
from collector.wire.range import Range, Stream


@dataclass(frozen=True, slots=True)
class ShipLimits:
    """A batch is closed at ``batch_raw_bytes`` or ``flush_age_ns``; none is sent that is larger
    than ``batch_wire_bytes``; no more is read while ``unacked_bytes`` are on their way. Batches go
    to the spool once one has been on its way for ``spool_after_ns``.
    """

    batch_raw_bytes: int
    batch_wire_bytes: int
    flush_age_ns: int
    unacked_bytes: int
    spool_after_ns: int


class Packer:
    """The lanes of one run, and what waits in their packs."""

    def __init__(
        self,
        header: tuple[str, str, bytes],
        limits: ShipLimits,
        compressor: zstandard.ZstdCompressor,
        clock: Callable[[], int],
    ) -> None:
        """``header`` is (cluster, node, run)."""
        self._cluster, self._node, self._run = header
        self.limits = limits
        self._compressor = compressor
        self._clock = clock
        self.lanes: dict[int, Lane] = {}

    def _pack(self, partition: int) -> Pack:
        return self.lanes.setdefault(partition, Lane(self._run, partition)).pack

    def add(self, partition: int, stream: Stream, entry: Range | Entry) -> None:
        """Put a range or a control entry of one file into the partition's open pack."""
        self._pack(partition).add(stream, entry, self._clock())

    def add_meta(self, partition: int, meta: Meta) -> None:
        """Put what is known of a pod into the partition's open pack."""
        self._pack(partition).add_meta(meta, self._clock())

    def add_inventory(
        self, partition: int, inventory: Inventory, files: dict[bytes, Stream]
    ) -> None:
        """Put an inventory into the partition's open pack, which is then due."""
        pack = self._pack(partition)
        pack.files.update(files)
        pack.inventory = inventory
        pack.opened_ns = 1

    def lower_batch_bytes(self, wire_bytes: int) -> None:
        """Make no larger batches from now on."""
        self.limits = replace(self.limits, batch_wire_bytes=wire_bytes)

    def batches(self, *, everything: bool) -> Iterator[PendingBatch]:
        """Yield the batches that are due, or all; each is numbered only when it is asked for."""
        for lane in list(self.lanes.values()):
            pack = lane.pack
            if not pack.empty and (everything or self._is_due(pack)):
                lane.pack = Pack()
                yield from self._numbered(lane, self._batch(lane, pack))

    def _is_due(self, pack: Pack) -> bool:
        age_ns = self._clock() - pack.opened_ns
        return (
            pack.raw_bytes >= self.limits.batch_raw_bytes
            # Also if the clock was set back meanwhile.
            or not 0 <= age_ns < self.limits.flush_age_ns
        )

    def _batch(self, lane: Lane, pack: Pack) -> Batch:
        return pack.batch(
            Batch(
                cluster=self._cluster,
                node=self._node,
                run=self._run,
                partition=lane.partition,
                sequence=0,
                oldest_unacked=0,
                created_ns=self._clock(),
                files={},
            )
        )

    def _numbered(self, lane: Lane, batch: Batch) -> Iterator[PendingBatch]:
        """Yield ``batch`` numbered and encoded, in as many pieces as its wire bytes ask for."""
        oldest = lane.oldest_unacked
        numbered = replace(batch, sequence=lane.next_sequence, oldest_unacked=oldest)
        value = wire.encode(numbered, self._compressor)
        if len(value) > self.limits.batch_wire_bytes and (pieces := halves(batch)):
            for piece in pieces:
                yield from self._numbered(lane, piece)
            return
        headers = wire.record_headers(numbered)
        pending = PendingBatch(lane, lane.next_sequence, len(value), headers, sent(numbered), value)
        lane.next_sequence += 1
        lane.put(pending)
        yield pending
