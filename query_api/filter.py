"""A query's terms as a filter over a column of messages, compiled for RE2 in Arrow.

Terms go in, the numbers of the rows that hold them all come out. Only ASCII letters match in
either case: RE2's own flag would let ``k`` find the Kelvin sign and ``s`` the long s.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from query_api.language import Term

_NOT_TOKEN = r"[\x00-/:-@\[-^`{-\x7f]"  # noqa: S105 - a class of characters, no secret
_PLAIN = re.compile(r"[0-9A-Za-z_]|[^\x00-\x7f]")


class Filter:
    """The compiled terms of one query; can be used from several threads at once."""

    def __init__(self, terms: Sequence[Term]) -> None:
        """Compile; what a row must hold comes first, the longest, thus rarest, before others."""
        ordered = sorted(terms, key=lambda term: (term.negated, -len(term.text)))
        self._terms = [(_text_pattern(term), _edge_pattern(term), term.negated) for term in ordered]

    def __bool__(self) -> bool:
        """Return whether it asks for anything."""
        return bool(self._terms)

    def rows(self, messages: pa.ChunkedArray) -> pa.Array | None:
        """Return the numbers of the rows that match, ascending; None for all of them."""
        chosen: pa.Array | None = None
        for text, edges, negated in self._terms:
            # An edge costs RE2 three times as much as the text alone, so it looks at what has it.
            found = pc.indices_nonzero(pc.match_substring_regex(messages, text))
            if edges is not None and len(found):
                held = pc.match_substring_regex(messages.take(found), edges)
                found = found.take(pc.indices_nonzero(held))
            if negated:
                if not len(found):
                    continue
                kept = np.ones(len(messages), np.bool_)
                kept[found.to_numpy()] = False
                found = pa.array(np.flatnonzero(kept).astype(np.uint64))
            messages = messages.take(found)
            chosen = found if chosen is None else chosen.take(found)
            if not len(chosen):
                break
        return chosen


def _text_pattern(term: Term) -> str:
    # A run under one flag has a prefix that RE2 looks for first; classes have none.
    runs = itertools.groupby(term.text, key=lambda c: c.isascii() and c not in "kKsS")
    return "".join(
        f"(?i:{''.join(map(_plain, run))})" if folds else "".join(map(_either_case, run))
        for folds, run in runs
    )


def _edge_pattern(term: Term) -> str | None:
    """Return a pattern that minds the edges of tokens, None if there is nothing to mind."""
    if not (term.starts_token or term.ends_token):
        return None
    before = f"(?:\\A|{_NOT_TOKEN})" if term.starts_token else ""
    behind = f"(?:\\z|{_NOT_TOKEN})" if term.ends_token else ""
    return before + _text_pattern(term) + behind


def _either_case(character: str) -> str:
    if character in "kKsS":
        return f"[{character.lower()}{character.upper()}]"
    return _plain(character)


def _plain(character: str) -> str:
    """Return a pattern of the character itself, whatever it means to RE2."""
    return character if _PLAIN.fullmatch(character) else f"\\x{{{ord(character):x}}}"
