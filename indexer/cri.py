"""Lines of containerd and CRI-O: `<RFC 3339 time> <stdout|stderr> <tag> <message>`.

In come the bytes of a piece; out go its lines and rows, fragments (`P`, then `F`) joined per
output. Of a malformed line the collector's reading decides whether it ends an event, so that a cut
by the collector never changes a row.
"""

import numpy as np

from indexer.kernels import (
    BLANK,
    COLON,
    LINE,
    NEWLINE,
    UNKNOWN_OUTPUT,
    Around,
    Bytes,
    Columns,
    Lines,
    compiled,
    memchr,
    set_time,
)
from indexer.timestamp import TIME_BYTES_MAX, rfc3339

_F, _P = 70, 80


@compiled
def _output_word(data: Bytes, blank: int, end: int) -> int:
    """Return the output (0, 1) whose word stands between two blanks at ``blank``, else 2."""
    if blank + 8 > end or data[blank] != BLANK or data[blank + 7] != BLANK:
        return UNKNOWN_OUTPUT
    if data[blank + 1] != 115 or data[blank + 2] != 116 or data[blank + 3] != 100:  # "std"
        return UNKNOWN_OUTPUT
    a, b, c = data[blank + 4], data[blank + 5], data[blank + 6]
    if a == 111 and b == 117 and c == 116:  # "out"
        return 0
    if a == 101 and b == 114 and c == 114:  # "err"
        return 1
    return UNKNOWN_OUTPUT


@compiled
def _header(data: Bytes, start: int, end: int) -> tuple[int, int, bool, int]:
    """Return (ns, output, goes on, start of the message) of a CRI line; output 2 if malformed."""
    nanos, blank = rfc3339(data, start, end)
    if blank < 0:
        return 0, UNKNOWN_OUTPUT, False, start
    output = _output_word(data, blank, end)
    tag = blank + 8
    if output == UNKNOWN_OUTPUT or tag >= end or (data[tag] != _F and data[tag] != _P):
        return 0, UNKNOWN_OUTPUT, False, start
    goes_on = data[tag] == _P
    at = tag + 1
    if at < end and data[at] == COLON:
        while at < end and data[at] != BLANK:
            at += 1
    elif (at == end and goes_on) or (at < end and data[at] != BLANK):
        return 0, UNKNOWN_OUTPUT, False, start
    return nanos, output, goes_on, min(at + 1, end)


@compiled
def _claimed_output(data: Bytes, start: int, end: int) -> int:
    """Return the output that the collector sees in a malformed line (``range._line_tag``)."""
    for at in range(start, min(end, start + TIME_BYTES_MAX + 1)):
        if data[at] == BLANK:
            return _output_word(data, at, end)
    return UNKNOWN_OUTPUT


@compiled
def split_cri(
    data: Bytes,
    start: int,
    end: int,
    around: Around,
    line: int,
    row: int,
    lines: Lines,
    columns: Columns,
) -> tuple[int, int, int]:
    """Split one piece; return the next free line and row, and the time of its last line."""
    base = data.ctypes.data
    event = np.full(2, -1, np.int64)  # per output the row of its open event
    tails, last_ns = around.tails, around.previous_ns
    at = start
    while at < end:
        found = memchr(base + at, NEWLINE, end - at)
        stop = found - base if found != 0 else end
        torn_here = around.torn and at == start
        nanos, out, goes_on, message = 0, UNKNOWN_OUTPUT, False, at
        if not torn_here:
            nanos, out, goes_on, message = _header(data, at, stop)
        joins = out != UNKNOWN_OUTPUT and event[out] >= 0
        here = event[out] if joins else row
        if not joins:
            columns.offset[row] = at - start
            columns.output[row] = out
            columns.partial[row] = torn_here
            row += 1
            if out != UNKNOWN_OUTPUT:
                columns.time_ns[here], columns.time_source[here] = nanos, LINE
            else:
                set_time(columns, here, last_ns, around.read_ns)
        if out != UNKNOWN_OUTPUT:
            last_ns = nanos if nanos != 0 else 1  # 0 says that it is unknown
            event[out] = here if goes_on else -1
            if tails & (1 << out):
                columns.partial[here] = True
                tails &= ~(1 << out)
        elif not torn_here:
            # The collector takes such a line for one of this output and may cut behind it, so it
            # ends the event here too: a row must not depend on where its file was cut.
            claimed = _claimed_output(data, at, stop)
            if claimed != UNKNOWN_OUTPUT:
                tails &= ~(1 << claimed)
                if event[claimed] >= 0:
                    columns.partial[event[claimed]] = True
                    event[claimed] = -1
        if found == 0:
            columns.partial[here] = True
        lines.row[line], lines.start[line], lines.end[line] = here, message, stop
        line += 1
        at = stop + 1
    for out in range(2):
        if event[out] >= 0:
            columns.partial[event[out]] = True
    return line, row, last_ns
