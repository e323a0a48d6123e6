"""Which tokens a row must hold to be meant: what filters of segments are asked for.

A tree goes in; a formula of tokens comes out that holds for every row that the tree means, and says
nothing where the tree allows any row.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from collector.token_bytes import tokens_within
from indexer.query.parse import is_token_character
from indexer.query.tree import And, Field, Not, Or, Query, Regex, Term, Wild


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every token must be there, and every part must hold; of nothing, any row will do."""

    tokens: frozenset[bytes] = frozenset()
    parts: tuple["AnyOf", ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of these must hold."""

    parts: tuple[AllOf, ...]


Needed = AllOf
ANY_ROW = AllOf()


def needed(query: Query) -> Needed:
    """Return what each row that a query means holds."""
    if isinstance(query, And):
        parts = [needed(part) for part in query.parts]
        tokens = frozenset[bytes]().union(*(part.tokens for part in parts))
        return AllOf(tokens, tuple(each for part in parts for each in part.parts))
    if isinstance(query, Or):
        choice = tuple(needed(part) for part in query.parts)
        return ANY_ROW if ANY_ROW in choice else AllOf(frozenset(), (AnyOf(choice),))
    if isinstance(query, Not | Field):
        return ANY_ROW
    return AllOf(frozenset(_tokens(query)))


def _tokens(leaf: Term | Wild | Regex) -> Iterator[bytes]:
    if isinstance(leaf, Term):
        yield from tokens_within(leaf.text, leaf.starts_token, leaf.ends_token)
    elif isinstance(leaf, Wild):
        last = len(leaf.pieces) - 1
        for at, piece in enumerate(leaf.pieces):
            starts = at == 0 and bool(piece) and is_token_character(piece[0])
            ends = at == last and bool(piece) and is_token_character(piece[-1])
            yield from tokens_within(piece, starts, ends)
    else:
        for literal in literals(leaf.pattern):
            yield from tokens_within(literal, False, False)


def literals(pattern: str) -> list[str]:
    """Return texts that stand in whatever a regular expression matches, as far as that is plain.

    Only what RE2 reads as plain characters outside of any group, class or choice is taken.
    """
    found: list[str] = []
    run, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        if character in "|(":  # a choice, a group or flags: what is behind may mean anything
            return [] if character == "|" or "|" in pattern or "(?" in pattern else [*found, run]
        at += 1
        if character == "\\":
            escaped = pattern[at : at + 1]
            at += 1
            if escaped and not escaped.isalnum():
                run += escaped
                continue
            if escaped and escaped in "QEpPxuC0123456789":
                return [] if escaped in "QE" else [*found, run]
            found.append(run)
            run = ""
        elif character == "[":
            found.append(run)
            run = ""
            end = _class_end(pattern, at)
            if end < 0:
                return found
            at = end
        elif character in "*?{":
            found.append(run[:-1])  # the character before it may be missing
            run = ""
            if character == "{":
                at = pattern.find("}", at) + 1 or len(pattern)
        elif character in "+.^$":
            found.append(run)
            run = ""
        else:
            run += character
    return [*found, run]


def _class_end(pattern: str, at: int) -> int:
    """Return where a class of characters ends that was opened before ``at``; -1 if unknown."""
    if pattern[at : at + 1] == "^":
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "[":
            return -1  # [:names:]
        at += 2 if pattern[at] == "\\" else 1
    return at + 1 if at < len(pattern) else -1


Groups = NDArray[np.bool_]


def holding(
    formula: Needed, ask: Callable[[frozenset[bytes]], Groups], everything: Groups
) -> Groups:
    """Return which row groups may hold what is needed.

    ``ask`` tells which hold all of some tokens, ``everything`` has a true for each.
    """
    found = ask(formula.tokens) if formula.tokens else everything
    for choice in formula.parts:
        if not found.any():
            break
        each = (holding(part, ask, everything) for part in choice.parts)
        found = found & reduce(np.logical_or, each)
    return found


def most_telling(tokens: Iterable[bytes]) -> list[bytes]:
    """Return tokens, those first that are rare as a rule: the longest."""
    return sorted(tokens, key=lambda token: (-len(token), token))
