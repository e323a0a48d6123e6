"""The kubelet's files are those of a real one, and its truth says what is in each of them."""

import gzip
import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from load_tests.generate import FRAGMENT_BYTES
from load_tests.kubelet import GC_TICKS, Kubelet, Rates
from load_tests.truth import LONG_EVERY, Lines, read
from tests.load_tests.test_generate import rows
from tests.real_parts.guard import ROOT

BEGAN_NS = 1_700_000_000 * 10**9
TICK_NS = 10**9
FEW = Rates(files=1, lines_per_s=100.0, max_bytes=1000, max_files=4)


class Node:
    """A kubelet in a folder, and a clock for it."""

    def __init__(self, folder: Path, rates: Rates = FEW, seed: int = 1) -> None:
        self.root, self.truth = folder / "pods", folder / "truth"
        self.root.mkdir()
        self.now_ns = BEGAN_NS
        self._closed = False
        self.kubelet = Kubelet(self.root, self.truth, rates, seed, self.now_ns)

    def ticks(self, number: int) -> None:
        for _ in range(number):
            for _ in range(5):
                self.now_ns += TICK_NS // 5
                self.kubelet.write(self.now_ns)
            self.kubelet.tick(self.now_ns)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*/*/*"))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.kubelet.close(self.now_ns)

    def check(self) -> None:
        """Compare the truth with the disk, byte for byte."""
        self.close()
        lines, files = read(self.truth)
        on_disk = {str(path.relative_to(self.root)) for path in self.root.glob("*/*/*")}
        assert {file.path for file in files if file.deleted is None} == on_disk
        for file in files:
            content = file.content(lines)
            if file.deleted is not None:
                assert file.deleted.size == len(content)
                continue
            data = (self.root / file.path).read_bytes()
            assert content == (gzip.decompress(data) if file.path.endswith(".gz") else data)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.close()


def test_a_file_that_has_reached_its_size_is_rotated_and_the_one_before_compressed(
    node: Node,
) -> None:
    """Seen at each tick: the newest rotated file stays plain until the next rotation."""
    node.ticks(1)
    assert node.names() == ["0.log", "0.log.20231114-221330"]
    node.ticks(1)
    assert node.names() == ["0.log", "0.log.20231114-221330.gz", "0.log.20231114-221340"]
    node.check()


def test_a_file_below_its_size_stays(tmp_path: Path) -> None:
    node = Node(tmp_path, Rates(files=1, lines_per_s=10.0, max_bytes=1 << 20))
    node.ticks(5)
    assert node.names() == ["0.log"]
    node.check()


def test_the_first_by_name_are_deleted_so_that_as_many_stay_as_are_allowed(node: Node) -> None:
    node.ticks(7)
    assert node.names() == [
        "0.log",
        "0.log.20231114-221410.gz",
        "0.log.20231114-221420.gz",
        "0.log.20231114-221430",
    ]
    node.check()
    deleted = [file.deleted for file in read(node.truth)[1] if file.deleted]
    assert [each.why for each in deleted] == ["excess"] * 4
    assert [each.at_ns for each in deleted] == [BEGAN_NS + n * TICK_NS for n in (4, 5, 6, 7)]


def test_compression_makes_a_new_inode_and_rename_keeps_the_old(node: Node) -> None:
    def inode(name: str) -> int:
        return next(node.root.glob(f"*/*/{name}")).stat().st_ino

    first = inode("0.log")
    node.ticks(1)
    held = next(node.root.glob("*/*/0.log.*")).open("rb")  # else the inode may be used again
    assert inode("0.log.20231114-221330") == first
    node.ticks(1)
    assert inode("0.log.20231114-221330.gz") != first
    assert held.read() == gzip.decompress(
        next(node.root.glob("*/*/0.log.20231114-221330.gz")).read_bytes()
    )
    held.close()


def test_gzips_in_the_making_and_plain_files_that_were_compressed_are_deleted(node: Node) -> None:
    node.ticks(2)
    folder = next(node.root.glob("*/*"))
    (folder / "0.log.20231114-221330").write_text("compressed already")
    (folder / "0.log.20231114-221340.tmp").write_text("half")
    node.ticks(1)
    assert node.names() == [
        "0.log",
        "0.log.20231114-221330.gz",
        "0.log.20231114-221340.gz",
        "0.log.20231114-221350",
    ]


def test_a_file_that_a_dead_kubelet_has_renamed_only_is_opened_anew(node: Node) -> None:
    next(node.root.glob("*/*/0.log")).unlink()
    node.kubelet.tick(node.now_ns)
    assert node.names() == ["0.log"]


def test_half_an_event_is_flushed_into_the_renamed_file_and_the_rest_goes_to_the_next(
    node: Node,
) -> None:
    node.ticks(1)
    renamed = next(node.root.glob("*/*/0.log.*"))
    size = renamed.stat().st_size
    late = 0
    for _ in range(20):
        node.ticks(1)
        renamed = next(path for path in node.root.glob("*/*/0.log.*") if path.suffix != ".gz")
        size = renamed.stat().st_size
        node.now_ns += TICK_NS // 2
        node.kubelet.write(node.now_ns)
        if renamed.stat().st_size > size:
            late += 1
            head = renamed.read_bytes()[size:].split(b" ", 3)
            rest = renamed.with_name("0.log").read_bytes().partition(b"\n")[0].split(b" ", 3)
            assert (head[1], head[2], rest[2]) == (rest[1], b"P", b"F")
            number = int(head[3].split()[0])
            writer = node.kubelet.containers[0].number
            assert head[3].removesuffix(b"\n") + rest[3] == Lines(1).message(writer, number)
    assert 3 < late < 17
    node.check()


