"""The reader of segments: what it asks a bucket for, what it holds, and how it names damage."""

import itertools
import random
from collections.abc import Callable
from typing import Any, cast

import pyarrow as pa
import pytest

from indexer.errors import BucketUnavailable, ObjectMissing, SegmentDamaged
from indexer.schema import SEGMENT_SCHEMA, open_segment
from indexer.segment import reader
from indexer.segment.merge import merge
from indexer.segment.reader import SegmentReader
from indexer.store import checked_file
from indexer.store.bucket import Bucket
from tests.indexer.counted import Counted, read_apart, reader_of
from tests.indexer.keeper.test_compact import segment_of, table_of

NAME = "a/segment.parquet"
ROWS = 10


def rows_of(count: int, seed: int = 0) -> pa.Table:
    """Rows with messages that hardly compress."""
    of = random.Random(seed)
    texts = [of.randbytes(300).hex() for _ in range(count)]
    return table_of([("a", "p", bytes(16), seed, at + 1, text) for at, text in enumerate(texts)])


SEGMENT = segment_of(rows_of(6 * ROWS), ROWS)


@pytest.fixture
def counted(store: Bucket) -> Counted:
    """A bucket with one segment of six row groups."""
    store.put(NAME, SEGMENT)
    return Counted(store)


def opened(bucket: Counted, **more: Any) -> SegmentReader:
    return SegmentReader(cast(Bucket, bucket), **{"name": NAME, "size_bytes": len(SEGMENT), **more})


def ranges(bucket: Counted) -> list[tuple[int, int]]:
    return [(start, start + length) for _, start, length in bucket.reads]


def held_bytes(segment: SegmentReader) -> int:
    file = segment._file
    return sum(len(data) for _, data in (*file._kept, *file._fetched))


def test_a_small_segment_is_read_by_one_request(counted: Counted) -> None:
    segment = opened(counted)
    assert segment.gets == 0
    rows = pa.concat_tables(segment.row_groups())
    assert rows.schema.equals(SEGMENT_SCHEMA)
    assert rows.equals(open_segment(pa.BufferReader(SEGMENT)).read())
    segment.token_filter().row_groups(b"x")
    assert ranges(counted) == [(0, len(SEGMENT))]
    assert (segment.gets, segment.read_bytes) == (1, len(SEGMENT))


