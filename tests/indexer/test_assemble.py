"""What a commit adds: it adds up or is refused, and its coverage reads back as it was."""

import io
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.batch import Elided, Gap, Gone, Open, Replaces, Seal, Unborn
from collector.wire.range import Stream
from indexer.assemble import Assembled
from indexer.errors import CoverageError, NotBalanced
from indexer.ledger.entries import UNPARSED
from indexer.schema import SEGMENT_SCHEMA, open_segment
from indexer.table.coverage import (
    Balance,
    Coverage,
    Deleted,
    Expired,
    FileCover,
    Jump,
    LaneSpan,
    LastRecord,
    Note,
    Position,
    Retired,
    Span,
    from_object,
    note_entry,
    to_object,
)
from tests.examples import examples
from tests.indexer.shipped import START_NS, File, Run, Way, followed
from tests.way import cri, lines

GOLDEN = Path(__file__).parents[1] / "golden"


def rows(*made: Assembled) -> list[dict]:
    """Return the rows of commits in the order of their bytes."""
    tables = [pq.read_table(io.BytesIO(s.data)) for each in made for s in each.segments]
    found = [row for table in tables for row in table.to_pylist()]
    return sorted(found, key=lambda row: (row["file_id"], row["epoch"], row["offset"]))


# -- balance ---------------------------------------------------------------------------------


def test_both_equations_hold_with_every_kind_of_byte() -> None:
    file = File(cri(1) + cri(2, "head ", tag="P") + cri(3, "tail") + b"no header\n" + cri(4))
    way, run = Way(), Run()
    cut = len(cri(1)) - 3
    way.commit(run.batch(*file.ranges([], end=cut), of=[file]))
    coverage = way.commit(
        run.batch(*file.ranges([]), of=[file]), b"no batch", run.batch(*file.ranges([]), of=[file])
    )
    size = len(file.data)
    assert coverage.balance == Balance(
        shipped_bytes=2 * size + len(b"no batch"),
        covered_bytes=size - cut,
        elided_bytes=0,
        trimmed_bytes=size + cut,
        dead_letter_bytes=len(b"no batch"),
        lines=5,  # the first one was cut, so its rest counts as one
        rows=4,
        joined=1,
    )
    assert coverage.balance.holds


@pytest.mark.parametrize("lie", [-1, 1, 1000])
def test_a_commit_of_a_batch_that_counts_its_lines_wrong_is_refused(lie: int) -> None:
    file = File(lines(0, 10))
    [whole] = file.ranges([])
    way = Way()
    with pytest.raises(NotBalanced, match="nothing was written"):
        way.commit(Run().batch(replace(whole, lines=10 + lie), of=[file]))
    assert way.done == []


def test_a_balance_that_does_not_hold_says_so() -> None:
    good = Balance(10, 4, 3, 2, 1, lines=5, rows=3, joined=2)
    assert good.holds
    for name in good.__struct_fields__:
        assert not msgspec.structs.replace(good, **{name: getattr(good, name) + 1}).holds


def test_a_commit_without_rows_still_moves_the_position() -> None:
    way, run = Way(), Run()
    file = File(lines(0, 10))
    way.commit(run.batch(*file.ranges([]), of=[file]))
    way.commit(run.batch(), run.batch(*file.ranges([77]), of=[file]))
    assert way.done[-1].segments == []
    assert way.commits[-1].balance.trimmed_bytes == len(file.data)
    assert (way.commits[-1].positions[0].start, way.commits[-1].positions[0].end) == (1, 3)


# -- rows ------------------------------------------------------------------------------------

parts = st.sampled_from([("stdout", "F"), ("stderr", "F"), ("stdout", "P"), ("stderr", "P")])


