"""Whether messages hold a text, ASCII letters in either case, by a compiled kernel.

In come the buffers of a column of strings and one text; rows are struck out in place. The whole
column is looked through 64 bytes at a time for two bytes of the text, and only where both stand is
it asked which row that is, whether the text fits into it, and for the rest of the text. No row is
copied, and nothing is read outside of the buffers.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from collector.token_bytes import IN_TOKEN
from indexer.kernels import Bytes, Flags, Ints, compiled, integer, zeros_below

_BLOCK_BYTES = 64
_WORD = ir.IntType(64)
_BLOCK = ir.VectorType(ir.IntType(8), _BLOCK_BYTES)
_SAME_LANE = ir.Constant(ir.VectorType(ir.IntType(32), _BLOCK_BYTES), [0] * _BLOCK_BYTES)


def _equal_bytes_code(context: Any, address: Any, fold: Any, byte: Any) -> Any:
    """Return a bit for each of the 64 bytes at the address: whether it is ``byte``, once folded."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_BLOCK, ir.Undefined)

        def each(value: Any) -> Any:
            lane = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(lane, nothing, _SAME_LANE)

        text = builder.load(builder.inttoptr(arguments[0], _BLOCK.as_pointer()), align=1)
        folded = builder.or_(text, each(arguments[1]))
        return builder.bitcast(builder.icmp_unsigned("==", folded, each(arguments[2])), _WORD)

    return types.uint64(types.int64, types.uint8, types.uint8), generate


_equal_bytes: Any = intrinsic(_equal_bytes_code)

_IN_TOKEN = np.frombuffer(IN_TOKEN, np.bool_)
_NOTHING, _ONE = np.uint64(0), np.uint64(1)


class Needle(NamedTuple):
    """A text to look for, of at least one byte.

    A byte of a message is equal to that at ``i`` if it is ``text[i]`` once ``fold[i]`` is set in
    it: 0x20 for letters, which are in lower case in ``text``, else 0. ``starts_token`` and
    ``ends_token`` are those of a Term, ``first`` and ``second`` the places of two rare bytes.
    """

    text: Bytes
    fold: Bytes
    starts_token: bool
    ends_token: bool
    first: int
    second: int


@compiled
def _places(text: Bytes, at: int, needle: Needle) -> Any:
    """Return a bit for each of 64 places from ``at`` on: whether both rare bytes are there."""
    first, second = needle.first, needle.second
    if at + max(first, second) + _BLOCK_BYTES <= text.size:
        address = text.ctypes.data + at
        bits = _equal_bytes(address + first, needle.fold[first], needle.text[first])
        return bits & _equal_bytes(address + second, needle.fold[second], needle.text[second])
    bits = _NOTHING
    for i in range(text.size - at - max(first, second)):
        found = (
            text[at + i + first] | needle.fold[first] == needle.text[first]
            and text[at + i + second] | needle.fold[second] == needle.text[second]
        )
        bits |= np.uint64(found) << np.uint64(i)
    return bits


@compiled
def _stands_at(text: Bytes, at: int, start: int, end: int, needle: Needle) -> bool:
    """Tell whether the needle, between edges of tokens, is at ``at`` in a row [start, end)."""
    behind = at + needle.text.size
    # First, so that a long run of one byte is not compared from each of its places.
    if needle.starts_token and at > start and _IN_TOKEN[text[at - 1]]:
        return False
    if needle.ends_token and behind < end and _IN_TOKEN[text[behind]]:
        return False
    for i in range(needle.text.size):  # noqa: SIM110 - a kernel knows no all()
        if text[at + i] | needle.fold[i] != needle.text[i]:
            return False
    return True


@compiled
def _next_holding(text: Bytes, offsets: Ints, row: int, stop: int, needle: Needle) -> int:
    """Return the first row of [row, stop) that holds the needle, else ``stop``."""
    size = needle.text.size
    last = integer(offsets[stop]) - size
    at = integer(offsets[row])
    while at <= last:
        bits = _places(text, at, needle)
        step = _BLOCK_BYTES
        while bits != _NOTHING:
            place = at + zeros_below(bits)
            if place > last:
                return stop
            while integer(offsets[row + 1]) <= place:
                row += 1
            end = integer(offsets[row + 1])
            if place + size > end:
                step = end - at  # nor does it fit into what is left of the row
                break
            if _stands_at(text, place, integer(offsets[row]), end, needle):
                return row
            bits &= bits - _ONE
        at += step
    return stop


@compiled
def strike_out(text: Bytes, offsets: Ints, kept: Flags, needle: Needle, negated: bool) -> None:
    """Clear ``kept`` of the rows that do not hold the needle; ``negated``: of those that do.

    Rows that are struck out already are not looked at; a run of others is one text.
    """
    row = 0
    while row < kept.size:
        if not kept[row]:
            row += 1
            continue
        stop = row + 1
        while stop < kept.size and kept[stop]:
            stop += 1
        while row < stop:
            found = _next_holding(text, offsets, row, stop, needle)
            if not negated:
                kept[row:found] = False
            elif found < stop:
                kept[found] = False
            row = found + 1
