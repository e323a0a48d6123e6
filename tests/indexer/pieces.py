"""Pieces of files by hand, and what the parser makes of them, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from collector.wire.range import FORMATS
from indexer.parse.described_time import GUESSING, PlainTimes
from indexer.parse.events import NO_STATE, STATE_SIZE
from indexer.parse.parse import Pieces, Rows, parse
from indexer.schema import OUTPUTS, TIME_SOURCES

READ_NS = 77


@dataclass(frozen=True)
class Piece:
    data: bytes
    open_before: int = 0
    torn_before: bool = False
    previous_time_ns: int = 0
    read_time_ns: int = READ_NS
    format: str = "cri"
    file_start: int = 0
    continues: bool = False
    state: Sequence[int] = NO_STATE[:-1]
    container: str = "app"


@dataclass
class Row:
    time_ns: int
    time_source: str
    output: str
    offset: int
    partial: bool
    content: bytes


def parsed(*pieces: Piece, plain_times: PlainTimes = GUESSING) -> Rows:
    states = [[*piece.state[: STATE_SIZE - 1], piece.previous_time_ns] for piece in pieces]
    starts = np.cumsum([0, *(len(piece.data) for piece in pieces)], dtype=np.int64)
    return parse(
        b"".join(piece.data for piece in pieces),
        Pieces(
            starts=starts,
            file_start=np.array([piece.file_start for piece in pieces], np.int64),
            format=np.array([FORMATS.index(piece.format) for piece in pieces], np.int8),
            pattern=np.array([plain_times.number_of(p.container) for p in pieces], np.int16),
            open_before=np.array([piece.open_before for piece in pieces], np.uint8),
            torn_before=np.array([piece.torn_before for piece in pieces], np.bool_),
            continues=np.array([piece.continues for piece in pieces], np.bool_),
            state_before=np.array(states, np.int64).reshape(len(pieces), STATE_SIZE),
            read_time_ns=np.array([piece.read_time_ns for piece in pieces], np.int64),
        ),
        plain_times,
    )


def rows_of(rows: Rows) -> list[tuple[int, Row]]:
    """Return (piece, row) for each row."""
    found = []
    for i, (message, raw) in enumerate(zip(rows.message, rows.raw, strict=True)):
        content = raw.as_py() if raw.is_valid else message.as_py().encode()
        if raw.is_valid:
            assert content.decode("utf-8", "replace") == message.as_py() != ""
            with pytest.raises(UnicodeDecodeError):
                content.decode()
        row = Row(
            int(rows.time_ns[i]),
            TIME_SOURCES[rows.time_source[i]],
            OUTPUTS[rows.output[i]],
            int(rows.offset[i]),
            bool(rows.partial[i]),
            content,
        )
        found.append((int(rows.piece[i]), row))
    return found


def table(rows: Rows) -> list[tuple]:
    """Return all that a row says of itself, by its place in its piece."""
    return [
        (row, int(rows.event_offset[i]), int(rows.level[i]))
        for i, (_, row) in enumerate(rows_of(rows))
    ]