@examples(60)
@given(st.lists(parts, min_size=1, max_size=20), st.data())
def test_rows_do_not_depend_on_how_ranges_come_into_commits(
    kinds: list[tuple[str, str]], data: st.DataObject
) -> None:
    """The cuts are those that a collector makes: where no event is open."""
    body = [cri(n, f"message {n}", output, tag) for n, (output, tag) in enumerate(kinds, start=1)]
    ended = [cri(98, "end"), cri(99, "end", "stderr")]
    file = File(b"".join([cri(0), *body, *ended]))
    cuts: list[int] = []
    still_open: set[str] = set()
    at = 0
    for line, (output, tag) in zip([cri(0), *body], [("stdout", "F"), *kinds], strict=True):
        at += len(line)
        still_open = still_open | {output} if tag == "P" else still_open - {output}
        if not still_open:
            cuts.append(at)
    chosen = data.draw(st.sets(st.sampled_from(cuts)))
    ranges = file.ranges(chosen)
    whole, split, run = Way(), Way(), Run()
    whole.commit(run.batch(*file.ranges([]), of=[file]))
    while ranges:
        count = data.draw(st.integers(1, len(ranges)))
        now, ranges = ranges[:count], ranges[count:]
        split.commit(run.batch(*now, of=[file]))
    assert rows(*split.done) == rows(*whole.done)
    assert len(rows(*whole.done)) == sum(m.balance.rows for m in whole.commits)


def test_rows_of_two_files_in_one_commit_keep_their_own_times() -> None:
    one = File(cri(1) + b"no time\n", pod="a")
    two = File(b"no time either\n" + cri(2), pod="b")
    way = Way()
    way.commit(Run().batch(*one.ranges([]), *two.ranges([]), of=[one, two]))
    found = {(row["pod"], row["offset"]): row["time_source"] for row in rows(*way.done)}
    assert found == {
        ("a", 0): "line", ("a", len(cri(1))): "previous",
        ("b", 0): "read", ("b", len(b"no time either\n")): "line",
    }  # fmt: skip


def test_a_line_without_a_time_takes_that_of_the_commit_before() -> None:
    file = File(cri(1) + b"no time\n")
    way, run = Way(), Run()
    for part in file.ranges([len(cri(1))]):
        way.commit(run.batch(part, of=[file]))
    first, second = rows(*way.done)
    assert second["time_source"] == "previous"
    assert (second["time"], second["time_ns"]) == (first["time"], first["time_ns"])


# -- dead letters ----------------------------------------------------------------------------


def test_a_record_that_is_no_batch_is_kept_whole_and_passed_over() -> None:
    file = File(lines(0, 20))
    first, second = file.ranges([100])
    way, run = Way(), Run()
    coverage = way.commit(run.batch(first, of=[file]), b"\0torn", run.batch(second, of=[file]))
    [letter] = way.done[0].dead_letters
    assert letter.data == b"\0torn"
    [jump] = coverage.jumps
    assert (jump.type, jump.start, jump.end, jump.object) == (UNPARSED, 1, 2, letter.name)
    assert coverage.balance.rows == 20 + 1  # the cut between the two is inside a line
    assert coverage.positions[0].end == 3


def test_a_batch_of_another_partition_is_a_dead_letter() -> None:
    """Its lane and its files would be taken for those of a partition that it is not in."""
    way = Way()
    coverage = way.commit(Run(partition=1).batch(), partition=0)
    assert "partition 1" in coverage.jumps[0].proof
    assert coverage.lanes[0].node == ""


@pytest.mark.parametrize("sequence", [b"", b"\1", b"\xff" * 8, b"\1" * 30])
def test_a_torn_record_whose_headers_make_no_sense_stops_nothing(sequence: bytes) -> None:
    from collector.topic.interface import Record

    consumer = followed("logs", lambda *_: "letter", 0, None)
    headers = (("run", b"r" * 16), ("sequence", sequence))
    consumer.fetch({0: [Record(0, b"torn", headers)]})
    consumer.take(1, dense=True)
    intake = consumer.partitions[0].coming
    assert intake.lanes == []
    assert [letter.data for letter in intake.dead_letters] == [b"torn"]
    assert intake.position.last is not None
    coverage = Coverage(1, [intake.position], intake.lanes, [], [], intake.jumps, Balance())
    assert from_object(to_object(coverage)) == [coverage]


# -- coverage objects ------------------------------------------------------------------------


def golden() -> Coverage:
    """The coverage in the golden file; neither may change, for old objects stay readable."""
    last = LastRecord(6, b"r" * 16, 4, 0xFFFFFFFF, START_NS)
    notes = [
        Note(1, "node-ä", b"r" * 16, 4, "seal", msgspec.msgpack.encode(
            Seal(b"f" * 16, 0, 900, 9, 77, "rotated"))),
    ]  # fmt: skip
    span = Span(0, 900, 0xFFFFFFFF, 9, 8, START_NS, START_NS + 5)
    return Coverage(
        committed_ns=START_NS + 7,
        positions=[Position("logs", "id", 2, 1, 3, 7, last), Position("l", "", 0, 0, 0, 0, None)],
        lanes=[LaneSpan(1, "node-ä", b"r" * 16, 2, 4, 3, START_NS, START_NS + 1)],
        files=[
            FileCover(
                b"f" * 16, 0, 1, "node-ä", "shop", "web", "uid", "app", 3,
                [span, Span(900, 950, -1, 0, 0, 0, 0, "drop debug")],
            )
        ],
        notes=notes,
        jumps=[Jump(1, "UNPARSED", 5, 6, None, START_NS, "torn", "dead_letters/1/5")],
        balance=Balance(1000, 900, 50, 40, 10, 9, 8, 1),
    )  # fmt: skip


