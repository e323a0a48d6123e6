"""Compressed rotated files: read by plain offset, once, whoever has read them before."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.checksum import crc32
from collector.files import watch
from collector.files.content import Content, GzipContent, open_content
from collector.files.discover import FoundFile
from collector.files.tail import Tail, open_file
from tests.collector.node import Node, content_of, gaps_of, lines
from tests.examples import examples

Make = Callable[..., Node]


def opened(path: Path) -> Content:
    status = path.stat()
    content = open_content(path, (status.st_dev, status.st_ino), compressed=True)
    assert content is not None
    return content


def compress(path: Path) -> Path:
    """Compress a rotated file as the kubelet does: aside, renamed, the plain one removed."""
    packed = path.with_name(path.name + ".gz")
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(gzip.compress(path.read_bytes()))
    temporary.rename(packed)
    path.unlink()
    return packed


def test_any_part_of_a_compressed_file_is_read_by_its_plain_offset(tmp_path: Path) -> None:
    chance = random.Random(1)
    data = chance.randbytes(200_000) + bytes(3_000_000) + lines(0, 20_000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(data))
    content = opened(tmp_path / "x.gz")
    assert content.size() == len(data)
    for _ in range(60):
        offset, length = chance.randrange(len(data)), chance.randrange(600_000)
        assert content.read(length, offset) == data[offset : offset + length]
    assert content.read(10, len(data)) == b""
    content.close()


def test_a_file_of_two_members_is_read_to_the_end_of_the_second(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(lines(0, 50)) + gzip.compress(lines(50, 5)))
    content = opened(tmp_path / "x.gz")
    assert content.read(1 << 20, 0) == lines(0, 55)
    assert content.size() == len(lines(0, 55))
    content.close()


def whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


TEXT = lines(0, 300)
OLDER = lines(5_000, 3_000)
PACKED = gzip.compress(TEXT)
BAD_SUM = PACKED[:-6] + bytes([PACKED[-6] ^ 1]) + PACKED[-5:]
# what lies on the disk -> what can be read of it, and why there may be more
DAMAGES: dict[str, tuple[bytes, bytes, str]] = {
    "zeros behind it": (PACKED + bytes(4_096), TEXT, ""),
    "a member behind zeros": (PACKED + bytes(512) + gzip.compress(b"more\n"), TEXT + b"more\n", ""),
    "garbage behind it": (PACKED + b"garbage\n", TEXT, "not compressed"),
    "one byte behind it": (PACKED + b"\x1f", TEXT, "not compressed"),
    "written over a longer one": (
        PACKED + gzip.compress(OLDER)[len(PACKED) :],
        TEXT,
        "not compressed",
    ),
    "wrong checksum": (BAD_SUM, TEXT, "incorrect data check"),
    "wrong length": (PACKED[:-1] + b"\1", TEXT, "incorrect length check"),
    "cut in its checksum": (PACKED[:-5], TEXT, "ends too early"),
    "second member cut": (PACKED + PACKED[:40], TEXT, "ends too early"),
    "second member damaged": (PACKED + BAD_SUM, TEXT + TEXT, "incorrect data check"),
    "header alone": (PACKED[:10], b"", "ends too early"),
    "half a header": (PACKED[:5], b"", "ends too early"),
    "one byte": (PACKED[:1], b"", "ends too early"),
    "empty": (b"", b"", "empty"),
    "all zeros": (bytes(4_096), b"", "incorrect header"),
    "plain text": (TEXT, b"", "incorrect header"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_of_a_damaged_file_what_can_be_decompressed_is_there(tmp_path: Path, what: str) -> None:
    packed, readable, why = DAMAGES[what]
    (tmp_path / "x.gz").write_bytes(packed)
    content = opened(tmp_path / "x.gz")
    assert isinstance(content, GzipContent)
    assert content.size() == len(readable)
    assert why in content.damage
    assert bool(why) == bool(content.damage)
    assert content.read(1 << 20, 0) == readable
    assert content.read(100, 70) == readable[70:170]
    content.close()


@examples(60)
@given(st.integers(0, 1 << 30), st.sampled_from(["cut", "flip", "zero"]), st.integers(0, 4))
def test_a_damage_anywhere_leaves_a_beginning_or_is_told(
    tmp_path_factory: pytest.TempPathFactory, at: int, how: str, member: int
) -> None:
    text = b"".join(
        b"%d %s\n" % (n, random.Random(n).randbytes(20).hex().encode()) for n in range(999)
    )
    packed = bytearray(gzip.compress(text) * (1 + member))
    at %= len(packed)
    if how == "cut":
        del packed[at:]
    elif how == "flip":
        packed[at] ^= 16
    else:
        packed[at : at + 30] = (
            bytes(30) if how == "zero" else bytes([packed[at] ^ 16, *packed[at + 1 : at + 30]])
        )
    path = tmp_path_factory.mktemp("damage") / "x.gz"
    path.write_bytes(packed)
    content = opened(path)
    assert isinstance(content, GzipContent)
    found = content.read(content.size(), 0)
    assert found == whole_lines(found)
    if not content.damage:  # what is not looked at (a file name, a time) may differ, or it is whole
        assert found == text * (len(found) // len(text))
        assert how != "cut" or at % (len(packed) or 1) == 0
    content.close()


async def test_compressed_files_are_read_at_the_first_start_in_their_order(make: Make) -> None:
    node = make()
    oldest = node.file(rotated="20240301-000001")
    contents = [node.write(oldest, lines(0, 5000))]
    compress(oldest)
    contents.append(node.write(node.file(rotated="20240301-000002"), lines(5000, 50)))
    contents.append(node.write(node.file(), lines(6000, 5)))
    await node.start()
    await node.pass_time(40)
    batches = await node.batches()
    assert list(content_of(batches).values()) == contents
    opens = [entry for batch in batches for entry in batch.opens]
    assert [entry.previous for entry in opens[1:]] == [entry.file_id for entry in opens[:-1]]
    seals = [seal for batch in batches for seal in batch.seals]
    assert {(s.size, s.crc) for s in seals} == {(len(c), crc32(c)) for c in contents[:2]}


async def test_a_file_that_is_compressed_while_it_is_followed_is_not_read_again(make: Make) -> None:
    node = make()
    path = node.file()
    first = node.write(path, lines(0, 2000))
    await node.start()
    await node.pass_time()
    moved = node.file(rotated="20240301-000010")
    path.rename(moved)
    second = node.write(path, lines(3000, 10))
    await node.pass_time()
    compress(moved)
    await node.pass_time(60)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    assert sum(len(r.data) for batch in batches for r in batch.ranges) == len(first + second)
    assert not gaps_of(batches)


@pytest.mark.parametrize("written", [lines(0, 50), lines(0, 50)[:-1], lines(0, 1)[:-1]])
async def test_a_file_that_was_empty_at_one_scan_and_compressed_at_the_next_is_read_once(
    make: Make, written: bytes
) -> None:
    node = make()
    path = node.file()
    node.write(path, b"")
    await node.start()
    await node.pass_time()
    node.write(path, written)
    moved = node.file(rotated="20240301-000010")
    path.rename(moved)
    compress(moved)
    after = node.write(path, lines(3000, 10))
    await node.pass_time(60)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([written, after])
    assert sum(len(r.data) for batch in batches for r in batch.ranges) == len(written + after)
    assert not gaps_of(batches)


@pytest.mark.parametrize("crash", [True, False])
async def test_what_was_rotated_and_compressed_while_the_collector_was_down_is_read_on(
    make: Make, crash: bool
) -> None:
    node = make()
    path = node.file()
    first = node.write(path, lines(0, 40))
    await node.start()
    await node.pass_time()
    await (node.crash() if crash else node.stop())
    first += node.write(path, lines(40, 3000))
    moved = node.file(rotated="20240301-000010")
    path.rename(moved)
    between = node.file(rotated="20240301-000020")
    second = node.write(between, lines(4000, 100))
    third = node.write(path, lines(5000, 10))
    compress(moved)
    compress(between)
    await node.start()
    await node.pass_time(40)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second, third])
    assert sum(len(r.data) for batch in batches for r in batch.ranges) == len(
        first + second + third
    )
    assert not gaps_of(batches)
    await node.stop()
    await node.start()
    await node.pass_time(40)
    assert sum(len(r.data) for batch in await node.batches() for r in batch.ranges) == len(
        first + second + third
    )


async def test_a_compressed_file_stays_known_as_long_as_it_is_on_disk(make: Make) -> None:
    node = make(gone_after_ms=10_000)
    path = node.file()
    first = node.write(path, lines(0, 100))
    await node.start()
    await node.pass_time()
    moved = node.file(rotated="20240301-000010")
    path.rename(moved)
    await node.pass_time(30)
    packed = compress(moved)
    await node.pass_time(60)
    assert not [gone for batch in await node.batches() for gone in batch.gone]
    packed.unlink()
    await node.pass_time(30)
    batches = await node.batches()
    assert len([gone for batch in batches for gone in batch.gone]) == 1
    assert sum(len(r.data) for batch in batches for r in batch.ranges) == len(first)


async def test_a_run_opens_no_compressed_file_that_the_run_before_was_done_with(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make()
    path = node.file()
    written = node.write(path, lines(0, 100))
    written += node.write(node.file(rotated="20240301-000001"), lines(1000, 100))
    await node.start()
    await node.pass_time()
    await node.pass_time(30)
    path.rename(node.file(rotated="20240301-000010"))
    await node.pass_time(30)
    packed = [compress(node.file(rotated=f"20240301-0000{n}")) for n in ("01", "10")]
    await node.pass_time(30)
    opened: list[Path] = []

    def opening(found: FoundFile, now_ns: int) -> Tail | None:
        opened.append(found.path)
        return open_file(found, now_ns)

    monkeypatch.setattr(watch, "open_file", opening)
    for ended in (node.crash, node.stop):
        await ended()
        await node.start()
        await node.pass_time(5)
        assert not opened
    await node.stop()
    packed[0].write_bytes(gzip.compress(other := lines(2000, 10)))  # in its place, shorter
    await node.start()
    await node.pass_time(30)
    assert opened == packed[:1]
    batches = await node.batches()
    assert sum(len(r.data) for batch in batches for r in batch.ranges) == len(written + other)
    assert not gaps_of(batches)


async def test_a_compressed_file_in_the_place_of_a_known_one_is_read(make: Make) -> None:
    node = make()
    path = node.file(rotated="1.gz")
    path.write_bytes(gzip.compress(first := lines(0, 100)))
    await node.start()
    await node.pass_time(30)
    inode = path.stat().st_ino
    path.write_bytes(gzip.compress(second := lines(1000, 50)))  # as a name used again may be
    node.write(node.file(), third := lines(2000, 1))
    await node.pass_time(30)
    assert path.stat().st_ino == inode
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second, third])


@pytest.mark.parametrize("what", DAMAGES)
async def test_what_a_damaged_file_lacks_is_a_gap_of_unknown_size(make: Make, what: str) -> None:
    packed, readable, why = DAMAGES[what]
    node = make()
    good = node.write(node.file(), lines(9_000, 5))
    await node.start()
    await node.pass_time(5)
    node.file(rotated="20240301-000001.gz").write_bytes(packed)
    await node.pass_time(30)
    assert not node.collector.watch.errors
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(filter(None, [good, readable]))
    gaps = gaps_of(batches)
    assert [(gap.start, gap.end, gap.end_exact) for gap in gaps] == (
        [(len(readable), len(readable), False)] if why else []
    )
    if why:
        assert why in gaps[0].reason
        assert (gaps[0].from_ns is None) == (not readable and what != "plain text")
    for _ in range(2):  # and it is read once, and told once, whoever starts again
        await node.crash()
        await node.start()
        await node.pass_time(30)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(filter(None, [good, readable]))
    assert len(
        {(gap.file_id, gap.epoch, gap.start, gap.reason) for gap in gaps_of(batches)}
    ) == len(gaps)


async def test_a_file_that_is_being_compressed_is_no_gap_before_it_is_left_alone(
    make: Make,
) -> None:
    node = make()
    await node.start()
    path = node.file(rotated="20240301-000001.gz")
    for end in (0, 100, len(PACKED) // 2, len(PACKED) - 3):
        path.write_bytes(PACKED[:end])
        await node.pass_time(1)
        assert list(node.collector.watch.errors) == [path]
    path.write_bytes(PACKED)
    await node.pass_time(20)
    batches = await node.batches()
    assert list(content_of(batches).values()) == [TEXT]
    assert not gaps_of(batches)


async def test_a_damaged_copy_of_what_was_read_is_not_read_again(make: Make) -> None:
    node = make()
    path = node.file()
    content = node.write(path, TEXT)
    await node.start()
    await node.pass_time(5)
    path.rename(node.file(rotated="1"))
    await node.pass_time(20)
    node.file(rotated="1").unlink()
    node.file(rotated="1.gz").write_bytes(PACKED[: len(PACKED) // 2])
    await node.pass_time(20)
    batches = await node.batches()
    assert sum(len(each.data) for batch in batches for each in batch.ranges) == len(content)
    assert not gaps_of(batches)
