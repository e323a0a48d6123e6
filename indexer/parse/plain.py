"""Lines as a program has written them into a file of its own: each is a row, whole.

In come the bytes of a piece; out go its lines and rows. A line's time is read as somebody has
described it, else guessed; a line without one has that of the line before it.
"""

from indexer.kernels import NEWLINE, Bytes, compiled, memchr
from indexer.parse.described_time import described_time
from indexer.parse.guessed_time import guessed_time
from indexer.parse.lines import LINE, UNKNOWN_OUTPUT, Around, Columns, Lines, after_mark, set_time
from indexer.parse.timestamp import NO_TIME


@compiled
def split_plain(
    data: Bytes,
    start: int,
    end: int,
    around: Around,
    row: int,
    lines: Lines,
    columns: Columns,
    program: Bytes,
    zone_s: int,
) -> tuple[int, int, int]:
    """Split one piece; return its lines, the next free row and the time of the last line.

    The time is guessed if ``program`` is empty.
    """
    base = data.ctypes.data
    last_ns = around.previous_ns
    line = 0
    at = start
    while at < end:
        found = memchr(base + at, NEWLINE, end - at)
        stop = found - base if found != 0 else end
        torn_here = around.torn and at == start
        columns.offset[row] = at - start
        columns.output[row] = UNKNOWN_OUTPUT
        columns.partial[row], columns.tail[row] = torn_here or found == 0, torn_here
        time_ns, text = NO_TIME, after_mark(data, at, stop)
        if not torn_here and program.size:
            time_ns = described_time(data, text, stop, program, zone_s, around.read_ns)
        elif not torn_here:
            time_ns = guessed_time(data, text, stop, zone_s, around.read_ns, last_ns)
        if time_ns != NO_TIME:
            columns.time_ns[row], columns.time_source[row] = time_ns, LINE
            last_ns = time_ns if time_ns != 0 else 1  # 0 says that it is unknown
        else:
            set_time(columns, row, last_ns, around.read_ns)
        lines.row[line], lines.start[line], lines.end[line] = row, at, stop
        line += 1
        row += 1
        at = stop + 1
    return line, row, last_ns
