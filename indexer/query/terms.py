"""The query language: words and "phrases", all of which must be in a row; ``-`` before one denies.

A text goes in, terms come out. What a later version of the language will mean by something else
(fields, wildcards, regular expressions, AND, OR, NOT, parentheses) is an error at its column here,
never text to search for: a query means the same in each version that accepts it.
"""

import re
from dataclasses import dataclass
from typing import NoReturn

from collector.token_bytes import IN_TOKEN
from indexer.errors import BadQuery

_BLANKS = " \t\r\n"
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*(:|[<>]=?)")
_OPERATORS = ("AND", "OR", "NOT")


@dataclass(frozen=True, slots=True)
class Term:
    """Text that a row's message must hold (``negated``: must not), ASCII letters in either case.

    ``starts_token``: no token character may stand before it; ``ends_token``: none behind it.
    """

    text: str
    starts_token: bool = False
    ends_token: bool = False
    negated: bool = False


def is_token_character(character: str) -> bool:
    """Return whether tokens may hold the character: a letter, a digit, ``_``, all non-ASCII."""
    return all(IN_TOKEN[byte] for byte in character.encode("utf-8", "surrogatepass"))


def parse_query(text: str) -> tuple[Term, ...]:
    """Return the terms of a query, none for a blank one; raise BadQuery, which names a column."""
    terms: list[Term] = []
    at = 0
    while at < len(text):
        if text[at] in _BLANKS:
            at += 1
            continue
        negated = text[at] == "-"
        start = at + negated
        if negated and (start == len(text) or text[start] in _BLANKS):
            raise BadQuery("there is nothing after '-'", at + 1, 'write "-" to search for the sign')
        if text.startswith('"', start):
            term, at = _phrase(text, start, negated)
        else:
            term, at = _word(text, start, negated)
        terms.append(term)
    return tuple(terms)


def _phrase(text: str, start: int, negated: bool) -> tuple[Term, int]:
    """Return the phrase whose quote is at ``start``, and where it ends."""
    found: list[str] = []
    at = start + 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\"):
            at += 1
        found.append(text[at])
        at += 1
    if at == len(text):
        raise BadQuery(
            "a quoted phrase that is not closed", start + 1, 'a quote inside is written \\"'
        )
    if not found:
        raise BadQuery("an empty phrase", start + 1)
    end = at + 1
    if end < len(text) and text[end] not in _BLANKS:
        raise BadQuery("no space after a phrase", end + 1, 'a quote inside is written \\"')
    return Term("".join(found), negated=negated), end


def _word(text: str, start: int, negated: bool) -> tuple[Term, int]:
    """Return the bare word at ``start``, and where it ends."""
    end = start
    while end < len(text) and text[end] not in _BLANKS:
        end += 1
    word = text[start:end]
    if word in _OPERATORS:
        _later(f"the operator {word}", start, word)
    if match := _FIELD.match(word):
        _later(f"a field with {match[1]!r}", start + match.start(1), word)
    if word.startswith("/"):
        _later("a regular expression", start, word)
    if word.startswith("-"):
        raise BadQuery("a second '-'", start + 1, f'to search for the signs write "-{word}"')
    for at, character in enumerate(word, start):
        if character == '"':
            raise BadQuery("a quote inside a word", at + 1, "put a space before the phrase")
        if character in "()":
            _later("a parenthesis", at, word)
        if character == "*":
            _later("the wildcard '*'", at, word)
    return Term(word, is_token_character(word[0]), is_token_character(word[-1]), negated), end


def _later(what: str, at: int, word: str) -> NoReturn:
    quoted = word.replace("\\", "\\\\").replace('"', '\\"')
    raise BadQuery(f"{what} is not supported yet", at + 1, f'to search for text write "{quoted}"')
