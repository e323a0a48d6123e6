"""Batches on the wire: every field comes back, and bytes that are not a batch are named as such."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import NewerWireVersion, TornBatch, WireError
from collector.wire.batch import (
    MAGIC,
    VERSION,
    Batch,
    Elided,
    Gap,
    Gone,
    Inventory,
    Meta,
    Open,
    Replaces,
    Seal,
    Seen,
    Unborn,
    Unseen,
    decode,
    encode,
    raw_bytes,
    record_headers,
)
from collector.wire.range import FORMATS, Range, Stream
from tests.examples import examples

GOLDEN = Path(__file__).parents[2] / "golden"
COMPRESSOR = zstandard.ZstdCompressor(level=1)
DECOMPRESSOR = zstandard.ZstdDecompressor()

longs = st.integers(-(2**63), 2**63 - 1)
ints = st.integers(-(2**31), 2**31 - 1)
ids = st.binary(min_size=16, max_size=16)
maps = st.dictionaries(st.text(), st.text(), max_size=2)
streams = st.builds(Stream, st.text(), st.text(), st.text(), st.text(), ints)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    files = draw(st.dictionaries(ids, streams, min_size=1, max_size=3))
    name = st.sampled_from(sorted(files))

    def some(kind: type, *fields: st.SearchStrategy) -> tuple:
        return tuple(draw(st.lists(st.builds(kind, name, ints, *fields), max_size=2)))

    optional = st.none() | longs
    inventory = st.builds(
        Inventory,
        longs,
        st.lists(ints, max_size=3).map(tuple),
        st.booleans(),
        st.just(some(Seen, longs, longs, longs)),
        st.lists(st.builds(Unborn, streams, longs), max_size=2).map(tuple),
        ints,
        st.lists(st.text(), max_size=2).map(tuple),
        st.none() | st.builds(Replaces, ids, longs, st.lists(longs, max_size=2).map(tuple)),
        st.lists(st.builds(Unseen, *[st.text()] * 5), max_size=2).map(tuple),
    )
    return Batch(
        cluster=draw(st.text()),
        node=draw(st.text()),
        run=draw(ids),
        partition=draw(ints),
        sequence=draw(longs),
        oldest_unacked=draw(longs),
        created_ns=draw(longs),
        files=files,
        ranges=some(
            Range,
            longs,
            st.binary(max_size=99),
            ints,
            longs,
            ints,
            ints,
            st.booleans(),
            st.sampled_from(FORMATS),
            st.text(),
            optional,
        ),
        opens=some(Open, st.none() | ids, longs),
        seals=some(Seal, longs, longs, longs, st.text()),
        gaps=some(Gap, longs, longs, st.booleans(), optional, optional, st.text()),
        elided=some(Elided, longs, longs, longs, longs, st.text()),
        gone=some(Gone),
        metas=draw(
            st.lists(
                st.builds(Meta, *[st.text()] * 3, longs, maps, maps, st.text(), st.text()),
                max_size=2,
            ).map(tuple)
        ),
        inventory=draw(st.none() | inventory),
        part=draw(ints),
        parts=draw(ints),
    )


def golden_1() -> Batch:
    """The batch in the first golden file; neither may change: old bytes must stay readable."""
    api = Stream("payments", "api-7c9d", "5f0c", "api", 0)
    job = Stream("größe", "job-1", "77aa", "main", 12)
    first, second = b"\x01" * 16, b"\x02" * 16
    return Batch(
        cluster="west",
        node="node-1",
        run=bytes(range(16)),
        partition=3,
        sequence=41,
        oldest_unacked=39,
        created_ns=1_700_000_000_123_456_789,
        files={first: api, second: job},
        ranges=(
            Range(first, 0, 4096, b"2024-01-01T00:00:00Z stdout F one\n\xff\x00\n", 2, 0xFFFFFFFF),
            Range(second, 1, 2**40, b"rest of a line\n", 1, 5, 1, 2, True),
        ),
        opens=(Open(second, 1, first, 17), Open(first, 0, None, 18)),
        seals=(Seal(first, 0, 4133, 77, 0xDEADBEEF, "rotated"),),
        gaps=(
            Gap(second, 0, 10, 20, False, None, 99, "truncated"),
            Gap(second, 0, 30, 40, True, 1, None, "spool was full"),
        ),
        elided=(Elided(first, 0, 1, 2, 3, 4, "drop debug"),),
        gone=(Gone(second, 0),),
        inventory=Inventory(
            scan_began_ns=1_700_000_000_000_000_000,
            partitions=(0, 3),
            full=True,
            files=(Seen(first, 0, 4133, 4133, 4096),),
            unborn=(Unborn(job, 12),),
            unchanged=498,
            errors=("/pods/x: permission denied",),
            replaces=Replaces(b"\x09" * 16, 40, (7, 9)),
        ),
        part=1,
        parts=2,
    )


def golden_2() -> Batch:
    """The batch in the second golden file, with what the second version has added."""
    first, *others = golden_1().ranges
    docker = replace(first, format="docker", redacted="cards, names", crc_after=0xCAFE)
    meta = Meta(
        namespace="payments",
        pod="api-7c9d",
        pod_uid="5f0c",
        seen_ns=99,
        labels={"app": "api"},
        annotations={"team": "größe"},
        owner_kind="Deployment",
        owner="api",
    )
    return replace(golden_1(), ranges=(docker, *others), metas=(meta,))


def golden() -> Batch:
    """The batch in the third golden file, with what the third version has added."""
    place = Unseen("payments", "api-7c9d", "", "/pods/payments_api-7c9d_5f0c", "denied")
    before = golden_2()
    assert before.inventory is not None
    return replace(before, inventory=replace(before.inventory, unseen=(place,)))


def body(wire: bytes) -> bytes:
    return DECOMPRESSOR.decompress(wire[len(MAGIC) + 1 :])


@examples(60)
@given(batches())
def test_every_field_comes_back(batch: Batch) -> None:
    assert decode(encode(batch, COMPRESSOR), DECOMPRESSOR) == batch


@pytest.mark.parametrize(("version", "batch"), [(1, golden_1()), (2, golden_2()), (3, golden())])
def test_bytes_of_every_version_are_read_as_they_were_written(version: int, batch: Batch) -> None:
    stored = (GOLDEN / f"batch-v{version}.bin").read_bytes()
    assert stored[: len(MAGIC) + 1] == MAGIC + bytes([version])
    assert decode(stored, DECOMPRESSOR) == batch


def test_the_same_batch_is_written_as_it_was_before() -> None:
    stored = (GOLDEN / f"batch-v{VERSION}.bin").read_bytes()
    wire = encode(golden(), COMPRESSOR)
    assert wire[: len(MAGIC) + 1] == stored[: len(MAGIC) + 1]
    assert body(wire) == body(stored)


def test_run_and_sequence_are_in_the_headers() -> None:
    assert record_headers(golden()) == (
        ("run", bytes(range(16))),
        ("sequence", (41).to_bytes(8, "big")),
    )


def test_only_ranges_count_as_raw_bytes() -> None:
    assert raw_bytes(golden()) == 37 + 15


def test_a_batch_torn_at_any_byte_is_named_torn() -> None:
    wire = encode(golden(), COMPRESSOR)
    for end in range(len(wire)):
        with pytest.raises(TornBatch):
            decode(wire[:end], DECOMPRESSOR)


def test_a_body_torn_at_any_byte_in_a_whole_frame_is_named_torn() -> None:
    inner = body(encode(golden(), COMPRESSOR))
    head = MAGIC + bytes([VERSION])
    for end in range(len(inner)):
        with pytest.raises(TornBatch):
            decode(head + COMPRESSOR.compress(inner[:end]), DECOMPRESSOR)


@examples(200)
@given(st.data())
def test_flipped_bits_give_a_torn_batch_or_another_batch(data: st.DataObject) -> None:
    inner = bytearray(body(encode(golden(), COMPRESSOR)))
    for _ in range(data.draw(st.integers(1, 3))):
        inner[data.draw(st.integers(0, len(inner) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    wire = MAGIC + bytes([VERSION]) + COMPRESSOR.compress(bytes(inner))
    with contextlib.suppress(TornBatch):
        assert isinstance(decode(wire, DECOMPRESSOR), Batch)


def test_a_flipped_byte_anywhere_on_the_wire_never_raises_another_error() -> None:
    wire = encode(golden(), COMPRESSOR)
    for at in range(len(wire)):
        for flip in (0x01, 0x80, 0xFF):
            bad = bytearray(wire)
            bad[at] ^= flip
            try:
                assert isinstance(decode(bytes(bad), DECOMPRESSOR), Batch)
            except WireError:
                continue


@given(st.binary(max_size=200))
def test_any_bytes_behind_the_magic_are_torn_or_a_batch(rest: bytes) -> None:
    for wire in (rest, MAGIC + rest, MAGIC + bytes([VERSION]) + COMPRESSOR.compress(rest)):
        try:
            assert isinstance(decode(wire, DECOMPRESSOR), Batch)
        except WireError:
            continue


def test_a_frame_that_claims_too_much_is_refused_before_it_is_inflated() -> None:
    bomb = COMPRESSOR.compress(bytes(80 << 20))
    with pytest.raises(TornBatch, match="limit"):
        decode(MAGIC + b"\x01" + bomb, DECOMPRESSOR)


def test_a_list_that_claims_many_entries_ends_with_its_bytes() -> None:
    # Avro gives the number of entries before them: 2**40 here, and none follows.
    empty = replace(golden(), files={}, ranges=(), opens=(), seals=())
    empty = replace(empty, gaps=(), elided=(), gone=(), metas=(), inventory=None)
    inner = body(encode(empty, COMPRESSOR))
    cut = len(inner) - 9  # eight empty lists and the null of the inventory
    assert inner[cut:] == b"\0" * 9
    claim = inner[:cut] + b"\x80\x80\x80\x80\x80\x40"
    with pytest.raises(TornBatch):
        decode(MAGIC + bytes([VERSION]) + COMPRESSOR.compress(claim), DECOMPRESSOR)


def test_a_version_that_never_was_is_torn() -> None:
    wire = bytearray(encode(golden(), COMPRESSOR))
    wire[len(MAGIC)] = 0
    with pytest.raises(TornBatch, match="does not exist"):
        decode(bytes(wire), DECOMPRESSOR)


def test_a_newer_version_is_not_taken_for_a_torn_batch() -> None:
    wire = bytearray(encode(golden(), COMPRESSOR))
    for version in (VERSION + 1, 255):
        wire[len(MAGIC)] = version
        with pytest.raises(NewerWireVersion, match=f"version {version} is newer"):
            decode(bytes(wire), DECOMPRESSOR)
