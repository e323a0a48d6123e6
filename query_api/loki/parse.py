"""LogQL: a text goes in; what it says comes out, or an error at its column.

What is not built is named where it stands: a query never gives the answer to another one.
"""

import re
from collections.abc import Iterator
from functools import reduce
from typing import Any, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from indexer.errors import BadQuery
from indexer.query.quantity import quantity
from query_api.loki.syntax import (
    Aggregation,
    AllMatch,
    AnyMatch,
    Grouping,
    LineFilter,
    LogQL,
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

TOKENS_MAX = 1_000
"""So many names, texts and signs may stand in a query."""

DEPTH_MAX = 40
"""So many parentheses may be open at one place."""

_GRAMMAR = r"""
?start: logs | metric
?logs: log | "(" logs ")"
log: selector stage*
selector: "{" [match ("," match)* ","?] "}"
match: NAME MATCH STRING
?stage: LINE_FILTER text ("or" text)* -> line_filter
      | "|" piped
?text: STRING | IP
?piped: "json" [path ("," path)*] -> parsed
      | "logfmt" FLAG* [path ("," path)*] -> parsed
      | "unpack" -> parsed
      | "drop" dropped ("," dropped)* -> drop
      | "keep" dropped ("," dropped)* -> keep
      | UNBUILT_STAGE
      | condition
path: NAME ["=" STRING]
dropped: NAME [MATCH STRING]
?condition: every ("or" every)* -> either
?every: one (("and" | ",") one)* -> every
?one: NAME COMPARE value -> condition
    | "(" condition ")"
value: STRING | SIGN? QUANTITY | IP

?metric: sum (COMPARE (BOOL | MATCHING)? sum)* -> operation
?sum: product (SIGN MATCHING? product)* -> operation
?product: atom (PRODUCT MATCHING? atom)* -> operation
?atom: number
     | "vector" "(" number ")" -> vector
     | RANGE_COUNT "(" ranged ")" -> range_count
     | AGGREGATION grouping? "(" (QUANTITY ",")? metric ")" grouping? -> aggregation
     | "(" metric ")"
     | UNBUILT_FUNCTION
number: SIGN? QUANTITY
ranged: selector stage* RANGE offset? -> ranged
      | selector RANGE offset? stage* -> ranged
      | "(" selector stage* ")" RANGE offset? -> ranged
      | "(" ranged ")" -> inner
offset: "offset" SIGN? QUANTITY
grouping: GROUPING "(" [NAME ("," NAME)*] ")"

MATCH.3: /=~|!~|!=|=/
COMPARE.2: /=~|!~|!=|==|>=|<=|=|>|</
LINE_FILTER.4: /\|=|\|~|\|>|!=|!~|!>/
SIGN: /[+-]/
PRODUCT: /[*\/%]/
BOOL: "bool"
GROUPING: /(by|without)\b/
RANGE_COUNT.6: /(count_over_time|rate|bytes_over_time|bytes_rate|absent_over_time)\b/
AGGREGATION.6: /(sum|avg|min|max|count|topk|bottomk)\b/
UNBUILT_STAGE.5: /(\w+_format|regexp|pattern|unwrap|decolorize|distinct)\b(?!\s*[=!<>])/
UNBUILT_FUNCTION: /(\w+_over_time|rate_counter|\w*topk|sort(_desc)?|std\w+|label_replace)\b/
MATCHING: /(on|ignoring|group_left|group_right)\b/
IP: /ip\b/
FLAG: /--[a-z-]+/
RANGE: /\[[^\]]*\]/
QUANTITY: /[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?([A-Za-z\u00b5\u03bc][A-Za-z\u00b5\u03bc0-9.]*)?/
NAME: /[A-Za-z_][A-Za-z0-9_]*/
STRING: /"(?:[^"\\\n]|\\.)*"|`[^`]*`/
%ignore /\s+/
%ignore /#[^\n]*/
"""
_UNBUILT = ("UNBUILT_STAGE", "UNBUILT_FUNCTION", "MATCHING", "IP")
_PARSER = Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=False,
               maybe_placeholders=False)  # fmt: skip
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|(.))", re.DOTALL
)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|\u00b5s|\u03bcs|ms|s|m|h|d|w|y)")
_UNITS_NS = {
    "ns": 1, "us": 10**3, "\u00b5s": 10**3, "\u03bcs": 10**3, "ms": 10**6, "s": 10**9,
    "m": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9, "w": 7 * 86_400 * 10**9,
    "y": 365 * 86_400 * 10**9,
}  # fmt: skip
_DURATION_NS_MAX = 2**62
_PATH = re.compile(r"[A-Za-z0-9_@-]+(?:\.[A-Za-z0-9_@-]+)*")


