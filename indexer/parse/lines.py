"""What the kernels of all line formats share: the columns that they fill, and events' edges.

A kernel of one format goes through the lines of a piece; for each it fills one row of ``Columns``,
and by these functions it keeps to the same rules on events and malformed lines as the others.
"""

from typing import NamedTuple

import numpy as np

from indexer.kernels import Bytes, Codes, Flags, Longs, compiled

# Indices into schema.OUTPUTS and schema.TIME_SOURCES.
UNKNOWN_OUTPUT = 2
LINE, PREVIOUS, READ = 0, 1, 2

# In place of the row of an output's open event: there is none, or it began in no row of the piece
# that it could be joined to.
NO_EVENT, EARLIER = -1, -2


class Lines(NamedTuple):
    """For each line its row, and where its message stands in the bytes that are gathered."""

    row: Longs
    start: Longs
    end: Longs


class Columns(NamedTuple):
    """What is known of each row but its text; ``offset`` is from the start of its piece.

    ``tail``: its event, or its line, began before it. ``opens``: the bit set of outputs whose event
    begins with it, though it is malformed.
    """

    time_ns: Longs
    time_source: Codes
    output: Codes
    opens: Codes
    offset: Longs
    partial: Flags
    tail: Flags


class Around(NamedTuple):
    """What is known about the edge of a piece; the times are 0 if unknown."""

    open_before: int  # bit set of outputs whose event began before it
    torn: bool  # its first line began before it
    previous_ns: int
    read_ns: int


@compiled
def after_mark(text: Bytes, at: int, end: int) -> int:
    """Return what follows the byte order mark of UTF-8 at ``at``, else ``at``."""
    marked = end - at >= 3 and text[at] == 0xEF and text[at + 1] == 0xBB and text[at + 2] == 0xBF
    return at + 3 if marked else at


@compiled
def set_time(columns: Columns, row: int, last_ns: int, read_ns: int) -> None:
    """Give a row without a time of its own that of the line before it, else of reading."""
    columns.time_ns[row] = last_ns if last_ns != 0 else read_ns
    columns.time_source[row] = PREVIOUS if last_ns != 0 else READ


@compiled
def open_events(open_before: int) -> Longs:
    """Return for each output the row of its open event, as far as there is one."""
    event = np.full(UNKNOWN_OUTPUT, NO_EVENT)
    for out in range(UNKNOWN_OUTPUT):
        if open_before & (1 << out):
            event[out] = EARLIER
    return event


@compiled
def place_malformed(
    columns: Columns, event: Longs, row: int, offset: int, torn: bool, claims: int, opens: int
) -> None:
    """Make a row of a line that is kept whole; its time is left to ``set_time``.

    The collector takes it for one of each output that it ``claims``, and for a fragment of those
    that it ``opens``, and may cut behind it. So it ends and begins events here too: a row must not
    depend on where its file was cut.
    """
    columns.output[row], columns.offset[row] = UNKNOWN_OUTPUT, offset
    columns.partial[row] = columns.tail[row] = torn
    columns.opens[row] = opens
    for out in range(UNKNOWN_OUTPUT):
        if claims & (1 << out):
            if event[out] >= 0:
                columns.partial[event[out]] = True
            event[out] = EARLIER if opens & (1 << out) else NO_EVENT


@compiled
def leave_open(columns: Columns, event: Longs) -> None:
    """Say of the rows whose event is still open where their piece ends that more may follow."""
    for out in range(UNKNOWN_OUTPUT):
        if event[out] >= 0:
            columns.partial[event[out]] = True
