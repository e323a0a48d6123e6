"""The demo's pods behave like a node's: lines, rotation, restarts, and one loss on purpose."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from query_api.local.demo import FRAGMENT_BYTES, Demo, cri_lines
from tests.real_parts.guard import ROOT

START_NS = 1_780_000_000 * 10**9
S = 10**9
LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{0,8}[1-9])?Z std(out|err) [PF] .*")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path, 1, START_NS)
    yield made
    made.close()


def run(demo: Demo, since_s: float, until_s: float) -> list[str]:
    """Step ten times a second; return the pods evicted."""
    steps = range(int(since_s * 10), int(until_s * 10))
    return [pod for step in steps if (pod := demo.step(START_NS + step * S // 10))]


def logs(directory: Path) -> dict[str, bytes]:
    files = sorted(directory.glob("*/*/*.log*"))
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_every_line_is_one_of_the_runtime_and_times_never_go_back(
    demo: Demo, tmp_path: Path
) -> None:
    run(demo, 0, 60)
    lines = 0
    for path, data in logs(tmp_path).items():
        assert data.endswith(b"\n"), path
        times = []
        for line in data.splitlines():
            assert LINE.fullmatch(line), line[:200]
            stamp = line.split(b" ")[0].rstrip(b"Z")
            whole, _, fraction = stamp.partition(b".")
            times.append(whole + b"." + fraction.ljust(9, b"0"))
        assert times == sorted(times), path
        lines += len(times)
    assert 20 < lines / 60 < 100


def test_the_same_seed_and_clock_give_the_same_bytes(demo: Demo, tmp_path: Path) -> None:
    run(demo, 0, 45)
    first = logs(tmp_path)
    shutil.rmtree(tmp_path)
    again = Demo(tmp_path, 1, START_NS)
    run(again, 0, 45)
    again.close()
    assert first == logs(tmp_path)


def test_services_log_what_such_services_log(demo: Demo, tmp_path: Path) -> None:
    run(demo, 0, 120)
    text = {path.split("_")[1].split("-")[0]: b"" for path in logs(tmp_path)}
    for path, data in logs(tmp_path).items():
        text[path.split("_")[1].split("-")[0]] += data
    assert set(text) == {"ledger", "checkout", "web", "ingress", "report"}
    orders = [line.split(b" F ", 1)[1] for line in text["checkout"].splitlines() if b"{" in line]
    assert any(json.loads(order)["msg"] == "order placed" for order in orders)
    assert b"\tat com.example.ledger" in text["ledger"]
    assert b" stdout P " in text["ledger"]
    assert b' HTTP/1.1" 200 ' in text["web"]
    assert b"level=error" in text["ingress"]


@pytest.mark.slow
def test_files_rotate_restart_and_stay_few(demo: Demo, tmp_path: Path) -> None:
    kept: list[str] = []
    for minute in range(10):
        demo.running(START_NS + minute * 60 * S)
        run(demo, minute * 60, minute * 60 + 60)
        kept = [path for path in logs(tmp_path) if path.startswith("platform_ingress")]
        assert len(kept) <= 7
    assert any(re.search(r"/0\.log\.\d{8}-\d{6}$", path) for path in kept)
    instances = [path for path in logs(tmp_path) if path.startswith("payments_ledger")]
    assert any(not path.split("/")[2].startswith("0.") for path in instances)
    assert len([path for path in logs(tmp_path) if path.startswith("batch_report")]) <= 10


@pytest.mark.slow
def test_nothing_is_deleted_while_the_collector_may_be_away(demo: Demo, tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}
    for second in range(0, 300, 10):
        run(demo, second, second + 10)
        now = logs(tmp_path)
        # A rename moves bytes to another name; no content may have gone.
        assert {data.split(b"\n")[0] for data in seen.values()} <= {
            data.split(b"\n")[0] for data in now.values()
        }
        seen = now


def test_an_evicted_pod_goes_with_lines_of_the_last_second_and_another_comes(
    demo: Demo, tmp_path: Path
) -> None:
    run(demo, 0, 10)
    (before,) = tmp_path.glob("payments_ledger-*")
    demo.evict(START_NS + 10 * S)
    assert run(demo, 10, 11) == []
    assert before.exists()
    (evicted,) = run(demo, 11, 13)
    (after,) = tmp_path.glob("payments_ledger-*")
    namespace, name, uid = before.name.split("_")
    assert evicted == f"{namespace}/{name}"
    assert after.name.split("_")[1] != name
    assert after.name.split("_")[2] != uid


def test_a_second_start_appends_to_the_files_of_the_first(demo: Demo, tmp_path: Path) -> None:
    run(demo, 0, 15)
    demo.close()
    first = logs(tmp_path)
    again = Demo(tmp_path, 1, START_NS + 100 * S)
    run(again, 100, 105)
    again.close()
    second = logs(tmp_path)
    assert set(second) == set(first)
    assert all(second[path].startswith(data) for path, data in first.items())
    assert sum(map(len, second.values())) > sum(map(len, first.values()))


def test_a_long_line_is_split_as_containerd_splits_it() -> None:
    lines = list(cri_lines(START_NS, "stdout", b"x" * (FRAGMENT_BYTES + 1)))
    assert [line.split(b" ")[2] for line in lines] == [b"P", b"F"]
    assert b"".join(line.split(b" ", 3)[3].rstrip(b"\n") for line in lines) == b"x" * 16_385


@pytest.mark.real
def test_the_process_ends_when_its_standard_input_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "query_api.local.demo", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, input=b"evict\nrunning\n", capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert logs(tmp_path)
