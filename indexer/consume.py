"""Following the topic's partitions: what comes next, and whether the topic is still the same.

Positions come from the table; out come intakes, one a partition, that start where the last commit
ended. Positions are passed over only together with a jump that says so.
"""

import logging
from collections.abc import Callable, Iterable, Mapping

import zstandard

from collector.checksum import crc32
from collector.errors import NewerWireVersion, PositionOutOfRange, TornBatch
from collector.topic.interface import Record, Topic
from collector.wire import batch as wire
from collector.wire.batch import Batch
from indexer.assemble import DeadLetter
from indexer.ledger.entries import LOST_RETENTION, LOST_TOPIC, TOPIC_RESET, UNPARSED
from indexer.ownership import Ownership, Partition, Uncommitted, moved_on
from indexer.table.coverage import Jump, LaneSpan, LastRecord, Position

_log = logging.getLogger(__name__)

# How long to wait for a record that should be there: one that never comes compares as the same. On
# one machine it comes at once, or its frame is damaged.
_DENSE_WAIT_MS = 1_000
_WAIT_MS = 10_000

LINE_BYTES = 64
"""What a line takes besides its bytes while it is made a row: what tiny lines weigh."""


class Consumer:
    """All partitions that are one indexer's."""

    def __init__(self, name: str, new_letter: Callable[[int, int, int], str]) -> None:
        """``name`` is the topic's; ``new_letter(partition, position, crc)`` names a dead letter."""
        self._name = name
        self._new_letter = new_letter
        self._decompressor = zstandard.ZstdDecompressor()
        self.partitions: dict[int, Partition] = {}

    def own(self, number: int) -> None:
        """Make a partition ours; where to go on is still to be taken from the table."""
        partition = Partition(self._start(number, ""))
        partition.move(Ownership.TAKING)
        self.partitions[number] = partition

    def take_up(self, number: int, known: Position | None, identity: str) -> None:
        """Go on where the table says that the last commit ended."""
        self.partitions[number].take_up(known or self._start(number, identity))

    def _start(self, number: int, identity: str) -> Position:
        return Position(self._name, identity, 0, number, 0, 0, None)

    def drop(self, number: int) -> None:
        """Let a partition go, and what has come of it."""
        self.partitions.pop(number).move(Ownership.FOREIGN)

    def in_state(self, state: Ownership) -> list[Partition]:
        """Return the partitions in this state."""
        return [each for each in self.partitions.values() if each.state is state]

    def cut_off(self) -> None:
        """Let all that has come go into the next commit."""
        for partition in self.partitions.values():
            if partition.coming.has_news:
                partition.cut_off()

    def settle(self) -> dict[int, int]:
        """Note that all that was cut off is in the table; return up to where, by partition."""
        reached = {number: cut.position.end for number, cut in self.cut.items()}
        for number in reached:
            self.partitions[number].settle()
        return reached

    @property
    def cut(self) -> dict[int, Uncommitted]:
        """What was cut off and is not in the table, by partition."""
        return {n: each.cut for n, each in self.partitions.items() if each.cut is not None}

    @property
    def has_news(self) -> bool:
        """Whether anything has come since the last cut."""
        return any(each.coming.has_news for each in self.partitions.values())

    def wanted(self) -> dict[int, int]:
        """Return the next position of each partition that may be read."""
        return {n: each.next_position for n, each in self.partitions.items() if each.is_read}

    @property
    def has_fetched(self) -> bool:
        """Whether records are at hand that are not decoded yet."""
        return any(each.fetched and each.is_read for each in self.partitions.values())

    @property
    def held_bytes(self) -> int:
        """How much has come since the last cut."""
        return sum(each.coming.held_bytes for each in self.partitions.values())

    @property
    def cut_bytes(self) -> int:
        """How much was cut off and is not in the table."""
        return sum(cut.held_bytes for cut in self.cut.values())

    @property
    def fetched_bytes(self) -> int:
        """How much is at hand that is not decoded yet."""
        return sum(len(r.value) for each in self.partitions.values() for r in each.fetched)

    # -- is it still the same topic? ---------------------------------------------------------

    async def check(self, partition: Partition, topic: Topic) -> None:
        """Compare the topic with what the last commit has seen of it.

        A record that is present and differs, an end below the position or a new identity say that
        the topic was recreated; a start above the position, that the topic has deleted records.
        """
        coming = partition.coming
        if coming.has_news or partition.fetched:
            return
        position = coming.position
        identity = await topic.identity()
        start, end = await topic.bounds(partition.number)
        if (
            position.identity != identity
            or position.topic != self._name
            or end < position.end
            or await self._differs(position, topic, start)
        ):
            self._reset(partition, identity, start)
            return
        if start > position.end:
            proof = f"the topic starts at {start}"
            self._jump(coming, LOST_RETENTION, start, proof)
        if partition.state is Ownership.CHECKING:
            partition.move(Ownership.FOLLOWED)

    async def _differs(self, position: Position, topic: Topic, start: int) -> bool:
        last = position.last
        if last is None or last.position < start:
            return False
        try:
            wait_ms = _DENSE_WAIT_MS if topic.dense else _WAIT_MS
            read = await topic.read({position.partition: last.position}, 1, wait_ms)
        except PositionOutOfRange:
            return False
        records = read.get(position.partition, [])
        if not records or records[0].position != last.position:
            return False
        return crc32(records[0].value) != last.crc

    def _reset(self, partition: Partition, identity: str, start: int) -> None:
        partition.move(Ownership.RESET)
        partition.refused.clear()
        coming = partition.coming
        old = coming.position
        _log.error(
            "the topic was recreated",
            extra={"partition": old.partition, "position": old.end, "generation": old.generation},
        )
        coming.replaces = old
        coming.position = Position(
            self._name, identity, old.generation + 1, old.partition, start, start, None
        )
        from_ns = old.last.created_ns if old.last else None
        proof = f"generation {old.generation} ended at {old.end}, and its last record is gone"
        coming.jumps.append(
            Jump(old.partition, TOPIC_RESET, old.end, old.end, from_ns, None, proof)
        )

    def _jump(self, coming: Uncommitted, kind: str, to: int, proof: str) -> None:
        position = coming.position
        from_ns = position.last.created_ns if position.last else None
        _log.error(
            "records are missing",
            extra={"partition": position.partition, "start": position.end, "end": to, "type": kind},
        )
        coming.jumps.append(Jump(position.partition, kind, position.end, to, from_ns, None, proof))
        coming.position = moved_on(position, to, position.last)

    # -- records -----------------------------------------------------------------------------

    def fetch(self, records: Mapping[int, Iterable[Record]]) -> None:
        """Keep records at hand."""
        for number, of_partition in records.items():
            self.partitions[number].fetched.extend(of_partition)

    def take(self, bytes_max: int, *, dense: bool) -> None:
        """Decode records for the next commit, until it holds ``bytes_max`` bytes."""
        for partition in self.partitions.values():
            fetched = partition.fetched
            while fetched and partition.is_read and self.held_bytes < bytes_max:
                if self._take(partition, fetched[0], dense=dense):
                    fetched.popleft()

    def _take(self, partition: Partition, record: Record, *, dense: bool) -> bool:
        coming = partition.coming
        position = coming.position
        if dense and record.position > position.end:
            proof = f"the next record is {record.position}, and positions have no holes"
            self._jump(coming, LOST_TOPIC, record.position, proof)
        try:
            batch = wire.decode(record.value, self._decompressor)
            if batch.partition != partition.number:
                raise TornBatch(f"it says that it is of partition {batch.partition}")
            if why := partition.refused.get(record.position):
                raise TornBatch(why)
        except NewerWireVersion as error:
            partition.stop(str(error))
            _log.error(
                "partition stopped",
                extra={"partition": partition.number, "at": record.position, "error": str(error)},
            )
            return False
        except TornBatch as error:
            self._bury(partition, record, error)
            return True
        partition.letters_in_row = 0
        coming.batches.append(batch)
        coming.batch_positions.append(record.position)
        coming.held_bytes += _held_bytes(batch)
        _extend(coming.lanes, batch)
        last = LastRecord(
            record.position, batch.run, batch.sequence, crc32(record.value), batch.created_ns
        )
        coming.position = moved_on(coming.position, record.position + 1, last)
        return True

    def _bury(self, partition: Partition, record: Record, error: TornBatch) -> None:
        """Keep a record that is not a batch, and go on after it."""
        coming = partition.coming
        position = coming.position
        crc = crc32(record.value)
        name = self._new_letter(position.partition, record.position, crc)
        _log.error(
            "record is not a batch; kept as a dead letter",
            extra={"partition": position.partition, "at": record.position, "object": name,
                   "error": str(error)},
        )  # fmt: skip
        partition.letters_in_row += 1
        from_ns = position.last.created_ns if position.last else None
        coming.dead_letters.append(DeadLetter(name, record.value))
        coming.jumps.append(
            Jump(
                position.partition, UNPARSED, record.position, record.position + 1, from_ns, None,
                str(error), name,
            )
        )  # fmt: skip
        run, number = _named(record)
        last = LastRecord(record.position, run, number, crc, from_ns or 0)
        if run:  # its number has come, so it leaves no hole in its lane
            created_ns = (from_ns or 0, from_ns or 0)
            coming.lanes.append(
                LaneSpan(position.partition, "", run, number, number, 0, *created_ns)
            )
        coming.held_bytes += len(record.value)
        coming.position = moved_on(position, record.position + 1, last)


