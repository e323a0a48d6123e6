"""Cuts and open events against a slow reference that reads line by line."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from collector.checksum import crc32
from collector.wire.range import (
    STDERR,
    STDOUT,
    Range,
    Stream,
    closed_cut,
    file_id,
    open_outputs,
    split,
)
from tests.examples import examples

TIME = b"2024-03-01T00:00:00.1Z"
STREAM = Stream("payments", "api-0", "uid-1", "api", 0)


def output_of(line: bytes) -> tuple[int, bool] | None:
    """Output of a CRI line and whether it is a fragment, by the letter of the format."""
    time, blank, rest = line.partition(b" ")
    if not blank or len(time) >= 64:
        return None
    for output, name in ((STDOUT, b"stdout "), (STDERR, b"stderr ")):
        if rest.startswith(name):
            tag, blank, _ = rest.removeprefix(name).partition(b" ")
            return output, bool(blank) and tag.split(b":")[0] == b"P"
    return None


def slow_open(data: bytes, before: int = 0) -> int:
    state = before
    for line in data.splitlines(keepends=True):
        if (found := output_of(line.rstrip(b"\n"))) is not None:
            output, fragment = found
            state = state | output if fragment else state & ~output
    return state


def slow_cut(data: bytes, before: int = 0) -> int:
    cut = at = 0
    for line in data.splitlines(keepends=True):
        at += len(line)
        if not slow_open(data[:at], before):
            cut = at
    return cut


messages = st.sampled_from(
    [
        b"",
        b"x",
        b"a stdout P b",
        b" stderr P",
        b"2024-01-01T00:00:00Z stdout F inner",
        b"\x00\xff\xfe",
        b"tail stdout ",
    ]
)
tags = st.sampled_from([b"P", b"F", b"P:x", b"F:P", b"P:x:y", b"F:x", b"P", b"F"])
cri = st.builds(
    lambda output, tag, message: b" ".join((TIME, output, tag, message)),
    st.sampled_from([b"stdout", b"stderr"]),
    tags,
    messages,
)
malformed = st.sampled_from(
    [
        b"",
        b"stdout P x",
        b" stdout P x",
        b"no time at all",
        b"T" * 80 + b" stdout P x",
        TIME + b" stdlog P x",
        TIME + b"  stdout P x",
        TIME + b" stdout",
        TIME + b" stdout P",
        TIME + b" stdout Px y",
    ]
)
texts = st.lists(st.one_of(cri, cri, cri, malformed), max_size=12).map(
    lambda lines: b"".join(line + b"\n" for line in lines)
)
states = st.integers(0, STDOUT | STDERR)


@given(texts, states)
@example(b"", 3)
def test_open_outputs_are_those_of_a_reader_that_parses_each_line(text: bytes, before: int) -> None:
    assert open_outputs(text, before) == slow_open(text, before)


@given(texts, states)
@example(TIME + b" stdout F x\n" + TIME + b" stdout P y\n", STDERR)
def test_a_cut_is_the_last_place_with_no_open_event(text: bytes, before: int) -> None:
    assert closed_cut(text, before) == slow_cut(text, before)


@given(texts, states, st.data())
def test_bytes_after_the_end_do_not_matter(text: bytes, before: int, data: st.DataObject) -> None:
    lines = text.splitlines(keepends=True)
    end = sum(map(len, lines[: data.draw(st.integers(0, len(lines)))]))
    assert open_outputs(text, before, end) == open_outputs(text[:end], before)
    assert closed_cut(text, before, end) == closed_cut(text[:end], before)


@examples(200)
@given(texts.filter(lambda text: len(text) > 1), states, st.binary(max_size=9), st.booleans())
def test_halves_are_the_whole_and_each_can_be_read_alone(
    text: bytes, before: int, rest: bytes, torn: bool
) -> None:
    head = rest.replace(b"\n", b"") + b"\n" if torn else b""
    data = head + text
    whole = Range(
        file_id=b"i" * 16,
        epoch=0,
        start=100,
        data=data,
        lines=data.count(b"\n"),
        crc_before=7,
        open_before=before,
        open_after=slow_open(text, before),
        torn_before=torn,
    )
    left, right = split(whole)
    assert left.data + right.data == data
    assert left.data
    assert right.data
    assert (left.start, left.end, right.end) == (100, right.start, whole.end)
    assert left.lines + right.lines == whole.lines
    assert (left.crc_before, right.crc_before) == (7, crc32(left.data, 7))
    assert (left.torn_before, right.torn_before) == (torn, not left.data.endswith(b"\n"))
    assert (left.open_before, right.open_after) == (before, whole.open_after)
    assert left.open_after == right.open_before
    assert (left.format, right.format) == ("cri", "cri")
    if left.data.endswith(b"\n"):
        assert right.open_before == slow_open(left.data[len(head) :], before)


def test_an_empty_line_is_not_taken_for_the_one_after_it() -> None:
    text = b"2024-01-01T00:00:00Z stdout F one\n\n"
    after = b"2024-01-01T00:00:00Z stdout P two\n"
    assert open_outputs(text + after, end=len(text)) == 0
    assert closed_cut(text + after, end=len(text)) == len(text)


def test_a_long_line_full_of_tags_is_looked_at_once() -> None:
    line = TIME + b" stdout F" + b" stdout P" * 120_000 + b"\n"
    assert open_outputs(line) == 0
    assert closed_cut(line, STDERR) == 0
    assert closed_cut(line * 3) == 3 * len(line)


def test_many_lines_that_only_speak_of_fragments_are_looked_at_once_each() -> None:
    text = (TIME + b" stdout F a stderr P b stdout P c\n") * 20_000
    assert open_outputs(text, STDERR) == STDERR
    assert closed_cut(text) == len(text)


def test_events_that_overlap_over_a_whole_read_are_cut_before_the_first() -> None:
    words = [b"stdout P", b"stderr P", b"stdout F", b"stdout P", b"stderr F"]
    first = TIME + b" stdout F whole\n"
    chain = b"".join(
        TIME + b" " + words[i] + b" x\n" for _ in range(5_000) for i in (0, 1, 2, 3, 4)
    )
    chain = chain.replace(b"stderr F x\n", b"stderr F x\n" + TIME + b" stderr P x\n")
    assert closed_cut(first + chain) == slow_cut_of_chain(first, chain)


def slow_cut_of_chain(first: bytes, chain: bytes) -> int:
    state, at, cut = 0, 0, 0
    for line in (first + chain).splitlines(keepends=True):
        at += len(line)
        state = slow_open(line, state)
        if not state:
            cut = at
    return cut


def docker_open(data: bytes, before: int = 0) -> int:
    """Outputs that are open after lines of Docker's, by a JSON parser."""
    state = before
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        output = {"stdout": STDOUT, "stderr": STDERR}[record["stream"]]
        state = state & ~output if record["log"].endswith("\n") else state | output
    return state