def golden_marks() -> Coverage:
    [entry] = golden().files
    span = msgspec.structs.replace(entry.spans[0], parser_state=[7, -1, 3])
    return msgspec.structs.replace(
        golden(),
        files=[msgspec.structs.replace(entry, spans=[span])],
        expired=[Expired("shop", 497_000, 12, "dev-*=72")],
        deleted=[Deleted("r-1", "shop", "web", "app", b"f" * 16, 1, [0, 90], START_NS, START_NS)],
        version=41,
    )


def test_a_coverage_object_of_the_first_version_is_still_read() -> None:
    assert from_object((GOLDEN / "coverage-v1.parquet").read_bytes()) == [golden()]
    entry = note_entry(golden().notes[0])
    assert entry == Seal(b"f" * 16, 0, 900, 9, 77, "rotated")


def test_a_coverage_object_of_the_second_version_is_still_read() -> None:
    path = GOLDEN / "coverage-v2.parquet"
    assert from_object(path.read_bytes()) == [golden(), golden_marks()]


def test_a_coverage_object_of_the_third_version_is_still_read(
    request: pytest.FixtureRequest,
) -> None:
    path = GOLDEN / "coverage-v3.parquet"
    retired = msgspec.structs.replace(golden_marks(), retired=[Retired("node-ä", "scaled down")])
    if request.config.getoption("--update-golden"):
        path.write_bytes(to_object(golden(), retired))
    assert from_object(path.read_bytes()) == [golden(), retired]


def test_a_coverage_object_is_a_parquet_file_without_rows() -> None:
    data = to_object(golden())
    assert pq.read_table(io.BytesIO(data)).num_rows == 0
    assert from_object(data) == [golden()]


def test_every_control_entry_comes_back_from_coverage() -> None:
    file = File(lines(0, 3))
    stream = Stream("n", "p", "u", "c", 7)
    way, run = Way(), Run()
    entries = {
        "opens": (Open(file.id, 0, b"p" * 16, 5), Open(file.id, 0, None, 6)),
        "seals": (Seal(file.id, 0, 9, 1, 2, "deleted"),),
        "gaps": (Gap(file.id, 0, 9, 12, True, None, 8, "shed"),),
        "gone": (Gone(file.id, 0),),
    }
    inventory = run.inventory(
        [(file, 9, 9)], errors=("x: denied",), unborn=(Unborn(stream, 3),), full=False,
        partitions=(0, 2), replaces=Replaces(b"o" * 16, 5, (6, 7)),
    ).inventory  # fmt: skip
    made = way.commit(run.batch(of=[file], inventory=inventory, **entries))
    [again] = from_object(to_object(made))
    assert again == made
    found = [note_entry(note) for note in again.notes]
    assert found == [*(each for group in entries.values() for each in group), inventory]


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_bytes_that_are_no_coverage_object_are_named(cut: int) -> None:
    with pytest.raises(CoverageError, match="not a coverage object"):
        from_object(to_object(golden())[:cut])


def test_no_damaged_coverage_object_is_taken_for_another() -> None:
    data = to_object(golden())
    at = data.index(struct.pack("<I", 0xFD2FB528))  # the magic of its zstd frame
    for place in range(at, at + 40):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        try:
            assert from_object(bytes(damaged)) == [golden()]
        except CoverageError:
            continue


# -- segments --------------------------------------------------------------------------------


