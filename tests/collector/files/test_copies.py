"""Copies that something else than the kubelet makes in its layout: each line is read once."""

import os
import shutil
from collections.abc import Callable

import pytest

from tests.collector.node import Node, content_of, gaps_of, lines

Make = Callable[..., Node]


@pytest.fixture(params=["1", "bak", "20240301-000001"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_file_that_is_copied_and_truncated_goes_on_as_its_copy(
    make: Make, suffix: str
) -> None:
    node = make()
    path = node.file()
    first = node.write(path, lines(0, 50))
    await node.start()
    await node.pass_time()
    first += node.write(path, lines(50, 10))  # which only the copy has when the next scan looks
    shutil.copyfile(path, node.file(rotated=suffix))
    os.truncate(path, 0)
    second = node.write(path, lines(1_000, 20))
    await node.pass_time(30)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    assert sum(len(each.data) for b in batches for each in b.ranges) == len(first + second)
    (gap,) = gaps_of(batches)  # what was written after the copy is known to nobody
    assert (gap.reason, gap.end_exact) == ("truncated", False)


async def test_a_copy_of_a_file_that_goes_on_is_not_read(make: Make, suffix: str) -> None:
    node = make()
    path = node.file()
    content = node.write(path, lines(0, 50))
    await node.start()
    await node.pass_time()
    shutil.copyfile(path, node.file(rotated=suffix))
    await node.pass_time(5)
    content += node.write(path, lines(50, 50))
    await node.pass_time(5)
    path.rename(node.file(rotated="20240302-000001"))  # and then it is rotated, and sealed
    second = node.write(path, lines(1_000, 5))
    await node.pass_time(30)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([content, second])
    assert sum(len(each.data) for b in batches for each in b.ranges) == len(content + second)
    assert not gaps_of(batches)
