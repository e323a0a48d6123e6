"""Replays are trimmed to what is new, whatever their cuts, their order and their commits."""

import zlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.wire.batch import Elided
from collector.wire.range import CRC_UNKNOWN, Range, open_outputs, split
from indexer.ledger.entries import ENDS_KEPT
from indexer.trim import Trimmer
from tests.indexer.shipped import File, Run, Way
from tests.way import cri, lines

messages = st.sampled_from(["", "a", "same", "same", "é", "x" * 40])
outputs = st.sampled_from(["stdout", "stderr"])
tags = st.sampled_from(["F", "F", "P"])
kinds = st.one_of(
    st.builds(lambda m, o, t: cri(1, m or " ", o, t), messages, outputs, tags),
    st.sampled_from([b"\n", b"no header\n", b"\xff\xfe stdout P\n"]),
)


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """What a container may write, perhaps without a newline at its end."""
    body = cri(0, "first") + b"".join(draw(st.lists(kinds, min_size=1, max_size=12)))
    return body[: draw(st.integers(len(cri(0, "first")), len(body)))]


def cuts(data: st.DataObject, size: int) -> list[int]:
    return data.draw(st.lists(st.integers(1, size), max_size=6))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_parts_of_any_replays_are_the_content_once(data: st.DataObject) -> None:
    """First as it comes, then replays with other cuts that start at known ends or at 0."""
    file = File(data.draw(contents()))
    size = len(file.data)
    way, run = Way(), Run()
    first = file.ranges(cuts(data, size))
    shipped = list(first)
    ends = [0, *(each.end for each in first)]
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.sampled_from(ends))
        if start < size:
            replay = file.ranges(cuts(data, size), start=start)
            place = data.draw(st.integers(0, len(shipped)))
            shipped[place:place] = data.draw(st.permutations(replay))
    trimmed = 0
    while shipped:
        count = data.draw(st.integers(1, len(shipped)))
        now, shipped = shipped[:count], shipped[count:]
        coverage = way.commit(run.batch(*now, of=[file]))
        trimmed += coverage.balance.trimmed_bytes
        assert way.done[-1].epochs_raised == 0
    [entry] = way.ledger.files.values()
    assert [(part.start, part.end) for part in entry.covered] == [(0, size)]
    spans = [span for made in way.commits for cover in made.files for span in cover.spans]
    assert sum(span.end - span.start for span in spans) == size
    assert all(span.crc_after == zlib.crc32(file.data[: span.end]) for span in spans)
    balances = [made.balance for made in way.commits]
    assert sum(each.covered_bytes for each in balances) == size
    assert sum(each.shipped_bytes for each in balances) == size + trimmed


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_part_starts_in_the_state_that_the_bytes_before_it_leave(data: st.DataObject) -> None:
    file = File(data.draw(contents()))
    size = len(file.data)
    trimmer = Trimmer({})
    for each in file.ranges(cuts(data, size), end=data.draw(st.integers(1, size))):
        trimmer.trim(each)
    for whole in file.ranges(cuts(data, size)):
        for part in trimmer.trim(whole):
            before = file.data[: part.start]
            assert part.data == file.data[part.start : part.end]
            assert part.crc_after == zlib.crc32(file.data[: part.end])
            assert part.torn_before == (bool(before) and not before.endswith(b"\n"))
            if not whole.torn_before:  # else the head of its first line is not at hand
                assert part.open_before == open_outputs(before)
            assert part.lines == part.data.count(b"\n") + (not part.data.endswith(b"\n"))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_another_content_of_the_same_name_is_kept_apart(data: st.DataObject) -> None:
    """The same first line, then other bytes."""
    head = cri(0, "first")
    one = File(head + lines(1, 10))
    other = File(head + lines(20, data.draw(st.integers(31, 45))))
    assert one.id == other.id
    way, run = Way(), Run()
    way.commit(run.batch(*one.ranges([len(head)]), of=[one]))
    known = way.ledger.files[one.id, 0].ends
    # Bytes up to which no running CRC is known cannot be told apart: the first reaches past one.
    reach = next(end for end in known if end > len(head))
    replay = other.ranges([cut for cut in cuts(data, len(other.data)) if cut >= reach])
    for each in replay:
        way.commit(run.batch(each, of=[other]))
    assert way.ledger.files[one.id, 0].covered[0].end == len(one.data)
    second = way.ledger.files[one.id, 1]
    assert [(part.start, part.end) for part in second.covered] == [(0, len(other.data))]
    way.commit(run.batch(*one.ranges([]), *other.ranges([]), of=[one]))
    assert way.commits[-1].balance.covered_bytes == 0  # both are known by now
    assert set(way.ledger.files) == {(one.id, 0), (one.id, 1)}


def test_a_third_content_gets_a_third_epoch() -> None:
    head = cri(0, "first")
    files = [File(head + lines(n * 10, n * 10 + 9)) for n in (1, 2, 3)]
    trimmer = Trimmer({})
    epochs = [
        part.epoch for file in files for each in file.ranges([]) for part in trimmer.trim(each)
    ]
    assert epochs == [0, 1, 2]
    assert trimmer.epochs_raised == 2
    assert trimmer.trimmed_bytes == 0