def test_neighbours_come_by_one_request_up_to_so_many_bytes(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_apart(monkeypatch, SEGMENT)
    places = [opened(counted).place(number) for number in range(6)]
    three = max(places[2][1] - places[0][0], places[5][1] - places[3][0])
    monkeypatch.setattr(reader, "_AT_ONCE_BYTES", three)
    counted.reads.clear()
    segment = opened(counted)
    assert [rows.num_rows for rows in segment.row_groups()] == [ROWS] * 6
    footer, *others = ranges(counted)
    assert footer[1] == len(SEGMENT)
    assert others == [(places[0][0], places[2][1]), (places[3][0], places[5][1])]
    counted.reads.clear()
    offsets = [rows.column("offset")[0].as_py() for rows in segment.row_groups([0, 1, 3, 5])]
    assert offsets == [1, 11, 31, 51]
    assert ranges(counted) == [(places[0][0], places[1][1]), places[3], places[5]]


def test_a_row_group_larger_than_that_is_read_by_itself(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_apart(monkeypatch, SEGMENT)
    monkeypatch.setattr(reader, "_AT_ONCE_BYTES", 1)
    segment = opened(counted)
    places = [segment.place(number) for number in segment.numbers]
    for rows in segment.row_groups():
        assert rows.num_rows == ROWS
        largest = max(end - start for start, end in places)
        assert held_bytes(segment) <= largest + reader.TAIL_BYTES
    assert ranges(counted)[1:] == places


def test_columns_that_are_near_each_other_come_by_one_request(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_apart(monkeypatch, SEGMENT)
    segment = opened(counted)
    monkeypatch.setattr(checked_file, "_TOGETHER_BYTES", 16)
    wanted = ["epoch", "offset", "time"]  # the last two of a row group, and the first
    rows = segment.columns(4, wanted)
    assert rows.column_names == wanted
    assert rows.column("offset").to_pylist() == list(range(41, 51))
    assert len(counted.reads) == 3
    segment.columns(4, wanted)
    assert len(counted.reads) == 3  # it is held
    segment.columns(5, ["epoch"])
    segment.columns(4, ["epoch"])
    assert len(counted.reads) == 5  # another row group let it go


def test_a_small_row_group_comes_by_one_request(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_apart(monkeypatch, SEGMENT)
    segment = opened(counted)
    start, end = segment.place(2)
    monkeypatch.setattr(reader, "WHOLE_BYTES", end - start)
    segment.begin(2)
    for name in SEGMENT_SCHEMA.names:
        segment.columns(2, [name])
    assert ranges(counted)[1:] == [(start, end)]


def test_a_footer_that_is_longer_than_what_is_read_at_first_takes_one_more_request(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_apart(monkeypatch, SEGMENT)
    monkeypatch.setattr(reader, "TAIL_BYTES", reader.TAIL_BYTES // 2)
    segment = opened(counted)
    assert segment.footer.num_rows == 6 * ROWS
    assert segment.gets == 2


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def footer_length(data: bytes) -> bytes:
    return data[:-8] + b"\xff\xff\xff\x7fPAR1"


@pytest.mark.parametrize("harm", [cut, zeros, footer_length, lambda data: b""])
@pytest.mark.parametrize("large", [False, True])
def test_damage_names_the_segment(
    store: Bucket, monkeypatch: pytest.MonkeyPatch, harm: Callable[[bytes], bytes], large: bool
) -> None:
    if large:
        read_apart(monkeypatch, SEGMENT)
    store.put(NAME, harm(SEGMENT))
    with pytest.raises(SegmentDamaged, match=NAME):
        list(SegmentReader(store, NAME, len(SEGMENT)).row_groups())


def test_a_page_that_cannot_be_decoded_names_the_segment(store: Bucket) -> None:
    start, end = reader_of(SEGMENT).place(3)
    store.put(NAME, SEGMENT[:start] + b"\xff" * (end - start) + SEGMENT[end:])
    segment = SegmentReader(store, NAME, len(SEGMENT))
    with pytest.raises(SegmentDamaged, match=NAME):
        list(segment.row_groups([2, 3]))
    with pytest.raises(SegmentDamaged, match=NAME):
        segment.columns(3, ["message"])


def test_an_object_that_is_not_there_and_a_bucket_that_is_away_are_no_damage(
    counted: Counted,
) -> None:
    with pytest.raises(ObjectMissing):
        list(opened(counted, name="gone.parquet").row_groups())

    class Away:
        def get_range(self, name: str, start: int, length: int) -> bytes:
            raise BucketUnavailable("injected")

    with pytest.raises(BucketUnavailable):
        list(SegmentReader(cast(Bucket, Away()), NAME, len(SEGMENT)).row_groups())


def test_a_merger_reads_each_byte_once_and_holds_a_few_row_groups_of_each_source(
    store: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [segment_of(rows_of(20 * ROWS, seed), ROWS) for seed in range(3)]
    read_apart(monkeypatch, max(data, key=len))
    monkeypatch.setattr(reader, "_AT_ONCE_BYTES", 1)
    names = [f"{number}.parquet" for number in range(3)]
    for name, each in zip(names, data, strict=True):
        store.put(name, each)
    counted = Counted(store)
    segments = [
        SegmentReader(cast(Bucket, counted), name, len(each))
        for name, each in zip(names, data, strict=True)
    ]
    footers = max(segment._file.size - segment.place(19)[1] for segment in segments)
    merged = merge(segments)
    expected = pa.concat_tables(rows_of(20 * ROWS, seed) for seed in range(3))
    assert open_segment(pa.BufferReader(merged)).read().to_pylist() == expected.to_pylist()
    for name, segment in zip(names, segments, strict=True):
        reads = sorted((s, s + n) for of, s, n in counted.reads if of == name)
        rows = reads[: len(segment.numbers)]
        assert rows == [segment.place(number) for number in segment.numbers]
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(rows))
        largest = max(end - start for start, end in rows)
        assert held_bytes(segment) <= largest + reader.TAIL_BYTES + footers
