"""Token filters of many segments in memory, asked for all of them by one pass of a kernel.

Whole filters go in by the name of their segment; of some segments and tokens comes out which row
groups may hold them all. What nobody has asked for longest is forgotten beyond a bound of bytes.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexer.kernels import Flags, Longs, compiled
from indexer.segment.token_filter import BLOCK_BYTES, SALTS, TAG_BYTES, WholeFilter, token_hash
from indexer.segment.tokens import Words, word

_WORD_BYTES = 4
_BLOCK_WORDS = BLOCK_BYTES // _WORD_BYTES
_SALTS = tuple(word(salt) for salt in SALTS)
_HALF, _ONE = word(0xFFFF_FFFF), word(1)


@compiled
def _is_common(words: Words, start: int, count: int, tag: int) -> bool:
    """Tell whether a tag is among ascending ones."""
    low, high = start, start + count
    while low < high:
        middle = (low + high) >> 1
        if int(words[middle]) < tag:
            low = middle + 1
        else:
            high = middle
    return low < start + count and int(words[low]) == tag


@compiled
def _ask(words: Words, places: Longs, keys: Words, held: Flags) -> None:
    """Clear ``held`` of each row group that lacks one of the tokens of these hashes.

    ``places`` has a row for each filter: where it starts in ``words``, its blocks, row groups and
    common tokens. ``held`` has the row groups of the first filter, then of the second.
    """
    first = 0
    for n in range(places.shape[0]):
        start, blocks, groups, common = places[n]
        for key in keys:
            upper = key >> word(32)
            if _is_common(words, start + blocks * groups * _BLOCK_WORDS, common, int(upper)):
                continue
            block = int((upper * word(blocks)) >> word(32))
            at = start + block * groups * _BLOCK_WORDS
            for group in range(groups):
                for n_word in range(_BLOCK_WORDS):
                    bit = ((key * _SALTS[n_word]) & _HALF) >> word(27)
                    found = word(words[at + group * _BLOCK_WORDS + n_word])
                    if (found >> bit) & _ONE == word(0):
                        held[first + group] = False
                        break
        first += groups


@dataclass(slots=True)
class _Generation:
    """Filters one behind the other, in the order in which they came."""

    words: NDArray[np.uint32] = field(default_factory=lambda: np.empty(1 << 10, np.uint32))
    used: int = 0
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, data: NDArray[np.uint32], blocks: int, groups: int) -> None:
        """Append a filter; its common tokens are behind the blocks."""
        end = self.used + len(data)
        if end > len(self.words):
            more = np.empty(max(end, 2 * len(self.words)), np.uint32)
            more[: self.used] = self.words[: self.used]
            self.words = more
        self.words[self.used : end] = data
        self.rows[name] = len(self.places)
        common = len(data) - blocks * groups * _BLOCK_WORDS
        self.places.append((self.used, blocks, groups, common))
        self.used = end

    def filter(self, name: str) -> tuple[NDArray[np.uint32], int, int]:
        """Return what ``add`` took."""
        start, blocks, groups, common = self.places[self.rows[name]]
        size = blocks * groups * _BLOCK_WORDS + common
        return self.words[start : start + size], blocks, groups


class HeldFilters:
    """Filters by the names of their segments, at most ``bytes_max`` of them.

    There are two generations: what is asked for moves into the younger one, and when that holds
    half of the bytes the older one is let go. Methods may be called from any thread.
    """

    def __init__(self, bytes_max: int) -> None:
        """Hold nothing yet."""
        self._words_max = bytes_max // 2 // _WORD_BYTES
        self._young, self._old = _Generation(), _Generation()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """How much is held."""
        return (self._young.used + self._old.used) * _WORD_BYTES

    def add(self, name: str, whole: WholeFilter) -> None:
        """Hold a filter; one that is larger than all that may be held is passed over."""
        place = whole.place
        if len(whole.data) != place.blocks_bytes + place.common * TAG_BYTES:
            raise ValueError(f"{len(whole.data)} bytes are not the filter of {name}")
        data = np.frombuffer(whole.data, "<u4").astype(np.uint32)
        data[place.blocks_bytes // _WORD_BYTES :].sort()
        with self._lock:
            if name not in self._young.rows:
                self._add(name, data, place.blocks, place.row_groups)

    def _add(self, name: str, data: NDArray[np.uint32], blocks: int, groups: int) -> None:
        if len(data) > self._words_max:
            return
        if self._young.used + len(data) > self._words_max:
            self._old, self._young = self._young, _Generation()
        self._young.add(name, data, blocks, groups)

    def ask(self, names: Sequence[str], tokens: Iterable[bytes]) -> list[NDArray[np.bool_] | None]:
        """Return of each segment which of its row groups may hold all tokens; None: not held."""
        keys = np.array([token_hash(token) for token in tokens], np.uint64)
        found: list[NDArray[np.bool_] | None] = [None] * len(names)
        with self._lock:
            for name in names:
                if name in self._old.rows and name not in self._young.rows:
                    self._add(name, *self._old.filter(name))
            for generation in (self._young, self._old):
                here = [at for at, name in enumerate(names)
                        if found[at] is None and name in generation.rows]  # fmt: skip
                if here:
                    rows = [generation.rows[names[at]] for at in here]
                    places = np.array([generation.places[row] for row in rows], np.int64)
                    ends = np.cumsum(places[:, 2])  # of their row groups
                    held = np.ones(int(ends[-1]), np.bool_)
                    _ask(generation.words, places, keys, held)
                    parts = np.split(held, ends[:-1])
                    for at, part in zip(here, parts, strict=True):
                        found[at] = part
        return found
