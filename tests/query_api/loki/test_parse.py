"""LogQL is understood as its users write it; what is not built is named where it stands."""

import pytest

from indexer.errors import BadQuery
from query_api.loki.parse import DEPTH_MAX, TOKENS_MAX, duration_ns, parse_logql
from query_api.loki.syntax import (
    Aggregation,
    AllMatch,
    AnyMatch,
    Grouping,
    LineFilter,
    LogQuery,
    Match,
    Number,
    NumberMatch,
    Operation,
    Parsed,
    RangeCount,
    Shown,
    Vector,
)

MINUTE = 60 * 10**9


def said(text: str) -> LogQuery:
    found = parse_logql(text)
    assert isinstance(found, LogQuery)
    return found


def test_a_selector_says_what_labels_must_be():
    found = said('{a="v", b!=`w`,c=~"x|y" , d!~"z"}')
    assert found.stages == ()
    assert [(m.label, m.operator, m.value, m.column) for m in found.matches] == [
        ("a", "=", "v", 2),
        ("b", "!=", "w", 9),
        ("c", "=~", "x|y", 16),
        ("d", "!~", "z", 27),
    ]


@pytest.mark.parametrize("text", ["{}", " ( {} ) # all of it", "{}\n# nothing else\n"])
def test_a_selector_may_be_empty_and_in_parentheses_and_followed_by_a_comment(text):
    assert said(text) == LogQuery(())


def test_line_filters_hold_one_or_several_texts():
    found = said('{} |= `a` != "b" or "c" |~ "d" !~ "e" |= `` |> "f <_>" !> "g"')
    assert [(s.operator, s.texts) for s in found.stages if isinstance(s, LineFilter)] == [
        ("|=", ("a",)),
        ("!=", ("b", "c")),
        ("|~", ("d",)),
        ("!~", ("e",)),
        ("|=", ("",)),
        ("|>", ("f <_>",)),
        ("!>", ("g",)),
    ]


def test_a_quoted_text_has_the_escapes_of_go():
    [stage] = said(r'{} |= "a\tb\"\\\u00e9\x41\101\U0001F600#"').stages
    assert isinstance(stage, LineFilter)
    assert stage.texts == ('a\tb"\\\u00e9AA\U0001f600#',)
    [stage] = said(r"{} |= `a\t`").stages
    assert isinstance(stage, LineFilter)
    assert stage.texts == ("a\\t",)


def test_conditions_of_labels_are_put_together():
    found = said('{} | json | logfmt --strict | unpack | a="1" or (b!=`2` and c>=5ms, d==-1.5)')
    assert found.stages[:3] == (Parsed(), Parsed(), Parsed())
    assert found.stages[3] == AnyMatch(
        (
            Match("a", "=", "1", 40),
            AllMatch(
                (
                    Match("b", "!=", "2", 50),
                    NumberMatch("c", ">=", 5e6, "ns", 61),
                    NumberMatch("d", "==", -1.5, "", 69),
                )
            ),
        )
    )


def test_fields_can_be_named_by_their_path():
    assert said('{} | json a="b.c", d').stages == (Parsed((("a", "b.c"), ("d", "d"))),)


def test_words_of_the_language_may_name_labels():
    found = said('{by="b"} | json | rate="x" | bool > 4 | pattern="y" | drop sum, json')
    assert [stage.label for stage in found.stages if isinstance(stage, Match | NumberMatch)] == [
        "rate",
        "bool",
        "pattern",
    ]
    assert found.stages[-1] == Shown(True, frozenset({"sum", "json"}))


def test_a_filter_of_lines_may_follow_a_condition():
    *_, last = said('{} | k>5 != "x"').stages
    assert isinstance(last, LineFilter)
    assert (last.operator, last.texts) == ("!=", ("x",))


def test_what_is_counted_is_told_with_range_and_offset():
    log = LogQuery((), (LineFilter("|=", ("x",), 20),))
    counted = RangeCount("count_over_time", log, 5 * MINUTE, -MINUTE)
    assert parse_logql("count_over_time({} |= `x` [5m] offset -1m)") == counted
    for text in ("rate({}[1m])", "rate(({})[1m])", "rate(({}[1m]))"):
        assert parse_logql(text) == RangeCount("rate", LogQuery(()), MINUTE)
    assert parse_logql("rate({} [60s] | drop __error__)") == RangeCount(
        "rate", LogQuery((), (Shown(True, frozenset({"__error__"})),)), MINUTE
    )