def parse_logql(text: str) -> LogQL:
    """Return what a query says; raise BadQuery with a column."""
    if half := re.search("[\ud800-\udfff]", text):
        raise BadQuery("half of a character", half.start() + 1)
    if not text.strip():
        raise BadQuery("an empty query", 1, 'write a selector, such as {namespace="default"}')
    parser = _PARSER.parse_interactive(text)
    try:
        opened = 0
        for count, token in enumerate(parser.iter_parse()):
            column = _column(token)
            opened += (token == "(") - (token == ")")  # noqa: S105 - no password
            if token.type in _UNBUILT:
                raise BadQuery(f"{token} is not supported", column)
            if count >= TOKENS_MAX:
                raise BadQuery(f"more than {TOKENS_MAX} words", column, "ask for less at once")
            if opened > DEPTH_MAX:
                raise BadQuery(f"more than {DEPTH_MAX} parentheses inside each other", column)
        parsed = parser.feed_eof()  # type: ignore[no-untyped-call]
        found: LogQL = _Said().transform(parsed)
    except UnexpectedInput as error:
        raise _explained(text, error) from None
    except VisitError as error:
        raise error.orig_exc from None
    return found


def parse_selector(text: str) -> LogQuery:
    """Return what a query of logs says; raise BadQuery, also for one that counts."""
    found = parse_logql(text)
    if not isinstance(found, LogQuery):
        raise BadQuery("a query that counts", 1, "write a selector of streams")
    return found


def duration_ns(text: str) -> int | None:
    """Return a duration in nanoseconds, as ``1h30m``; None: it is none."""
    parts = _DURATION.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        return None
    found = round(sum(float(number) * _UNITS_NS[unit] for number, unit in parts))
    return found if found <= _DURATION_NS_MAX else None


def _column(token: Token) -> int:
    return (token.start_pos or 0) + 1


class _Said(Transformer[Token, Any]):
    """Makes the values, from the leaves up; what a rule does not name passes as it is."""

    def log(self, parts: list[Any]) -> LogQuery:
        """Make a query of logs."""
        selector, *stages = parts
        return LogQuery(selector, tuple(stages))

    def selector(self, parts: list[Match]) -> tuple[Match, ...]:
        """Make what streams must be."""
        return tuple(parts)

    def match(self, parts: list[Token]) -> Match:
        """Make what one label must be."""
        name, operator, value = parts
        return Match(str(name), cast(Any, str(operator)), _text(value), _column(name))

    def line_filter(self, parts: list[Token]) -> LineFilter:
        """Make what a line must hold."""
        operator, *texts = parts
        said = tuple(map(_text, texts))
        return LineFilter(cast(Any, str(operator)), said, _column(operator))

    def parsed(self, parts: list[Any]) -> Parsed:
        """Make the paths of labels."""
        return Parsed(tuple(part for part in parts if isinstance(part, tuple)))

    def path(self, parts: list[Token]) -> tuple[str, str]:
        """Make the path of one label."""
        name, path = str(parts[0]), _text(parts[1]) if len(parts) > 1 else str(parts[0])
        if not _PATH.fullmatch(path):
            raise BadQuery(f"the path {path!r} is not supported", _column(parts[-1]),
                           "write names with dots between them")  # fmt: skip
        return name, path

    def dropped(self, parts: list[Token]) -> str:
        """Make a label that is named."""
        if len(parts) > 1:
            raise BadQuery("a value of a label in drop or keep is not supported",
                           _column(parts[1]), "name the label alone")  # fmt: skip
        return str(parts[0])

    def drop(self, names: list[str]) -> Shown:
        """Make labels that are left out."""
        return Shown(True, frozenset(names))

    def keep(self, names: list[str]) -> Shown:
        """Make labels that are the only ones."""
        return Shown(False, frozenset(names))

    def either(self, parts: list[Any]) -> Any:
        """Make a choice."""
        return parts[0] if len(parts) == 1 else AnyMatch(tuple(parts))

    def every(self, parts: list[Any]) -> Any:
        """Make a sum."""
        return parts[0] if len(parts) == 1 else AllMatch(tuple(parts))

    def condition(self, parts: list[Any]) -> Match | NumberMatch:
        """Make what a label must be, or its number."""
        name, operator, [*sign, value] = parts
        if value.type == "STRING":
            if operator not in ("=", "!=", "=~", "!~"):
                raise BadQuery(f"{operator} and a text", _column(operator), "compare with a number")
            return Match(str(name), cast(Any, str(operator)), _text(value), _column(name))
        if operator in ("=~", "!~"):
            raise BadQuery(f"no text after {operator}", _column(value))
        if (found := quantity("".join([*sign, value]))) is None:
            hint = "a number, such as 500, 1.5, 250ms or 10MiB"
            raise BadQuery(f"{str(value)!r} is no number to compare with", _column(value), hint)
        same = "==" if operator == "=" else str(operator)
        return NumberMatch(str(name), cast(Any, same), *found, _column(name))

    def value(self, parts: list[Token]) -> list[Token]:
        """Pass on what a label is compared with."""
        return parts

    def number(self, parts: list[Token]) -> Number:
        """Make a number."""
        return Number(_number(parts))

    def vector(self, parts: list[Number]) -> Vector:
        """Make a series of one number."""
        return Vector(parts[0].value)

    def ranged(self, parts: list[Any]) -> tuple[LogQuery, int, int]:
        """Make a query of logs, a range and how far back it lies."""
        selector, *rest = parts
        [at] = [n for n, part in enumerate(rest) if isinstance(part, Token)]
        back = [part for part in rest if isinstance(part, int)]
        stages = (part for part in rest if not isinstance(part, Token | int))
        token = rest[at]
        found = duration_ns(str(token)[1:-1].strip())
        if not found:
            raise BadQuery(f"{token} is no range", _column(token), "write a duration, as [5m]")
        return LogQuery(selector, tuple(stages)), found, sum(back)

    def inner(self, parts: list[Any]) -> Any:
        """Pass on what stands in parentheses."""
        return parts[0]

    def offset(self, parts: list[Token]) -> int:
        """Make how far back a range lies."""
        found = duration_ns(str(parts[-1]))
        if found is None:
            raise BadQuery(f"{parts[-1]} is no duration", _column(parts[-1]), "as in offset 5m")
        return -found if parts[0] == "-" else found

    def range_count(self, parts: list[Any]) -> RangeCount:
        """Make what is counted."""
        kind, ranged = parts
        return RangeCount(cast(Any, str(kind)), *ranged)

    def grouping(self, parts: list[Token]) -> Grouping:
        """Make the labels of a grouping."""
        kind, *names = parts
        return Grouping(tuple(dict.fromkeys(map(str, names))), kind == "without")

    def aggregation(self, parts: list[Any]) -> Aggregation:
        """Make one of several series."""
        kind, *rest = parts
        groupings = [part for part in rest if isinstance(part, Grouping)]
        numbers = [part for part in rest if isinstance(part, Token)]
        [of] = [part for part in rest if not isinstance(part, Grouping | Token)]
        if len(groupings) > 1:
            raise BadQuery("a second grouping", _column(kind))
        if bool(numbers) != (kind in ("topk", "bottomk")):
            number = "no number" if not numbers else "a number"
            raise BadQuery(f"{number} in {kind}", _column(kind), "as in topk(5, ...)")
        parameter = int(_number(numbers)) if numbers else 0
        grouping = groupings[0] if groupings else None
        return Aggregation(cast(Any, str(kind)), of, grouping, parameter)

    def operation(self, parts: list[Any]) -> Any:
        """Make one of two, from left to right."""
        if len(parts) == 1:
            return parts[0]
        return reduce(_operated, _operators(parts[1:]), parts[0])


