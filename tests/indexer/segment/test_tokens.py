"""The token filter: what is written is found, as FORMAT.md describes it."""

import json
import re
import secrets
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.token_bytes import tokens_within
from indexer.segment import tokens
from indexer.segment.token_filter import KEY, Place, TokenFilter, token_hash
from indexer.segment.tokens import TokenFilterWriter, _first_slot, _key

TOKEN = re.compile(rb"[A-Za-z0-9_\x80-\xff]+")

# Tokens around the sizes at which a kernel does something else, and blocks of 64 bytes.
token_texts = st.one_of(
    st.text("aZ_0\xe9\u20ac\U0001f40d", min_size=1, max_size=9),
    st.builds(lambda c, n: c * n, st.sampled_from("aZ@[`{/:\xe9"), st.integers(1, 140)),
    st.integers(0, 10**40).map(str),
)
messages = st.one_of(
    st.text(max_size=30),
    st.lists(st.one_of(token_texts, st.sampled_from(" .\x00\x7f-@[`{")), max_size=12).map("".join),
)
row_groups = st.lists(st.lists(messages, min_size=1, max_size=8), min_size=1, max_size=6)


def filter_of(*groups: list[str], hashes_max: int = tokens.HASHES_MAX) -> tuple[bytes, Place]:
    """Return the filter of these row groups; its messages count as much longer than they are."""
    writer = TokenFilterWriter(hashes_max)
    for group in groups:
        writer.append(pa.chunked_array([pa.array(group, pa.string())]))
    writer._raw_bytes += 1 << 20
    made = writer.finish(7)
    assert made is not None
    return made


class Reads:
    """A segment that counts what is read of it."""

    def __init__(self, blob: bytes) -> None:
        self.data = b"1234567" + blob
        self.ranges: list[tuple[int, int]] = []

    def __call__(self, offset: int, length: int) -> bytes:
        self.ranges.append((offset, length))
        return self.data[offset : offset + length]


def opened(blob: bytes, place: Place, **changed) -> tuple[TokenFilter, Reads]:
    reads = Reads(blob)
    plain = {**json.loads(place.to_json()), **changed}
    metadata = {KEY: json.dumps(plain).encode()}
    return TokenFilter(metadata, place.row_groups, reads), reads


def tokens_of(message: str) -> set[bytes]:
    return {token.lower() for token in TOKEN.findall(message.encode())}


@given(row_groups, st.integers(0, 3))
@example([["a" * 64 + " b", "x" * 63 + "y", "z" * 128]], 0)
@example([["ab", "cd"]], 1)
def test_a_token_that_was_written_is_never_missed(groups, first):
    writer = TokenFilterWriter()
    for group in groups:
        array = pa.array(["before"] * first + group, pa.string()).slice(first)
        half = len(group) // 2
        writer.append(pa.chunked_array([array[:half], array[half:]]))
    writer._raw_bytes += 1 << 20
    made = writer.finish(7)
    assert made is not None
    found, _ = opened(*made)
    for number, group in enumerate(groups):
        for token in set().union(*map(tokens_of, group)):
            assert found.row_groups(token)[number]


@given(st.lists(messages, min_size=1, max_size=20))
def test_reader_and_writer_hash_the_same_tokens(group):
    writer = TokenFilterWriter()
    hashes = writer._distinct(pa.chunked_array([pa.array(group, pa.string())]))
    expected = {token_hash(token) for token in set().union(*map(tokens_of, group))}
    assert hashes is not None
    assert len(hashes) == len(expected)
    assert set(hashes.tolist()) == expected


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"abc", 0x44BC2CF5AD770999),
        (b"connection", 0xD52F60BA939A072E),
        (b"0123456789abcdef0123456789abcdef", 0x642A94958E71E6C5),
        (b"x" * 77, 0x9D365B0521D7E52A),
    ],
)
def test_the_hash_is_xxh64(token, expected):
    assert token_hash(token) == expected


@given(messages, messages, messages, st.booleans(), st.booleans())
def test_only_tokens_that_each_match_must_hold_are_asked_for(before, text, behind, starts, ends):
    message = before + text + behind
    # What the words of a query assert: no token goes on over the edge.
    starts = starts and not TOKEN.match(before.encode()[-1:])
    ends = ends and not TOKEN.match(behind.encode()[:1])
    for token in tokens_within(text, starts, ends):
        assert token in tokens_of(message)


