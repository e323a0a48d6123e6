"""The scrubber: real damage to real objects is named, once, and nothing else is."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.errors import BucketUnavailable
from indexer.keeper.scrub import Checked, Scrubber, scrub
from indexer.object_names import COVERAGE_FOLDER
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.coverage import to_object
from tests.indexer.kept import Kept
from tests.indexer.shipped import CLUSTER, File
from tests.way import lines

HOUR_NS = 3600 * 10**9
FILES = [File(lines(0, 300), pod=f"pod-{n}") for n in range(3)]


@pytest.fixture
def kept(store: Bucket) -> Kept:
    """A table of three segments and three coverage objects."""
    made = Kept(store)
    for file in FILES:
        made.commit(file)
    return made


def spoil(bucket: Bucket, name: str, how: str) -> None:
    """Damage an object as storage does, under its name."""
    data = bytearray(bucket.get(name))
    bucket.delete(name)
    if how == "a bit has flipped":
        data[len(data) // 3] ^= 0x10
    elif how == "a block is zero":
        data[64:576] = bytes(512)
    elif how == "the end is cut":
        del data[-100:]
    if how != "it is gone":
        bucket.put(name, bytes(data))


def faults(kept: Kept) -> dict[str, str]:
    checked = list(scrub(kept.bucket, kept.table.folder, kept.objects()))
    assert [each.name for each in checked] == [each.name for each in kept.objects()]
    return {each.name: each.fault for each in checked if each.fault}


def test_a_sound_table_has_no_fault(kept: Kept) -> None:
    objects = kept.objects()
    assert len(objects) == 6
    checked = list(scrub(kept.bucket, kept.table.folder, objects))
    assert checked == [Checked(each.name, each.size, "") for each in objects]


@pytest.mark.parametrize("kind", ["segment", "coverage"])
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("a bit has flipped", "has CRC-32"),
        ("a block is zero", "has CRC-32"),
        ("the end is cut", "bytes, "),
        ("it is gone", "is missing"),
    ],
)
def test_what_storage_has_done_is_named(kept: Kept, kind: str, how: str, said: str) -> None:
    spoiled = (kept.segments() if kind == "segment" else kept.coverage())[1]
    spoil(kept.bucket, kept.table.folder + spoiled.name, how)
    [(name, fault)] = faults(kept).items()
    assert name == spoiled.name
    assert said in fault


@pytest.mark.parametrize("how", ["a bit has flipped", "a block is zero"])
def test_merged_coverage_is_checked_by_the_crc_in_its_name(kept: Kept, how: str) -> None:
    jobs = kept.jobs()
    jobs.fold()
    jobs.gather()
    [merged] = kept.coverage()
    assert faults(kept) == {}
    spoil(kept.bucket, kept.table.folder + merged.name, how)
    assert list(faults(kept)) == [merged.name]
    assert "has CRC-32" in faults(kept)[merged.name]


@pytest.mark.parametrize("kind", ["segment", "coverage"])
def test_an_object_without_a_crc_in_its_name_must_decode(kept: Kept, kind: str) -> None:
    old = (kept.segments() if kind == "segment" else kept.coverage())[0]
    folder, _, name = old.name.rpartition("/")
    data = kept.bucket.get(kept.table.folder + old.name)
    named = replace(old, name=f"{folder}/{name[:32]}.parquet")
    kept.bucket.put(kept.table.folder + named.name, data)
    assert [each.fault for each in scrub(kept.bucket, kept.table.folder, [named])] == [""]
    spoil(kept.bucket, kept.table.folder + named.name, "a block is zero")
    [checked] = scrub(kept.bucket, kept.table.folder, [named])
    assert checked.fault.startswith("cannot be decoded: ")


def test_a_large_object_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Kept
) -> None:
    monkeypatch.setattr("indexer.keeper.scrub._PIECE_BYTES", 1000)
    assert faults(local) == {}
    assert max(each.size for each in local.objects()) > 3000


def test_a_bucket_that_is_away_says_nothing_about_its_objects(local: Kept) -> None:
    class Away:
        def size(self, name: str) -> int:
            raise BucketUnavailable("injected")

    bucket: object = Away()
    with pytest.raises(BucketUnavailable):
        list(scrub(bucket, local.table.folder, local.objects()))  # type: ignore[arg-type]


# -- rounds ----------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> Kept:
    """The same table in a directory."""
    made = Kept(open_bucket(str(tmp_path / "bucket")))
    for file in FILES:
        made.commit(file)
    return made


class Clock:
    now_ns = 1_800_000_000 * 10**9

    def __call__(self) -> int:
        return self.now_ns


def scrubber(kept: Kept, clock: Clock, bytes_per_s: int = 1 << 30) -> Scrubber:
    return Scrubber(kept.bucket, CLUSTER, bytes_per_s, 24, clock)


def names(turn: Iterator[tuple[int, int, Checked]]) -> list[str]:
    return [checked.name for _, _, checked in turn]


def test_a_round_reads_each_object_once_however_often_the_keeper_starts(local: Kept) -> None:
    clock, seen = Clock(), []
    for turn in range(40):
        clock.now_ns += 10**9
        done = list(scrubber(local, clock, bytes_per_s=1).turn(local.objects()))
        seen += [checked.name for _, _, checked in done]
        assert len(done) <= 1  # what one second allows is used up by any object
        assert all((at, todo) == (turn + 1, 6) for at, todo, _ in done)
    assert sorted(seen) == sorted(each.name for each in local.objects())
    assert scrubber(local, clock).round.complete_ns == 0  # not read yet
    assert len(list(local.bucket.names(f"{CLUSTER}/scrub/"))) == 1


def test_the_rate_holds_over_several_turns(local: Kept) -> None:
    clock = Clock()
    size = sum(each.size for each in local.objects())
    one = scrubber(local, clock, bytes_per_s=size // 10)
    read = [0]
    for _ in range(30):
        clock.now_ns += 10**9
        turn = one.turn(local.objects())
        read.append(read[-1] + sum(checked.read_bytes for _, _, checked in turn))
        if one.round.complete_ns:
            break
    largest = max(each.size for each in local.objects())
    assert all(read[at] <= size // 10 * at + largest for at in range(len(read)))
    assert read[-1] == size
    assert 8 <= len(read) <= 13


def test_the_next_round_waits_for_its_time_and_takes_new_objects_in(local: Kept) -> None:
    clock = Clock()
    one = scrubber(local, clock)
    assert len(names(one.turn(local.objects()))) == 6
    assert one.round.complete_ns == clock.now_ns
    local.commit(File(lines(0, 5), pod="new"))
    clock.now_ns += 23 * HOUR_NS
    assert names(one.turn(local.objects())) == []
    assert names(scrubber(local, clock).turn(local.objects())) == []
    clock.now_ns += HOUR_NS
    assert len(names(one.turn(local.objects()))) == 8


def test_damage_is_told_once_and_known_until_it_is_repaired_or_removed(
    local: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    first, second = local.segments()[:2]
    sound = local.bucket.get(local.table.folder + first.name)
    for each in (first, second):
        spoil(local.bucket, local.table.folder + each.name, "a bit has flipped")
    found_ns = clock.now_ns
    one = scrubber(local, clock)
    with caplog.at_level(logging.ERROR, "indexer.keeper.scrub"):
        for another in (one, scrubber(local, clock), one):
            list(another.turn(local.objects()))
            clock.now_ns += 24 * HOUR_NS
    assert {name: known.found_ns for name, known in one.round.damaged.items()} == {
        first.name: found_ns, second.name: found_ns,
    }  # fmt: skip
    assert len(caplog.records) == 2
    local.bucket.delete(local.table.folder + first.name)
    local.bucket.put(local.table.folder + first.name, sound)
    left = [each for each in local.objects() if each.name != second.name]
    list(one.turn(left))
    assert one.round.damaged == {}


def test_a_state_that_is_damaged_itself_begins_a_round(local: Kept) -> None:
    clock = Clock()
    local.bucket.put(f"{CLUSTER}/scrub/{clock.now_ns - 5:020d}.json", b'{"after":')
    assert len(names(scrubber(local, clock).turn(local.objects()))) == 6


def test_the_keeper_counts_what_is_damaged(kept: Kept) -> None:
    data = to_object()
    name = f"{COVERAGE_FOLDER}{'0' * 32}-00000000.parquet"
    kept.bucket.put(kept.table.folder + name, data)  # no member of the table
    spoil(kept.bucket, kept.table.folder + kept.segments()[0].name, "it is gone")
    jobs = kept.jobs()
    jobs.scrub()
    assert jobs.metrics.damaged_objects._value.get() == 1
    assert jobs.metrics.scrubbed_objects._value.get() == 6
    assert jobs.metrics.scrubbed_since._value.get() == kept.now_ns / 1e9
    assert (jobs.scrub.progress.done, jobs.scrub.progress.todo) == (6, 6)


def test_the_keeper_leaves_a_damaged_segment_as_it_is_and_does_its_other_work(kept: Kept) -> None:
    spoiled = kept.segments()[1]
    spoil(kept.bucket, kept.table.folder + spoiled.name, "a bit has flipped")
    before = kept.bucket.get(kept.table.folder + spoiled.name)
    jobs = kept.jobs()
    jobs.compact()
    assert jobs.metrics.compactions_refused._value.get() == 1
    jobs.compact()
    assert jobs.metrics.compactions._value.get() == 1
    assert {each.name for each in kept.segments()} > {spoiled.name}
    assert len(kept.segments()) == 2
    assert kept.bucket.get(kept.table.folder + spoiled.name) == before
    assert list(faults(kept)) == [spoiled.name]
