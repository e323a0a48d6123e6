"""The sweep of damage tells what was read altered from what was refused, and sees a death."""

import sys
from pathlib import Path

import pytest

from indexer.errors import SegmentDamaged
from load_tests import damage
from load_tests.damage import ALTERED, DEADLY, REFUSED, SAME, Refused, Stored, outcome, sweep


def refuse(error: Exception) -> object:
    raise error


def test_what_came_of_a_damaged_file_is_one_of_three() -> None:
    assert outcome(lambda: [1], [1]) == SAME
    assert outcome(lambda: [2], [1]) == ALTERED
    for error in (Refused("no"), SegmentDamaged("no")):
        assert outcome(lambda error=error: refuse(error), [1]) == REFUSED  # type: ignore[misc]
    with pytest.raises(KeyError):  # which no reader may raise
        outcome(lambda: refuse(KeyError("x")), [1])


def test_a_process_that_dies_is_counted_and_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abcdef")
    child = tmp_path / "child.py"
    child.write_text(
        "import os, sys\n"
        "for at in range(int(sys.argv[-2]), 6):\n"
        "    if at == 2: os.abort()\n"
        "    print('altered' if at == 4 else 'refused', flush=True)\n"
    )
    run = damage.subprocess.run  # type: ignore[attr-defined]

    def instead(words: list[str], **more: object) -> object:
        return run([sys.executable, str(child), *words[3:]], **more)

    monkeypatch.setattr(damage.subprocess, "run", instead)  # type: ignore[attr-defined]
    counts = sweep(Stored("segment", path), tmp_path, 1)
    assert counts == {REFUSED: 4, ALTERED: 1, DEADLY: 1}
    assert path.read_bytes() == b"abcdef"
