"""Filters that are held in memory answer as those that are read, and no more of them are held."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.segment.held_filters import HeldFilters
from indexer.segment.token_filter import WholeFilter
from tests.indexer.segment.test_tokens import filter_of, opened, row_groups, token_texts, tokens_of


def whole_of(*groups: list[str]) -> WholeFilter:
    found, _ = opened(*filter_of(*groups))
    whole = found.whole()
    assert whole is not None
    return whole


@given(st.lists(row_groups, min_size=1, max_size=5), st.lists(token_texts, max_size=4), st.data())
def test_segments_that_are_asked_at_once_answer_as_each_by_itself(segments, texts, data):
    held, readers = HeldFilters(1 << 24), {}
    for number, groups in enumerate(segments):
        groups = [[*group, "often"] for group in groups]  # a common token, where there are many
        readers[f"s{number}"] = opened(*filter_of(*groups))[0]
        if data.draw(st.booleans()):
            held.add(f"s{number}", whole_of(*groups))
    there = [token for groups in segments for group in groups for text in group
             for token in sorted(tokens_of(text))]  # fmt: skip
    drawn = data.draw(st.lists(st.sampled_from(there), max_size=3)) if there else []
    tokens = [*drawn, *(token for text in texts for token in tokens_of(text)), b"often"]
    for (name, reader), found in zip(readers.items(), held.ask(list(readers), tokens), strict=True):
        if found is not None:
            asked = np.logical_and.reduce([reader.row_groups(token) for token in tokens])
            assert found.tolist() == asked.tolist(), name


def test_what_nobody_asks_for_is_forgotten_and_what_is_asked_for_stays() -> None:
    one = len(whole_of(["a"]).data)
    held = HeldFilters(20 * one)
    for number in range(100):
        held.add(f"s{number}", whole_of(["a"]))
        [found, _] = held.ask(["s0", f"s{number}"], [b"a"])
        assert found is not None
        assert held.held_bytes <= 20 * one
    kept = held.ask([f"s{number}" for number in range(100)], [b"a"])
    assert 8 <= sum(each is not None for each in kept) <= 20
    assert kept[99] is not None


def test_a_filter_larger_than_all_that_may_be_held_is_passed_over() -> None:
    held = HeldFilters(64)
    held.add("large", whole_of([f"token{n}" for n in range(5_000)]))
    assert held.ask(["large"], [b"token1"]) == [None]
    assert held.held_bytes == 0


def test_bytes_that_are_no_filter_are_refused() -> None:
    whole = whole_of(["a"])
    with pytest.raises(ValueError, match="not the filter of s"):
        HeldFilters(1 << 20).add("s", WholeFilter(whole.place, whole.data[:-4]))
