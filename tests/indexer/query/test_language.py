"""The language and its filter against a slow reading of the same rules."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.errors import BadQuery
from indexer.query.filter import Filter, compile_kernels
from indexer.query.terms import Term, parse_query

compile_kernels()  # no test has to wait for it

# Few characters, so that texts meet: cases, the two letters that Unicode folds to ASCII, edges.
ALPHABET = "abkKsS_09 -.:/\\\u212a\u017f\xe9\u4e2d\n\x00[]^$+?"
messages = st.lists(st.text(ALPHABET, max_size=12), max_size=8)
quoted = st.text(ALPHABET + '"\\*()', min_size=1, max_size=4)
bare = st.text("abkKsS_09.\xe9\u212a[]^$+?", min_size=1, max_size=5).filter(
    lambda word: word not in ("AND", "OR", "NOT")
)


def lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def is_token(character: str) -> bool:
    return not character.isascii() or character.isalnum() or character == "_"


def slow_match(term: Term, message: str) -> bool:
    """Try the text at each place of the message."""
    text, whole = lower(term.text), lower(message)
    for at in range(len(whole)):
        end = at + len(text)
        if whole[at:end] != text:
            continue
        torn_before = term.starts_token and at > 0 and is_token(whole[at - 1])
        torn_behind = term.ends_token and end < len(whole) and is_token(whole[end])
        if not torn_before and not torn_behind:
            return True
    return False


def found(query: str, rows: list[str]) -> list[str]:
    kept = np.ones(len(rows), np.bool_)
    Filter(parse_query(query)).strike_out(pa.chunked_array([rows], pa.string()), kept)
    return [row for row, left in zip(rows, kept, strict=True) if left]


def escaped(phrase: str) -> str:
    return '"' + phrase.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.tuples(st.booleans(), quoted), max_size=3), messages)
def test_phrases_are_substrings_without_regard_to_ascii_case(terms, rows):
    query = " ".join(("-" if negated else "") + escaped(text) for negated, text in terms)
    expected = [
        row
        for row in rows
        if all((lower(text) in lower(row)) != negated for negated, text in terms)
    ]
    assert found(query, rows) == expected


@given(st.lists(st.tuples(st.booleans(), bare), max_size=3), messages)
@example([(False, "k")], ["\u212a", "K", "ak", "a k"])
@example([(True, "s")], ["\u017f", "S"])
def test_words_match_whole_tokens(terms, rows):
    query = " ".join(("-" if negated else "") + word for negated, word in terms)
    parsed = parse_query(query)
    assert [(term.negated, term.text) for term in parsed] == terms
    for term in parsed:
        assert term.starts_token == is_token(term.text[0])
        assert term.ends_token == is_token(term.text[-1])
    expected = [
        row for row in rows if all(slow_match(term, row) != term.negated for term in parsed)
    ]
    assert found(query, rows) == expected


@st.composite
def long_rows(draw):
    """Return rows of more than one block, and terms most of which are cut out of them."""
    rows = draw(st.lists(st.text("aAbB_ -\xe9\u4e2d", max_size=150), min_size=1, max_size=12))
    whole = "".join(rows) + "a"
    terms = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(whole) - 1))
        text = whole[start : start + draw(st.sampled_from([1, 2, 3, 5, 8, 70, 200]))]
        text = draw(st.sampled_from([text, text.upper(), text + "b"]))
        terms.append(Term(text, *draw(st.tuples(*[st.booleans()] * 3))))
    return rows, terms


@given(
    long_rows(),
    st.integers(0, 12),
    st.integers(0, 3),
    st.integers(0),
    st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
)
def test_rows_are_struck_out_wherever_they_stand_in_buffers(long, cut, before, left, kind):
    rows, terms = long
    parts = [rows[:cut], rows[cut:]]
    around = ["a b"] * before
    chunks = [pa.array([*around, *part, *around], kind)[before:] for part in parts]
    messages = pa.chunked_array(
        [chunk[: len(part)] for chunk, part in zip(chunks, parts, strict=True)], kind
    )
    kept = np.array([left >> at & 1 == 0 for at in range(len(rows))])
    expected = [
        was_kept and all(slow_match(term, row) != term.negated for term in terms)
        for row, was_kept in zip(rows, kept.tolist(), strict=True)
    ]
    Filter(terms).strike_out(messages, kept)
    assert kept.tolist() == expected


def test_a_null_holds_nothing():
    messages = pa.chunked_array([["a", None], [None, ""]], pa.string())
    for negated, expected in ((False, [True] + [False] * 3), (True, [False] + [True] * 3)):
        kept = np.ones(4, np.bool_)
        Filter([Term("a", negated=negated)]).strike_out(messages, kept)
        assert kept.tolist() == expected


def test_a_term_without_text_is_refused():
    with pytest.raises(ValueError, match="without text"):
        Filter([Term("")])


def test_a_text_between_two_rows_is_in_neither():
    rows = ["x" * 100 + "ne", "edle" + "x" * 100, "needle", "ne", "", "edle"]
    assert found('"needle"', rows) == ["needle"]


@given(st.text(max_size=20))
def test_any_text_is_a_query_or_an_error_at_one_of_its_columns(text):
    try:
        terms = parse_query(text)
    except BadQuery as error:
        assert 1 <= error.column <= len(text)  # noqa: PT017 - any text: most are no error
    else:
        assert bool(terms) == bool(re.sub("[ \t\r\n]", "", text))
        Filter(terms).strike_out(pa.chunked_array([["a"]]), np.ones(1, np.bool_))


def test_a_word_with_other_characters_is_text_between_edges_of_tokens():
    rows = ["to 10.0.0.1:80 now", "to 10.0.0.1:808", "to 110.0.0.1:80", "10.0.0.1:80"]
    assert found("10.0.0.1:80", rows) == [rows[0], rows[3]]


def test_a_character_that_is_no_token_has_no_edge():
    assert found("=>", ["a=>b", "a= >b"]) == ["a=>b"]


@pytest.mark.parametrize(
    ("query", "column", "says"),
    [
        ('a "b', 3, "not closed"),
        ('a ""', 3, "empty phrase"),
        ("a -", 3, "nothing after"),
        ("a --b", 4, "second '-'"),
        ('"a"b', 4, "no space after"),
        ('a"b"', 2, "inside a word"),
        ("level:error", 6, "field with ':' is not supported yet"),
        ("status>=500", 7, "field with '>=' is not supported yet"),
        ("a AND b", 3, "operator AND is not supported yet"),
        ("a OR b", 3, "operator OR is not supported yet"),
        ("NOT b", 1, "operator NOT is not supported yet"),
        ("(a b)", 1, "parenthesis is not supported yet"),
        ("a b)", 4, "parenthesis is not supported yet"),
        ("api-*", 5, "wildcard '*' is not supported yet"),
        ("x /timeo+ut/", 3, "regular expression is not supported yet"),
        ("-/x/", 2, "regular expression is not supported yet"),
    ],
)
def test_an_error_points_at_its_column(query, column, says):
    with pytest.raises(BadQuery, match=re.escape(f"{says}")) as caught:
        parse_query(query)
    assert caught.value.column == column


def test_the_hint_for_later_syntax_finds_its_text():
    text = 'path:"x'
    with pytest.raises(BadQuery) as caught:
        parse_query(text)
    phrase = caught.value.hint.partition("write ")[2]
    assert found(phrase, ['the path:"x" here', "path"]) == ['the path:"x" here']
