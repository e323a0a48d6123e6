"""Other layouts than the kubelet's own: Docker's links, and plain files of the node."""

import gzip
import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.checksum import crc32
from collector.errors import SettingError
from collector.files.birth import birth_ns
from collector.files.content import open_content
from collector.files.discover import Discovery, ScanLimits
from collector.files.layout import NODE_NAMESPACE, Pods, plain_roots
from collector.wire.range import STDERR, STDOUT, Range, Stream
from tests.collector.node import SECOND, Node, content_of, gaps_of, ranges_of, seals_of

Make = Callable[..., Node]


async def bytes_sent(node: Node) -> int:
    return sum(len(each.data) for batch in await node.batches() for each in batch.ranges)


# -- Docker --------------------------------------------------------------------------------------


def log_line(number: int, output: str = "stdout", text: str = "", end: str = "\n") -> bytes:
    """One line of Docker's json-file driver."""
    log = (text or f'message {number} with \\ and "quotes"') + end
    record = {"log": log, "stream": output, "time": f"2024-03-01T00:00:00.{number:09}Z"}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def log_lines(first: int, count: int) -> bytes:
    return b"".join(log_line(number) for number in range(first, first + count))


class Docker:
    """A node on which dockerd writes: a link in the kubelet's layout, the file elsewhere."""

    def __init__(self, make: Make, folder: Path, **settings: Any) -> None:
        self.containers = folder / "docker" / "containers"
        values: dict[str, Any] = {
            "roots": "",
            "docker_roots": str(folder / "pods"),
            "link_targets": str(self.containers),
        }
        self.node = make(**(values | settings))
        self.log = self.file("a" * 64)
        self.link = self.node.file()
        self.link.symlink_to(self.log)

    def file(self, container: str) -> Path:
        path = self.containers / container / f"{container}-json.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, data: bytes) -> bytes:
        return self.node.write(self.log, data)

    def rotated(self, number: int, end: str = "") -> Path:
        return self.log.with_name(f"{self.log.name}.{number}{end}")

    def rotate(self, end: str = "") -> None:
        """Rotate as dockerd does, keeping three."""
        for number in (2, 1):
            if self.rotated(number, end).exists():
                self.rotated(number, end).rename(self.rotated(number + 1, end))
        self.log.rename(self.rotated(1))
        self.log.touch()

    def compress(self) -> None:
        """Compress the newest rotated file as dockerd does, in place and then without the plain."""
        self.rotated(1, ".gz").write_bytes(gzip.compress(self.rotated(1).read_bytes()))
        self.rotated(1).unlink()


@pytest.fixture
def docker(make: Make, tmp_path: Path) -> Docker:
    return Docker(make, tmp_path)


async def test_a_link_is_followed_through_the_rotations_of_dockerd(docker: Docker) -> None:
    node = docker.node
    contents = [docker.write(log_lines(0, 50))]
    await node.start()
    await node.pass_time()
    for number in range(1, 4):
        contents[-1] += docker.write(log_lines(100 * number, 5))
        docker.rotate()
        contents.append(docker.write(log_lines(100 * number + 50, 20)))
        await node.pass_time(30)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted(contents)
    assert sum(map(len, contents)) == await bytes_sent(node)
    assert {seal.crc for seal in seals_of(batches).values()} == {crc32(c) for c in contents[:3]}
    assert not gaps_of(batches)
    streams = {stream for batch in batches for stream in batch.files.values()}
    assert [(s.pod, s.container, s.restart) for s in streams] == [("api-0", "api", 0)]
    formats = {each.format for ranges in ranges_of(batches).values() for each in ranges}
    assert formats == {"docker"}


async def test_what_dockerd_rotated_before_the_start_is_read_in_its_order(docker: Docker) -> None:
    node = docker.node
    contents = []
    for number in range(4):
        contents.append(docker.write(log_lines(100 * number, 10)))
        if number < 3:
            docker.rotate(".gz")
            if number < 2:
                docker.compress()
    # It is being compressed right now, and that file is not whole.
    docker.rotated(1, ".gz").write_bytes(gzip.compress(contents[2])[:40])
    await node.start()
    await node.pass_time(3)
    batches = await node.batches()
    assert list(content_of(batches).values()) == contents
    opens = [entry for batch in batches for entry in batch.opens]
    assert [entry.previous for entry in opens[1:]] == [entry.file_id for entry in opens[:-1]]
    assert not gaps_of(batches)


