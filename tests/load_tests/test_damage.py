"""The sweep of damage: it sees what is altered and what ends, and finds neither in what is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from load_tests.damage import ALTERED, REFUSED, SAME, Stored, objects, sweep
from tests.real_parts.guard import ROOT

BEFORE = Path(__file__).parents[1] / "golden" / "before"
KINDS = ["checkpoint", "coverage", "ledger", "segment", "spool", "topic"]


def test_every_kind_of_what_is_stored_is_found() -> None:
    assert sorted({each.kind for each in objects(BEFORE)}) == KINDS


@pytest.mark.slow  # a process of its own: Delta Lake's library endures no fork behind its first use
def test_what_earlier_versions_have_written_is_never_altered() -> None:
    words = ["--data", str(BEFORE), "--stride", "211", "--objects", "1"]
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
