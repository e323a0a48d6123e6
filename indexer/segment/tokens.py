"""The token filter of a segment, as a writer makes it: by compiled kernels, one pass over a text.

Messages go in, one row group after the other; out come the bytes that stand before the footer and
what the footer says of them. The tokens of a row group are told apart by their own bytes, or by
their whole hash where they are long, so that none is ever left out.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from collector.token_bytes import IN_TOKEN
from indexer.kernels import Bytes, Ints, compiled, integer, zeros_below
from indexer.segment.token_filter import BLOCK_BYTES, PRIMES, SALTS, TAG_BYTES, Place

HASHES_MAX = 1 << 24
"""Hashes of eight bytes that a segment's filter holds until it is written.

A row group that would hold more tokens than are left of these matches any token.
"""

# One in a hundred is promised; a few row groups come out worse than the average that is reckoned.
_FALSE_POSITIVES_MAX = 0.009
_TOKENS_PER_BLOCK = 24  # keeps nearly that, as _false_positives reckons
_RAW_SHARE_MAX = 0.02  # of the bytes of the messages
_COMMON_ROW_GROUPS_MIN = 4  # in fewer, a token takes more room in the list than in the blocks

_TABLE_SIZE_MIN = 1 << 12
_PADDING = 64  # bytes that a kernel may read behind a message

Words = NDArray[Any]  # uint64; in a kernel they must not meet integers with a sign
word: Any = np.uint64

_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_BLOCK = ir.VectorType(_BYTE, 64)

_CASE = 0x20  # the bit in which the two cases of an ASCII letter differ
_RUNS = [(run.start(), run.end() - 1) for run in re.finditer(rb"\x01+", IN_TOKEN)]


def _in_token_code(context: Any, address: Any) -> Any:
    """Return a bit for each of the 64 bytes at the address: whether it is one of a token."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        text = builder.load(builder.inttoptr(arguments[0], _BLOCK.as_pointer()), align=1)

        def each(value: int) -> Any:
            return ir.Constant(_BLOCK, [value] * 64)

        lower = builder.or_(text, each(_CASE))
        found = []
        for first, last in _RUNS:
            in_both_cases = (first ^ _CASE, last ^ _CASE) in _RUNS
            if in_both_cases and not first & _CASE:
                continue  # letters are looked for once, in lower case
            behind = builder.sub(lower if in_both_cases else text, each(first))
            found.append(builder.icmp_unsigned("<", behind, each(last - first + 1)))
        return builder.bitcast(functools.reduce(builder.or_, found), _WORD)

    return types.uint64(types.int64), generate


