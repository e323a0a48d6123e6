"""The generator's truth is true: a slow, plain reader of the files finds what it says."""

import hashlib
import random
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from load_tests.generate import (
    EVERYTHING,
    FRAGMENT_BYTES,
    MAKERS,
    MALFORMED,
    TORN,
    File,
    Truth,
    Writer,
    cri_time,
    generate,
    read_truth,
    row_bytes,
)
from tests.real_parts.guard import ROOT

LINE = re.compile(
    rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z (stdout|stderr) ([PF]) (.*)", re.DOTALL
)


def rows(data: bytes) -> list[tuple[int | None, str | None, bytes]]:
    """What a file gives: fragments joined per output, at the place of the first."""
    found: list[tuple[int | None, str | None, bytes]] = []
    open_rows: dict[str, int] = {}
    for line in data.removesuffix(b"\n").split(b"\n"):
        match = LINE.fullmatch(line)
        try:
            assert match
            whole = datetime.fromisoformat(match[1].decode()).replace(tzinfo=UTC)
        except (AssertionError, ValueError):
            found.append((None, None, line))
            continue
        time_ns = int(whole.timestamp()) * 10**9 + int((match[2] or b"").ljust(9, b"0"))
        output = match[3].decode()
        if output not in open_rows:
            open_rows[output] = len(found)
            found.append((time_ns, output, b""))
        row = found[open_rows[output]]
        found[open_rows[output]] = (row[0], row[1], row[2] + match[5])
        if match[4] == b"F":
            del open_rows[output]
    assert not open_rows
    return found


def check(out: Path, truth: Truth) -> None:
    data = (out / truth.path).read_bytes()
    found = rows(data)
    assert truth.bytes == len(data)
    assert truth.lines == data.count(b"\n") + (not data.endswith(b"\n"))
    assert truth.rows == len(found)
    assert truth.sha256 == hashlib.sha256(b"".join(row_bytes(*row) for row in found)).hexdigest()


def test_the_truth_agrees_with_a_plain_reading_of_the_files(tmp_path: Path) -> None:
    truths = generate(tmp_path, pods=3, lines=800, kinds=EVERYTHING)
    assert truths == read_truth(tmp_path)
    for truth in truths:
        check(tmp_path, truth)
        assert set(truth.kinds) == {*MAKERS, MALFORMED, TORN}
        assert truth.rows < truth.lines


def test_the_files_lie_as_the_kubelet_lays_them(tmp_path: Path) -> None:
    generate(tmp_path, pods=2, lines=5)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.log"))
    assert len(found) == 2
    for number, path in enumerate(found):
        assert re.fullmatch(rf"space-{number}_pod-{number}_[0-9a-f-]{{36}}/main/0\.log", path)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (
        generate(tmp_path / name, pods=1, lines=200, kinds=EVERYTHING, seed=seed)
        for name, seed in (("first", 7), ("again", 7), ("other", 8))
    )
    assert first == again
    assert first[0].sha256 != other[0].sha256


@pytest.mark.parametrize(
    ("size", "tags"),
    [
        (0, "F"),
        (FRAGMENT_BYTES - 1, "F"),
        (FRAGMENT_BYTES, "F"),
        (FRAGMENT_BYTES + 1, "PF"),
        (2 * FRAGMENT_BYTES, "PF"),
        (2 * FRAGMENT_BYTES + 1, "PPF"),
    ],
)
def test_a_message_is_split_where_the_runtime_splits_it(size: int, tags: str) -> None:
    file = File("x", random.Random(1), {})
    file.event(10**18, "stdout", b"x" * size)
    lines = file.take().splitlines()
    assert "".join(line.split(b" ")[2].decode() for line in lines) == tags
    assert file.truth.rows == 1


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (1_700_000_000_000_000_000, b"2023-11-14T22:13:20Z"),
        (1_700_000_000_100_000_000, b"2023-11-14T22:13:20.1Z"),
        (1_700_000_000_000_000_001, b"2023-11-14T22:13:20.000000001Z"),
    ],
)
def test_a_time_has_no_zeros_at_its_end(time_ns: int, text: bytes) -> None:
    assert cri_time(time_ns) == text


def test_a_writer_rotates_by_rename_and_its_truth_follows(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 0, rotate_bytes=20_000, keep=100, seed=1)
    for tick in range(40):
        writer.write(10**18 + tick * 10**9, 50)
    writer.close()
    assert len(writer.truths) > 2
    messages = []
    for truth in writer.truths:
        check(tmp_path, truth)
        messages += [message for _, _, message in rows((tmp_path / truth.path).read_bytes())]
    assert [int(message.split()[0]) for message in messages] == list(range(2000))


def test_a_writer_keeps_as_many_rotated_files_as_it_is_told(tmp_path: Path) -> None:
    writer = Writer(tmp_path, 0, rotate_bytes=1, keep=2, seed=1)
    for tick in range(6):
        writer.write(10**18 + tick, 3)
    writer.close()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("0.log*")}
    assert left == {truth.path for truth in writer.truths[-3:]}
    assert len(writer.truths) == 7


@pytest.mark.real
@pytest.mark.parametrize("early", [False, True])
def test_the_process_writes_the_truth_at_its_end_and_on_sigterm(
    tmp_path: Path, early: bool
) -> None:
    command = [sys.executable, "-m", "load_tests.generate", "--out", str(tmp_path), "--pods", "2"]
    command += ["--seconds", "60" if early else "0.5", "--rotate-bytes", "30000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        if early:
            while not list(tmp_path.rglob("0.log.*")):
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert b"wrote " in output
    truths = read_truth(tmp_path)
    assert sum(truth.rows for truth in truths) > 20
    assert {truth.path for truth in truths} == {
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("0.log*")
    }
    for truth in truths:
        if truth.rows:
            check(tmp_path, truth)
