"""Expressions of rules: they find what ``re`` finds, in any bytes, and none can hold a node up."""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import SettingError
from collector.policy.apply import Policy
from collector.policy.patterns import compiled
from collector.wire.range import Range, Stream
from tests.collector.node import line as cri_line
from tests.examples import examples

STREAM = Stream("payments", "api-0", "uid", "api", 0)


def policy(folder: Path, rule: str, clock: list[int] | None = None) -> Policy:
    path = folder / "policy.toml"
    path.write_text(f"[[rule]]\nname = 'one'\n{rule}\n", "utf-8")
    return Policy(path, lambda: clock.pop(0) if clock else 0)


def shown(subject: Policy, data: bytes, format: str = "plain") -> bytes:
    """Return what is sent of lines that nothing drops."""
    taken = Range(b"f" * 16, 0, 0, data, data.count(b"\n"), 0, 0, 0, False, format)
    pieces = subject.apply(STREAM, taken)
    return b"".join(piece.data for piece in pieces if isinstance(piece, Range))


@st.composite
def expressions(draw: st.DrawFn, depth: int = 2) -> str:
    """Draw what both ``re`` and RE2 know, without parts that repeat what may be empty."""
    one = st.sampled_from(
        ["a", "b", "k", "ab", ".", r"\d", r"\w", r"\S", r"\W", "[^a]", "[a-c]", r"\.", "=", r"\xff"]
    )
    place = st.sampled_from(["^", "$", r"\b", r"\B"])
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.integers(0, 9))
        if kind == 0:
            parts.append(draw(place))
        elif kind == 1 and depth:
            inner = "|".join(draw(st.lists(expressions(depth - 1), min_size=1, max_size=3)))
            parts.append(f"({inner})")
        else:
            parts.append(
                draw(one) + draw(st.sampled_from(["", "", "", "*", "+", "?", "{1,2}", "*?"]))
            )
    return "".join(parts)


@examples(400)
@given(
    st.sampled_from(["", "(?i)"]),
    expressions(),
    st.lists(
        st.binary(max_size=12) | st.text("abkK =.5ü", max_size=12).map(str.encode), max_size=4
    ),
)
def test_an_expression_in_ascii_finds_in_any_bytes_what_re_finds(
    flag: str, source: str, messages: list[bytes]
) -> None:
    if flag and r"\xff" in source:
        return  # a byte that RE2 takes for a letter of Latin-1
    by_re, by_re2 = re.compile((flag + source).encode(), 0), compiled(flag + source, "")
    # To RE2 a vertical tab is no blank.
    for message in (re.sub(rb"[\n\v]", b"", each) + b"." for each in messages):
        assert by_re2.search(message) is bool(by_re.search(message))
        wanted = [hit.span() for hit in by_re.finditer(message)]
        if all(start < end for start, end in wanted):  # where one is empty, they go on differently
            assert list(by_re2.spans(message, 0)) == wanted


@pytest.mark.parametrize(
    ("source", "text", "left"),
    [
        ("schlüssel=\\S+", "schlüssel=größe ab", "****************** ab"),
        ("(?i)ÄRGER", "der ärger", "der ******"),
        ("[äöü]+", "Äpfel böse üü", "Äpfel b**se ****"),
        ("[^ä ]+", "abä cd", "**ä **"),
        ("é?x", "aéx éé", "a*** éé"),
        ("密码:.", "密码:秘x", "**********x"),
        ("[ж-я]{2}", "жцш", "****ш"),
    ],
)  # fmt: skip
def test_an_expression_beyond_ascii_sees_characters(
    tmp_path: Path, source: str, text: str, left: str
) -> None:
    subject = policy(tmp_path, f"redact_pattern = '{source}'")
    for format, line in (("plain", f"{text}\n"), ("cri", cri_line(0, text=text).decode())):
        assert shown(subject, line.encode(), format) == line.replace(text, left).encode()


def test_a_secret_with_bytes_that_are_no_text_is_overwritten_whole(tmp_path: Path) -> None:
    for source in ("key=\\S+", "schlüssel=\\S+"):
        subject = policy(tmp_path, f"redact_pattern = '{source}'")
        begin = source.removesuffix("\\S+").encode()
        line = b"\xc3 " + begin + b"ab\xff\xc3cd\xe2\x82 rest\xfe\n"
        hidden = b"*" * (len(begin) + 8)
        assert shown(subject, line) == b"\xc3 " + hidden + b" rest\xfe\n"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("a(?=b)", "RE2 has no look-around"),
        ("(?<!a)b", "RE2 has no look-around"),
        ("(a)\\1", "RE2 has no backreferences"),
        ("(?P<x>a)(?P=x)", "RE2 has no backreferences"),
        ("a*+b", "RE2 has no possessive"),
        ("(?>a)b", "RE2 has no possessive"),
        ("(a)?(?(1)b|c)", "RE2 has no conditions"),
        ("(?x)a b", "of the flags i, m and s"),
        ("(?#why)a", "RE2 has no comments"),
        ("a\\Z", "RE2 writes \\z for the end"),
        ("a{,3}b", "write {0,N}"),
        ("a{1001}", "repeat less often"),
        ("(?:[ab]{100}c){100}", "repeat less often"),
        ("(?:(?:a{50}){50}){50}", "repeat less often"),
        ("(?:.{1000}x|.{999}y|.{998}z)", "of at most 2000 steps"),
        ("a)", "correct the expression"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["drop_pattern", "redact_pattern"])
def test_what_re2_lacks_is_an_error_that_names_rule_and_pattern(
    tmp_path: Path, source: str, says: str, action: str
) -> None:
    with pytest.raises(SettingError) as error:
        policy(tmp_path, f"{action} = '{source}'")
    assert f"rule 'one': {action} {source!r}: " in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "source", ["(a+)+$", "(a|aa)+$", "(?:a*)*b", "(.*)(.*)(.*)=$", "^(a+)+$|b"]
)
def test_no_pattern_takes_longer_than_the_line_is_long(tmp_path: Path, source: str) -> None:
    """With ``re`` these would not end before the test run is given up."""
    line = b"a" * 50_000 + b"!\n"
    assert shown(policy(tmp_path, f"drop_pattern = '{source}'"), line) == line
    assert shown(policy(tmp_path, f"redact_pattern = '{source}'"), line) == line


def test_of_a_message_that_takes_too_long_the_rest_is_overwritten(tmp_path: Path) -> None:
    line = b"x" + b"ab" * 600 + b"\n"
    clock = [0, 0, 10, 2_000_000_000]  # the first is of what the range's start is torn from
    subject = policy(tmp_path, "redact_pattern = 'a'", clock)
    assert shown(subject, line) == b"x" + b"*b" * 511 + b"*" * 178 + b"\n"


def test_a_pattern_without_its_package_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(SettingError, match=r"google-re2; pip install 'everyline\[collector\]'"):
        policy(tmp_path, "drop_pattern = 'a'")
