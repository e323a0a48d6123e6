"""The query language: a text goes in, a tree of what is meant comes out, or an error at its column.

deploy/QUERY.md describes the language for who writes it. A query means the same in each version
that accepts it, so what is not understood is an error and never text to search for.
"""

import functools
import re
from collections.abc import Callable
from typing import Any, cast

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from collector import levels
from collector.token_bytes import IN_TOKEN
from indexer.errors import BadQuery
from indexer.query.quantity import quantity
from indexer.query.tree import (
    EVERYTHING,
    And,
    Compared,
    Exists,
    Field,
    Not,
    Or,
    Query,
    Regex,
    Term,
    Value,
    Wild,
)

TOKENS_MAX = 250
"""So many words, operators and parentheses may stand in a query."""

DEPTH_MAX = 40
"""So many parentheses may be open at one place."""

_PARSED_KEPT = 64
_GRAMMAR = r"""
?start: either
?either: all (_OR all)*
?all: one (_AND? one)*
?one: _NOT one -> without
    | _MINUS leaf -> without
    | leaf
?leaf: _OPEN either _CLOSE
     | FIELD value -> field
     | text
value: text
     | _OPEN any_value _CLOSE
?any_value: all_values (_OR all_values)* -> either
?all_values: one_value (_AND? one_value)* -> all
?one_value: _NOT one_value -> without
          | _MINUS text -> without
          | text
?text: WORD | PHRASE | PART | REGEX

_OR.9: /OR(?![^\s()])/
_AND.9: /AND(?![^\s()])/
_NOT.9: /NOT(?![^\s()])/
_MINUS.8: /-(?=\S)/
FIELD.7: /[A-Za-z_@][A-Za-z0-9_.@-]*(?:\/[A-Za-z0-9_.-]+)*(?::|[<>]=?)/
PART.6: /\*"(?:[^"\\]|\\.|\\(?=[^"\\]))*"\*/s
PHRASE.5: /"(?:[^"\\]|\\.)*"/s
REGEX.4: /\/(?:[^\/\\\n]|\\.)+\/(?=[\s)]|$)/
WORD.1: /[^\s"()]+/
_OPEN: "("
_CLOSE: ")"
%ignore /\s+/
"""
_OPERATORS = ("AND", "OR", "NOT")
_PARSER = Lark(_GRAMMAR, parser="lalr", lexer="contextual", propagate_positions=False,
               maybe_placeholders=False)  # fmt: skip
_TYPOGRAPHIC = "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033"
_QUOTE_HINT = 'a quote inside is written \\"'


@functools.lru_cache(_PARSED_KEPT)  # each segment of a search is asked the same
def parse_query(text: str) -> Query:
    """Return what a query means, EVERYTHING for a blank one; raise BadQuery with a column."""
    if not text.strip():
        return EVERYTHING
    if half := re.search("[\ud800-\udfff]", text):
        raise BadQuery("half of a character", half.start() + 1)
    parser = _PARSER.parse_interactive(text)
    check = _Checks(text)
    try:
        for token in parser.iter_parse():
            check(token)
        parsed = parser.feed_eof()  # type: ignore[no-untyped-call]
        found: Query = _Meant().transform(parsed)
    except UnexpectedInput as error:
        raise _explained(text, error) from None
    except VisitError as error:
        raise error.orig_exc from None
    return found


def is_token_character(character: str) -> bool:
    """Return whether tokens may hold the character: a letter, a digit, ``_``, all non-ASCII."""
    return all(IN_TOKEN[byte] for byte in character.encode("utf-8", "surrogatepass"))


