"""Rows do not depend on where their file was cut, between any two lines and whatever these are.

What a cut inside of an event of the runtime changes is that event alone: its parts are rows of
their own, all partial, of the output and the event of the whole one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from collector.wire.range import FORMATS, STDERR, STDOUT, open_outputs
from indexer.parse.events import NO_STATE
from indexer.parse.parse import Rows
from indexer.schema import LEVELS
from tests.indexer.parse.test_docker import docker
from tests.indexer.pieces import Piece, Row, parsed, rows_of

TIME = "2026-01-02T15:04:05Z"

# What a line is for the lines after it shows in the first part of it already.
heads = st.sampled_from(
    ["a b ", "  at x ", "Traceback (most recent call last):", "Err: y ", "panic: z "]
)
messages = heads | st.sampled_from(["", "a", ")", "KeyError", "ERROR", "goroutine 1 [running]:"])
outputs = st.sampled_from(["stdout", "stdout", "stderr"])
times = st.sampled_from([TIME, "2026-01-02T15:04:06.5Z", "1970-01-01T00:00:00Z"])


def _cri(time: str, output: str, tag: str, message: str) -> bytes:
    return f"{time} {output} {tag} {message}\n".encode()


def _fragment(output: str, time: str, message: str) -> bytes:
    return docker(message, output, time)


def _whole(output: str, time: str, message: str) -> bytes:
    return docker(f"{message}\n", output, time)


good = {
    "cri": st.builds(_cri, times, outputs, st.sampled_from(["P", "P:x"]), heads)
    | st.builds(_cri, times, outputs, st.sampled_from(["F", "F:x"]), messages),
    "docker": st.builds(_fragment, outputs, times, heads)
    | st.builds(_whole, outputs, times, messages),
    "plain": st.builds(lambda m, t: f"{t}{m}\n".encode(), messages, st.just("") | times),
}
no_times = st.sampled_from(["bad", "", TIME[:-1], "2026-02-30T00:00:00Z"])
malformed = {
    "cri": st.builds(_cri, no_times, outputs, st.sampled_from(["F", "P", "P:x", "X"]), messages)
    | st.builds("{} {} {}\n".format, times, outputs, st.sampled_from(["P", "PF", ""])).map(
        str.encode
    ),
    "docker": st.builds(_fragment, outputs, no_times, messages)
    | st.builds(_whole, outputs, no_times, messages)
    | st.sampled_from(
        [
            docker("a", attrs=',"attrs":{"x":"y","stream":"stderr"}'),
            docker("a\n", "stderr", attrs=',"attrs":{"x":"y","stream":"stderr"}'),
            b'\\\\n","stream":"stdout" and \\n","stream":"stderr"\n',
            b'\\n","stream":"stdout" \\\\n","stream":"stdout"\n',
        ]
    ),
    "plain": st.just(b"\n"),
}
junk = st.sampled_from([b"\n", b"  junk\n", b"\xff stdout\n"])


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """Return a format, and lines of which some are malformed and claim an output."""
    line_format = draw(st.sampled_from(FORMATS))
    line = good[line_format] | good[line_format] | malformed[line_format] | junk
    return line_format, draw(st.lists(line, max_size=12))


@dataclass
class Known:
    """All that is known of a row; its place is that in the file."""

    row: Row
    event_offset: int
    level: str


def known(rows: Rows, starts: list[int]) -> dict[int, Known]:
    """Return the rows by where they are in their file."""
    found = {}
    for i, (piece, row) in enumerate(rows_of(rows)):
        row.offset += starts[piece]
        found[row.offset] = Known(row, int(rows.event_offset[i]), LEVELS[rows.level[i]])
    return found


@settings(deadline=None)
@given(texts(), st.sampled_from([0, STDOUT, STDERR, STDOUT | STDERR]), st.data())
def test_a_cut_changes_no_row_but_those_that_it_parts(given_text, before, data) -> None:
    line_format, lines = given_text
    text = b"".join(lines)
    before = 0 if line_format == "plain" else before
    ends = [0, *accumulate(map(len, lines))]
    cuts = sorted({0, len(text), *data.draw(st.lists(st.sampled_from(ends), max_size=4))})
    pieces = [
        Piece(
            text[start:end],
            open_outputs(text[:start], before, None, line_format),
            format=line_format,
            file_start=start,
            continues=start > 0,
        )
        for start, end in pairwise(cuts)
    ]
    whole = Piece(text, before, format=line_format)
    once = known(parsed(whole), [0])
    cut = known(parsed(*pieces), cuts)
    parts: dict[int, list[Known]] = {at: [] for at in once}
    owner: dict[str, int] = {}
    for at, part in cut.items():
        if at in once:
            owner[part.row.output] = at
        parts[owner[part.row.output]].append(part)
    for at, expected in once.items():
        found = parts[at]
        if len(found) == 1:
            assert found == [expected]
            continue
        assert b"".join(part.row.content for part in found) == expected.row.content
        assert {part.event_offset for part in found} == {expected.event_offset}
        assert all(part.row.partial for part in found)
        first = replace(found[0].row, content=expected.row.content, partial=expected.row.partial)
        assert first == expected.row
    # A commit may end at each cut: what it leaves is then all that is known.
    state: Sequence[int] = NO_STATE
    later: dict[int, Known] = {}
    for piece in pieces:
        rows = parsed(replace(piece, continues=False, state=state, previous_time_ns=state[-1]))
        later |= known(rows, [piece.file_start])
        state = rows.state_after[0].tolist()
    assert later == cut
    assert not pieces or state == parsed(whole).state_after[0].tolist()


@settings(deadline=None)
@given(st.sampled_from(["cri", "plain"]), st.data())
def test_a_cut_inside_of_a_line_changes_no_other_row(line_format: str, data: st.DataObject) -> None:
    others = st.lists(good[line_format] | malformed[line_format] | junk, max_size=6)
    above, below = b"".join(data.draw(others)), b"".join(data.draw(others))
    before = 0 if line_format == "plain" else data.draw(st.sampled_from([0, STDOUT, STDERR]))
    head = data.draw(heads).encode()
    if line_format == "cri":
        head = f"{TIME} {data.draw(outputs)} F ".encode() + head
    text = above + head + b"and on\n" + below
    at = len(above + head)
    assume(not open_outputs(text[:at], before, None, line_format))
    pieces = [
        Piece(text[:at], before, format=line_format),
        Piece(text[at:], 0, True, format=line_format, file_start=at, continues=True),
    ]
    once = known(parsed(Piece(text, before, format=line_format)), [0])
    cut = known(parsed(*pieces), [0, at])
    rest = cut.pop(at)
    assert (rest.row.content, rest.row.output, rest.row.partial) == (b"and on", "unknown", True)
    assert cut.keys() == once.keys()
    [(part, whole)] = [(cut[start], row) for start, row in once.items() if cut[start] != row]
    message = whole.row.content.removesuffix(b"and on")
    assert part.row == replace(whole.row, content=message, partial=True)
    assert part.event_offset == whole.event_offset
    assert line_format == "cri" or rest.event_offset == whole.event_offset
