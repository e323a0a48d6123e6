"""The language and its filter against a slow reading of the same rules."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.errors import BadQuery
from indexer.query.explain import explained
from indexer.query.fields import MessageField, named_values
from indexer.query.filter import Filter, compile_kernels
from indexer.query.meant import Decoded, Matcher
from indexer.query.needed import ANY_ROW, Needed, holding, needed
from indexer.query.parse import DEPTH_MAX, TOKENS_MAX, parse_query
from indexer.query.tree import EVERYTHING, And, Exists, Not, Query, Term
from indexer.schema import LEVELS

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


def fitting(query: Query, columns: dict[str, list]) -> list[bool]:
    words = pa.dictionary(pa.int32(), pa.string())
    table = pa.table(
        {name: pa.array(each, pa.string() if name == "message" else words)
         for name, each in columns.items()}
    )  # fmt: skip
    rows = np.ones(table.num_rows, np.bool_)
    fitting: list[bool] = Matcher(query).fitting(Decoded(table), rows).tolist()
    return fitting


def found(query: str, rows: list[str]) -> list[str]:
    kept = fitting(parse_query(query), {"message": rows})
    return [row for row, left in zip(rows, kept, strict=True) if left]


def terms_of(query: Query) -> list[Term]:
    """The terms of a query of words and phrases, some of them denied."""
    if isinstance(query, And):
        return [term for part in query.parts for term in terms_of(part)]
    if isinstance(query, Not):
        [term] = terms_of(query.part)
        return [Term(term.text, term.starts_token, term.ends_token, True)]
    assert isinstance(query, Term)
    return [query]


def escaped(phrase: str) -> str:
    return '"' + phrase.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.tuples(st.booleans(), quoted), max_size=3), messages, st.booleans())
def test_phrases_stand_between_edges_of_tokens_and_parts_anywhere(terms, rows, parts):
    star = "*" if parts else ""
    query = " ".join(
        ("-" if negated else "") + star + escaped(text) + star for negated, text in terms
    )
    meant = [
        Term(text, not parts and is_token(text[0]), not parts and is_token(text[-1]), negated)
        for negated, text in terms
    ]
    assert terms_of(parse_query(query)) == meant
    expected = [row for row in rows if all(slow_match(t, row) != t.negated for t in meant)]
    assert found(query, rows) == expected


@given(st.lists(st.tuples(st.booleans(), bare), max_size=3), messages)
@example([(False, "k")], ["\u212a", "K", "ak", "a k"])
@example([(True, "s")], ["\u017f", "S"])
def test_words_match_whole_tokens(terms, rows):
    query = " ".join(("-" if negated else "") + word for negated, word in terms)
    parsed = terms_of(parse_query(query))
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


@given(st.one_of(st.text(max_size=20), st.text('ab1:<>=-"\\/()*[]. ANDORT', max_size=25)))
def test_any_text_is_a_query_or_an_error_at_one_of_its_columns(text):
    try:
        query = parse_query(text)
    except BadQuery as error:
        assert 1 <= error.column <= len(text)  # noqa: PT017 - any text: most are no error
    else:
        assert (query != EVERYTHING) or not text.replace("*", "").strip()
        fitting(query, {name: ["a"] for name in ("message", "pod", "namespace")})


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
        ("a -", 3, "nothing after '-'"),
        ("a --b", 4, "second '-'"),
        ('"a"b', 4, "no space after a phrase"),
        ('a"b"', 2, "quote inside a word"),
        ("a \u201cb c\u201d", 3, "is no quote here"),
        ("a \ud800", 3, "half of a character"),
        ("a (b", 3, "not closed"),
        ("(a OR (b c)", 1, "not closed"),
        ("a b)", 4, "closes nothing"),
        ("()", 2, "closes nothing, or is empty"),
        ("f(x)", 2, "parenthesis inside a word"),
        ("(a)b", 4, "no space after a parenthesis"),
        ("OR b", 1, "OR has nothing before it"),
        ("a OR OR b", 6, "OR has nothing before it"),
        ("a AND", 3, "AND has nothing after it"),
        ("a NOT", 3, "NOT has nothing after it"),
        ("status>=", 8, "field without a value"),
        ("level:", 6, "field without a value"),
        ("status>=abc", 9, "is no number to compare with"),
        ("level:eror", 7, "level 'eror' is none"),
        ("level>unknown", 7, "level 'unknown' is none"),
        ("a /[/", 3, "RE2 does not take"),
        ("a pod:/(/", 7, "RE2 does not take"),
        ("(" * (DEPTH_MAX + 1), DEPTH_MAX + 1, "parentheses inside each other"),
        ("a " * (TOKENS_MAX + 1), 2 * TOKENS_MAX + 1, "more than"),
        ("NOT " * (TOKENS_MAX + 1), 4 * TOKENS_MAX + 1, "more than"),
    ],
)
def test_an_error_points_at_its_column(query, column, says):
    with pytest.raises(BadQuery, match=re.escape(says)) as caught:
        parse_query(query)
    assert caught.value.column == column


def test_a_query_as_long_as_it_may_be_is_understood():
    for query in ("NOT " * (TOKENS_MAX - 1) + "a", "(" * DEPTH_MAX + "a" + ")" * DEPTH_MAX):
        assert found(query, ["b"]) == (["b"] if "NOT" in query else [])


def test_paths_and_times_are_words():
    rows = ["GET /var/log/app 200", "at 10:30:45", "a=b"]
    for row, query in zip(rows, ("/var/log/app", "10:30:45", "a=b"), strict=True):
        assert found(query, rows) == [row]


# -- the whole language against predicates that are put together with its texts --------------------

NAMES = st.sampled_from(["Ann Lee", "Bob", "é"])
WORDS = ["alpha", "beta", "timeout", "refused", "a_1", "500"]
ROW = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from(["shop", "bank"]),
        "pod": st.sampled_from(["api-1", "api-2", "web-1"]),
        "level": st.sampled_from(LEVELS),
        "fields": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "status": st.sampled_from([200, 404, 500, 500.5, "500", "n/a", None]),
                "took": st.sampled_from(["10ms", "1.5s", "2m"]),
                "user": st.fixed_dictionaries(
                    {"name": st.sampled_from(["Ann Lee", "Bob", "\xe9"])}
                ),
                "a.b": st.sampled_from([1, [1, "alpha"], {"c": 2}]),
            },
        ),
        "text": st.lists(st.sampled_from([*WORDS, "Alpha", "alphabet", "x-timeout"]), max_size=4),
    }
)


def message_of(row: dict, as_json: bool) -> str:
    if row["fields"] is None:
        return " ".join(row["text"])
    return json.dumps({**row["fields"], "msg": " ".join(row["text"])}, ensure_ascii=as_json)


Leaf = tuple[str, Callable[[dict], bool]]
"""A text of the language, and what tells of a row (with its ``message``) whether it is meant."""


def has(text: str, *edges: bool) -> Callable[[dict], bool]:
    return lambda row: slow_match(Term(text, *edges), row["message"])


def seen(pattern: str) -> Callable[[dict], bool]:
    return lambda row: re.search(pattern, row["message"]) is not None


def of_field(name: str, tell: Callable[[Any], bool]) -> Callable[[dict], bool]:
    def of(row: dict) -> bool:
        found: Any = row["fields"]
        for key in name.split(".") if name != "a.b" else [name]:
            if not isinstance(found, dict) or key not in found:
                return False
            found = found[key]
        return any(map(tell, found if isinstance(found, list) else [found]))

    return of


def number(value: Any) -> float:
    try:
        return float("nan") if isinstance(value, bool | dict) or value is None else float(value)
    except ValueError:
        return float("nan")


LEAVES: list[Leaf] = [
    *((word, has(word, True, True)) for word in WORDS),
    ('"alpha beta"', has("alpha beta", True, True)),
    ('*"lph"*', has("lph", False, False)),
    ("alph*", seen(r"(?i)\balph")),
    ("*out", seen(r"(?i)out\b")),
    ("/alpha (beta|timeout)/", seen("alpha (beta|timeout)")),
    ("/ed x-timeout al/", lambda row: "ed x-timeout al" in row["message"]),
    ("namespace:shop", lambda row: row["namespace"] == "shop"),
    ("pod:api-*", lambda row: row["pod"].startswith("api-")),
    ("pod:/[12]$/", lambda row: row["pod"][-1] in "12"),
    ("pod:(api-1 OR web-1)", lambda row: row["pod"] in ("api-1", "web-1")),
    ("level>=warn", lambda row: row["level"] in ("warn", "error", "fatal")),
    ("level<info", lambda row: row["level"] in ("trace", "debug")),
    ("level:ERROR", lambda row: row["level"] == "error"),
    ("status:500", of_field("status", lambda v: v in (500, "500", ))),
    ("status>=404", of_field("status", lambda v: number(v) >= 404)),
    ("status<404", of_field("status", lambda v: number(v) < 404)),
    ("status:*", of_field("status", lambda v: True)),
    ("took>1s", of_field("took", lambda v: v in ("1.5s", "2m"))),
    ('user.name:"ann lee"', of_field("user.name", lambda v: v == "Ann Lee")),
    ("user.name:bob", of_field("user.name", lambda v: v == "Bob")),
    ("user.name:\xe9", of_field("user.name", lambda v: v == "\xe9")),
    ("a.b:1", of_field("a.b", lambda v: v == 1)),
    ("a.b:alpha", of_field("a.b", lambda v: v == "alpha")),
]  # fmt: skip


def both(first: Leaf, second: Leaf, sign: str) -> Leaf:
    return f"({first[0]}{sign}{second[0]})", lambda row: first[1](row) and second[1](row)


QUERIES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(both, inner, inner, st.sampled_from([" ", " AND "])),
        st.builds(
            lambda a, b: (f"({a[0]} OR {b[0]})", lambda row: a[1](row) or b[1](row)), inner, inner
        ),
        st.builds(
            lambda a, sign: (f"({sign}{a[0]})", lambda row: not a[1](row)),
            inner,
            st.sampled_from(["-", "NOT "]),
        ),
    ),
    max_leaves=6,
)


@given(QUERIES, st.lists(ROW, max_size=12), st.booleans())
def test_a_query_means_what_its_parts_say(query, rows, as_json):
    text, tell = query
    for row in rows:
        row["message"] = message_of(row, as_json)
    names = ("namespace", "pod", "level", "message")
    columns = {name: [row[name] for row in rows] for name in names}
    assert fitting(parse_query(text), columns) == [tell(row) for row in rows]


@given(QUERIES, st.lists(ROW, min_size=1, max_size=5))
def test_no_row_that_is_meant_lacks_what_is_needed(query, rows):
    text, tell = query
    formula = needed(parse_query(text))
    for row in rows:
        row["message"] = message_of(row, True)
        if tell(row):
            assert may_hold(formula, row["message"])


def may_hold(formula: Needed, message: str) -> bool:
    tokens = {each.lower() for each in re.findall(rb"[0-9A-Za-z_\x80-\xff]+", message.encode())}

    def ask(wanted: frozenset[bytes]) -> np.ndarray:
        return np.array([wanted <= tokens])

    return bool(holding(formula, ask, np.ones(1, np.bool_))[0])


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        ('"connection refused"', {b"connection", b"refused"}),
        ('*"nection refused by pe"*', {b"refused", b"by"}),
        ("conn*", set()),
        ("a-b*c-d", {b"a", b"d"}),
        ("/ error code [0-9]+ in/", {b"error", b"code"}),
        (r"/\[error\] (a|b)/", set()),
        (r"/x \[error\] .*y z w/", {b"error", b"z"}),
        ("/(?i) error /", set()),
        ("/ a? bcd{2} /", set()),
        ("x -y pod:z", {b"x"}),
    ],
)
def test_what_prunes_is_what_every_match_holds(query, tokens):
    assert needed(parse_query(query)).tokens == tokens


def test_a_choice_prunes_where_each_of_its_parts_does():
    formula = needed(parse_query("(a OR b c) d"))
    assert formula.tokens == {b"d"}
    assert [part.tokens for part in formula.parts[0].parts] == [{b"a"}, {b"b", b"c"}]
    assert needed(parse_query("a OR -b")) == ANY_ROW


def test_fields_of_pairs_and_of_nested_and_dotted_keys():
    rows = [
        'level=info msg="took long" status=503 dur=1.5s',
        '{"a":{"b":{"c":7}}}',
        '{"a.b":{"c":"7"}}',
        '{"a":[{"b.c":1},{"b.c":7}]}',
        '{"n":123456789012345678901234567890,"t":true,"z":null}',
        "status=abc",
        "{broken",
    ]
    asked = {
        'msg:"took long"': [0], "status>=500": [0], "dur<2s": [0], "status:*": [0, 5],
        "a.b.c:7": [1, 2, 3], "n:123456789012345678901234567890": [4],
        "n:123456789012345678901234567891": [], "t:true": [4], "z:null": [4], "z:*": [4],
    }  # fmt: skip
    for query, places in asked.items():
        assert found(query, rows) == [rows[place] for place in places], query


def test_an_explanation_says_what_is_asked_of_what_and_what_prunes():
    asked = '(timeout OR "conn refused") -pod:api-* took>1s *"art"* /x y z/'
    assert explained(parse_query(asked)) == [
        "all of",
        "  any of",
        "    the message holds the words 'timeout'",
        "    the message holds the words 'conn refused'",
        "  not",
        "    column pod is like api-*",
        "  field of the message took > 1e+09 ns",
        "  the message holds the text 'art'",
        "  the message matches /x y z/",
        "prunes by  y and (timeout or refused and conn)",
        "reads      message, pod",
    ]
    assert explained(parse_query("")) == ["every line"]
    assert explained(parse_query("-a"))[2] == "prunes by  no word: every segment in scope is read"


def test_patterns_take_no_longer_the_more_stars_they_have():
    value = "a" * 5_000
    stars = "a*" * 30 + "b"
    for query in (stars, f"f:{stars}", f"pod:{stars}"):
        columns = {"message": [json.dumps({"f": value})], "pod": [value]}
        assert fitting(parse_query(query), columns) == [False]


@pytest.mark.parametrize("nested", [150, 250, *range(980, 1010)])
def test_a_message_that_is_nested_beyond_reason_is_searched_as_text(nested: int) -> None:
    for message in (
        '{"a":' + "[" * nested + "1" + "]" * nested + "}",
        '{"a":' * nested + "1" + "}" * nested,
    ):
        assert MessageField("a", Exists()).matches(message) == (nested == 150)
        assert bool(list(named_values(message))) == (nested == 150)
