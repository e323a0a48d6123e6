"""Compressed rotated files: read by plain offset, once, whoever has read them before."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.checksum import crc32
from collector.files.content import Content, open_content
from tests.collector.node import Node, content_of, gaps_of, lines, seals_of

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


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_is_an_error_and_never_a_shorter_file(tmp_path: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(random.Random(2).randbytes(300_000)))
    if damage == "cut":
        del packed[-100:]
    else:
        packed[150_000] ^= 0xFF
    (tmp_path / "x.gz").write_bytes(packed)
    content = opened(tmp_path / "x.gz")
    with pytest.raises(OSError, match="damaged"):
        content.size()
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


async def test_of_a_damaged_compressed_file_nothing_is_sent_and_all_of_it_is_a_gap(
    make: Make,
) -> None:
    node = make()
    data = lines(0, 20_000)
    packed = bytearray(gzip.compress(data))
    packed[len(packed) // 2] ^= 0xFF
    node.file(rotated="20240301-000001.gz").write_bytes(packed)
    good = node.write(node.file(), lines(0, 5))
    await node.start()
    await node.pass_time(10)
    batches = await node.batches()
    (gap,) = gaps_of(batches)
    assert list(content_of(batches).values()) == [good]
    assert (gap.start, gap.end, gap.end_exact) == (0, len(data), False)
    assert "damaged" in gap.reason
    assert not seals_of(batches)
