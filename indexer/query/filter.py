"""A query's terms as a filter over a column of messages.

Terms go in; of the rows that are left those are struck out that do not hold them all. Only ASCII
letters match in either case: ``k`` does not find the Kelvin sign, nor ``s`` the long s.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from indexer.query.match import Needle, strike_out
from indexer.query.tree import Term

_SAMPLED = 2_048  # bytes of a text, to learn which are rare in it


class Filter:
    """The terms of one query; can be used from several threads at once."""

    def __init__(self, terms: Sequence[Term]) -> None:
        """What a row must hold comes first, the longest, thus rarest, before others."""
        ordered = sorted(terms, key=lambda term: (term.negated, -len(term.text)))
        self._terms = [(_needle(term), term.negated) for term in ordered]

    def __bool__(self) -> bool:
        """Return whether it asks for anything."""
        return bool(self._terms)

    def strike_out(self, messages: pa.ChunkedArray, kept: NDArray[np.bool_]) -> None:
        """Clear ``kept`` of each row that does not match; a null holds nothing."""
        if messages.type != pa.string():
            messages = messages.cast(pa.string())  # a kernel trusts the buffers that it gets
        row = 0
        for chunk in messages.chunks:
            if not len(chunk):
                continue
            _, places, body = chunk.buffers()
            offsets = _read_only(places, np.int32)[chunk.offset :][: len(chunk) + 1]
            text = _read_only(body, np.uint8)
            of_chunk = kept[row : row + len(chunk)]
            seen = _bytes_seen(text[offsets[0] : offsets[-1]])
            for needle, negated in self._terms:
                by_rare = _with_rare_bytes(needle, seen)
                strike_out(text, offsets, of_chunk, by_rare, negated)
            row += len(chunk)


def compile_kernels() -> None:
    """Compile what a filter calls into the cache of kernels, for installers and images."""
    Filter([Term("a")]).strike_out(pa.chunked_array([["a"]]), np.ones(1, np.bool_))


def _read_only(buffer: pa.Buffer | None, dtype: type[np.generic]) -> NDArray[Any]:
    """Return a buffer as an array of the one kind that the kernel is compiled for."""
    return np.frombuffer(memoryview(buffer or b"").toreadonly(), dtype)


def _needle(term: Term) -> Needle:
    if not term.text:
        raise ValueError("a term without text")
    text = np.frombuffer(term.text.encode("utf-8", "surrogatepass").lower(), np.uint8)
    letter = (ord("a") <= text) & (text <= ord("z"))
    fold = np.where(letter, np.uint8(0x20), np.uint8(0))
    return Needle(text, fold, term.starts_token, term.ends_token, 0, 0)


def _bytes_seen(messages: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each of the 256 bytes stands in a sample of the messages."""
    return np.bincount(messages[:: len(messages) // _SAMPLED + 1], minlength=256)


def _with_rare_bytes(needle: Needle, seen: NDArray[np.int64]) -> Needle:
    """Return a needle that is looked for by those two of its bytes that were seen least."""
    times = seen[needle.text] + np.where(needle.fold, seen[needle.text ^ needle.fold], 0)
    rarest = np.argsort(times, kind="stable").tolist()
    return needle._replace(first=rarest[0], second=rarest[min(1, len(rarest) - 1)])
