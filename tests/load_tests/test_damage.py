"""The sweep of damage: it sees what is altered and what ends, and finds neither in what is read."""

import os
from pathlib import Path

import pytest

from load_tests.damage import ALTERED, REFUSED, SAME, Stored, main, objects, sweep

BEFORE = Path(__file__).parents[1] / "golden" / "before"
KINDS = ["checkpoint", "coverage", "ledger", "segment", "spool", "topic"]


def test_every_kind_of_what_is_stored_is_found() -> None:
    assert sorted({each.kind for each in objects(BEFORE)}) == KINDS


def test_what_earlier_versions_have_written_is_never_altered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--data", str(BEFORE), "--stride", "211", "--objects", "1"]) == 0
    said = capsys.readouterr().out
    assert all(f"{kind}: " in said for kind in KINDS)
    assert REFUSED in said
    assert ALTERED not in said


def test_altered_answers_and_processes_that_end_are_told() -> None:
    def read(data: bytes) -> object:
        if data[2] != 2:
            os._exit(6)
        return data[:2]

    found = dict(sweep(Stored("segment", "x", bytes(range(5)), read), list(range(5))))
    assert found == {0: ALTERED, 1: ALTERED, 2: "ended by 6", 3: SAME, 4: SAME}