def docker_line(output: str, log: str, more: dict[str, str]) -> bytes:
    record = {"log": log, "stream": output} | more | {"time": "2024-03-01T00:00:00.1Z"}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


logs = st.one_of(
    st.text(st.sampled_from('\\n\n"x,:{}\u20ac\0'), max_size=12),
    st.sampled_from(['x","stream":"stdout"', '{"log":"x\n","stream":"stderr"', "\\\\n", "\\\n"]),
)
docker_texts = st.lists(
    st.one_of(
        st.builds(
            docker_line,
            st.sampled_from(["stdout", "stderr"]),
            st.one_of(logs, logs.map(lambda log: log + "\n")),
            st.sampled_from([{}, {"attrs": '","stream":"stdout"\n'}]),
        ),
        st.sampled_from([b"\n", b"{\n", b'{"log":"torn\n', b"\0\0\n", b"no JSON\\n\n"]),
    ),
    max_size=10,
).map(b"".join)


@examples(300)
@given(docker_texts, states)
def test_open_outputs_of_docker_are_those_of_a_json_parser(text: bytes, before: int) -> None:
    assert open_outputs(text, before, None, "docker") == docker_open(text, before)


@examples(300)
@given(docker_texts, states)
def test_a_cut_in_docker_is_the_last_place_with_no_open_event(text: bytes, before: int) -> None:
    cut = at = 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        if not docker_open(text[:at], before):
            cut = at
    assert closed_cut(text, before, None, "docker") == cut


def test_each_line_of_a_plain_file_is_closed() -> None:
    text = TIME + b" stdout P x\n"
    assert open_outputs(text, 0, None, "plain") == 0
    assert closed_cut(text, 0, None, "plain") == len(text)


def test_a_chain_of_docker_fragments_is_looked_at_once_each() -> None:
    chain = docker_line("stdout", "\\" * 50, {}) * 10_000
    assert open_outputs(chain, 0, None, "docker") == STDOUT
    assert closed_cut(docker_line("stderr", "\n", {}) + chain, 0, None, "docker") == len(
        docker_line("stderr", "\n", {})
    )


def test_a_name_depends_on_stream_and_first_line_only() -> None:
    name = file_id("c", "n", STREAM, b"line")
    assert len(name) == 16
    assert name == file_id("c", "n", STREAM, b"line")
    other = Stream("payments", "api-0", "uid-1", "api", 1)
    names = {
        name,
        file_id("c2", "n", STREAM, b"line"),
        file_id("c", "n2", STREAM, b"line"),
        file_id("c", "n", other, b"line"),
        file_id("c", "n", STREAM, b"line2"),
        file_id("cn", "", STREAM, b"line"),
    }
    assert len(names) == 6


def test_only_the_first_256_bytes_of_a_line_name_the_file() -> None:
    assert file_id("c", "n", STREAM, b"x" * 256) == file_id("c", "n", STREAM, b"x" * 300)
    assert file_id("c", "n", STREAM, b"x" * 255) != file_id("c", "n", STREAM, b"x" * 256)


def test_the_whole_first_line_of_docker_names_the_file_up_to_a_bound() -> None:
    names = {file_id("c", "n", STREAM, b"x" * n, "docker") for n in (256, 65_535, 65_536, 70_000)}
    assert len(names) == 3


def test_what_a_plain_file_is_on_disk_names_it_too() -> None:
    names = {file_id("c", "n", STREAM, b"x", "plain", born) for born in (b"", b"1 2", b"1 3")}
    assert len(names) == 3