def test_the_edges_of_a_phrase_may_be_parts_of_longer_tokens():
    assert list(tokens_within("connection was refused", False, False)) == [b"was"]
    assert list(tokens_within("connection was refused", True, True)) == [
        b"connection", b"was", b"refused",
    ]  # fmt: skip
    assert list(tokens_within("(Refused)", False, False)) == [b"refused"]
    assert list(tokens_within("\xc4B\u0130", True, True)) == ["\xc4b\u0130".encode()]


def test_at_most_one_absent_token_in_a_hundred_is_taken_for_present():
    groups = [[secrets.token_hex(8) for _ in range(3_000)] for _ in range(3)]
    blob, place = filter_of(*groups)
    assert place.false_positives <= 0.009
    assert len(blob) == place.blocks_bytes < 1.5 * 3 * 3_000
    found, _ = opened(blob, place)
    absent = [found.row_groups(secrets.token_hex(8).encode()) for _ in range(4_000)]
    assert np.mean(absent) <= 0.013


def test_a_filter_takes_two_percent_of_the_text_at_most_and_says_what_that_costs():
    writer = TokenFilterWriter()
    group = [secrets.token_hex(2) for _ in range(20_000)]
    writer.append(pa.chunked_array([group]))
    made = writer.finish(0)
    assert made is not None
    blob, place = made
    assert len(blob) <= 0.02 * 4 * len(group)
    assert place.false_positives > 0.5
    assert TokenFilterWriter().finish(0) is None


def test_one_token_costs_one_read_of_all_row_groups():
    blob, place = filter_of(*([f"only{n}", "b"] for n in range(3)))
    found, reads = opened(blob, place)
    assert found.row_groups(b"only1").tolist() == [False, True, False]
    assert reads.ranges == [(reads.ranges[0][0], 3 * 32)]


def test_a_token_of_most_row_groups_is_in_every_one_and_costs_no_read():
    blob, place = filter_of(*(["often", f"only{n}"] for n in range(4)), ["else"])
    assert place.common == 1
    found, reads = opened(blob, place)
    assert found.row_groups(b"often").tolist() == [True] * 5
    assert reads.ranges == [(7 + place.blocks_bytes, 4)]
    assert found.row_groups(b"only2").tolist() == [False, False, True, False, False]
    assert len(reads.ranges) == 2


def test_a_row_group_with_too_many_tokens_matches_all_of_them():
    many = [f"token{n}" for n in range(5_000)]
    blob, place = filter_of(["few"], many, ["few", "more"], hashes_max=4_000)
    assert place.false_positives == pytest.approx(1 / 3, abs=0.01)
    found, _ = opened(blob, place)
    assert found.row_groups(b"few").tolist() == [True, True, True]
    assert found.row_groups(b"absent").tolist() == [False, True, False]


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 2},
        {"row_groups": 2},
        {"blocks": 0},
        {"blocks": -1},
        {"blocks": "1"},
        {"common": None},
        {"offset": 1 << 40},
        {"common": 1 << 20},
    ],
)
def test_what_does_not_add_up_excludes_no_row_group(changed):
    found, _ = opened(*filter_of(["a"], ["b"], ["c"]), **changed)
    assert found.row_groups(b"absent").tolist() == [True] * 3


@pytest.mark.parametrize("metadata", [None, {}, {KEY: b"{"}, {KEY: b"7,8"}, {KEY: b"[]"}])
def test_without_a_filter_no_row_group_is_excluded(metadata):
    reads = Reads(b"")
    assert TokenFilter(metadata, 2, reads).row_groups(b"a").tolist() == [True, True]
    assert not reads.ranges


@pytest.mark.parametrize("text", ["order{:03x}", "aaaaa{0:03x}bbbbb{0:03x}", "{:08}", "{:040}"])
def test_tokens_that_differ_in_a_few_bytes_lie_in_slots_of_their_own(text: str):
    slots = Counter(
        int(_first_slot(*_key_of(text.format(n).encode()), (1 << 16) - 1)) for n in range(4096)
    )
    assert slots.most_common(1)[0][1] <= 6


def _key_of(token: bytes) -> tuple[np.uint64, np.uint64]:
    data = np.frombuffer(token + bytes(64), np.uint8)
    low, high = _key(data.ctypes.data, len(token))
    return np.uint64(low), np.uint64(high)