def _held_bytes(batch: Batch) -> int:
    # Whoever claims less than no lines must not make room for more.
    lines = sum(max(entry.lines, 0) for entry in batch.ranges)
    return wire.raw_bytes(batch) + LINE_BYTES * lines


def _named(record: Record) -> tuple[bytes, int]:
    """Return run and number as the record's headers have them; no run if they make no sense."""
    headers = dict(record.headers)
    sequence = headers.get("sequence", b"")
    number = int.from_bytes(sequence, "big")
    if len(sequence) != 8 or number >= 1 << 63:
        return b"", 0
    return headers.get("run", b""), number


def _extend(lanes: list[LaneSpan], batch: Batch) -> None:
    """Note the batch's number; consecutive numbers of a lane make one span.

    The parts of a bisected batch are sent in order, so its number has come with the last of them.
    """
    if batch.part < batch.parts - 1:
        return
    newest = next((i for i in range(len(lanes) - 1, -1, -1) if lanes[i].run == batch.run), None)
    if newest is not None and lanes[newest].last <= batch.sequence <= lanes[newest].last + 1:
        span = lanes[newest]
        lanes[newest] = LaneSpan(
            span.partition, span.node, span.run, span.first, batch.sequence,
            max(span.oldest_unacked, batch.oldest_unacked), span.first_created_ns,
            batch.created_ns,
        )  # fmt: skip
        return
    lanes.append(
        LaneSpan(
            batch.partition, batch.node, batch.run, batch.sequence, batch.sequence,
            batch.oldest_unacked, batch.created_ns, batch.created_ns,
        )
    )  # fmt: skip
