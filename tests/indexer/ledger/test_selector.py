"""Which streams a selector of labels means, compared with what a plain loop over rows says."""

import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.range import Stream
from indexer.errors import SelectorError
from indexer.ledger.selector import Matcher, select
from indexer.ledger.streams import STREAMS_SCHEMA, history


def row(pod: str, seen: int | None = 1, owner: str = "", **labels: str) -> dict[str, Any]:
    return {
        "namespace": "shop",
        "pod": pod,
        "pod_uid": f"uid-{pod}",
        "container": "app",
        "restart": 0,
        "node": "node-1",
        "seen_ns": seen,
        "labels": list(labels.items()),
        "annotations": [("team", pod[0])],
        "owner_kind": "Deployment" if owner else "",
        "owner": owner,
    }


def told(*rows: dict[str, Any]) -> pa.Table:
    return history(pa.Table.from_pylist(list(rows), schema=STREAMS_SCHEMA))


def pods(rows: pa.Table, *matchers: Matcher, **times: int) -> str:
    return " ".join(sorted(stream.pod for stream in select(rows, matchers, **times)))


ROWS = told(
    row("a", app="cart", tier="web"),
    row("b", app="cart-2", tier=""),
    row("c", owner="till"),
    row("d", None),
    row("e", app="line\nbreak", owner="till-2"),
)


@pytest.mark.parametrize(
    ("matcher", "expected"),
    [
        (Matcher("labels", "app", "in", ("cart",)), "a"),
        (Matcher("labels", "app", "in", ("cart", "cart-2", "none")), "a b"),
        (Matcher("labels", "app", "in", ("cart",), negated=True), "b c d e"),
        (Matcher("labels", "app", "in", ("cart", ""), negated=True), "b e"),
        (Matcher("labels", "tier", "in", ("",)), "b c d e"),
        (Matcher("labels", "tier", "exists"), "a b"),
        (Matcher("labels", "tier", "exists", negated=True), "c d e"),
        (Matcher("labels", "app", "regex", ("cart",)), "a"),
        (Matcher("labels", "app", "regex", ("cart.*",)), "a b"),
        (Matcher("labels", "app", "regex", ("cart", "(?i)CART-[0-9]")), "a b"),
        (Matcher("labels", "app", "regex", ("line.break",)), "e"),
        (Matcher("labels", "app", "regex", ("|cart",)), "a c d"),
        (Matcher("labels", "app", "regex", ("cart.*",), negated=True), "c d e"),
        (Matcher("annotations", "team", "in", ("b",)), "b"),
        (Matcher("owner", "", "in", ("till",)), "c"),
        (Matcher("owner", "", "regex", ("till.*",)), "c e"),
        (Matcher("owner_kind", "", "in", ("Deployment",)), "c e"),
        (Matcher("owner", "", "exists", negated=True), "a b d"),
    ],
)
def test_a_condition_means_these_streams(matcher, expected):
    assert pods(ROWS, matcher) == expected


def test_all_conditions_hold_of_one_version():
    rows = told(row("a", 1, app="x", tier="1"), row("a", 5, app="y", tier="2"))
    first, second = Matcher("labels", "app", "in", ("x",)), Matcher("labels", "tier", "in", ("2",))
    assert pods(rows, first) == pods(rows, second) == "a"
    assert pods(rows, first, second) == ""
    assert pods(rows) == "a"


def test_only_versions_that_hold_in_the_time_asked_for_count():
    rows = told(row("a", 10, app="x"), row("a", 20, app="y"), row("b", None), row("c", 15, app="x"))
    is_x = Matcher("labels", "app", "in", ("x",))
    assert pods(rows, is_x, from_ns=0, to_ns=5) == "a c"  # labels are learned late
    assert pods(rows, is_x, from_ns=19, to_ns=30) == "a c"
    assert pods(rows, is_x, from_ns=20, to_ns=30) == "c"
    is_y = Matcher("labels", "app", "in", ("y",))
    assert pods(rows, is_y, to_ns=20) == ""
    assert pods(rows, is_y, from_ns=10**18) == "a"
    assert pods(rows, from_ns=0, to_ns=1) == "a b c"


def test_an_answer_names_whole_streams():
    matcher = Matcher("labels", "app", "in", ("cart",))
    assert select(ROWS, [matcher]) == {Stream("shop", "a", "uid-a", "app", 0)}
    assert select(told(), [matcher]) == set()


def test_a_pattern_that_is_none_is_said():
    with pytest.raises(SelectorError, match=r"app: .*missing"):
        select(ROWS, [Matcher("labels", "app", "regex", ("a(",))])


LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.text("ab", max_size=2))
MATCHERS = st.builds(
    Matcher,
    st.just("labels"),
    st.sampled_from(["app", "tier"]),
    st.sampled_from(["in", "regex", "exists"]),
    st.lists(st.sampled_from(["a", "b", "ab", "a*", "a|b", ""]), min_size=1, max_size=2).map(tuple),
    st.booleans(),
)


@given(st.lists(LABELS, max_size=6), st.lists(MATCHERS, max_size=3))
def test_a_selector_means_what_a_loop_over_the_streams_says(labels, matchers):
    rows = told(*(row(f"pod-{number}", **each) for number, each in enumerate(labels)))

    def fits(of: dict[str, str], matcher: Matcher) -> bool:
        value = of.get(matcher.key, "")
        if matcher.kind == "exists":
            found = matcher.key in of
        elif matcher.kind == "in":
            found = value in matcher.values
        else:
            found = any(re.fullmatch(pattern, value) for pattern in matcher.values)
        return found != matcher.negated

    expected = [f"pod-{n}" for n, of in enumerate(labels) if all(fits(of, m) for m in matchers)]
    assert pods(rows, *matchers) == " ".join(expected)
