"""The policy against the indexer's own parser: what is dropped, what is kept, what is overwritten.

Pieces must be what a reader that parses each line makes of the untouched range, less the events
that a rule dropped; every offset, line and CRC stays that of the bytes on disk.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.checksum import crc32
from collector.errors import SettingError
from collector.levels import WORDS
from collector.policy.apply import Policy
from collector.policy.events import Events
from collector.policy.level import level_of
from collector.policy.patterns import compiled
from collector.policy.rules import RuleTable, read_rules
from collector.process import described
from collector.wire.batch import Elided
from collector.wire.range import CRC_UNKNOWN, Range, Stream
from indexer.schema import LEVELS, OUTPUTS, TIME_SOURCES
from tests.collector.wire.test_range import malformed, slow_open
from tests.examples import examples
from tests.indexer.pieces import Piece, parsed
from tests.indexer.shipped import File, Run, Way

ROOT = Path(__file__).parents[3]
STREAM = Stream("shop", "web", "uid-web", "app", 0)
TIME = "2024-03-01T00:00:00.1Z"


class Clock:
    """Nanoseconds, set by hand."""

    now_ns = 10**18

    def __call__(self) -> int:
        return self.now_ns


def policy(*rules: str, clock: Clock | None = None) -> Policy:
    """Return a policy of rules, each the lines of its table behind its name."""
    tables = [f'[[rule]]\nname = "r{n}"\n{rule}\n' for n, rule in enumerate(rules)]
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_text("".join(tables), "utf-8")
        return Policy(Path(file.name), clock or Clock())


def cri(message: str, output: str = "stdout", tag: str = "F") -> bytes:
    return f"{TIME} {output} {tag} {message}\n".encode()


def taken_of(data: bytes, **known) -> Range:
    """Return a range in the midst of a file, flagged as a collector does."""
    state = slow_open(data, known.get("open_before", 0))
    plain = Range(b"i" * 16, 2, 1000, data, data.count(b"\n"), crc_before=7, open_after=state)
    return replace(plain, **known)


def checked(taken: Range, pieces: Sequence[Range | Elided]) -> list[Range]:
    """Return the ranges among the pieces, which cover exactly what was taken."""
    at, crc, lines, ranges = taken.start, taken.crc_before, 0, []
    kinds = [p.rule if isinstance(p, Elided) else "" for p in pieces]
    assert all(a != b for a, b in pairwise(kinds))
    for piece in pieces:
        assert (piece.file_id, piece.epoch, piece.start) == (taken.file_id, taken.epoch, at)
        assert piece.end > piece.start
        disk = taken.data[at - taken.start : piece.end - taken.start]
        assert piece.lines == disk.count(b"\n")
        after = crc32(disk, crc)
        if isinstance(piece, Elided):
            assert piece.crc_after == after
            assert disk.endswith(b"\n")
        else:
            assert (piece.crc_before, piece.format) == (crc, taken.format)
            assert len(piece.data) == len(disk)
            if piece.redacted:
                assert piece.crc_after == after
            else:
                assert (piece.data, piece.crc_after) == (disk, None)
            ranges.append(piece)
        at, crc, lines = piece.end, after, lines + piece.lines
    assert (at, lines) == (taken.end, taken.lines)
    return ranges


def rows(*ranges: Range) -> list[tuple]:
    """Return what the indexer makes of ranges: rows by their place in the file.

    Only a time of the line itself counts: a line without one has that of the line before.
    """
    found = parsed(*(Piece(r.data, r.open_before, r.torn_before) for r in ranges))
    return [
        (
            ranges[found.piece[i]].start + int(found.offset[i]),
            OUTPUTS[found.output[i]],
            LEVELS[found.level[i]],
            bool(found.partial[i]),
            found.raw[i].as_py() or found.message[i].as_py().encode(),
            int(found.time_ns[i]) * (TIME_SOURCES[found.time_source[i]] == "line"),
        )
        for i in range(len(found.time_ns))
    ]


def kept(policy_: Policy, data: bytes, **known) -> bytes:
    """Return what is left of a range, checked."""
    taken = taken_of(data, **known)
    return b"".join(piece.data for piece in checked(taken, policy_.apply(STREAM, taken)))


words = ["ERROR", "debug", "level=debug", "[info]", "secret=abc", "", "keep me", "TRACE x", "a b c"]
messages = st.lists(st.sampled_from(words), max_size=3).map(" ".join)
outputs = st.sampled_from(["stdout", "stderr"])
lines = st.builds(cri, messages, outputs, st.sampled_from(["P", "F", "F", "F", "F:x", "P:x"]))
odd = malformed.map(lambda line: line + b"\n")
files = st.lists(st.one_of(lines, lines, lines, lines, odd), min_size=1, max_size=30)
cuts = st.lists(st.floats(0, 1), max_size=4)
actions = st.sampled_from(
    [
        'drop_levels = ["debug", "trace"]',
        'drop_levels = ["error", "info"]',
        "drop_pattern = 'keep'",
        "drop_pattern = 'secret|a b'",
        "drop_pattern = '^$'",
        "drop_pattern = 'level=debug$'\noutput = 'stderr'",
        "drop_pattern = '[^x]b c'\noutput = 'stdout'",
        "sample = 0.5",
        "sample = 0.5\noutput = 'stderr'",
        "rate_limit_bytes_per_s = 1\nburst_bytes = 200",
        "rate_limit_bytes_per_s = 1\nburst_bytes = 100\noutput = 'stdout'",
    ]
)
rulesets = st.lists(actions, max_size=3)


def cut(data: bytes, at: Sequence[float]) -> list[int]:
    return [int(share * len(data)) for share in at]


@examples(300)
@given(files, cuts, cuts, rulesets)
@example(
    [cri("debug", tag="P"), cri("keep", "stderr"), cri("x")], [], [], ["drop_levels=['debug']"]
)
@example([cri("keep", tag="P"), cri("debug", "stderr"), cri("x")], [], [], ["sample = 0.0"])
def test_what_is_not_dropped_comes_out_as_if_nothing_had_been(
    data: list[bytes], at: list[float], again: list[float], rules: list[str]
) -> None:
    file = File(b"".join(data))
    whole = file.ranges(cut(file.data, at))
    subject = policy(*rules)
    run, way = Run(), Way()
    for taken in whole:
        pieces = subject.apply(file.stream, taken)
        ranges = checked(taken, pieces)
        elided = [piece for piece in pieces if isinstance(piece, Elided)]
        wanted = [r for r in rows(taken) if not any(e.start <= r[0] < e.end for e in elided)]
        assert rows(*ranges) == wanted
        # In any order with what follows, the indexer accepts them, and covers the file.
        way.commit(run.batch(*ranges, of=[file], elided=tuple(elided)))
        assert way.commits[-1].balance.holds
    entry = way.ledger.files[file.id, 0]
    assert [entry.covered[0].start, entry.covered[-1].end] == [0, len(file.data)]
    # A run without these rules sends it once more, cut elsewhere: it is known already.
    way.commit(run.batch(*file.ranges(cut(file.data, again)), of=[file]))
    assert way.commits[-1].balance.rows == 0


@given(st.lists(messages, min_size=1, max_size=30), st.sampled_from(["keep", "^secret", "a|b$"]))
def test_a_pattern_drops_exactly_the_events_in_whose_message_it_is_found(
    texts: list[str], pattern: str
) -> None:
    tags = ["F" if len(text) % 3 or i == len(texts) - 1 else "P" for i, text in enumerate(texts)]
    taken = taken_of(b"".join(cri(text, tag=tag) for text, tag in zip(texts, tags, strict=True)))
    ranges = checked(taken, policy(f"drop_pattern = '{pattern}'").apply(STREAM, taken))
    wanted = [row for row in rows(taken) if not re.search(pattern.encode(), row[4])]
    assert rows(*ranges) == wanted


@given(st.lists(messages, min_size=1, max_size=30), st.sets(st.sampled_from(list(WORDS))))
def test_levels_drop_exactly_the_rows_to_which_the_indexer_gives_them(
    texts: list[str], levels: set[str]
) -> None:
    taken = taken_of(b"".join(map(cri, texts)))
    subject = policy(f"drop_levels = {sorted(levels)}" if levels else "sample = 1.0")
    ranges = checked(taken, subject.apply(STREAM, taken))
    wanted = [row for row in rows(taken) if row[2] not in levels]
    assert rows(*ranges) == wanted


_level_words = [word for words in WORDS.values() for word in words] + ["29", "60", "61", "5", "x"]
_punctuation = [
    " ",
    "=",
    ":",
    '"',
    '":"',
    '": ',
    "[",
    "]",
    "{",
    "}",
    ",",
    "\\",
    '\\"',
    "_",
    "é",
    "\t",
]
_level_parts = st.sampled_from(
    [
        *_level_words,
        *(word.upper() for word in _level_words),
        *(word.title() for word in _level_words),
        *("level", "lvl", "severity", "log.level", "levelname", "LEVEL", "Level", "msg"),
        *_punctuation,
        *(
            "I0102 15:04:",
            "F0102 15:04:05",
            "E20260102 15:04:",
            "2026-01-02 15:04:05.000000 ",
            "N | ",
            "F | ",
            "2026-01-02T15:04:05.000+0000 ",
            "W ",
            "N ",
            "] ",
            " " * 230,
            "x" * 250,
            "x" * 4080,
            '{"',
            '","',
            "\x1b[31m",
            "\x1b[0m",
            "\x1b",
            "\ufeff",
            "<11>",
            "<192>",
            "1:M 02 Jan 2026 15:04:05.123 ",
            "[7] 02 Jan 15:04:05.123 ",
            "* ",
            "# ",
            '{"t":{"$date":"2026"},"s":"',
            "PHP ",
            "Fatal error:",
            "LOG:  ",
            "INF]",
            "TRACE /",
            "?level=",
            "&",
            "/",
            "-",
            ".",
            "@l",
            "400",
            "15:04:05 ",
        ),
    ]
)


@examples(1000)
@given(st.lists(_level_parts, max_size=12).map("".join))
@example("x" * 252 + " INFO")
@example("x" * 250 + ' level="emergency"')
@example('{"x":"' + "y" * 4070 + '","lvl":"info"}')
@example("LEVEL=info")
def test_a_level_is_the_one_that_the_indexer_finds(text: str) -> None:
    row = parsed(Piece(f"{TIME} stdout F {text}\n".encode()))
    assert level_of(text.encode()) == LEVELS[row.level[0]]


@pytest.mark.parametrize(
    "pattern",
    [
        "secret=\\w+", "(?i)SECRET=\\S+", "ab|c", "x[^-a]c|b", "[^]]d", "(a|b)+\\sc", "^b",
        "\\bb\\b", "(?i)(?:A[B-]|c)x", "(?P<x>a|b)c|(d)$", "^$|x+b", "(?:a|b)?c",
        "(?:\\bab|a)*b", "(?i:AB|c)[^\\W]", "(^|x)d", "(?i)[]A-C]\\D", "^b|x$", "(?i)^ab|=d$",
        "[^a]", "d$", "^[^|]d", "x\\||^d", "b[^d]*", "(a|ab)(c|bcd)?", "x*?=", "c{1,2}|d{0,1}x",
    ],
)  # fmt: skip
@given(data=st.lists(st.text("abcdx-]= \tSECRETsecret", max_size=12), min_size=1, max_size=8))
def test_redaction_overwrites_exactly_what_the_pattern_finds_in_each_message(
    pattern: str, data: list[str]
) -> None:
    text = b"".join(map(cri, data))
    head = len(cri("")) - 1
    by_re = re.compile(pattern.encode())
    wanted = b"".join(
        line[:head] + by_re.sub(lambda m: b"*" * len(m[0]), line[head:-1]) + b"\n"
        for line in text.splitlines(keepends=True)
    )
    taken = taken_of(text)
    pieces = policy(f"redact_pattern = '{pattern}'").apply(STREAM, taken)
    (only,) = checked(taken, pieces)
    assert only.data == wanted
    assert only.redacted == ("r0" if wanted != text else "")


def test_a_secret_that_the_runtime_has_split_is_found() -> None:
    data = cri("a secr", tag="P") + cri("other secret=z", "stderr") + cri("et=xyz b")
    subject = policy("redact_pattern = 'secret=(?P<it>\\w+)'\nredact_group = 'it'")
    wanted = data.replace(b"xyz", b"***").replace(b"=z", b"=*")
    assert kept(subject, data) == wanted


@examples(200)
@given(files, cuts)
def test_redaction_changes_no_row_but_its_message_and_no_state(
    data: list[bytes], at: list[float]
) -> None:
    file = File(b"".join(data))
    subject = policy("redact_pattern = '[^q]+'", "drop_pattern = 'secret'")
    for taken in file.ranges(cut(file.data, at)):
        ranges = checked(taken, subject.apply(file.stream, taken))
        plain = policy("drop_pattern = 'secret'").apply(file.stream, taken)
        before = rows(*(each for each in plain if isinstance(each, Range)))
        assert [row[:2] + row[3:4] + row[5:] for row in rows(*ranges)] == [
            row[:2] + row[3:4] + row[5:] for row in before
        ]
        for each in ranges:
            if not each.torn_before and each.data.endswith(b"\n"):
                assert slow_open(each.data, each.open_before) == each.open_after


_pattern_parts = [
    *(
        "a",
        "b",
        "B",
        "a",
        "[^a]",
        "[^-b]",
        "[ab]",
        "[^]a]",
        "\\s",
        "\\W",
        "\\b",
        "\\B",
        "^",
        "$",
        ".",
    ),
    *(
        "ba",
        "abab",
        "a",
        "|",
        "(",
        ")",
        "(?:",
        "(",
        ")",
        "*",
        "+",
        "?",
        "{2}",
        "(?i:",
        "[^|]",
        "\\$",
        "\\|",
        "\\[",
        "{0,1}",
    ),
]


@examples(500)
@given(
    st.tuples(st.sampled_from(["", "(?i)"]), st.lists(st.sampled_from(_pattern_parts), max_size=9)),
    st.lists(st.text("abAB (|$[", min_size=1, max_size=6), min_size=1, max_size=6),
)
def test_no_line_that_a_pattern_is_found_in_is_passed_over(
    drawn: tuple[str, list[str]], texts: list[str]
) -> None:
    source = drawn[0] + "".join(drawn[1])
    try:
        expected, pattern = re.compile(source.encode()), compiled(source, "")
    except (re.error, SettingError):
        return  # possessive parts, say
    for format, write in (("cri", cri), ("plain", lambda text: f"{text}\n".encode())):
        events = Events(taken_of(b"".join(map(write, texts)), format=format))
        found = {line.start() for line in events.lines(pattern.finder)}
        for line in events.lines(None):
            is_found = expected.search(line["message"]) is not None
            assert pattern.search(line["message"]) is is_found
            assert line.start() in found or not is_found


def test_what_redaction_has_overwritten_is_trimmed_when_it_comes_again() -> None:
    file = File(b"".join(cri(f"line {n} secret=abc") for n in range(9)))
    subject = policy("redact_pattern = 'secret=\\w+'")
    run, way = Run(), Way()
    first, second = file.ranges([len(file.data) // 2])
    for taken in (first, second, first):
        way.commit(run.batch(*checked(taken, subject.apply(file.stream, taken)), of=[file]))
    assert [commit.balance.rows > 0 for commit in way.commits] == [True, True, False]
    ends = dict(way.ledger.files[file.id, 0].ends)
    assert ends[first.end] == file.crc(first.end) != CRC_UNKNOWN


def test_an_event_between_the_fragments_of_another_goes_with_it_or_stays() -> None:
    data = cri("debug", tag="P") + cri("keep", "stderr") + cri("x") + cri("debug")
    subject = policy("drop_pattern = 'debug'")
    assert kept(subject, data) == data.removesuffix(cri("debug"))
    assert kept(policy("drop_pattern = 'debug|keep'"), data) == b""


def test_what_is_open_or_torn_at_an_edge_is_kept() -> None:
    subject = policy("sample = 0.0")
    inner = cri("gone")
    assert kept(subject, inner + cri("open", tag="P")) == cri("open", tag="P")
    assert kept(subject, cri("rest") + inner, open_before=1) == cri("rest")
    assert kept(subject, b"rest\n" + inner + b"torn", torn_before=True) == b"rest\ntorn"
    assert kept(subject, b"all of it", torn_before=True) == b"all of it"


def test_the_first_rule_that_matches_gives_its_name() -> None:
    data = cri("a") + cri("a b") + cri("b") + cri("c")
    pieces = policy("drop_pattern = 'a'", "drop_pattern = 'b'").apply(STREAM, taken_of(data))
    names = [piece.rule for piece in pieces if isinstance(piece, Elided)]
    assert names == ["r0", "r1"]
    assert [piece.lines for piece in pieces] == [2, 1, 1]


def test_a_sample_is_the_same_at_each_replay_and_of_its_share() -> None:
    data = b"".join(cri("x") for _ in range(20_000))
    taken = taken_of(data)
    subject = policy("sample = 0.1")
    pieces = subject.apply(STREAM, taken)
    ranges = checked(taken, pieces)
    share = sum(len(each.data) for each in ranges) / len(data)
    assert 0.09 < share < 0.11
    half = len(data) // len(cri("x")) // 2 * len(cri("x"))
    later = replace(taken, start=1000 + half, data=data[half:], lines=taken.lines // 2)
    again = {row[0] for row in rows(*checked(later, policy("sample = 0.1").apply(STREAM, later)))}
    assert again == {row[0] for row in rows(*ranges) if row[0] >= 1000 + half}


def test_a_rate_holds_over_time_and_cuts_at_lines() -> None:
    clock = Clock()
    line = cri("x" * 50)
    subject = policy(f"rate_limit_bytes_per_s = {len(line)}\nburst_bytes = 400", clock=clock)
    data = line * 20
    assert kept(subject, data) == line * (400 // len(line))
    assert kept(subject, data) == b""
    clock.now_ns += 3 * 10**9
    assert len(kept(subject, data)) in (2 * len(line), 3 * len(line))
    other = Stream("shop", "web", "uid-2", "app", 0)
    assert isinstance(subject.apply(other, taken_of(line))[0], Range)
    clock.now_ns -= 10**12  # a clock that steps back gives and takes nothing
    assert kept(subject, data) == b""


def test_a_rule_for_an_output_leaves_the_other_alone() -> None:
    data = cri("a") + cri("b", "stderr") + cri("c", "stderr")
    assert kept(policy("sample = 0.0\noutput = 'stderr'"), data) == cri("a")
    limited = policy("rate_limit_bytes_per_s = 1\nburst_bytes = 1\noutput = 'stdout'")
    assert kept(limited, data) == data.removeprefix(cri("a"))
    redacted = policy("redact_pattern = '[abc]'\noutput = 'stdout'")
    assert kept(redacted, data) == data.replace(b"F a", b"F *")


@pytest.mark.parametrize(
    ("match", "applies"),
    [
        ("namespace = 'sh*'", True),
        ("namespace = ['x', 'shop']\npod = 'we?'\ncontainer = 'app'", True),
        ("pod = 'we'", False),
        ("namespace = 'Shop'", False),
        ("container = ['a', 'b*']", False),
    ],
)
def test_a_rule_is_for_the_streams_that_it_names(match: str, applies: bool) -> None:
    taken = taken_of(cri("x"))
    pieces = policy(f"{match}\nsample = 0.0").apply(STREAM, taken)
    assert isinstance(pieces[0], Elided) is applies
    assert applies or pieces == (taken,)


def docker(text: str, output: str = "stdout") -> bytes:
    line = {"log": text, "stream": output, "time": "2024-03-01T00:00:00.1Z"}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def test_rules_know_the_lines_of_docker() -> None:
    data = [
        docker('{"level":"debug","a":"\\\\"}\n'),
        docker("level=info\n", "stderr"),
        docker("split "),  # Docker ends only the last part of a long line by a newline
        docker("level=debug secr"),
        docker("et=a\\bc\n"),
        b'{"log":"torn sec\n',
        docker("\tDEBUG\n"),
    ]

    def left(rule: str) -> list[int]:
        found = kept(policy(rule), b"".join(data), format="docker").splitlines(keepends=True)
        return [data.index(line) for line in found]

    assert left("drop_levels = ['debug']") == [1, 5]
    assert left("drop_pattern = '^split.*secret'") == [0, 1, 5, 6]
    assert left("sample = 0.0\noutput = 'stderr'") == [0, 2, 3, 4, 5, 6]
    assert left("drop_pattern = 'time'") == [0, 1, 2, 3, 4, 5, 6]
    # Half an escape is never left behind, so the line stays JSON.
    dark = kept(policy("redact_pattern = 'sec(ret=a.)?'"), b"".join(data), format="docker")
    lines = dark.splitlines()
    assert [json.loads(line)["log"] for line in lines[2:5]] == [
        "split ", "level=debug ****", "******bc\n",
    ]  # fmt: skip
    assert lines[5] == b'{"log":"torn ***'


def test_rules_know_plain_lines() -> None:
    data = b"2024 stdout F debug\nDEBUG x\nsecret=1 ERROR\n"
    subject = policy("drop_levels = ['debug']", "redact_pattern = 'secret=.'")
    wanted = b"2024 stdout F debug\n******** ERROR\n"
    assert kept(subject, data, format="plain") == wanted


# ---- the file ----------------------------------------------------------------------------------


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = x", "(at line 1, column 5)"),
        ("[[rules]]\nname='a'", "unknown key 'rules'; did you mean 'rule'?"),
        ("[rule]\nname='a'", "write each rule as [[rule]]"),
        ("[[rule]]\nsample=0.1", "rule 1: Object missing required field `name`"),
        ("\n[[rule]]\nname='a b'\nsample=0.1", "line 2, rule 'a b': a name has"),
        ("[[rule]]\nname='a'\nsmaple=0.1", "unknown key 'smaple'; did you mean 'sample'?"),
        ("[[rule]]\nname='a'\nsample=2", "Expected `float` <= 1"),
        ("[[rule]]\nname='a'\ndrop_levels=['loud']", "Invalid enum value 'loud'"),
        ("[[rule]]\nname='a'\ndrop_levels=[]", "drop_levels is an empty list"),
        ("[[rule]]\nname='a'", "exactly one action, here none"),
        ("[[rule]]\nname='a'\nsample=0.1\ndrop_pattern='x'", "here drop_pattern and sample"),
        ("[[rule]]\nname='a'\nsample=0.1\nburst_bytes=1", "does nothing without rate_limit"),
        ("[[rule]]\nname='a'\nrate_limit_bytes_per_s=0", "Expected `int` >= 1"),
        ("[[rule]]\nname='a'\ndrop_pattern='('", "rule 'a': drop_pattern '(': missing )"),
        ("[[rule]]\nname='a'\ndrop_pattern='x*'", "is found in every message"),
        ("[[rule]]\nname='a'\nredact_pattern='(x)'\nredact_group=2", "has no group 2"),
        ("[[rule]]\nname='a'\nredact_pattern='(x)'\nredact_group='b'", "has no group 'b'"),
        (
            "[[rule]]\nname='a'\nsample=0.1\n\n[[rule]]\nname='a'\nsample=0.1",
            "line 5, rule 'a': the name is taken",
        ),
    ],
)
def test_a_wrong_rule_is_an_error_that_says_where_and_what_to_do(
    tmp_path: Path, text: str, says: str
) -> None:
    path = written(tmp_path / "policy.toml", text)
    with pytest.raises(SettingError) as error:
        Policy(path, Clock())
    assert says in str(error.value)
    assert str(path) in str(error.value)


def test_a_policy_that_is_not_there_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="mount it there"):
        Policy(tmp_path / "none.toml", Clock())
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(SettingError, match="not text in UTF-8"):
        Policy(tmp_path / "bytes.toml", Clock())


def test_without_a_policy_everything_is_kept() -> None:
    subject, taken = Policy(None, Clock()), taken_of(cri("x"))
    subject.reload()
    pieces = subject.apply(STREAM, taken)
    assert pieces == (taken,)
    assert pieces[0] is taken


ALL = "[[rule]]\nname = 'all'\nsample = 0.0\n"


def test_a_changed_file_is_taken_up_and_a_bad_one_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "policy.toml", "")
    subject = Policy(path, Clock())
    taken = taken_of(cri("x"))
    assert subject.apply(STREAM, taken) == (taken,)
    written(path, ALL)
    subject.reload()
    assert isinstance(subject.apply(STREAM, taken)[0], Elided)
    for bad in ("[[rule]]\nnam = 1", None):
        caplog.clear()
        written(path, bad) if bad else path.unlink()
        for _ in range(3):
            subject.reload()
        assert isinstance(subject.apply(STREAM, taken)[0], Elided)
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert str(path) in subject.error
    assert subject.reloads_failed == 2
    written(path, "")
    subject.reload()
    assert subject.apply(STREAM, taken) == (taken,)
    assert (subject.error, subject.rules) == ("", ())


def test_a_mounted_file_is_taken_up_when_its_links_are_swapped(tmp_path: Path) -> None:
    for name, text in (("..1", ""), ("..2", ALL)):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "policy.toml", text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.toml").symlink_to("..data/policy.toml")
    subject = Policy(tmp_path / "policy.toml", Clock())
    (tmp_path / "..new").symlink_to("..2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    subject.reload()
    assert [rule.name for rule in subject.rules] == ["all"]


def test_a_reload_gives_no_budget_back_to_a_rule_that_stays(tmp_path: Path) -> None:
    limit = "[[rule]]\nname = 'slow'\nrate_limit_bytes_per_s = 1\nburst_bytes = 60\n"
    path = written(tmp_path / "policy.toml", limit)
    subject = Policy(path, Clock())
    data = cri("x" * 20)
    assert kept(subject, data) == data
    written(path, limit + "# changed")
    subject.reload()
    assert kept(subject, data) == b""


def test_the_example_is_a_policy() -> None:
    names = [rule.name for rule in read_rules(ROOT / "deploy" / "policy.toml")]
    assert len(names) == 6
    subject = Policy(ROOT / "deploy" / "policy.toml", Clock())
    gone = cri('"GET /healthz HTTP/1.1" 200')
    text = cri("user=x password=hunter2, ok") + cri('{\\"Password\\": \\"hunter2\\"}')
    wanted = text.replace(b"hunter2", b"*******")
    assert kept(subject, gone + text) == wanted
    card = taken_of(cri("card 4111 1111 1111 1111."))
    paid = subject.apply(Stream("payments", "web", "uid", "app", 0), card)
    assert checked(card, paid)[0].data == cri("card *******************.")


def documented() -> Iterator[str]:
    for name, (default, text) in described(RuleTable).items():
        shown = "" if default is None else f"`{default}`"
        yield f"| `{name}` | {shown} | {text} |"


@pytest.mark.parametrize("row", list(documented()))
def test_each_key_of_a_rule_is_in_the_reference(row: str) -> None:
    assert row in (ROOT / "deploy" / "REFERENCE.md").read_text("utf-8").splitlines()