def test_a_hole_is_filled_from_both_sides() -> None:
    file = File(lines(0, 100))
    [first, second, third] = file.ranges([100, 200], end=300)
    trimmer = Trimmer({})
    assert [p.start for p in trimmer.trim(first)] == [0]
    assert [p.start for p in trimmer.trim(third)] == [200]
    [part] = trimmer.trim(file.ranges([], end=300, start=50)[0])
    assert (part.start, part.end) == (second.start, second.end)
    assert trimmer.trimmed_bytes == 250 - 100


def test_an_end_that_is_no_longer_remembered_counts_as_the_same() -> None:
    file = File(lines(0, ENDS_KEPT + 50))
    size = len(file.data) // (ENDS_KEPT + 50)
    ranges = file.ranges(range(size, len(file.data), size))
    way, run = Way(), Run()
    for part in (ranges[:100], ranges[100:]):
        way.commit(run.batch(*part, of=[file]))
    assert len(way.ledger.files[file.id, 0].ends) == ENDS_KEPT
    way.commit(run.batch(*ranges[:3], of=[file]))
    assert way.commits[-1].balance.covered_bytes == 0
    assert set(way.ledger.files) == {(file.id, 0)}


def elided(file: File, start: int, end: int) -> Elided:
    return Elided(file.id, 0, start, end, 0, file.crc(end), "drop debug")


def test_elided_bytes_count_as_covered_and_are_trimmed_like_others() -> None:
    file = File(lines(0, 100))
    way, run = Way(), Run()
    way.commit(
        run.batch(*file.ranges([], end=100), of=[file]),
        run.batch(of=[file], elided=(elided(file, 100, 300),)),
        run.batch(*file.ranges([], start=300), of=[file]),
    )
    balance = way.commits[-1].balance
    assert (balance.elided_bytes, balance.covered_bytes) == (200, len(file.data) - 200)
    entry = way.ledger.files[file.id, 0]
    assert [(p.start, p.end) for p in entry.covered] == [(0, len(file.data))]
    assert entry.elided == 200
    way.commit(run.batch(of=[file], elided=(elided(file, 100, 300),)))
    way.commit(run.batch(*file.ranges([150]), of=[file]))
    assert [made.balance.trimmed_bytes for made in way.commits[1:]] == [200, len(file.data)]
    assert set(way.ledger.files) == {(file.id, 0)}
    assert way.ledger.files[file.id, 0].elided == 200


def test_a_stretch_of_an_elided_one_claims_no_crc_that_nobody_knows() -> None:
    """Elided [0, 400) where [100, 200) is covered: only the last stretch has a CRC."""
    file = File(lines(0, 100))
    way, run = Way(), Run()
    way.commit(run.batch(*file.ranges([100], start=100, end=200), of=[file]))
    way.commit(run.batch(of=[file], elided=(elided(file, 0, 400),)))
    spans = [(s.start, s.end, s.crc_after) for s in way.commits[-1].files[0].spans]
    assert spans == [(0, 100, CRC_UNKNOWN), (200, 400, file.crc(400))]
    replay: list[Range] = file.ranges([100, 200, 400])
    way.commit(run.batch(*replay, of=[file]))
    assert set(way.ledger.files) == {(file.id, 0)}
    assert way.commits[-1].balance.covered_bytes == len(file.data) - 400


def redacted(whole: Range, file: File) -> Range:
    """The range as a rule of the collector's policy leaves it."""
    hidden = whole.data.replace(b"message", b"*******")
    return replace(whole, data=hidden, redacted="words", crc_after=file.crc(whole.end))


def test_redacted_bytes_are_known_by_the_crc_of_those_on_disk() -> None:
    file = File(lines(0, 100))
    way, run = Way(), Run()
    first, second = file.ranges([400])
    way.commit(run.batch(redacted(first, file), of=[file]))
    way.commit(run.batch(second, of=[file]))
    # A run with other rules sends everything again, cut at other places.
    way.commit(run.batch(*file.ranges([400, 500]), of=[file]))
    way.commit(run.batch(*(redacted(each, file) for each in file.ranges([200, 400])), of=[file]))
    assert set(way.ledger.files) == {(file.id, 0)}
    assert [made.balance.covered_bytes for made in way.commits[2:]] == [0, 0]


def test_halves_of_a_redacted_range_are_of_the_same_file() -> None:
    file = File(lines(0, 100))
    way, run = Way(), Run()
    (whole,) = file.ranges([])
    way.commit(run.batch(*split(redacted(whole, file)), of=[file]))
    way.commit(run.batch(*file.ranges([300]), of=[file]))
    assert set(way.ledger.files) == {(file.id, 0)}
    assert way.commits[-1].balance.covered_bytes == 0
    assert way.ledger.files[file.id, 0].ends[len(file.data)] == file.crc(len(file.data))


def test_redacted_bytes_of_another_content_go_under_the_next_epoch() -> None:
    file, other = File(lines(0, 100)), File(lines(0, 1) + lines(200, 300))
    assert file.id == other.id
    way, run = Way(), Run()
    way.commit(run.batch(*file.ranges([400]), of=[file]))
    first, _ = other.ranges([400])
    way.commit(run.batch(redacted(first, other), of=[other]))
    assert set(way.ledger.files) == {(file.id, 0), (file.id, 1)}