@pytest.mark.parametrize("down", [False, True])
async def test_a_file_that_dockerd_compresses_is_not_read_again(docker: Docker, down: bool) -> None:
    node = docker.node
    first = docker.write(log_lines(0, 500))
    await node.start()
    await node.pass_time()
    if down:
        await node.crash()
        first += docker.write(log_lines(500, 500))
    docker.rotate(".gz")
    second = docker.write(log_lines(2000, 10))
    if down:
        docker.compress()
        docker.rotate(".gz")
        await node.start()
    else:
        await node.pass_time()
        docker.compress()
    await node.pass_time(40)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    assert await bytes_sent(node) == len(first + second)
    assert not gaps_of(batches)


async def test_a_driver_that_keeps_one_file_unlinks_it_and_begins_anew(docker: Docker) -> None:
    node = docker.node
    first = docker.write(log_lines(0, 50))
    await node.start()
    await node.pass_time()
    docker.log.unlink()
    second = docker.write(log_lines(100, 50))
    await node.pass_time(40)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    assert [seal.why for seal in seals_of(batches).values()] == ["deleted"]
    assert not gaps_of(batches)


async def test_an_event_that_docker_split_is_not_split_again(make: Make, tmp_path: Path) -> None:
    docker = Docker(make, tmp_path, read_bytes=4096)
    random_ = random.Random(3)
    data, number = b"", 0
    for _ in range(150):
        output = random_.choice(["stdout", "stderr"])
        for end in [*[""] * random_.choice([0, 0, 1, 5]), "\n"]:
            number += 1
            data += log_line(number, output, random_.choice("xn\\\n") * random_.randrange(300), end)
    docker.write(data)
    await docker.node.start()
    await docker.node.pass_time(3)
    (ranges,) = ranges_of(await docker.node.batches()).values()
    assert len(ranges) > 10
    assert b"".join(each.data for each in ranges) == data
    assert not any(r.open_before or r.open_after or r.torn_before for r in ranges)
    assert not any(ends_open(each) for each in ranges)


def ends_open(taken: Range) -> bool:
    """Whether some output's last line in a range has no newline of its own, by a JSON parser."""
    last = {}
    for line in taken.data.splitlines():
        record = json.loads(line)
        last[record["stream"]] = record["log"].endswith("\n")
    return not all(last.values())


async def test_an_open_event_of_docker_waits_and_is_flagged_then(docker: Docker) -> None:
    node = docker.node
    docker.write(log_line(0) + log_line(1, end=""))
    await node.start()
    await node.pass_time(4)
    assert list(content_of(await node.batches()).values()) == [log_line(0)]
    await node.pass_time(3)
    docker.write(log_line(2, "stderr", end="") + log_line(3) + log_line(4, "stderr"))
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    flags = [(each.open_before, each.open_after) for each in ranges]
    assert flags == [(0, 0), (0, STDOUT), (STDOUT, 0)]
    assert STDERR not in {each.open_after for each in ranges}


async def test_files_whose_first_lines_differ_in_their_time_only_are_two(docker: Docker) -> None:
    node = docker.node
    banner = "b" * 9000
    first = docker.write(log_line(1, text=banner) + log_line(2))
    docker.rotate()
    second = docker.write(log_line(3, text=banner) + log_line(4))
    await node.start()
    await node.pass_time()
    contents = content_of(await node.batches())
    assert list(contents.values()) == [first, second]
    assert [epoch for _, epoch in contents] == [0, 0]


async def test_a_first_line_without_an_end_gets_its_name_from_what_may_count(
    docker: Docker,
) -> None:
    node = docker.node
    data = docker.write(log_line(1, text="c" * 70_000)[:-1])
    await node.start()
    await node.pass_time(9)
    assert list(content_of(await node.batches()).values()) == [data]


# -- where links may lead ------------------------------------------------------------------------


