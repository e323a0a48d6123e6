"""From records of the topic to everything that one commit adds.

Batches go in, in the order of each partition; out come segments and the coverage that says what
they hold. A plain function of its arguments: whatever is moved on by the commit is in what it
returns, and what does not balance is refused.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from collector.wire.batch import Batch
from collector.wire.range import CRC_UNKNOWN, FORMATS, Stream
from indexer.errors import NotBalanced
from indexer.ledger.entries import FileEntry, FileKey
from indexer.parse.described_time import GUESSING, PlainTimes
from indexer.parse.events import NO_STATE, STATE_SIZE
from indexer.parse.parse import Pieces, Rows, parse
from indexer.segment.write import PieceHeader, Segment, build_segments
from indexer.table.coverage import (
    Balance,
    Control,
    Coverage,
    FileCover,
    Jump,
    LaneSpan,
    Note,
    Position,
    Span,
    note_body,
)
from indexer.times import HOUR_NS
from indexer.trim import Part, Trimmer


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that is not a batch: kept whole under ``name``."""

    name: str
    data: bytes


@dataclass
class Intake:
    """What has come of one partition since its last commit."""

    position: Position
    batches: list[Batch] = field(default_factory=list)
    lanes: list[LaneSpan] = field(default_factory=list)
    jumps: list[Jump] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Assembled:
    """What a commit adds, and what of it an operator should hear of."""

    segments: list[Segment]
    coverage: Coverage
    dead_letters: list[DeadLetter]
    epochs_raised: int
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class _Piece:
    header: PieceHeader
    part: Part
    partition: int
    created_ns: int
    state_before: Sequence[int]


def assemble(
    intakes: Sequence[Intake],
    files: Mapping[FileKey, FileEntry],
    now_ns: int,
    retention_ns: int | None,
    plain_times: PlainTimes = GUESSING,
) -> Assembled:
    """Return the segments and the coverage of a commit of ``intakes``.

    ``files`` is the trim state, the ledger's as of the last commit. Raises NotBalanced if bytes or
    lines would be lost or doubled on the way.
    """
    trimmer = Trimmer(files)
    covers: dict[FileKey, FileCover] = {}
    pieces: list[_Piece] = []
    shipped = elided = 0
    for intake in intakes:
        for batch in intake.batches:
            for key in _named(batch):
                _cover(covers, key, batch.files[key[0]], batch)
            for whole in batch.ranges:
                _check_bounds(whole.start, whole.end, whole.crc_after)
                shipped += len(whole.data)
                stream = batch.files[whole.file_id]
                for part in trimmer.trim(whole):
                    _cover(covers, (whole.file_id, part.epoch), stream, batch)
                    pieces.append(_piece(whole.file_id, part, stream, batch, files))
            for entry in batch.elided:
                _check_bounds(entry.start, entry.end, entry.crc_after)
                shipped += entry.end - entry.start
                cover = covers[entry.file_id, entry.epoch]
                for start, end in trimmer.elide(entry):
                    elided += end - start
                    crc_after = entry.crc_after if end == entry.end else CRC_UNKNOWN
                    cover.spans.append(Span(start, end, crc_after, 0, 0, 0, 0, entry.rule))
    # In this order the rows of one file lie together, and zstd finds what repeats.
    pieces.sort(
        key=lambda p: (
            p.header.stream.namespace, p.header.stream.container, p.header.stream.pod,
            p.header.file_id, p.header.epoch, p.header.start,
        )
    )  # fmt: skip
    rows = _parse(pieces, plain_times)
    _add_spans(covers, pieces, rows)
    lowest = None if retention_ns is None else now_ns - retention_ns
    headers = [piece.header for piece in pieces]
    segments = build_segments(rows, headers, now_ns, (lowest, now_ns + HOUR_NS))
    coverage = Coverage(
        committed_ns=now_ns,
        positions=[intake.position for intake in intakes],
        lanes=[span for intake in intakes for span in intake.lanes],
        files=list(covers.values()),
        notes=[note for intake in intakes for batch in intake.batches for note in _notes(batch)],
        jumps=[jump for intake in intakes for jump in intake.jumps],
        balance=_balance(intakes, (shipped, elided, trimmer.trimmed_bytes), pieces, rows, segments),
    )
    letters = [letter for intake in intakes for letter in intake.dead_letters]
    return Assembled(segments, coverage, letters, trimmer.epochs_raised, shipped)


def _check_bounds(start: int, end: int, crc_after: int | None) -> None:
    """Raise NotBalanced for numbers that no collector sends, and that the ledger cannot hold."""
    crc_fits = crc_after is None or CRC_UNKNOWN <= crc_after < 1 << 32
    if not 0 <= start <= end < 1 << 62 or not crc_fits:
        raise NotBalanced(f"bytes {start} to {end} of a file with CRC {crc_after} cannot be")


