"""What a query means, as a tree: what must hold of a row, whoever has written it down.

A parser makes one; the evaluator, the pruning and the explanation walk it. Nothing here knows how
a query is spelled.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Term:
    """Text that a row's message must hold (``negated``: must not), ASCII letters in either case.

    ``starts_token``: no token character may stand before it; ``ends_token``: none behind it.
    """

    text: str
    starts_token: bool = False
    ends_token: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Wild:
    """Pieces of text with any characters but blanks between them, ASCII letters in either case.

    An empty piece at an end lets anything but a blank stand there; else that end is the edge of a
    token.
    """

    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression, as RE2 reads it, that matches somewhere."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Exists:
    """A field is there, whatever it holds."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A number that is smaller or greater; ``unit`` is that of both, "" for plain numbers."""

    operator: Literal["<", "<=", ">", ">="]
    number: float
    unit: str = ""


Value = Term | Wild | Regex | Exists | Compared


@dataclass(frozen=True, slots=True)
class Field:
    """What a column of the row, or a field of its message, must be."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True)
class And:
    """All of it must hold; of nothing, every row holds."""

    parts: tuple["Query", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Some of it must hold."""

    parts: tuple["Query", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """It must not hold."""

    part: "Query"


Query = Term | Wild | Regex | Field | And | Or | Not
"""A leaf that is no field is asked of the row's message."""

EVERYTHING = And(())
