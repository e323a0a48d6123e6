"""A query of logs means the lines that Loki's rules say, by the tree of our own language."""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.range import Stream
from indexer.errors import BadQuery
from indexer.ledger.totals import StreamTotals
from indexer.query.meant import EVER_NS, Decoded, Matcher, meant
from indexer.query.needed import needed
from indexer.query.scope import Scope
from query_api.loki.meaning import COLUMN_OF, escaped, meaning_of
from query_api.loki.parse import parse_selector
from tests.examples import examples

CLUSTER = "test"
NAMES = ("api-1", "api-2", "web", "a.b")
NAMESPACES = ("shop", "shop2", "pay")
TEXTS = st.text(st.sampled_from('aAbB .*\\"`\n\té=|k1'), max_size=4)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "namespace": st.sampled_from(NAMESPACES),
            "pod": st.sampled_from(NAMES),
            "container": st.sampled_from(("app", "side")),
            "node": st.sampled_from(("n1", "n2")),
            "output": st.sampled_from(("stdout", "stderr")),
            "level": st.sampled_from(("info", "warn", "error", "unknown")),
            "pod_uid": st.sampled_from(("u1", "u2")),
            "restart": st.integers(0, 2),
            "message": TEXTS,
        }
    ),
    min_size=1,
    max_size=6,
)
PATTERNS = (".*", ".+", "", "a.*", "api-[12]", "shop|pay", "SHOP", "(?i)SHOP", "stdout", "warn|e.*")
MATCHES = st.tuples(
    st.sampled_from((*COLUMN_OF, "cluster")),
    st.sampled_from(("=", "!=", "=~", "!~")),
    st.sampled_from((*PATTERNS, *NAMES, *NAMESPACES, "app", "stderr", "error", "u1", "1", "x*")),
)
FILTERS = st.tuples(
    st.sampled_from(("|=", "!=", "|~", "!~")), st.lists(TEXTS, min_size=1, max_size=2)
)


def totals_of(rows: list[dict[str, Any]]) -> StreamTotals:
    totals = StreamTotals()
    for row in rows:
        names = (row["namespace"], row["pod"], row["pod_uid"], row["container"], row["restart"])
        totals.row(row["node"], Stream(*names))
    return totals


def found(query: str, rows: list[dict[str, Any]]) -> list[bool]:
    """Which rows a query means, as a search asks it."""
    meaning = meaning_of(parse_selector(query), CLUSTER, totals_of(rows))
    table = pa.Table.from_pylist(rows)
    scope = Scope(*EVER_NS, meaning.equals)
    kept: np.ndarray[Any, Any] = meant(Decoded(table), scope, Matcher(meaning.tree))
    needed(meaning.tree)
    answer: list[bool] = kept.tolist()
    return answer


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def holds(operator: str, value: str, wanted: str) -> bool:
    if operator in ("=", "!="):
        return (value == wanted) == (operator == "=")
    return bool(re.fullmatch(wanted, value)) == (operator == "=~")


def as_expression(operator: str, text: str) -> str:
    return text if operator in ("|=", "!=") else re.escape(text).replace("\n", "n")


@examples(300)
@given(rows=ROWS, matches=st.lists(MATCHES, max_size=3), in_selector=st.integers(0, 3))
def test_labels_choose_the_rows_that_their_rules_say(rows, matches, in_selector):
    said = [f"{label}{operator}{quoted(value)}" for label, operator, value in matches]
    query = (
        "{" + ",".join(said[:in_selector]) + "}" + "".join(f" | {s}" for s in said[in_selector:])
    )

    def value_of(row: dict[str, Any], label: str) -> str:
        return CLUSTER if label == "cluster" else str(row[COLUMN_OF[label]])

    expected = [
        all(holds(operator, value_of(row, label), value) for label, operator, value in matches)
        for row in rows
    ]
    assert found(query, rows) == expected


@examples(300)
@given(rows=ROWS, filters=st.lists(FILTERS, max_size=3))
def test_lines_are_filtered_by_their_exact_text(rows, filters):
    query = "{}"
    for operator, texts in filters:
        query += f" {operator} " + " or ".join(quoted(as_expression(operator, t)) for t in texts)

    def kept(message: str) -> bool:
        return all(
            any(
                text in message if operator in ("|=", "!=") else
                bool(re.search(as_expression(operator, text), message)) for text in texts
            ) == (operator[0] == "|")
            for operator, texts in filters
        )  # fmt: skip

    assert found(query, rows) == [kept(row["message"]) for row in rows]