class _Checks:
    """What a grammar cannot say of tokens: how they may touch, and how many there may be."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._count = 0
        self._open: list[int] = []
        self._is_value = False  # a field has asked for what comes next

    def __call__(self, token: Token) -> None:
        start, end = token.start_pos or 0, token.end_pos or 0
        self._count += 1
        if self._count > TOKENS_MAX:
            raise BadQuery(f"more than {TOKENS_MAX} words", start + 1, "ask for less at once")
        before = self._text[start - 1 : start]
        behind = self._text[end : end + 1]
        if token.type == "_OPEN":
            self._open.append(start)
            if len(self._open) > DEPTH_MAX:
                raise BadQuery(f"more than {DEPTH_MAX} parentheses inside each other", start + 1)
            if before and not before.isspace() and before not in "(-:<>=":
                raise _in_quotes("a parenthesis inside a word", self._text, start)
        elif token.type == "_CLOSE" and self._open:
            self._open.pop()
            if behind and not behind.isspace() and behind != ")":
                raise BadQuery("no space after a parenthesis", end + 1)
        elif token.type in ("PHRASE", "PART"):
            if before and not before.isspace() and before not in "(-:<>=":
                raise BadQuery("a quote inside a word", start + 1, "put a space before the phrase")
            if behind and not behind.isspace() and behind != ")":
                raise BadQuery("no space after a phrase", end + 1, _QUOTE_HINT)
        elif token.type == "WORD":
            self._word(str(token), start)
        self._is_value = token.type == "FIELD"

    def _word(self, word: str, start: int) -> None:
        if word == "-":
            hint = 'write "-" to search for the sign'
            raise BadQuery("there is nothing after '-'", start + 1, hint)
        if word in _OPERATORS and not self._is_value:
            hint = f'write "{word}" in quotes to search for the word'
            raise BadQuery(f"the operator {word} has nothing before it", start + 1, hint)
        if word.startswith("-") and self._text[start - 1 : start] == "-":
            raise BadQuery("a second '-'", start + 1, f'to search for the signs write "-{word}"')
        for at, character in enumerate(word):
            if character in _TYPOGRAPHIC:
                raise BadQuery(
                    f"{character} is no quote here", start + at + 1, 'phrases stand in straight "'
                )


class _Meant(Transformer[Token, Any]):
    """Makes the tree, from the leaves up."""

    def WORD(self, token: Token) -> Any:
        """Make a word, or pieces of one with anything between them."""
        word = str(token)
        if "*" not in word:
            return Term(word, is_token_character(word[0]), is_token_character(word[-1]))
        pieces = re.split(r"\*+", word)
        return Wild(tuple(pieces)) if any(pieces) else EVERYTHING

    def PHRASE(self, token: Token) -> Term:
        """Make a phrase: whole tokens at its ends."""
        text = _unquoted(str(token)[1:-1])
        if not text:
            raise BadQuery("an empty phrase", (token.start_pos or 0) + 1)
        return Term(text, is_token_character(text[0]), is_token_character(text[-1]))

    def PART(self, token: Token) -> Term:
        """Make text that may stand inside of words."""
        text = _unquoted(str(token)[2:-2])
        if not text:
            raise BadQuery("an empty phrase", (token.start_pos or 0) + 2)
        return Term(text)

    def REGEX(self, token: Token) -> Regex:
        """Make a regular expression, once RE2 takes it."""
        pattern = str(token)[1:-1].replace("\\/", "/")
        _check_regex(pattern, (token.start_pos or 0) + 1)
        return Regex(pattern)

    def either(self, parts: list[Any]) -> Any:
        """Make a choice."""
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def all(self, parts: list[Any]) -> Any:
        """Make a sum."""
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def without(self, parts: list[Any]) -> Not:
        """Make a denial."""
        return Not(parts[0])

    def value(self, parts: list[Any]) -> Any:
        """Pass on what a field must be."""
        return parts[0]

    def field(self, parts: list[Any]) -> Query:
        """Ask a field for a value, or for each of several."""
        token, value = parts
        name = str(token).rstrip(":<>=")
        operator, column = str(token)[len(name) :], (token.start_pos or 0) + 1
        if operator == ":":
            return _each(value, lambda leaf: _field(name, leaf, column))
        if not isinstance(value, Term) or (not value.starts_token and value.text[:1] not in "+-."):
            raise BadQuery(f"no number after {operator}", column + len(str(token)))
        return _compared(name, operator, value.text, column)


def _field(name: str, value: Any, column: int) -> Query:
    if value == EVERYTHING:
        return Field(name, Exists())
    if name == "level" and isinstance(value, Term):
        level = value.text.lower()
        if level not in (*levels.LEVELS, levels.UNKNOWN):
            hint = "one of " + ", ".join((*levels.LEVELS, levels.UNKNOWN))
            raise BadQuery(f"level {value.text!r} is none", column + len(name) + 1, hint)
        return Field(name, Term(level, True, True))
    return Field(name, value)


def _compared(name: str, operator: Any, text: str, column: int) -> Query:
    if name == "level":
        return _levels(operator, text.lower(), column + len(name) + len(operator))
    found = quantity(text)
    if found is None:
        hint = "a number, such as 500, 1.5, 250ms or 10MiB"
        raise BadQuery(
            f"{text!r} is no number to compare with", column + len(name) + len(operator), hint
        )
    return Field(name, Compared(operator, *found))


def _levels(operator: str, level: str, column: int) -> Query:
    """Ask for the levels on one side of another one; unknown is on none."""
    ordered = levels.LEVELS
    if level not in ordered:
        raise BadQuery(f"level {level!r} is none", column, "one of " + ", ".join(ordered))
    at = ordered.index(level)
    inclusive = operator.endswith("=")
    chosen = ordered[at + (not inclusive) :] if operator[0] == ">" else ordered[: at + inclusive]
    return Or(tuple(Field("level", Term(each, True, True)) for each in chosen))


def _each(value: Any, field: Callable[[Value], Query]) -> Query:
    """Put the field before each leaf of what was asked of it."""
    if isinstance(value, Or):
        return Or(tuple(_each(part, field) for part in value.parts))
    if isinstance(value, And) and value != EVERYTHING:
        return And(tuple(_each(part, field) for part in value.parts))
    if isinstance(value, Not):
        return Not(_each(value.part, field))
    return field(value)


def _unquoted(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text)


def _check_regex(pattern: str, column: int) -> None:
    import pyarrow as pa  # not at the top: who only writes a query down loads no more
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern=pattern)
    except pa.ArrowInvalid as error:
        said = str(error).removeprefix("Invalid regular expression: ")
        raise BadQuery(f"a regular expression that RE2 does not take ({said})", column) from error


def _in_quotes(what: str, text: str, at: int) -> BadQuery:
    start, end = at, at
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    while end < len(text) and not text[end].isspace():
        end += 1
    word = text[start:end].replace("\\", "\\\\").replace('"', '\\"')
    return BadQuery(what, at + 1, f'to search for the text write "{word}"')


def _explained(text: str, error: UnexpectedInput) -> BadQuery:
    """Say what is wrong where the grammar went no further."""
    if isinstance(error, UnexpectedCharacters):
        at = cast(int, error.pos_in_stream)
        if text[at] == '"':
            return BadQuery("a quoted phrase that is not closed", at + 1, _QUOTE_HINT)
        return BadQuery(f"{text[at]!r} is not expected", at + 1)
    if not isinstance(error, UnexpectedToken) or error.token.type == "$END":
        return _unended(text)
    token = error.token
    column = (token.start_pos or 0) + 1
    if token.type == "_CLOSE":
        return BadQuery("a parenthesis that closes nothing, or is empty", column)
    return BadQuery(f"{str(token)!r} is not expected", column)


def _unended(text: str) -> BadQuery:
    last = text.rstrip()
    for name in _OPERATORS:
        if re.search(rf"(?:^|[\s(]){name}$", last):
            hint = f'write "{name}" in quotes to search for the word'
            return BadQuery(f"the operator {name} has nothing after it",
                            len(last) - len(name) + 1, hint)  # fmt: skip
    if last.endswith((":", "<", ">", "=")):
        hint = "put it in quotes to search for the text; FIELD:* asks whether a field is there"
        return BadQuery("a field without a value", len(last), hint)
    return BadQuery("a parenthesis that is not closed", _unclosed(last) + 1)


def _unclosed(text: str) -> int:
    """Return where the last parenthesis that is not closed stands."""
    opened: list[int] = []
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[()]', text, re.DOTALL):
        if found[0] == "(":
            opened.append(found.start())
        elif found[0] == ")" and opened:
            opened.pop()
    return opened[-1] if opened else max(len(text) - 1, 0)
