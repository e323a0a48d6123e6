"""What an indexer holds is bounded by its settings, whatever the lines are like."""

import subprocess
import sys

import pytest

from tests.real_parts.guard import ROOT

_INDEX = """\
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from indexer.allocator import keep_pages
from indexer.store.open import open_bucket
from tests.indexer.shipped import File
from tests.indexer.test_index import Place

MIB = 1 << 20
BOUNDS = {"flush_bytes": 16 * MIB, "buffer_bytes": 48 * MIB}

async def ship(place, pod, data):
    file = File(data, pod=pod)
    [whole] = file.ranges([])
    batch = place.runs[0].batch(replace(whole, format=sys.argv[2]), of=[file])
    await place.send((0, batch))

def peak_bytes():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10

async def main():
    keep_pages()
    place = Place(sys.argv[1] + "/topic", open_bucket(sys.argv[1] + "/bucket"), 1)
    await ship(place, "first", b"\\n")
    async with place.indexer(**BOUNDS) as indexer:
        await place.drain(indexer)  # all that is imported and compiled
        for number in range(16):
            await ship(place, f"pod-{number}", b"\\n" * (MIB // 4))
        before = peak_bytes()
        await place.drain(indexer)
        print(peak_bytes() - before, int(indexer._metrics.rows._value.get()))

asyncio.run(main())
"""


@pytest.mark.real
@pytest.mark.parametrize("line_format", ["plain", "cri"])
def test_a_flood_of_empty_lines_takes_no_more_memory_than_one_batch_and_the_buffer(
    tmp_path, line_format: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INDEX, str(tmp_path), line_format],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    grown_bytes, rows = (int(number) for number in done.stdout.split())
    assert rows == 16 * (1 << 18) + 1
    assert grown_bytes < 128 << 20  # 4 Mi rows at once would take 260 MB
