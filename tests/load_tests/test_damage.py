"""The sweep of damage: it sees what is altered and what ends, and finds neither in what is read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from load_tests.damage import ALTERED, REFUSED, SAME, Stored, objects, sweep
from tests.real_parts.guard import ROOT

BEFORE = Path(__file__).parents[1] / "golden" / "before"
KINDS = ["checkpoint", "coverage", "ledger", "log", "segment", "spool", "streams", "topic"]


@pytest.fixture(scope="module")
def taken_over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of the version before, with the ledger that this one folds of it.

    In a process of its own: Delta Lake's library endures no fork behind its first use.
    """
    folder = tmp_path_factory.mktemp("stored") / "before"
    shutil.copytree(BEFORE, folder)
    place = ["--bucket", str(folder / "bucket"), "--cluster", "golden"]
    run = [sys.executable, "-m", "query_api.command.cli", "ledger", "--rebuild", *place]
    subprocess.run(run, cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-c", _KEPT, str(folder)], cwd=ROOT, check=True)
    return folder


# A checkpoint of the log, and the streams folded again: in the present way of writing.
_KEPT = """
import shutil, sys
from indexer.ledger.streams import StreamsTable
from indexer.store.open import open_bucket
from indexer.table.table import Table

bucket = open_bucket(sys.argv[1] + "/bucket")
table = Table(bucket, "golden")
table.write_checkpoint()
shutil.rmtree(sys.argv[1] + "/bucket/golden/streams")
StreamsTable(bucket, "golden").fold(table, table.version())
"""


def test_every_kind_of_what_is_stored_is_found(taken_over: Path) -> None:
    assert sorted({each.kind for each in objects(taken_over)}) == KINDS


@pytest.mark.slow
def test_what_earlier_versions_have_written_is_never_altered(taken_over: Path) -> None:
    words = ["--data", str(taken_over), "--stride", "211", "--objects", "1"]
    run = [sys.executable, "-m", "load_tests.damage", *words]
    done = subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    assert all(f"{kind}: " in done.stdout for kind in KINDS)
    assert REFUSED in done.stdout
    assert ALTERED not in done.stdout


def test_altered_answers_and_processes_that_end_are_told() -> None:
    def read(data: bytes) -> object:
        if data[2] != 2:
            os._exit(6)
        return data[:2]

    found = dict(sweep(Stored("segment", "x", bytes(range(5)), read), list(range(5))))
    assert found == {0: ALTERED, 1: ALTERED, 2: "ended by 6", 3: SAME, 4: SAME}
