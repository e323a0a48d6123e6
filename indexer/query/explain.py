"""What a query means, in lines that a person reads: what is asked of what, and what prunes.

A query goes in as a tree; lines come out, with the parts of a choice or a sum below it.
"""

from collections.abc import Iterator

from indexer.query.meant import COLUMNS
from indexer.query.needed import ANY_ROW, Needed, most_telling, needed
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
    Value,
    Wild,
)


def explained(query: Query) -> list[str]:
    """Return the lines."""
    if query == EVERYTHING:
        return ["every line"]
    formula = needed(query)
    prunes = "no word: every segment in scope is read" if formula == ANY_ROW else _words(formula)
    columns = ", ".join(sorted(_columns(query)))
    return [*_lines(query, ""), f"prunes by  {prunes}", f"reads      {columns}"]


def _lines(query: Query, indent: str) -> Iterator[str]:
    if isinstance(query, And | Or):
        yield indent + ("all of" if isinstance(query, And) else "any of")
        for part in query.parts:
            yield from _lines(part, indent + "  ")
    elif isinstance(query, Not):
        yield indent + "not"
        yield from _lines(query.part, indent + "  ")
    elif isinstance(query, Field):
        whose = "column" if query.name in COLUMNS else "field of the message"
        yield f"{indent}{whose} {query.name} {_said(query.value, query.name in COLUMNS)}"
    else:
        yield f"{indent}the message {_said(query, whole=False)}"


def _said(value: Value, whole: bool) -> str:
    if isinstance(value, Exists):
        return "is there"
    if isinstance(value, Compared):
        return f"{value.operator} {value.number:g}{value.unit and ' ' + value.unit}"
    if isinstance(value, Regex):
        return f"matches /{value.pattern}/"
    if isinstance(value, Wild):
        return f"{'is like' if whole else 'holds a word like'} {'*'.join(value.pieces)}"
    if whole:
        return f"is {value.text}"
    is_part = not (value.starts_token or value.ends_token) and value.text[:1].isalnum()
    return f"holds {'the text' if is_part else 'the words'} {value.text!r}"


def _words(formula: Needed) -> str:
    said = [token.decode("utf-8", "replace") for token in most_telling(formula.tokens)]
    choices = (" or ".join(map(_words, choice.parts)) for choice in formula.parts)
    said += [f"({choice})" for choice in choices]
    return " and ".join(said)


def _columns(query: Query) -> set[str]:
    if isinstance(query, And | Or):
        return set[str]().union(*map(_columns, query.parts))
    if isinstance(query, Not):
        return _columns(query.part)
    if isinstance(query, Field) and query.name in COLUMNS:
        return {query.name}
    return {"message"}