@given(st.text(max_size=8))
def test_an_escaped_text_is_found_as_it_is_written(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    array = pa.array([text, text + "x"])
    whole = pa.compute.match_substring_regex(array, pattern=rf"\A(?:{escaped(text)})\z")
    assert whole.to_pylist() == [True, False]


ROW = {
    "namespace": "shop", "pod": "api-1", "container": "app", "node": "n1", "output": "stdout",
    "level": "warn", "pod_uid": "u1", "restart": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("message", "stages", "is_meant"),
    [
        ('{"status":500,"a":"x"}', "| json | status=`500`", True),
        ('{"status":500}', "| json | status>=500 | status<501 | status==500", True),
        ('{"status":500}', "| json | status>500", False),
        ('{"status":500}', "| json | status!=500", False),
        ('{"status":404}', "| json | status!=500 and status!=200", True),
        ('{"http":{"status":500}}', "| json | http_status=500", True),
        ('{"http":{"status":500}}', '| json s="http.status" | s=`500`', True),
        ('{"a_b":"x"}', "| json | a_b=`x`", True),
        ('{"a":"Xy"}', "| a=`xy`", False),
        ('{"a":"Xy"}', "| a=`X`", False),
        ('{"a":"Xy"}', "| a=~`X.*`", True),
        ('{"a":"Xy"}', "| a=~`X`", False),
        ('{"a":"Xy"}', "| a!~`X`", True),
        ("a=x b=2", "| logfmt | a=`x`, b=2", True),
        ("a=x b=2", "| logfmt | (a=`y` or b=2)", True),
        ("a=x b=2", "| logfmt | c=``", True),
        ("a=x b=2", "| logfmt | c!=``", False),
        ("a=x b=2", "| logfmt | c!=`x`", True),
        ("a=x b=2", "| logfmt | a!=`x`", False),
        ("a=x b=2", "| logfmt | c=~`.*`", True),
        ("a=x b=2", "| logfmt | c!~`.*`", False),
        ("a=x b=2", "| logfmt | c!~`.+`", True),
        ("took=1.5s", "| logfmt | took>1s", True),
        ("took=1.5s", "| logfmt | took>1500", False),
        ("x", "| __error__=``", True),
        ("x", "| __error__!=``", False),
        ("x", "| json | logfmt | drop __error__, __error_details__ | keep pod", True),
        ("x", "| detected_level=`warn`", True),
        ("x", "| detected_level=~`warn|error`", True),
        ("x", "| level=`WARNING`", True),
        ("x", "| level!=`warn`", False),
        ("x", "| restart>0", True),
        ("x", "| service_name=`app`", True),
        ("A text", "|~ `(?i)a TEXT`", True),
        ("A text", "|~ `(?i)a.TEXT`", True),
        ("A text", "|= `a text`", False),
        ("A text", "|= ``", True),
        ("A text", "!= ``", False),
    ],
)
def test_a_line_is_meant_as_loki_would_have_it(message, stages, is_meant):
    assert found("{} " + stages, [{**ROW, "message": message}]) == [is_meant]


def test_names_of_an_expression_are_pruned_by():
    rows = [{**ROW, "message": "", "namespace": name} for name in NAMESPACES]
    meaning = meaning_of(parse_selector('{namespace=~"shop.*"}'), CLUSTER, totals_of(rows))
    assert meaning.equals == {"namespace": ("shop", "shop2")}
    query = '{service_name="app", container=~".*", level=~"warn|error", namespace="none"}'
    meaning = meaning_of(parse_selector(query), CLUSTER, totals_of(rows))
    assert meaning.equals == {
        "container": ("app",), "level": ("warn", "error"), "namespace": ("none",),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "column", "says"),
    [
        ('{app="x"}', 2, "no stream has the label 'app'"),
        ('{pod=~"("}', 2, "RE2"),
        ('{pod!~"("}', 2, "RE2"),
        ('{level=~"("}', 2, "RE2"),
        ("{} |~ `(`", 4, "RE2"),
        ("{} | a=~`(`", 6, "RE2"),
        ("{} |> `a <_> b`", 4, "|> is not supported"),
    ],
)
def test_what_cannot_be_asked_is_named_at_its_column(query, column, says):
    with pytest.raises(BadQuery) as raised:
        meaning_of(parse_selector(query), CLUSTER, StreamTotals())
    assert says in str(raised.value)
    assert raised.value.column == column