def _named(batch: Batch) -> set[FileKey]:
    """Return every file and epoch that the batch speaks of."""
    seen = batch.inventory.files if batch.inventory is not None else ()
    groups = (batch.ranges, batch.opens, batch.seals, batch.gaps, batch.elided, batch.gone, seen)
    return {(entry.file_id, entry.epoch) for group in groups for entry in group}


def _cover(
    covers: dict[FileKey, FileCover], key: FileKey, stream: Stream, batch: Batch
) -> FileCover:
    if key not in covers:
        covers[key] = FileCover(
            file_id=key[0],
            epoch=key[1],
            partition=batch.partition,
            node=batch.node,
            **stream.fields(),
            spans=[],
        )
    return covers[key]


def _piece(
    file_id: bytes, part: Part, stream: Stream, batch: Batch, files: Mapping[FileKey, FileEntry]
) -> _Piece:
    header = PieceHeader(stream, batch.node, file_id, part.epoch, part.start)
    file = files.get((file_id, part.epoch))
    return _Piece(header, part, batch.partition, batch.created_ns, _state_before(file, part.start))


def _state_before(file: FileEntry | None, start: int) -> Sequence[int]:
    """Return the state that parsing has left where a piece begins, as far as it is known."""
    before = [] if file is None else [part for part in file.covered if part.end == start]
    if not before:
        return NO_STATE
    # An elided stretch leaves none, whether it is of this commit or of an earlier one.
    return before[0].parser_state if len(before[0].parser_state) == STATE_SIZE else NO_STATE


def _parse(pieces: Sequence[_Piece], plain_times: PlainTimes) -> Rows:
    n = len(pieces)
    continues = np.zeros(n, np.bool_)
    for i, (before, piece) in enumerate(itertools.pairwise(pieces), start=1):
        continues[i] = piece.header.start == before.part.end and _file(piece) == _file(before)
    starts = np.zeros(n + 1, np.int64)
    np.cumsum([len(piece.part.data) for piece in pieces], out=starts[1:])
    patterns = [plain_times.number_of(piece.header.stream.container) for piece in pieces]
    return parse(
        b"".join(piece.part.data for piece in pieces),
        Pieces(
            starts=starts,
            file_start=np.array([piece.header.start for piece in pieces], np.int64),
            format=np.array([FORMATS.index(piece.part.format) for piece in pieces], np.int8),
            pattern=np.array(patterns, np.int16),
            open_before=np.array([piece.part.open_before for piece in pieces], np.uint8),
            torn_before=np.array([piece.part.torn_before for piece in pieces], np.bool_),
            continues=continues,
            state_before=np.array([piece.state_before for piece in pieces], np.int64).reshape(
                n, STATE_SIZE
            ),
            read_time_ns=np.array([piece.created_ns for piece in pieces], np.int64),
        ),
        plain_times,
    )


def _file(piece: _Piece) -> FileKey:
    return piece.header.file_id, piece.header.epoch


def _add_spans(covers: Mapping[FileKey, FileCover], pieces: Sequence[_Piece], rows: Rows) -> None:
    counts = zip(
        rows.lines.tolist(),
        rows.rows.tolist(),
        rows.first_time_ns.tolist(),
        rows.last_time_ns.tolist(),
        rows.state_after.tolist(),
        strict=True,
    )
    for piece, (lines, made, first_ns, last_ns, state) in zip(pieces, counts, strict=True):
        part = piece.part
        cover = covers[piece.header.file_id, part.epoch]
        cover.spans.append(
            Span(part.start, part.end, part.crc_after, lines, made, first_ns, last_ns, "", state)
        )


def _notes(batch: Batch) -> list[Note]:
    entries: list[Control] = [
        *batch.opens, *batch.seals, *batch.gaps, *batch.gone, *batch.metas,
    ]  # fmt: skip
    if batch.inventory is not None:
        entries.append(batch.inventory)
    return [
        Note(batch.partition, batch.node, batch.run, batch.sequence, *note_body(entry))
        for entry in entries
    ]


def _balance(
    intakes: Sequence[Intake],
    counted_bytes: tuple[int, int, int],
    pieces: Sequence[_Piece],
    rows: Rows,
    segments: Sequence[Segment],
) -> Balance:
    """Return the two equations; raise NotBalanced if one of them does not hold.

    ``counted_bytes`` are those shipped, elided and trimmed. The terms come from different places:
    lines were counted by the collector, rows in the segments that were written.
    """
    shipped, elided, trimmed = counted_bytes
    letters = sum(len(letter.data) for intake in intakes for letter in intake.dead_letters)
    covered = sum(len(piece.part.data) for piece in pieces)
    balance = Balance(
        shipped_bytes=shipped + letters,
        covered_bytes=covered,
        elided_bytes=elided,
        trimmed_bytes=trimmed,
        dead_letter_bytes=letters,
        lines=sum(piece.part.lines for piece in pieces),
        rows=sum(segment.rows for segment in segments),
        joined=int(rows.joined.sum()),
    )
    if not balance.holds:
        raise NotBalanced(f"a commit does not balance, nothing was written: {balance}")
    return balance
