"""What a benchmark measures with is what it was given: the same lines, as often as asked for."""

from itertools import islice
from pathlib import Path

import numpy as np

from load_tests.bench.logs import copy_logs, log_files, pieces, wrap_text
from load_tests.generate import generate
from tests.indexer.pieces import Piece, parsed


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


def test_other_text_is_wrapped_as_a_container_runtime_does_it(tmp_path: Path) -> None:
    texts = ["first", "", "x" * 40_000, "no newline at the end"]
    (tmp_path / "text" / "below").mkdir(parents=True)
    (tmp_path / "text" / "below" / "a.txt").write_text("\n".join(texts))
    wrap_text("plain", tmp_path / "text", tmp_path / "pods")
    (log,) = log_files([tmp_path / "pods"])
    assert log.parts[-3].startswith("plain_pod-0_")
    data = log.read_bytes()
    assert max(map(len, data.splitlines())) < 16_500
    rows = parsed(Piece(data))
    assert rows.message.to_pylist() == texts
    assert (np.diff(rows.time_ns) > 0).all()
    assert not rows.time_source.any()
    assert not rows.partial.any()