def _word_at_code(context: Any, address: Any) -> Any:
    """Return the eight bytes at any address."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], _WORD.as_pointer()), align=1)

    return types.uint64(types.int64), generate


_in_token: Any = intrinsic(_in_token_code)
_word_at: Any = intrinsic(_word_at_code)

_NOTHING, _ONE, _ALL = word(0), word(1), word(0xFFFF_FFFF_FFFF_FFFF)
_HALF, _LAST = word(0xFFFF_FFFF), word(0xFF)
_HIGH_BITS = word(0x8080_8080_8080_8080)
_FROM_A = word(0x0101_0101_0101_0101 * (0x80 - ord("A")))
_BEHIND_Z = word(0x0101_0101_0101_0101 * (0x7F - ord("Z")))
_P1, _P2, _P3, _P4, _P5 = map(word, PRIMES)
_SHORT_BYTES = 16  # a token up to here is its own key


@compiled
def _lower(text: Any) -> Any:
    """Return eight bytes with the ASCII letters among them in lower case."""
    low = text & ~_HIGH_BITS
    upper = ((low + _FROM_A) ^ (low + _BEHIND_Z)) & ~text & _HIGH_BITS
    return text | (upper >> word(2))


@compiled
def _rotated(bits: Any, by: int) -> Any:
    return (bits << word(by)) | (bits >> word(64 - by))


@compiled
def _round(lane: Any, text: Any) -> Any:
    return _rotated(lane + text * _P2, 31) * _P1


@compiled
def _hash(at: int, size: int) -> Any:
    """Return XXH64, seed 0, of the token at an address, lower-cased."""
    end = at + size
    state = _P5
    if size >= 32:
        a, b, c, d = _P1 + _P2, _P2, _NOTHING, _NOTHING - _P1
        while end - at >= 32:
            a = _round(a, _lower(_word_at(at)))
            b = _round(b, _lower(_word_at(at + 8)))
            c = _round(c, _lower(_word_at(at + 16)))
            d = _round(d, _lower(_word_at(at + 24)))
            at += 32
        state = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(d, 18)
        for lane in (a, b, c, d):
            state = (state ^ _round(_NOTHING, lane)) * _P1 + _P4
    state += word(size)
    while end - at >= 8:
        state = _rotated(state ^ _round(_NOTHING, _lower(_word_at(at))), 27) * _P1 + _P4
        at += 8
    left = end - at
    rest = _lower(_word_at(at))
    if left >= 4:
        state = _rotated(state ^ ((rest & _HALF) * _P1), 23) * _P2 + _P3
        rest >>= word(32)
        left -= 4
    while left > 0:
        state = _rotated(state ^ ((rest & _LAST) * _P5), 11) * _P1
        rest >>= word(8)
        left -= 1
    state = (state ^ (state >> word(33))) * _P2
    state = (state ^ (state >> word(29))) * _P3
    return state ^ (state >> word(32))


@compiled
def _end_of_token(at: int, end: int) -> Any:
    while at < end:
        others = ~_in_token(at)
        if others != _NOTHING:
            return min(at + zeros_below(others), end)
        at += 64
    return end


@compiled
def _key(at: int, size: int) -> tuple[Any, Any]:
    """Return what only this token has: its bytes in lower case, or its hash if it is long."""
    if size > _SHORT_BYTES:
        return _hash(at, size), _ALL  # no UTF-8 has such bytes: the mark of a hash
    low = _lower(_word_at(at))
    if size > 8:
        return low, _lower(_word_at(at + 8)) & (_ALL >> word(8 * (_SHORT_BYTES - size)))
    return low & (_ALL >> word(8 * (8 - size))), _NOTHING


@compiled
def _first_slot(low: Any, high: Any, last: int) -> Any:
    mixed = (low ^ high * _P2) * _P1
    mixed = (mixed ^ (mixed >> word(32))) * _P2  # so that each byte counts in any table
    return integer(mixed >> word(32)) & last


@compiled
def _add_tokens(
    text: Bytes, offsets: Ints, row: int, table: Words, hashes: Words, count: int
) -> tuple[int, int]:
    """Add the tokens of all messages from ``row`` on.

    Return (row, count): the row in which ``hashes`` became full, or the number of rows. Behind
    each message, ``_PADDING`` bytes can be read.
    """
    base = text.ctypes.data
    last = table.shape[0] - 1
    while row < offsets.size - 1:
        at, end = base + integer(offsets[row]), base + integer(offsets[row + 1])
        while at < end:
            bits = _in_token(at)
            if end - at < 64:
                bits &= (_ONE << word(end - at)) - _ONE
            step = 64
            while bits != _NOTHING:
                start = zeros_below(bits)
                carried = bits + (_ONE << word(start))  # the token's bits become one behind it
                if carried != _NOTHING:
                    size = zeros_below(carried) - start
                elif start > 0:
                    step = start  # it may go on: look again from where it starts
                    break
                else:
                    step = size = _end_of_token(at, end) - at
                bits &= carried
                low, high = _key(at + start, size)
                slot = _first_slot(low, high, last)
                # Written out: a call with arrays costs as much as the token.
                while table[slot, 0] != low or table[slot, 1] != high:
                    if table[slot, 0] == _NOTHING and table[slot, 1] == _NOTHING:
                        if count == hashes.size:
                            return row, count
                        table[slot, 0], table[slot, 1] = low, high
                        hashes[count] = low if size > _SHORT_BYTES else _hash(at + start, size)
                        count += 1
                        break
                    slot = (slot + 1) & last
            at += step
        row += 1
    return row, count


@compiled
def _move(old: Words, new: Words) -> None:
    """Put the keys of a table into a larger one."""
    last = new.shape[0] - 1
    for i in range(old.shape[0]):
        low, high = old[i, 0], old[i, 1]
        if low != _NOTHING or high != _NOTHING:
            slot = _first_slot(low, high, last)
            while new[slot, 0] != _NOTHING or new[slot, 1] != _NOTHING:
                slot = (slot + 1) & last
            new[slot, 0], new[slot, 1] = low, high


_SALTS = np.array(SALTS, np.uint64)


@compiled
def _fill(hashes: Words, blocks: Any, row_group: int) -> None:
    """Set the bits of a row group in ``blocks`` [block, row group, word]."""
    for key in hashes:
        block = integer(((key >> word(32)) * word(blocks.shape[0])) >> word(32))
        for i in range(_SALTS.size):
            bit = ((key * _SALTS[i]) & _HALF) >> word(27)
            blocks[block, row_group, i] |= np.uint32(1) << np.uint32(bit)


class TokenFilterWriter:
    """Makes the filter of one segment from the messages of its row groups."""

    def __init__(self, hashes_max: int = HASHES_MAX) -> None:
        """Start without row groups."""
        self._hashes_left = hashes_max
        self._table = np.zeros((_TABLE_SIZE_MIN, 2), np.uint64)
        self._hashes: list[NDArray[np.uint64] | None] = []  # None: too many
        self._raw_bytes = 0

    def append(self, messages: pa.ChunkedArray) -> None:
        """Add a row group by its messages, which are UTF-8."""
        hashes = self._distinct(messages)
        if hashes is not None:
            self._hashes_left -= len(hashes)
        self._hashes.append(hashes)

    def _distinct(self, messages: pa.ChunkedArray) -> NDArray[np.uint64] | None:
        """Return the hashes of all tokens in the messages, None if they are too many."""
        self._table[:] = 0
        hashes = np.empty(len(self._table) // 2, np.uint64)
        count = 0
        for text, offsets in (part for chunk in messages.chunks for part in _readable(chunk)):
            self._raw_bytes += int(offsets[-1] - offsets[0])
            row = 0
            while row < len(offsets) - 1 and count <= self._hashes_left:
                row, count = _add_tokens(text, offsets, row, self._table, hashes, count)
                if count == len(hashes):
                    hashes = self._grown(hashes)
        return hashes[:count].copy() if count <= self._hashes_left else None

    def _grown(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Make room for four times as many tokens."""
        table = np.zeros((4 * len(self._table), 2), np.uint64)
        _move(self._table, table)
        self._table = table
        return np.concatenate((hashes, np.empty(len(table) // 2 - len(hashes), np.uint64)))

    def finish(self, offset: int) -> tuple[bytes, Place] | None:
        """Return the filter's bytes, which will stand at ``offset``, and what the footer says.

        None if the messages are too few for one block within ``_RAW_SHARE_MAX``.
        """
        row_groups = len(self._hashes)
        common = self._common()
        rare = [
            None if hashes is None else np.setdiff1d(hashes, common, assume_unique=True)
            for hashes in self._hashes
        ]
        tokens = np.array([0 if hashes is None else len(hashes) for hashes in rare], np.float64)
        room = int(self._raw_bytes * _RAW_SHARE_MAX) - TAG_BYTES * len(common)
        fitting = room // (BLOCK_BYTES * max(1, row_groups))
        if fitting < 1:
            return None
        count, expected = _block_count(tokens, fitting)
        blocks = np.zeros((count, row_groups, len(SALTS)), np.uint32)
        for number, hashes in enumerate(rare):
            if hashes is None:
                blocks[:, number] = 0xFFFF_FFFF
            else:
                _fill(hashes, blocks, number)
        expected += sum(hashes is None for hashes in rare) / row_groups
        tags = (common >> np.uint64(32)).astype("<u4")
        place = Place(offset, row_groups, count, len(common), round(expected, 6))
        return blocks.astype("<u4").tobytes() + tags.tobytes(), place

    def _common(self) -> NDArray[np.uint64]:
        """Return the hashes of tokens in more than half of the row groups, ascending."""
        known = [hashes for hashes in self._hashes if hashes is not None]
        if len(known) < _COMMON_ROW_GROUPS_MIN:
            return np.empty(0, np.uint64)
        found, row_groups = np.unique(np.concatenate(known), return_counts=True)
        least = max(_COMMON_ROW_GROUPS_MIN, len(self._hashes) // 2 + 1)
        common: NDArray[np.uint64] = found[row_groups >= least]
        return common


def _readable(messages: pa.StringArray) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
    """Yield text and offsets of messages, ``_PADDING`` bytes behind each of which can be read."""
    _, places, body = messages.buffers()
    if not len(messages) or body is None:
        return
    first = messages.offset
    offsets = np.frombuffer(places, np.int32)[first : first + len(messages) + 1]
    text = np.frombuffer(body, np.uint8)
    whole = int(np.searchsorted(offsets[1:], len(text) - _PADDING, "right"))
    yield text, offsets[: whole + 1]
    rest = text[offsets[whole] : offsets[-1]]
    yield np.concatenate((rest, np.zeros(_PADDING, np.uint8))), offsets[whole:] - offsets[whole]


def _block_count(tokens: NDArray[np.float64], most: int) -> tuple[int, float]:
    """Return how many blocks row groups of so many tokens need, and what passes then.

    ``_FALSE_POSITIVES_MAX`` is kept by the row groups on average: sized by the fullest alone, a
    filter is half as large again on logs of many kinds.
    """
    count = max(1, int(tokens.mean() / _TOKENS_PER_BLOCK))
    while True:
        count = min(count, most)
        expected = float(_false_positives(tokens / count).mean())
        if expected <= _FALSE_POSITIVES_MAX or count == most:
            return count, expected
        count += max(1, count // 50)


def _false_positives(tokens_per_block: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return which share of absent tokens each row group lets pass.

    As many tokens as a Poisson distribution says meet in a block, and each has set one of 32 bits
    in each of its eight words.
    """
    mean = np.minimum(tokens_per_block, 500)  # where all pass
    held = np.exp(-mean)
    share = np.zeros_like(mean)
    highest = float(mean.max())
    for tokens in range(1, math.ceil(highest + 12 * math.sqrt(highest) + 20)):
        held = held * (mean / tokens)
        share += held * (1 - (31 / 32) ** tokens) ** 8
    return share