async def test_without_targets_no_link_is_followed_and_the_log_says_so(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docker = Docker(make, tmp_path, link_targets="")
    docker.write(log_lines(0, 5))
    await docker.node.start()
    await docker.node.pass_time()
    assert not content_of(await docker.node.batches())
    (said,) = [each for each in caplog.records if "link" in each.message]
    assert f"{docker.node.file()}: the link to {docker.log} is not followed" in said.message
    (place,) = docker.node.collector.watch.links.values()
    assert (place.namespace, place.pod, place.container) == ("payments", "api-0", "api")


@pytest.mark.parametrize(
    "trick",
    [
        "outside",
        "nothing",
        "directory",
        "fifo",
        "device",
        "chain",
        "dots",
        "beside",
        "no log",
        "up",
    ],
)
async def test_nothing_but_logs_below_the_targets_is_reached(docker: Docker, trick: str) -> None:
    node, folder = docker.node, docker.log.parent
    good = docker.write(log_lines(0, 5))
    secret = docker.containers.parent / "secret.log"
    node.write(secret, log_lines(50, 5))
    node.write(folder / "config.v2.json", log_lines(60, 5))
    (folder / "folder.log").mkdir()
    os.mkfifo(folder / "fifo.log")
    (folder / "chain.log").symlink_to(secret)
    evil = docker.containers.with_name("containers-of-others")
    evil.mkdir()
    node.write(evil / "x.log", log_lines(70, 5))
    (docker.containers / "out").symlink_to(evil)
    targets: dict[str, Path | str] = {
        "outside": secret,
        "nothing": docker.containers / "none" / "none-json.log",
        "directory": folder / "folder.log",
        "fifo": folder / "fifo.log",
        "device": "/dev/zero",
        "chain": folder / "chain.log",
        "dots": f"{folder}/../../secret.log",
        "beside": evil / "x.log",
        "no log": folder / "config.v2.json",
        "up": docker.containers / "out" / "x.log",
    }
    node.file(1).symlink_to(targets[trick])
    node.file(2).symlink_to(node.file(1))
    await node.start()
    await node.pass_time()
    assert list(content_of(await node.batches()).values()) == [good]
    assert not node.collector.watch.errors
    # What leads to something that might have been read is named.
    named = {"nothing": 0, "fifo": 0, "device": 0, "directory": 1}
    assert len(node.collector.watch.links) == named.get(trick, 2)


async def test_directories_on_the_way_may_be_links(make: Make, tmp_path: Path) -> None:
    """Docker's data often lies on a disk of its own, behind /var/lib/docker."""
    disk, root = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()
    (tmp_path / "docker").symlink_to(disk)
    root.symlink_to(tmp_path / "pods")
    docker = Docker(make, tmp_path, docker_roots=str(root))
    content = docker.write(log_lines(0, 5))
    await docker.node.start()
    await docker.node.pass_time()
    # The disk is exchanged while the collector runs.
    (tmp_path / "docker").unlink()
    shutil.copytree(disk, tmp_path / "new disk")
    (tmp_path / "docker").symlink_to(tmp_path / "new disk")
    content += docker.write(log_lines(5, 5))
    await docker.node.pass_time(9)
    assert content in content_of(await docker.node.batches()).values()


async def test_a_link_that_dangles_for_a_moment_is_no_deletion(docker: Docker) -> None:
    node = docker.node
    content = docker.write(log_lines(0, 5))
    await node.start()
    await node.pass_time()
    for number, away in enumerate((docker.link, docker.log)):
        with docker.log.open("ab") as file:
            away.rename(kept := away.with_name("kept"))
            await node.pass_time(8)
            file.write(more := log_lines(10 * number + 10, 5))
        content += more
        await node.pass_time(2)
        assert list(content_of(await node.batches()).values()) == [content]
        kept.rename(away)
        await node.pass_time(8)
    batches = await node.batches()
    assert not gaps_of(batches)
    assert not seals_of(batches)


async def test_a_link_to_another_file_leads_there_and_the_first_is_read_to_its_end(
    docker: Docker,
) -> None:
    node = docker.node
    first = docker.write(log_lines(0, 5))
    await node.start()
    await node.pass_time()
    other = docker.file("b" * 64)
    second = node.write(other, log_lines(50, 5))
    first += docker.write(log_lines(5, 5))
    docker.link.unlink()
    docker.link.symlink_to(other)
    await node.pass_time(40)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    assert not gaps_of(batches)


@pytest.mark.parametrize("swapped", ["file", "directory", "fifo", "folder"])
def test_what_is_swapped_between_scan_and_open_is_not_read(docker: Docker, swapped: str) -> None:
    docker.write(log_lines(0, 5))
    secret = docker.containers.parent / "secret"
    secret.mkdir()
    stolen = secret / docker.log.name
    roots = [(str(docker.node.root), Pods("docker"))]
    (found,) = Discovery(roots, time.time_ns, [str(docker.containers)]).scan().files
    if swapped == "file":
        docker.log.rename(stolen)
        docker.log.symlink_to(stolen)
    elif swapped == "directory":  # the same file by way of a link: inode and name are right
        docker.log.parent.rename(secret / "there")
        docker.log.parent.symlink_to(secret / "there")
    else:
        docker.log.rename(stolen)
        (os.mkfifo if swapped == "fifo" else os.mkdir)(docker.log)
    assert open_content(found.real, found.inode, compressed=False) is None


@pytest.mark.slow
def test_links_that_are_swapped_all_the_time_never_lead_elsewhere(docker: Docker) -> None:
    docker.write(log_lines(0, 5))
    secret = docker.containers.parent / "secret"
    secret.mkdir()
    inner, away = docker.log.parent, docker.containers / "away"
    inodes = {docker.log.stat().st_ino}
    (secret / docker.log.name).write_bytes(log_lines(50, 5))
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            inner.rename(away)
            inner.symlink_to(secret)
            inner.unlink()
            away.rename(inner)

    thread = threading.Thread(target=swap)
    thread.start()
    opened = 0
    try:
        roots = [(str(docker.node.root), Pods("docker"))]
        discovery = Discovery(roots, time.time_ns, [str(docker.containers)])
        began = time.monotonic()
        while time.monotonic() - began < (1.5 if opened else 60):
            discovery._full = None
            for found in discovery.scan().files:
                content = open_content(found.real, found.inode, compressed=False)
                if content is not None:
                    opened += 1
                    assert content.read(1 << 20, 0) == log_lines(0, 5)
                    assert found.inode[1] in inodes
                    content.close()
    finally:
        ended.set()
        thread.join()
    assert opened


# -- plain files of the node ---------------------------------------------------------------------


def text(first: int, count: int) -> bytes:
    return b"".join(
        b'10.0.0.1 - [%06d] "GET /" stdout P 200\n' % n for n in range(first, first + count)
    )


class Plain:
    """A node with plain files below ``folder``."""

    def __init__(self, make: Make, folder: Path, glob: str = "*.log", **settings: Any) -> None:
        self.folder = folder / "srv"
        self.folder.mkdir()
        plain_files = f"app={self.folder}/{glob}"
        self.node = make(node="node-7", plain_files=plain_files, **settings)
        self.log = self.folder / "access.log"

    def write(self, data: bytes, name: str = "access.log") -> bytes:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        return self.node.write(self.folder / name, data)

    def rename(self, old: str, new: str) -> None:
        (self.folder / old).rename(self.folder / new)

    def compress(self, name: str) -> None:
        path = self.folder / name
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()

    def copytruncate(self, to: str = "access.log.1") -> None:
        shutil.copyfile(self.log, self.folder / to)
        os.truncate(self.log, 0)


@pytest.fixture
def plain(make: Make, tmp_path: Path) -> Plain:
    return Plain(make, tmp_path)


async def contents_once(node: Node) -> list[bytes]:
    """The contents that were sent, each byte of them once."""
    contents = content_of(await node.batches())
    assert sum(map(len, contents.values())) == await bytes_sent(node)
    return sorted(contents.values())


async def test_plain_files_are_streams_of_the_node(plain: Plain) -> None:
    node = plain.node
    content = plain.write(text(0, 5))
    await node.start()
    await node.pass_time()
    batches = await node.batches()
    assert list(content_of(batches).values()) == [content]
    (stream,) = {stream for batch in batches for stream in batch.files.values()}
    assert stream == Stream(NODE_NAMESPACE, "node-7", "node-7", "app", 0)
    (ranges,) = ranges_of(batches).values()
    assert {(r.format, r.open_before, r.open_after) for r in ranges} == {("plain", 0, 0)}


@pytest.mark.parametrize("names", [("1", "2"), ("20240301", "20240302")], ids=["numbers", "dates"])
@pytest.mark.parametrize("down", [False, True], ids=["running", "down"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
async def test_plain_files_are_followed_through_rename_and_gzip(
    plain: Plain, names: tuple[str, str], down: bool, packed: bool
) -> None:
    node = plain.node
    dated = names[0] > "2"
    contents = [plain.write(text(0, 50))]
    await node.start()
    await node.pass_time()
    for step in range(2):
        if down:
            await node.crash()
        contents[-1] += plain.write(text(100 * step + 60, 7))
        if dated:
            new = f"access.log-{names[step]}"
        else:
            if step and packed:
                plain.rename("access.log.1.gz", "access.log.2.gz")
            elif step:
                plain.rename("access.log.1", "access.log.2")
            new = "access.log.1"
        plain.rename("access.log", new)
        contents.append(plain.write(text(1000 * step + 5000, 9)))
        if not down:
            await node.pass_time()
        if packed:
            plain.compress(new)
        if down:
            await node.start()
        await node.pass_time(30)
    assert await contents_once(node) == sorted(contents)
    batches = await node.batches()
    assert {seal.crc for seal in seals_of(batches).values()} == {crc32(c) for c in contents[:2]}
    assert not gaps_of(batches)
    await node.crash()
    await node.start()
    await node.pass_time(30)
    assert await contents_once(node) == sorted(contents)


async def test_plain_files_that_begin_alike_are_files_of_their_own(plain: Plain) -> None:
    node = plain.node
    same = b"starting\n" * 100
    for name in ("a.log", "b.log", "a.log.1", "a.log-20240301"):
        plain.write(same, name)
    (plain.folder / "a.log.2.gz").write_bytes(gzip.compress(same))
    await node.start()
    await node.pass_time(30)
    plain.rename("b.log", "b.log.1")
    plain.write(same, "b.log")
    await node.pass_time(30)
    assert await contents_once(node) == [same] * 6
    names = {name for name, _ in content_of(await node.batches())}
    assert len(names) == 6
    await node.crash()
    plain.write(b"more\n", "b.log")
    await node.start()
    await node.pass_time(5)
    assert await contents_once(node) == sorted([same] * 5 + [same + b"more\n"])


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("regrown", [3, 100])
async def test_a_plain_file_that_is_copied_and_truncated_is_read_to_the_end_of_the_copy(
    plain: Plain, compress: bool, regrown: int
) -> None:
    node = plain.node
    first = plain.write(text(0, 50))
    await node.start()
    await node.pass_time()
    first += plain.write(text(50, 10))  # which only the copy has when the next scan looks
    plain.copytruncate()
    if compress:
        plain.compress("access.log.1")
    second = plain.write(text(1000, regrown))
    await node.pass_time(30)
    batches = await node.batches()
    assert sorted(content_of(batches).values()) == sorted([first, second])
    (gap,) = gaps_of(batches)  # what was written after the copy is known to nobody
    assert (gap.reason, gap.end_exact) == ("truncated", False)
    assert [seal.crc for seal in seals_of(batches).values()] == [crc32(first)]


async def test_a_copy_in_the_making_is_not_read_as_a_file(plain: Plain) -> None:
    node = plain.node
    first = plain.write(text(0, 5000))
    await node.start()
    await node.pass_time()
    for end in (0, 70_000, 150_000, len(first)):
        plain.folder.joinpath("access.log.1").write_bytes(first[:end])
        await node.pass_time(7)
    os.truncate(plain.log, 0)
    await node.pass_time(30)
    assert await contents_once(node) == [first]


async def test_a_truncation_does_not_give_an_epoch_a_second_time(plain: Plain) -> None:
    """The name stays the same, as do inode and first line, so the epoch must tell."""
    plain.node.settings = msgspec.structs.replace(plain.node.settings, gone_after_ms=5_000)
    node = plain.node
    contents = []
    await node.start()
    for number in range(5):
        contents.append(plain.write(b"begin\n" + text(100 * number, 9 - number)))
        await node.pass_time(15)
        if number == 3:
            await node.crash()
            await node.start()
        os.truncate(plain.log, 0)
    batches = await node.batches()
    assert len([gone for batch in batches for gone in batch.gone]) >= 2
    assert {epoch: content for (_, epoch), content in content_of(batches).items()} == dict(
        enumerate(contents)
    )


async def test_a_lost_checkpoint_sends_plain_files_again_under_the_same_names(plain: Plain) -> None:
    node = plain.node
    content = plain.write(text(0, 5))
    await node.start()
    await node.pass_time()
    await node.crash()
    shutil.rmtree(node.state)
    node.state.mkdir()
    await node.start()
    await node.pass_time()
    assert list(content_of(await node.batches()).values()) == [content]
    assert await bytes_sent(node) == 2 * len(content)


async def test_a_file_system_without_time_of_birth_does_with_inode_and_line(
    plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.files.content.birth_ns", lambda fd: None)
    node = plain.node
    contents = [plain.write(text(0, 5)), plain.write(text(10, 5), "b.log")]
    await node.start()
    await node.pass_time()
    await node.crash()
    contents[0] += plain.write(text(5, 5))
    await node.start()
    await node.pass_time()
    assert await contents_once(node) == sorted(contents)


def test_a_birth_is_what_the_file_system_says(tmp_path: Path) -> None:
    before = time.time_ns()
    with (tmp_path / "x").open("wb") as file:
        born = birth_ns(file.fileno())
        if born is not None:  # not every file system knows
            assert before - SECOND < born <= time.time_ns()
    with open("/proc/self/stat") as file:
        assert birth_ns(file.fileno()) is None


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        (
            "*.log",
            {"a.log": "", "a.log.1": "1", "a.log-20240301.gz": "20240301.gz", "-b-2.log": ""},
        ),
        ("a.*", {"a.log": "", "a.log.1": "1", "a.log-20240301.gz": "20240301.gz", "a.old": ""}),
        ("[!-a]*", {"c.gz": "gz", "é+(1).txt": ""}),
        ("?.old", {"a.old": ""}),
        ("**/*.log", {"x/y/z.log": "", "a.log": ""}),
        ("x/**/z.log", {"x/y/z.log": ""}),
        ("x/*/*", {"x/y/z.log": ""}),
        ("x/*", {}),
        ("none/*.log", {}),
        ("é*", {"é+(1).txt": ""}),
    ],
)
def test_a_pattern_finds_its_files_and_those_rotated_from_them(
    tmp_path: Path, glob: str, found: dict[str, str]
) -> None:
    everything = [
        "a.log", "a.log.1", "a.log-20240301.gz", "-b-2.log", "a.old", "c.gz", "x/y/z.log",
        "é+(1).txt", "a.log.swp", "a.log.1.tmp", "a.logs",
    ]  # fmt: skip
    for name in everything:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.log").symlink_to(tmp_path / "a.log")
    (tmp_path / "l").symlink_to(tmp_path / "x")
    os.mkfifo(tmp_path / "fifo.log")
    (tmp_path / os.fsdecode(b"- no text \xff")).touch()
    scan = Discovery(plain_roots(f"app={tmp_path}/{glob}", "n"), time.time_ns).scan()
    assert not scan.errors
    names = {str(each.path.relative_to(tmp_path)): each.rotated for each in scan.files}
    assert names.items() >= found.items()
    if not glob.startswith(("**", "a.*")):
        assert names == found


@pytest.fixture
def deep(make: Make, tmp_path: Path) -> Iterator[Plain]:
    """A node with plain files, and beside them more directories in each other than a path holds."""
    plain = Plain(make, tmp_path, "**/*.log")
    at = os.open(plain.folder, os.O_RDONLY)
    for _ in range(1_100):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    yield plain
    subprocess.run(["rm", "-r", plain.folder / "d"], check=True)  # Python's own way recurses


async def test_directories_too_deep_or_too_many_are_named_and_the_others_read(deep: Plain) -> None:
    plain = deep
    content = plain.write(text(0, 5))
    await plain.node.start()
    await plain.node.pass_time(30)
    assert await contents_once(plain.node) == [content]
    ((path, place),) = plain.node.collector.watch.errors.items()
    assert (str(path), "depth_max" in place.why) == (f"{plain.folder}{'/d' * 33}", True)
    limits = ScanLimits(directories_max=10)
    roots = plain_roots(f"app={plain.folder}/**/*.log", "n")
    few = Discovery(roots, time.time_ns, limits=limits).scan()
    assert [each.path for each in few.files] == [plain.log]
    ((path, place),) = few.errors.items()
    assert (str(path), "directories_max" in place.why) == (f"{plain.folder}{'/d' * 10}", True)


@pytest.mark.parametrize(
    "wrong", ["x", "=/a", "x=a/b", "x=/a//b", "x=/a/../b", "x=/**", "x=/[b-a]"]
)
def test_a_wrong_pattern_is_an_error_that_names_it(wrong: str) -> None:
    with pytest.raises(SettingError, match="plain_files"):
        plain_roots(f"ok=/a/*.log:{wrong}", "n")


async def test_a_file_that_two_patterns_name_is_read_once(make: Make, tmp_path: Path) -> None:
    plain = Plain(make, tmp_path, "*.log:b=" + str(tmp_path / "srv" / "acc*"))
    content = plain.write(text(0, 5))
    os.link(plain.log, plain.folder / "same.log")
    await plain.node.start()
    await plain.node.pass_time(9)
    assert await contents_once(plain.node) == [content]


async def test_a_link_among_plain_files_is_not_followed(plain: Plain, tmp_path: Path) -> None:
    content = plain.write(text(0, 5))
    plain.node.write(tmp_path / "secret", text(10, 5))
    (plain.folder / "secret.log").symlink_to(tmp_path / "secret")
    await plain.node.start()
    await plain.node.pass_time()
    assert await contents_once(plain.node) == [content]