def _operators(parts: list[Any]) -> Iterator[tuple[Token, bool, Any]]:
    """Yield each operator, whether it is to give 0 or 1, and what stands behind it."""
    waiting = iter(parts)
    for operator in waiting:
        behind = next(waiting)
        is_bool = isinstance(behind, Token)
        yield operator, is_bool, next(waiting) if is_bool else behind


def _operated(left: Any, said: tuple[Token, bool, Any]) -> Operation:
    operator, is_bool, right = said
    if operator in ("=", "=~", "!~"):
        raise BadQuery(f"the operator {operator} between numbers", _column(operator))
    return Operation(cast(Any, str(operator)), left, right, is_bool, _column(operator))


def _number(parts: list[Token]) -> float:
    try:
        return float("".join(parts))
    except ValueError:
        raise BadQuery(f"{str(parts[-1])!r} is no number", _column(parts[-1])) from None


def _text(token: Token) -> str:
    """Return what a quoted text says, with the escapes of Go."""
    said = str(token)
    if said[0] == "`":
        return said[1:-1].replace("\r", "")

    def character(found: re.Match[str]) -> str:
        two, four, eight, octal, other = found.groups()
        if number := two or four or eight:
            code = int(number, 16)
        elif octal:
            code = int(octal, 8)
        elif other in _ESCAPES or other in "\\\"'":
            return _ESCAPES.get(other, other)
        else:
            code = -1
        if not 0 <= code < 0x110000 or 0xD800 <= code < 0xE000 or ((two or octal) and code > 127):
            raise BadQuery(f"the escape {found[0]}", _column(token) + 1 + found.start(),
                           "write the text between backticks")  # fmt: skip
        return chr(code)

    return _ESCAPE.sub(character, said[1:-1])


def _explained(text: str, error: UnexpectedInput) -> BadQuery:
    """Say what is wrong where the grammar went no further."""
    if isinstance(error, UnexpectedCharacters):
        at = cast(int, error.pos_in_stream)
        if text[at] in '"`' and text.count(text[at], at) == 1:
            return BadQuery("a quoted text that is not closed", at + 1)
        word = cast(re.Match[str], re.match(r"\w+|.", text[at:], re.DOTALL))[0]
        hint = "write a text that holds a backtick in double quotes" if "`" in text[:at] else ""
        return BadQuery(f"{word!r} is not expected", at + 1, hint)
    if not isinstance(error, UnexpectedToken) or error.token.type == "$END":
        return BadQuery("the query ends too early", len(text.rstrip()) + 1)
    return BadQuery(f"{str(error.token)!r} is not expected", _column(error.token))
