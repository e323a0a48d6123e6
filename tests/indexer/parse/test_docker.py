"""Lines of Docker's json-file driver against a slow reader of JSON."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.range import closed_cut, open_outputs
from indexer.schema import OUTPUTS
from tests.indexer.parse.test_parse import time_of
from tests.indexer.pieces import READ_NS, Piece, Row, parsed, rows_of, table

TIME = "2026-01-02T15:04:05.123456789Z"
TIME_NS = 1_767_366_245_123_456_789


def docker(log: str, stream: str = "stdout", time: str = TIME, attrs: str = "") -> bytes:
    """Return a line as Docker writes it; it leaves what is no ASCII as it is."""
    text = json.dumps(log, ensure_ascii=False).encode("utf-8", "surrogatepass")
    rest = f',"stream":"{stream}"{attrs},"time":"{time}"}}\n'
    return b'{"log":' + text + rest.encode()


def contents(data: bytes) -> list[bytes]:
    return [row.content for _, row in rows_of(parsed(Piece(data, format="docker")))]


@given(st.lists(st.text(st.characters(codec=None)) | st.text('"\\/\b\f\n\r\tu0d8', max_size=9)))
def test_a_log_is_unescaped_as_json_reads_it(texts: list[str]) -> None:
    expected = [text.encode("utf-8", "surrogatepass") for text in texts]
    written = [docker(f"{text}\n") for text in texts]
    assert contents(b"".join(written)) == expected
    escaped = [
        b'{"log":' + json.dumps(f"{text}\n").encode() + line[line.rindex(b',"stream"') :]
        for text, line in zip(texts, written, strict=True)
    ]
    assert contents(b"".join(escaped)) == expected


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (rb"\ud83d\ude9a\n", "🚚".encode()),
        (rb"\uD83D\uDE9A", "🚚".encode()),
        (rb"\ud83d\n", b"\xed\xa0\xbd"),
        (rb"\ude9a\ud83d\n", b"\xed\xba\x9a\xed\xa0\xbd"),
        (rb"\ud83d\u0041\n", b"\xed\xa0\xbdA"),
        (rb"\/\"\\n\n", b'/"\\n'),
        (b"\xff\xfe \\n", b"\xff\xfe "),
        (rb"\u000a", b"\n"),
        (b"", b""),
    ],
)
def test_what_a_log_stands_for(log: bytes, message: bytes) -> None:
    line = b'{"log":"%s","stream":"stderr","time":"%s"}\n' % (log, TIME.encode())
    [(_, row)] = rows_of(parsed(Piece(line, format="docker")))
    assert row == Row(TIME_NS, "line", "stderr", 0, not log.endswith(rb"\n"), message)


@pytest.mark.parametrize(
    "line",
    [
        '{"stream":"stdout","log":"a\\n","time":"TIME"}',
        '{ "log":"a\\n","stream":"stdout","time":"TIME"}',
        '{"log":"a\\n", "stream":"stdout","time":"TIME"}',
        '{"log":"a\\n","stream":"stdout","time":"TIME" }',
        '{"log":"a\\n","stream":"stdout","time":"2026-02-30T00:00:00Z"}',
        '{"log":"a\\n","stream":"stdout","time":""}',
        '{"log":"a\\n","stream":"stdin","time":"TIME"}',
        '{"log":"a\\n","time":"TIME"}',
        '{"log":"a\\n","stream":"stdout","x":1,"time":"TIME"}',
        '{"log":"a\\x","stream":"stdout","time":"TIME"}',
        '{"log":"a\\u00g0\\n","stream":"stdout","time":"TIME"}',
        '{"log":"a\\u12","stream":"stdout","time":"TIME"}',
        '{"log":"a\\","stream":"stdout","time":"TIME"}',
        '{"log":"a\\n","stream":"stdout"',
        '{"log":"',
        '"}',
        "no JSON",
        "",
    ],
)
def test_a_line_that_docker_would_not_write_is_kept_whole(line: str) -> None:
    data = line.replace("TIME", TIME).encode()
    first = docker("known\n", time="1970-01-01T00:00:01Z")
    found = [row for _, row in rows_of(parsed(Piece(data + b"\n", format="docker")))]
    assert found == [Row(READ_NS, "read", "unknown", 0, False, data)]
    found = [row for _, row in rows_of(parsed(Piece(first + data + b"\n", format="docker")))]
    assert found[1] == Row(10**9, "previous", "unknown", len(first), False, data)


def test_attributes_may_stand_before_the_time() -> None:
    line = docker("a\n", attrs=',"attrs":{"tag":"x}\\"","b":{}}')
    assert contents(line) == [b"a"]
    # One that the collector takes for another output leaves the line whole.
    line = docker("a\n", attrs=',"attrs":{"tag":"x","stream":"stderr"}')
    assert contents(line) == [line[:-1]]


_LINE = re.compile(
    rb'\{"log":("(?:[^"\\]|\\.)*"),"stream":"(stdout|stderr)"(?:,"attrs":\{.*\})?'
    rb',"time":"([^"]*)"\}'
)


def slow_docker(data: bytes, open_before: int, previous_ns: int) -> tuple[list[Row], int]:
    rows: list[Row] = []
    events: dict[str, Row] = {}
    offset, last = 0, previous_ns
    for line in data.split(b"\n")[:-1]:
        match = _LINE.fullmatch(line)
        time = match and time_of(match[3])
        if match and time is not None:
            log = json.loads(match[1], strict=False)
            output = match[2].decode()
            row = events.pop(output, None)
            if row is None:
                rows.append(row := Row(time, "line", output, offset, False, b""))
            row.content += log.removesuffix("\n").encode("utf-8", "surrogatepass")
            bit = 1 << OUTPUTS.index(output)
            row.partial |= bool(open_before & bit)
            open_before &= ~bit
            if not log.endswith("\n"):
                events[output] = row
            last = time
        else:
            rows.append(Row(last or READ_NS, "previous" if last else "read", "unknown", offset,
                            False, line))  # fmt: skip
            for output in ("stdout", "stderr"):
                log, claim, _ = line.rpartition(b'","stream":"%s"' % output.encode())
                if claim:
                    bit = 1 << OUTPUTS.index(output)
                    ended = re.search(rb"(?<!\\)(?:\\\\)*\\n\Z", log)
                    open_before = open_before & ~bit if ended else open_before | bit
                    if output in events:
                        events.pop(output).partial = True
        offset += len(line) + 1
    for row in events.values():
        row.partial = True
    return rows, last


logs = st.sampled_from(["a\n", "a", "b\n", "\\n", "\\\n", '"', "", "\n", "é\n", "\ud800"])
good = st.builds(
    docker, logs, st.sampled_from(["stdout", "stdout", "stderr"]), st.just(TIME),
    st.sampled_from(["", "", ',"attrs":{"a":"b"}']),
)  # fmt: skip
bad = st.sampled_from([b'x","stream":"stdout"\n', b"\n", b"junk\n", b'{"log":"a"}\n'])
late = st.builds(
    docker, logs, st.just("stderr"), st.sampled_from(["x", "2026-01-03T00:00:00+01:00"])
)
texts = st.lists(good | good | good | bad | late, max_size=10).map(b"".join)


@given(texts, st.data())
def test_rows_are_those_of_a_slow_parser_wherever_the_text_is_cut(text, data):
    ends = [0, *(match.end() for match in re.finditer(b"\n", text))]
    cut = data.draw(st.sampled_from(ends))
    state = open_outputs(text[:cut], 0, None, "docker")
    found = rows_of(parsed(Piece(text[cut:], state, format="docker")))
    assert [row for _, row in found] == slow_docker(text[cut:], state, 0)[0]
    rows = parsed(Piece(text[cut:], state, format="docker"))
    assert rows.lines[0] == text[cut:].count(b"\n") == rows.rows[0] + rows.joined[0]


@given(texts, st.data())
def test_rows_do_not_depend_on_where_the_collector_cuts(text, data):
    ends = [0, *(match.end() for match in re.finditer(b"\n", text))]
    cut = closed_cut(text, 0, data.draw(st.sampled_from(ends)), "docker")
    head = Piece(text[:cut], format="docker")
    tail = Piece(text[cut:], format="docker", file_start=cut, continues=True)
    whole = table(parsed(Piece(text, format="docker")))
    parts = parsed(head, tail)
    found = table(parts)
    for number, (row, _, _) in zip(parts.piece, found, strict=True):
        row.offset += int(number) * cut
    assert found == whole
    state = parsed(head).state_after[0].tolist()
    later = Piece(
        text[cut:], format="docker", file_start=cut, state=state, previous_time_ns=state[-1]
    )
    again = table(parsed(later))
    for row, _, _ in again:
        row.offset += cut
    assert again == whole[len(whole) - len(again) :]


def test_a_torn_line_is_partial_and_ends_nothing() -> None:
    line = docker("a\n")
    for cut in range(1, len(line)):
        rows = parsed(
            Piece(line[:cut], format="docker"),
            Piece(line[cut:], torn_before=True, format="docker", continues=True, file_start=cut),
        )
        assert rows.lines.tolist() == rows.rows.tolist() == [1, 1]
        assert rows.partial.tolist() == [True, True]
        head, tail = (row.content for _, row in rows_of(rows))
        assert (head + tail in (line[:-1], b"a" + line[cut:-1])) or cut == len(line) - 1
