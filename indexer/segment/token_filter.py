"""The token filter of a segment, as a reader uses it: which row groups may hold a token.

In come the key-value metadata of a segment's footer and a function that reads a range of it; out
goes, for one ranged read a token, which row groups need not be looked at. A filter that is
inconsistent excludes no row group. deploy/FORMAT.md describes the bytes.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = b"everyline.tokens"
"""Key of the metadata in the footer."""
VERSION = 1

BLOCK_BYTES = 32
TAG_BYTES = 4  # of a common token: the upper half of its hash
# Of Parquet's split-block Bloom filter: each picks the bit of one word of a block.
SALTS = (
    0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31,
)  # fmt: skip

_SIZE = 0xFFFF_FFFF_FFFF_FFFF
# Of XXH64, by which a token is hashed.
PRIMES = (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)  # fmt: skip


def token_hash(token: bytes) -> int:
    """Return XXH64 of a token with seed 0."""
    p1, p2, p3, p4, p5 = PRIMES
    size = len(token)
    striped = size & ~31
    state = p5
    if striped:
        lanes = [p1 + p2, p2, 0, -p1]
        for stripe in struct.iter_unpack("<4Q", token[:striped]):
            lanes = [_round(lane, word) for lane, word in zip(lanes, stripe, strict=True)]
        state = sum(_rotated(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            state = (state ^ _round(0, lane)) * p1 + p4
    state += size
    for at in range(striped, size - 7, 8):
        word = int.from_bytes(token[at : at + 8], "little")
        state = _rotated(state ^ _round(0, word), 27) * p1 + p4
    if size & 4:
        at = size & ~7
        word = int.from_bytes(token[at : at + 4], "little")
        state = _rotated(state ^ word * p1, 23) * p2 + p3
    for byte in token[size & ~3 :]:
        state = _rotated(state ^ byte * p5, 11) * p1
    for shift, factor in ((33, p2), (29, p3), (32, 1)):
        state &= _SIZE
        state = (state ^ state >> shift) * factor
    return state


def _rotated(word: int, by: int) -> int:
    word &= _SIZE
    return (word << by | word >> 64 - by) & _SIZE


def _round(lane: int, word: int) -> int:
    return _rotated(lane + word * PRIMES[1], 31) * PRIMES[0] & _SIZE


@dataclass(frozen=True, slots=True)
class Place:
    """What the footer says of the filter: where it stands, and of what."""

    offset: int
    row_groups: int
    blocks: int  # of each row group
    common: int  # tokens of the list behind the blocks
    false_positives: float  # expected share of row groups that an absent token matches

    @property
    def blocks_bytes(self) -> int:
        """Bytes of the blocks of all row groups."""
        return self.blocks * self.row_groups * BLOCK_BYTES

    def to_json(self) -> str:
        """Return the value of ``KEY``."""
        plain = {"version": VERSION} | {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(plain)

    @classmethod
    def from_json(cls, text: bytes) -> "Place":
        """Return what ``to_json`` has written; raise ValueError for anything else."""
        try:
            plain: dict[str, Any] = json.loads(text)
            if plain.pop("version") != VERSION:
                raise ValueError("a version that is not known")
            place = cls(**{name: plain[name] for name in cls.__slots__})
            counts = (place.offset, place.row_groups, place.blocks, place.common)
            if not all(type(count) is int and count >= 0 for count in counts):
                raise ValueError("a count that is impossible")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no place of a filter: {error!r}") from error
        return place


@dataclass(frozen=True, slots=True)
class WholeFilter:
    """All bytes of a filter: the blocks, and behind them the tags of its common tokens."""

    place: Place
    data: bytes


class TokenFilter:
    """The filter of one segment. A segment without one, or with a strange one, excludes nothing."""

    def __init__(
        self,
        metadata: Mapping[bytes, bytes] | None,
        row_groups: int,
        read_range: Callable[[int, int], bytes],
    ) -> None:
        """Take the footer's key-value metadata and number of row groups.

        ``read_range(offset, length)`` reads bytes of the segment, fewer at its end.
        """
        self.everything = np.ones(row_groups, np.bool_)
        """What is answered where nothing can be excluded."""
        self._read_range = read_range
        self._place: Place | None = None
        self._common: NDArray[np.uint32] | None = None
        try:
            place = Place.from_json((metadata or {})[KEY])
        except (KeyError, ValueError):
            return
        if place.row_groups == row_groups and place.blocks:
            self._place = place

    def whole(self) -> WholeFilter | None:
        """Return all of it, by one ranged read; None if it excludes nothing."""
        place = self._place
        if place is None:
            return None
        length = place.blocks_bytes + place.common * TAG_BYTES
        data = self._read_range(place.offset, length)
        return WholeFilter(place, data) if len(data) == length else None

    def row_groups(self, token: bytes) -> NDArray[np.bool_]:
        """Return for each row group whether it may hold the token, by one ranged read at most."""
        place = self._place
        if place is None:
            return self.everything
        key = token_hash(token)
        if self._is_common(place, key >> 32):
            return self.everything
        length = place.row_groups * BLOCK_BYTES
        block = (key >> 32) * place.blocks >> 32
        data = self._read_range(place.offset + block * length, length)
        if len(data) != length:
            return self.everything
        bits = np.array([1 << ((key * salt & 0xFFFF_FFFF) >> 27) for salt in SALTS], np.uint32)
        words = np.frombuffer(data, "<u4").reshape(place.row_groups, len(SALTS))
        held: NDArray[np.bool_] = (words & bits == bits).all(axis=1)
        return held

    def _is_common(self, place: Place, tag: int) -> bool:
        if self._common is None:
            length = place.common * TAG_BYTES
            data = self._read_range(place.offset + place.blocks_bytes, length) if length else b""
            if len(data) != length:
                return True
            self._common = np.frombuffer(data, "<u4")
        return tag in self._common