def test_numbers_go_on_over_files_and_restarts_without_a_hole(tmp_path: Path) -> None:
    rates = Rates(files=3, lines_per_s=300.0, max_bytes=5000, max_files=100, restarts_per_min=60)
    node = Node(tmp_path, rates)
    node.ticks(GC_TICKS - 1)
    node.check()
    lines, files = read(node.truth)
    for writer in {file.writer for file in files}:
        seen: dict[tuple[str | None, int], bytes] = {}
        for file in files:
            if file.writer == writer and (content := file.content(lines)):
                for line in content.splitlines():
                    _, output, _, text = line.split(b" ", 3)
                    first = re.match(rb"(\d+) ", text)
                    if first:
                        seen.setdefault((output.decode(), int(first[1])), text)
        numbers = {number for _, number in seen}
        assert numbers == set(range(max(numbers) + 1))


def test_long_events_come_in_fragments_of_both_outputs_in_turn() -> None:
    lines = Lines(1)
    data = lines.block(7, 0, 4 * LONG_EVERY, BEGAN_NS)
    fragments = [line.split(b" ", 3) for line in data.splitlines()]
    assert any(
        (one[1], one[2], two[1], two[2]) == (b"stdout", b"P", b"stderr", b"P")
        for one, two in itertools.pairwise(fragments)
    )
    assert all(len(line[3]) == FRAGMENT_BYTES for line in fragments if line[2] == b"P")
    assert all(len(line[3]) <= FRAGMENT_BYTES for line in fragments)
    joined = [(output, message) for _, output, message in rows(data)]
    long = [(output, message) for output, message in joined if len(message) > FRAGMENT_BYTES]
    assert {output for output, _ in long} == {"stdout", "stderr"}
    assert [time_ns for time_ns, _, _ in rows(data)] == sorted(
        time_ns for time_ns, _, _ in rows(data) if time_ns is not None
    )


def test_of_dead_instances_the_last_stays_until_the_next_has_died(tmp_path: Path) -> None:
    node = Node(tmp_path, Rates(files=1, lines_per_s=20.0, max_bytes=1 << 20, restarts_per_min=30))
    node.ticks(GC_TICKS)
    assert node.kubelet.containers[0].restart == 3
    assert node.names() == ["2.log", "3.log"]
    node.check()
    whys = {file.deleted.why for file in read(node.truth)[1] if file.deleted}
    assert whys == {"restart"}


def test_an_ended_pod_goes_with_its_directory_and_another_takes_its_place(tmp_path: Path) -> None:
    rates = Rates(files=4, lines_per_s=20.0, pods_per_min=30, linger_ticks=GC_TICKS)
    node = Node(tmp_path, rates)
    node.ticks(GC_TICKS)
    assert len(list(node.root.iterdir())) == 7
    node.ticks(GC_TICKS)
    assert len(list(node.root.iterdir())) == 7  # three were deleted, three have ended since
    node.check()
    assert [f.deleted.why for f in read(node.truth)[1] if f.deleted] == ["pod"] * 3


def test_the_same_seed_and_clock_give_the_same_files_and_another_seed_does_not(
    tmp_path: Path,
) -> None:
    def truth(name: str, seed: int) -> bytes:
        (tmp_path / name).mkdir()
        node = Node(tmp_path / name, seed=seed)
        node.ticks(5)
        node.close()
        return node.truth.read_bytes()

    assert truth("first", 1) == truth("again", 1)
    assert truth("first again", 1) != truth("other", 2)


@pytest.mark.real
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda process: None, id="in time"),
        pytest.param(lambda process: process.send_signal(signal.SIGTERM), id="on SIGTERM"),
    ],
)
def test_the_process_leaves_a_truth_of_what_is_on_the_disk(
    tmp_path: Path, stop: Callable[["subprocess.Popen[bytes]"], None]
) -> None:
    root, truth = tmp_path / "pods", tmp_path / "truth"
    command = [sys.executable, "-m", "load_tests.kubelet", f"--root={root}", f"--truth={truth}"]
    command += ["--files", "20", "--lines-per-s", "2000", "--tick-ms", "400", "--seconds", "3"]
    command += ["--max-bytes", "5000", "--restarts-per-min", "200", "--pods-per-min", "200"]
    with subprocess.Popen(command, cwd=ROOT) as process:
        until = time.monotonic() + 20
        while not list(root.rglob("0.log.*")) and time.monotonic() < until:
            time.sleep(0.01)
        stop(process)
        assert process.wait(timeout=30) == 0
    lines, files = read(truth)
    on_disk = {str(path.relative_to(root)) for path in root.glob("*/*/*")}
    assert {file.path for file in files if file.deleted is None} == on_disk
    for file in files:
        if file.deleted is None:
            data = (root / file.path).read_bytes()
            content = gzip.decompress(data) if file.path.endswith(".gz") else data
            assert content == file.content(lines)
