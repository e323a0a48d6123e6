"""Lines of containerd and CRI-O: `<RFC 3339 time> <stdout|stderr> <tag> <message>`.

In come the bytes of a piece; out go its lines and rows, fragments (`P`, then `F`) joined per
output. Of a malformed line the collector's reading decides which events it ends and begins, so that
a cut by the collector never changes a row.
"""

from indexer.kernels import BLANK, COLON, NEWLINE, Bytes, compiled, memchr
from indexer.parse.lines import (
    EARLIER,
    LINE,
    NO_EVENT,
    UNKNOWN_OUTPUT,
    Around,
    Columns,
    Lines,
    leave_open,
    open_events,
    place_malformed,
    set_time,
)
from indexer.parse.timestamp import TIME_BYTES_MAX, rfc3339

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
def _claims(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return the bit sets of outputs that the collector sees in a line and of those that go on.

    See ``range._line_tag``.
    """
    for at in range(start, min(end, start + TIME_BYTES_MAX + 1)):
        if data[at] == BLANK:
            out = _output_word(data, at, end)
            tag = at + 8
            if out == UNKNOWN_OUTPUT:
                break
            goes_on = tag + 1 < end and data[tag] == _P
            goes_on = goes_on and (data[tag + 1] == BLANK or data[tag + 1] == COLON)
            return 1 << out, goes_on << out
    return 0, 0


@compiled
def split_cri(
    data: Bytes,
    start: int,
    end: int,
    around: Around,
    row: int,
    lines: Lines,
    columns: Columns,
) -> tuple[int, int, int]:
    """Split one piece; return its lines, the next free row and the time of the last line."""
    base = data.ctypes.data
    event = open_events(around.open_before)
    last_ns = around.previous_ns
    line = 0
    at = start
    while at < end:
        found = memchr(base + at, NEWLINE, end - at)
        stop = found - base if found != 0 else end
        torn_here = around.torn and at == start
        nanos, out, goes_on, message = 0, UNKNOWN_OUTPUT, False, at
        if not torn_here:
            nanos, out, goes_on, message = _header(data, at, stop)
        here = row
        if out != UNKNOWN_OUTPUT:
            if event[out] >= 0:
                here = event[out]
            else:
                columns.time_ns[row], columns.time_source[row] = nanos, LINE
                columns.output[row], columns.offset[row] = out, at - start
                columns.partial[row] = columns.tail[row] = event[out] == EARLIER
            event[out] = here if goes_on else NO_EVENT
            last_ns = nanos if nanos != 0 else 1  # 0 says that it is unknown
        else:
            claims, opens = (0, 0) if torn_here else _claims(data, at, stop)
            place_malformed(columns, event, row, at - start, torn_here, claims, opens)
            set_time(columns, row, last_ns, around.read_ns)
        row += here == row
        if found == 0:
            columns.partial[here] = True
        lines.row[line], lines.start[line], lines.end[line] = here, message, stop
        line += 1
        at = stop + 1
    leave_open(columns, event)
    return line, row, last_ns
