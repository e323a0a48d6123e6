"""Objects read by ranges: what comes out is what was written, whatever storage has done to it."""

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import BucketError, ObjectDamaged
from indexer.store.checked_file import BLOCK_BYTES, CheckedFile, add_checksums, checked_name
from tests.indexer.counted import InMemory

ROWS = pa.table({"a": [random.Random(at).randbytes(500) for at in range(200)]})


def parquet_of(rows: pa.Table) -> bytes:
    body = io.BytesIO()
    pq.write_table(rows, body, row_group_size=20, compression="none")
    add_checksums(body)
    return body.getvalue()


DATA = parquet_of(ROWS)
NAME = checked_name("a/", DATA)


def file_of(data: bytes, name: str = NAME) -> CheckedFile:
    return CheckedFile(InMemory({name: data}), name, len(DATA))


def test_other_readers_take_it_for_ordinary_parquet() -> None:
    assert pq.read_table(pa.BufferReader(DATA)).equals(ROWS)


@pytest.mark.parametrize("first_bytes", [8, 1000, BLOCK_BYTES + 9, len(DATA), 10 * len(DATA)])
def test_footer_and_ranges_are_as_they_were_written(first_bytes: int) -> None:
    file = file_of(DATA)
    footer = file.footer(first_bytes)
    assert DATA.endswith(footer)
    for start, end in [(0, 4), (BLOCK_BYTES - 1, BLOCK_BYTES + 1), (5, len(DATA)), (0, len(DATA))]:
        file.seek(start)
        assert file.read(end - start) == DATA[start:end]
        file.forget()


def test_no_more_than_the_blocks_of_a_range_are_read() -> None:
    file = file_of(DATA)
    file.footer(8)
    before = file.gets, file.read_bytes
    file.fetch([(BLOCK_BYTES + 5, BLOCK_BYTES + 9)])
    assert (file.gets - before[0], file.read_bytes - before[1]) == (1, BLOCK_BYTES)


harms = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, len(DATA) * 8 - 1), st.just(0)),
    st.tuples(st.just("zeros"), st.integers(0, len(DATA) - 1), st.integers(1, 5000)),
    st.tuples(st.just("cut"), st.integers(0, len(DATA) - 1), st.just(0)),
    st.tuples(st.just("moved"), st.integers(1, len(DATA) - 1), st.just(0)),
)


def harmed(data: bytes, harm: tuple[str, int, int]) -> bytes:
    kind, at, length = harm
    if kind == "flip":
        return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
    if kind == "zeros":
        return (data[:at] + bytes(length) + data[at + length :])[: len(data)]
    return data[:at] if kind == "cut" else data[at:] + data[:at]


@given(
    harms, st.sampled_from([8, 3000, len(DATA)]), st.integers(0, len(DATA)), st.integers(1, 9000)
)
def test_nothing_else_than_what_was_written_ever_comes_out(
    harm: tuple[str, int, int], first_bytes: int, start: int, length: int
) -> None:
    file = file_of(harmed(DATA, harm))
    said = ""
    try:
        assert DATA.endswith(file.footer(first_bytes))
        file.seek(start)
        assert file.read(length) == DATA[start : start + length]
    except BucketError as error:
        said = str(error)
    assert not said or (NAME in said and harmed(DATA, harm) != DATA)


def test_another_object_in_its_place_is_no_answer() -> None:
    other = parquet_of(ROWS.slice(0, 199).append_column("b", pa.nulls(199)))
    padded = other + bytes(max(0, len(DATA) - len(other)))
    with pytest.raises(ObjectDamaged, match=NAME):
        file_of(padded[: len(DATA)]).footer(8)


@pytest.mark.parametrize("name", ["a/x.parquet", f"a/{0:032x}.parquet"])
def test_an_object_of_an_earlier_version_is_read_as_it_is(name: str) -> None:
    file = file_of(harmed(DATA, ("flip", 800, 0)), name)
    file.footer(8)
    file.seek(100)
    assert file.read(1) == bytes([DATA[100] ^ 1])


def test_one_whose_name_has_the_checksum_of_all_is_checked_when_it_is_read_whole() -> None:
    name = f"{NAME.removesuffix('.parquet')[:-9]}.parquet"
    assert DATA.endswith(file_of(DATA, name).footer(len(DATA)))
    with pytest.raises(ObjectDamaged, match=name):
        file_of(harmed(DATA, ("flip", 800, 0)), name).footer(len(DATA))