@pytest.mark.parametrize(
    "text",
    ["sum by (a, b) (rate({}[1m]))", "sum(rate({}[1m])) by (a,b)", "sum by(a,b)(rate({}[60s]))"],
)
def test_a_grouping_may_stand_before_and_behind(text):
    rate = RangeCount("rate", LogQuery(()), MINUTE)
    assert parse_logql(text) == Aggregation("sum", rate, Grouping(("a", "b")))


def test_numbers_and_series_are_put_together_from_left_to_right():
    assert parse_logql("vector(1)+vector(1)") == Operation("+", Vector(1), Vector(1), False, 10)
    one = Operation("-", Number(1), Number(2), False, 3)
    assert parse_logql("1 - 2 - 3") == Operation("-", one, Number(3), False, 7)
    product = Operation("*", Number(2), Number(3), False, 7)
    total = Operation("+", Number(1), product, False, 3)
    assert parse_logql("1 + 2 * 3 > bool 4") == Operation(">", total, Number(4), True, 11)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "empty"),
        ('{a="b"', 7, "ends too early"),
        ("{a=b}", 4, "'b' is not expected"),
        ('{a="b}', 4, "not closed"),
        ('{a="b"} |= `a`b`', 15, "'b' is not expected"),
        ('{a="b"} or {c="d"}', 9, "'or' is not expected"),
        ("{} | label_format level=lvl", 6, "label_format is not supported"),
        ("{} | line_format `{{.x}}`", 6, "line_format is not supported"),
        ("{} | regexp `x`", 6, "regexp is not supported"),
        ("{} | pattern `<_> x`", 6, "pattern is not supported"),
        ("{} | decolorize", 6, "decolorize is not supported"),
        ('{} |= ip("10.0.0.0/8")', 7, "ip is not supported"),
        ('{} | a=ip("10.0.0.0/8")', 8, "ip is not supported"),
        ("sum_over_time({} | unwrap x [1m])", 1, "sum_over_time is not supported"),
        ("quantile_over_time(0.9, {} | unwrap x [1m])", 1, "quantile_over_time is not supported"),
        ("count_over_time({} | unwrap x [1m])", 22, "unwrap is not supported"),
        ("sort(rate({}[1m]))", 1, "sort is not supported"),
        ("rate({}[1m]) / on (a) rate({}[1m])", 16, "on is not supported"),
        ('{} | json a="b[0]"', 13, "path"),
        ('{} | drop pod="x"', 14, "not supported"),
        ("rate({}[x])", 8, "no range"),
        ("rate({}[0s])", 8, "no range"),
        ("rate({})", 8, "not expected"),
        ("topk(rate({}[1m]))", 1, "no number in topk"),
        ("sum(5, rate({}[1m]))", 1, "a number in sum"),
        ("{} | a > `x`", 8, "and a text"),
        ("{} | a =~ 5", 11, "no text"),
        ("{} | a > 5parsecs", 10, "no number"),
        (r'{} |= "\q"', 8, "escape"),
        (r'{} |= "\ud800"', 8, "escape"),
        ("rate({}[1m]) =~ 5", 14, "between numbers"),
        ("foo({})", 1, "'foo' is not expected"),
        ("{} |= `\ud800`", 8, "half of a character"),
        ("(" * (DEPTH_MAX + 1), DEPTH_MAX + 1, "parentheses"),
        ("{} " + "|= `x`" * TOKENS_MAX, 4 + 6 * (TOKENS_MAX // 2 - 1), "words"),
    ],
)
def test_what_is_not_understood_is_named_at_its_column(text, column, says):
    with pytest.raises(BadQuery) as raised:
        parse_logql(text)
    assert says in str(raised.value)
    assert raised.value.column == column


def test_durations_are_those_of_loki():
    assert duration_ns("1h30m") == 90 * MINUTE
    assert duration_ns("1w1d") == 8 * 24 * 60 * MINUTE
    assert duration_ns("1.5ms") == 1_500_000
    assert [duration_ns(text) for text in ("", "5", "m", "5x", "5 m")] == [None] * 5
