"""What a benchmark measures with is what it was given: the same lines, as often as asked for."""

from itertools import islice
from pathlib import Path

from load_tests.bench.logs import copy_logs, log_files, pieces
from load_tests.generate import generate


def test_copies_hold_the_lines_as_often_as_asked_for_each_time_as_another_pod(
    tmp_path: Path,
) -> None:
    truths = generate(tmp_path / "given", pods=2, lines=50)
    given_bytes = sum(truth.bytes for truth in truths)
    logs = copy_logs([tmp_path / "given"], tmp_path / "logs", 3 * given_bytes)
    assert logs.raw_bytes == logs.raw.stat().st_size == 3 * given_bytes
    assert logs.lines == logs.raw.read_bytes().count(b"\n")
    copies = log_files([logs.root])
    assert logs.files == len(copies) == len({path.parts[-3] for path in copies}) == 6
    assert sum(path.stat().st_size for path in copies) == logs.raw_bytes


def test_pieces_are_whole_lines_in_order_and_begin_again(tmp_path: Path) -> None:
    generate(tmp_path / "given", pods=1, lines=50)
    logs = copy_logs([tmp_path / "given"], tmp_path / "logs", 0)
    found = b"".join(islice(pieces(logs, 300), 500))
    assert found.startswith(logs.raw.read_bytes())
    assert found.endswith(b"\n")
    assert len(found) > logs.raw_bytes