def golden_rows() -> Way:
    """The lines of the golden segment."""
    body = [
        b"2026-03-01T12:00:00.123456789Z stdout F INFO plain\n",
        b"2026-03-01T13:59:59.1+02:00 stderr F ERROR an offset\n",
        b"2026-03-01T12:00:01.5Z stdout P head \n",
        b"2026-03-01T12:00:02Z stdout F and tail\n",
        b"no header\n",
        b"2026-03-01T12:00:03.000000001Z stdout F caf\xe9 \xff\n",
        b"2026-03-01T12:00:04Z stdout F \n",
        b"2026-03-01T12:00:05Z stdout F cut",
    ]
    file = File(b"".join(body))
    way = Way()
    way.commit(Run().batch(*file.ranges([]), of=[file]))
    return way


def test_a_segment_of_the_first_version_is_still_read() -> None:
    path = GOLDEN / "segment-v1.parquet"
    made = golden_rows().done[0]
    [segment] = [each for each in made.segments if each.hour == 12]
    old, new = open_segment(path).read(), open_segment(io.BytesIO(segment.data)).read()
    assert new.schema.equals(SEGMENT_SCHEMA)
    begins = pc.coalesce(new["event_offset"], new["offset"])  # the first version has no nulls
    assert begins.equals(old["event_offset"])
    assert new.drop_columns("event_offset").equals(old.drop_columns("event_offset"))
    assert [row["message"] for row in old.to_pylist()] == [
        "INFO plain", "head and tail", "no header", "caf\ufffd \ufffd", "", "cut",
    ]  # fmt: skip
    assert old.column("raw").to_pylist()[3] == b"caf\xe9 \xff"
    assert old.column("level").to_pylist()[0] == "info"
    stamps = old.column("time").cast(pa.int64()).to_pylist()
    nanos = [
        us * 1000 + ns for us, ns in zip(stamps, old.column("time_ns").to_pylist(), strict=True)
    ]
    assert nanos[0] % 10**9 == 123_456_789
    assert nanos[2] == nanos[1] + 500_000_000  # of the line before, the fragment's tail
    assert all(a <= b for a, b in pairwise(nanos))


def test_a_trace_that_two_commits_share_is_one_event() -> None:
    first, second = cri(0, "Error: broken"), cri(1, "\tat org.example.A.run(A.java:1)")
    file = File(first + second + cri(2, "on"))
    way, run = Way(), Run()
    for each in file.ranges([len(first)]):
        way.commit(run.batch(each, of=[file]))
    tables = [pq.read_table(io.BytesIO(s.data)) for made in way.done for s in made.segments]
    assert [table["event_offset"].to_pylist() for table in tables] == [
        [None], [0, None],
    ]  # fmt: skip


@pytest.mark.parametrize("number", [{"crc_after": 1 << 35}, {"end": 1 << 62}, {"start": -5}])
def test_numbers_that_no_ledger_can_hold_are_refused(number: dict[str, Any]) -> None:
    file = File(lines(0, 3))
    entry = replace(Elided(file.id, 0, 0, 10, 1, 7, "rule"), **number)
    with pytest.raises(NotBalanced, match="cannot be"):
        Way().commit(Run().batch(of=[file], elided=(entry,)))


def test_a_line_after_an_elided_stretch_has_the_same_time_whatever_the_commits() -> None:
    head, noise, rest = cri(1), cri(2, "noise"), b"no time here\n"
    file = File(head + noise + rest)
    first, _, last = file.ranges([len(head), len(head + noise)])
    elided = Elided(
        file.id, 0, len(head), len(head + noise), 1, file.crc(len(head + noise)), "drop"
    )
    sources = set()
    for commits in ((0,), (0, 1), (0, 1, 2)):
        way, run = Way(), Run()
        batches = [
            run.batch(first, of=[file]),
            run.batch(of=[file], elided=(elided,)),
            run.batch(last, of=[file]),
        ]
        cuts = [*commits, 3]
        for start, end in pairwise(cuts):
            way.commit(*batches[start:end])
        sources.add(rows(*way.done)[-1]["time_source"])
    assert sources == {"read"}


def test_lines_of_many_hours_make_so_many_segments_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.segment.write.HOURS_MAX", 3)
    counts = (1, 4, 2, 3, 1)
    data = b"".join(
        b"2026-03-01T%02d:00:00.%09dZ stdout F x\n" % (hour, number)
        for hour, count in enumerate(counts)
        for number in range(count)
    )
    way = Way()
    file = File(data)
    way.commit(Run().batch(*file.ranges([]), of=[file]))
    assert len(way.done[0].segments) == 4
    found = rows(*way.done)
    assert len(found) == sum(counts)
    assert [row["time_source"] for row in found].count("line-outside") == 2
