"""Following the topic's partitions: what comes next, and whether the topic is still the same.

Positions come from the table; out come intakes, one a partition, that start where the last commit
ended. Positions are passed over only together with a jump that says so.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import zstandard

from collector.checksum import crc32
from collector.errors import NewerWireVersion, PositionOutOfRange, TornBatch
from collector.topic.interface import Record, Topic
from collector.wire import batch as wire
from collector.wire.batch import Batch
from indexer.assemble import DeadLetter, Intake
from indexer.ledger.entries import LOST_RETENTION, LOST_TOPIC, TOPIC_RESET, UNPARSED
from indexer.table.coverage import Jump, LaneSpan, LastRecord, Position

_log = logging.getLogger(__name__)

# How long to wait for a record that should be there: one that never comes compares as the same. On
# one machine it comes at once, or its frame is damaged.
_DENSE_WAIT_MS = 1_000
_WAIT_MS = 10_000

LINE_BYTES = 64
"""What a line takes besides its bytes while it is made a row: what tiny lines weigh."""


@dataclass
class Following:
    """One partition: where its next commit starts, and what has come since."""

    position: Position  # start: of the next commit; end: the next record to read
    replaces: Position | None = None  # in the generation that the next commit closes
    batches: list[Batch] = field(default_factory=list)
    batch_positions: list[int] = field(default_factory=list)
    lanes: list[LaneSpan] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    fetched: deque[Record] = field(default_factory=deque)  # not decoded yet
    held_bytes: int = 0  # in memory: raw bytes, and LINE_BYTES for each line
    stopped: str = ""  # why nothing more may be read

    @property
    def next_position(self) -> int:
        """Return the position to read from."""
        return self.fetched[-1].position + 1 if self.fetched else self.position.end

    @property
    def based_on(self) -> tuple[str, int]:
        """Return where the table must stand for the next commit: ``app_id`` and version."""
        if self.replaces:
            return app_id(self.replaces), self.replaces.end
        return app_id(self.position), self.position.start

    def intake(self) -> Intake:
        """Return what goes into the next commit."""
        return Intake(self.position, self.batches, self.lanes, self.jumps, self.dead_letters)

    @property
    def has_news(self) -> bool:
        """Whether a commit would add anything."""
        return self.position.end != self.position.start or bool(self.jumps)


def app_id(position: Position) -> str:
    """Return the name under which a partition's position is kept in the Delta log."""
    return f"{position.topic}/{position.generation}/{position.partition}"


