"""The checkpoint after torn writes, flipped bytes, kills and a full disk: old or new."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collector.errors import CheckpointError
from collector.files.checkpoint import Checkpoint, FileState, LaneState, Mark, load, save


def made(number: int, files: int = 1) -> Checkpoint:
    """A checkpoint whose every field follows from ``number``."""
    states = [
        FileState(
            file_id=bytes([i]) * 16,
            epoch=number,
            namespace="payments",
            pod="api-0",
            pod_uid="uid",
            container="api",
            restart=3,
            partition=1,
            path="/pods/payments_api-0_uid/api/3.log",
            acked=number,
            crc=number,
            lines=number,
            open_outputs=2,
            torn=True,
            tail=bytes(range(256)),
            spooled=Mark(number, 2, 3, 1, True, b"\n") if i % 2 else None,
            size=number,
            moved=True,
        )
        for i in range(files)
    ]
    return Checkpoint(
        run=number.to_bytes(16, "big"),
        partitions=[(0, 4), (number, 8)],
        spool=[(3, 5), (number + 9, number + 9)],
        scan_began_ns=number,
        lanes=[LaneState(1, number)],
        files=states,
    )


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    save(tmp_path, made(1))
    assert load(tmp_path) == made(1)
    save(tmp_path, made(2))
    assert load(tmp_path) == made(2)


def test_a_checkpoint_torn_at_any_byte_gives_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    whole = (tmp_path / "checkpoint").read_bytes()
    for end in range(len(whole)):
        (tmp_path / "checkpoint").write_bytes(whole[:end])
        assert load(tmp_path) == made(1), end


def test_a_flipped_byte_anywhere_gives_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    whole = (tmp_path / "checkpoint").read_bytes()
    for at in range(len(whole)):
        bad = bytearray(whole)
        bad[at] ^= 0x10
        (tmp_path / "checkpoint").write_bytes(bad)
        assert load(tmp_path) == made(1), at


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"everyline checkpoint 1 00000000\n{}"])
def test_two_damaged_checkpoints_are_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    for name in ("checkpoint", "checkpoint.previous"):
        (tmp_path / name).write_bytes(content)
    assert load(tmp_path) is None


def test_a_crash_between_the_two_renames_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, made(1))
    save(tmp_path, made(2))
    os.replace(tmp_path / "checkpoint", tmp_path / "checkpoint.previous")
    (tmp_path / "checkpoint.tmp").write_bytes(b"half")
    assert load(tmp_path) == made(2)
    save(tmp_path, made(3))
    assert load(tmp_path) == made(3)


def test_another_version_is_named_and_not_taken_for_damage(tmp_path: Path) -> None:
    from collector.checksum import crc32

    body = b'{"run": 5}'
    (tmp_path / "checkpoint").write_bytes(b"everyline checkpoint 1 %08x\n" % crc32(body) + body)
    with pytest.raises(CheckpointError, match="written by another version"):
        load(tmp_path)


def test_a_state_directory_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(CheckpointError, match="cannot read"):
        load(tmp_path)


SAVING = """
import sys
from pathlib import Path
from collector.files.checkpoint import Checkpoint, LaneState, load, save
directory = Path(sys.argv[1])
number = (load(directory) or Checkpoint()).scan_began_ns
while True:
    number += 1
    save(directory, Checkpoint(scan_began_ns=number, lanes=[LaneState(i, i) for i in range(999)]))
    print(number, flush=True)
"""


@pytest.mark.real
def test_kill_9_while_saving_never_goes_back_behind_what_was_saved(tmp_path: Path) -> None:
    last = 0
    for turn in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", SAVING, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.01 + 0.007 * turn)
        child.send_signal(signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().split("\n")[:-1]]
        child.wait()
        child.stdout.close()
        found = load(tmp_path)
        assert found is not None
        assert found.scan_began_ns >= max([last, *said])
        assert len(found.lanes) == 999
        last = found.scan_began_ns


FULL = """
import resource, signal, sys
from pathlib import Path
from collector.files.checkpoint import Checkpoint, LaneState, load, save
directory = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save(directory, Checkpoint(scan_began_ns=1))
save(directory, Checkpoint(scan_began_ns=2))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (0, 1, 40, 3000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        save(directory, Checkpoint(scan_began_ns=3, lanes=[LaneState(i, i) for i in range(999)]))
    except OSError as error:
        print(error.errno, load(directory).scan_began_ns, (directory / "checkpoint.tmp").exists())
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
save(directory, Checkpoint(scan_began_ns=4))
print(load(directory).scan_began_ns)
"""


@pytest.mark.real
def test_a_disk_that_is_full_keeps_the_last_checkpoint_and_no_rest(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *full, after = done.stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in full] == ["2 False"] * 4
    assert after == "4"