class Consumer:
    """All partitions that one indexer follows."""

    def __init__(self, name: str, new_letter: Callable[[int, int, int], str]) -> None:
        """``name`` is the topic's; ``new_letter(partition, position, crc)`` names a dead letter."""
        self._name = name
        self._new_letter = new_letter
        self._decompressor = zstandard.ZstdDecompressor()
        self._refused: dict[int, dict[int, str]] = {}
        self.following: dict[int, Following] = {}
        self.letters_in_row: dict[int, int] = {}

    def take_up(self, partition: int, known: Position | None, identity: str) -> None:
        """Go on where the table says that the last commit ended; drop what has come since."""
        if known is None:
            position = Position(self._name, identity, 0, partition, 0, 0, None)
        else:
            position = Position(
                known.topic, known.identity, known.generation, partition, known.end, known.end,
                known.last,
            )  # fmt: skip
        self.following[partition] = Following(position)

    def drop(self, partition: int) -> None:
        """Follow a partition no longer, and drop what has come of it."""
        del self.following[partition]
        self._refused.pop(partition, None)
        self.letters_in_row.pop(partition, None)

    def refuse(self, partition: int, position: int, why: str) -> None:
        """Bury this record as a dead letter when it is taken again, although it can be decoded."""
        self._refused.setdefault(partition, {})[position] = why

    def cut(self) -> dict[int, Following]:
        """Return what goes into the next commit, by partition; what comes next goes on from it."""
        cut = {p: f for p, f in self.following.items() if f.has_news}
        for partition, done in cut.items():
            self.take_up(partition, done.position, done.position.identity)
            self.following[partition].fetched = done.fetched
            self.following[partition].stopped = done.stopped
        return cut

    def wanted(self) -> dict[int, int]:
        """Return the next position of each partition that may be read."""
        return {p: f.next_position for p, f in self.following.items() if not f.stopped}

    @property
    def has_fetched(self) -> bool:
        """Whether records are at hand that are not decoded yet."""
        return any(f.fetched and not f.stopped for f in self.following.values())

    @property
    def held_bytes(self) -> int:
        """How much has come since the last cut."""
        return sum(following.held_bytes for following in self.following.values())

    @property
    def fetched_bytes(self) -> int:
        """How much is at hand that is not decoded yet."""
        return sum(len(r.value) for f in self.following.values() for r in f.fetched)

    # -- is it still the same topic? ---------------------------------------------------------

    async def check(self, partition: int, topic: Topic) -> None:
        """Compare the topic with what the last commit has seen of it.

        A record that is present and differs, an end below the position or a new identity say that
        the topic was made anew; a start above the position, that the topic has deleted records.
        """
        following = self.following[partition]
        if following.has_news or following.fetched:
            return
        position = following.position
        identity = await topic.identity()
        start, end = await topic.bounds(partition)
        if (
            position.identity != identity
            or position.topic != self._name
            or end < position.end
            or await self._differs(position, topic, start)
        ):
            self._reset(following, identity, start)
        elif start > position.end:
            proof = f"the topic starts at {start}"
            self._jump(following, LOST_RETENTION, start, proof)

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

    def _reset(self, following: Following, identity: str, start: int) -> None:
        old = following.position
        self._refused.pop(old.partition, None)
        _log.error(
            "the topic was made anew",
            extra={"partition": old.partition, "position": old.end, "generation": old.generation},
        )
        following.replaces = old
        following.position = Position(
            self._name, identity, old.generation + 1, old.partition, start, start, None
        )
        from_ns = old.last.created_ns if old.last else None
        proof = f"generation {old.generation} ended at {old.end}, and its last record is gone"
        following.jumps.append(
            Jump(old.partition, TOPIC_RESET, old.end, old.end, from_ns, None, proof)
        )

    def _jump(self, following: Following, kind: str, to: int, proof: str) -> None:
        position = following.position
        from_ns = position.last.created_ns if position.last else None
        _log.error(
            "records are missing",
            extra={"partition": position.partition, "start": position.end, "end": to, "type": kind},
        )
        following.jumps.append(
            Jump(position.partition, kind, position.end, to, from_ns, None, proof)
        )
        following.position = _at(position, to, position.last)

    # -- records -----------------------------------------------------------------------------

    def fetch(self, records: Mapping[int, Iterable[Record]]) -> None:
        """Keep records at hand."""
        for partition, of_partition in records.items():
            self.following[partition].fetched.extend(of_partition)

    def take(self, bytes_max: int, *, dense: bool) -> None:
        """Decode records for the next commit, until it holds ``bytes_max`` bytes."""
        for following in self.following.values():
            while following.fetched and not following.stopped and self.held_bytes < bytes_max:
                if self._take(following, following.fetched[0], dense=dense):
                    following.fetched.popleft()

    def _take(self, following: Following, record: Record, *, dense: bool) -> bool:
        position = following.position
        if dense and record.position > position.end:
            proof = f"the next record is {record.position}, and positions have no holes"
            self._jump(following, LOST_TOPIC, record.position, proof)
        try:
            batch = wire.decode(record.value, self._decompressor)
            if batch.partition != position.partition:
                raise TornBatch(f"it says that it is of partition {batch.partition}")
            if why := self._refused.get(position.partition, {}).get(record.position):
                raise TornBatch(why)
        except NewerWireVersion as error:
            following.stopped = str(error)
            following.fetched.clear()
            _log.error(
                "partition stopped",
                extra={"partition": position.partition, "at": record.position, "error": str(error)},
            )
            return False
        except TornBatch as error:
            self._bury(following, record, error)
            return True
        self.letters_in_row[position.partition] = 0
        following.batches.append(batch)
        following.batch_positions.append(record.position)
        following.held_bytes += _held_bytes(batch)
        _extend(following.lanes, batch)
        last = LastRecord(
            record.position, batch.run, batch.sequence, crc32(record.value), batch.created_ns
        )
        following.position = _at(following.position, record.position + 1, last)
        return True

    def _bury(self, following: Following, record: Record, error: TornBatch) -> None:
        """Keep a record that is no batch, and go on after it."""
        position = following.position
        crc = crc32(record.value)
        name = self._new_letter(position.partition, record.position, crc)
        _log.error(
            "record is no batch; kept as a dead letter",
            extra={"partition": position.partition, "at": record.position, "object": name,
                   "error": str(error)},
        )  # fmt: skip
        self.letters_in_row[position.partition] = self.letters_in_row.get(position.partition, 0) + 1
        from_ns = position.last.created_ns if position.last else None
        following.dead_letters.append(DeadLetter(name, record.value))
        following.jumps.append(
            Jump(
                position.partition, UNPARSED, record.position, record.position + 1, from_ns, None,
                str(error), name,
            )
        )  # fmt: skip
        run, number = _named(record)
        last = LastRecord(record.position, run, number, crc, from_ns or 0)
        if run:  # its number has come, so it leaves no hole in its lane
            created_ns = (from_ns or 0, from_ns or 0)
            following.lanes.append(
                LaneSpan(position.partition, "", run, number, number, 0, *created_ns)
            )
        following.held_bytes += len(record.value)
        following.position = _at(position, record.position + 1, last)


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


def _at(position: Position, end: int, last: LastRecord | None) -> Position:
    return Position(
        position.topic, position.identity, position.generation, position.partition,
        position.start, end, last,
    )  # fmt: skip


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
