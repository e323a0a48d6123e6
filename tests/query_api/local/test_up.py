"""`everyline up` as a user meets it: real processes, a data directory, signals, what it prints."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from indexer.errors import BucketError
from load_tests.generate import Truth, generate
from query_api.local.supervise import CannotStart, last_words, one_line
from query_api.local.up import between_flags, main, settle_names
from query_api.times import parse_time
from tests.real_parts.guard import ROOT, free_port

pytestmark = pytest.mark.real  # each test starts processes

UP = "import os, sys; from query_api.command.cli import main; sys.exit(main(['up', *sys.argv[1:]]))"
QUICK_DEMO = (
    "import os, sys; from query_api.local.up import Rollout, main;"
    "sys.exit(main(sys.argv[1:], os.environ, Rollout(first_s=4, period_s=600)))"
)


class Up:
    """One supervisor under test; what it prints goes to a file."""

    def __init__(self, folder: Path, *flags: str, code: str = UP, **environ: str) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self._printed = folder / f"printed-{time.monotonic_ns()}"
        words = [sys.executable, "-c", code, "--data", str(self.data), "--port", str(self.port)]
        with self._printed.open("wb") as printed:
            self.process = subprocess.Popen(
                [*words, *flags],
                cwd=ROOT,
                stdout=printed,
                stderr=printed,
                env={**os.environ, **environ},
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def until(self, pattern: str, timeout_s: float = 40) -> "re.Match[str]":
        self.wait(lambda: re.search(pattern, self.printed), f"{pattern!r}", timeout_s)
        found = re.search(pattern, self.printed)
        assert found
        return found

    def wait(self, done: Callable[[], object], what: str, timeout_s: float = 40) -> None:
        end = time.monotonic() + timeout_s
        while not done():
            assert self.process.poll() is None, f"it ended before {what}:\n{self.printed}"
            assert time.monotonic() < end, f"no {what} in {timeout_s} s:\n{self.printed}"
            time.sleep(0.05)

    def ends(self, timeout_s: float = 20) -> int:
        return self.process.wait(timeout_s)

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.ends()

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "processes.json").read_text())
        return found

    def pids(self) -> dict[str, int]:
        return {p["name"]: p["pid"] for p in self.record()["processes"] if p["pid"]}

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return json.load(answer)

    def close(self) -> None:
        self.process.kill()  # its children go with it
        self.process.wait()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*flags: str, **more: str) -> Up:
        started.append(Up(tmp_path, *flags, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, list[Truth]]:
    return tmp_path / "logs", generate(tmp_path / "logs", pods=2, lines=500)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_given_logs_are_searchable_by_what_it_prints_and_a_second_start_goes_on(
    up: Callable[..., Up], logs: tuple[Path, list[Truth]]
) -> None:
    directory, truths = logs
    first = up("--logs", f"node-7={directory}")
    search = first.until(r"\n +(\S*everyline.* search .*)\n +\S*everyline.* gaps.*\n")[1]
    rows = sum(truth.rows for truth in truths)
    first.wait(lambda: first.get("/v1/status")["rows"] == rows, "row")
    assert "--from=2023-11-14T22:13:20." in search
    assert f"--url http://127.0.0.1:{first.port}" in search
    words = [
        sys.executable,
        "-m",
        "query_api.command.cli",
        *shlex.split(search.partition("everyline ")[2]),
    ]
    found = subprocess.run(
        [*words, "--limit", "2000", "--output", "ndjson"],
        cwd=ROOT, capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert found.stdout.count(b'"message"') == rows, found.stderr
    pids = first.pids()
    assert set(pids) == {"collector node-7", "indexer", "keeper", "query"}
    assert first.stop() == 0
    assert all(gone(pid) for pid in pids.values())
    assert first.pids() == {}

    ports = {p["name"]: p["url"] for p in first.record()["processes"] if p["name"] != "query"}
    with (first.data / "logs" / "indexer.log").open("a") as log:
        log.write('{"level": "warning", "message": "of the start before"}\n')
    second = up("--logs", f"node-7={directory}")
    second.until("are searchable")
    assert second.get("/v1/status")["rows"] == rows
    again = {p["name"]: p["url"] for p in second.record()["processes"] if p["name"] != "query"}
    assert again == ports
    assert second.stop(signal.SIGTERM) == 0
    assert "warning" not in first.printed + second.printed


def test_the_demo_loses_one_pod_on_purpose_and_names_exactly_that(up: Callable[..., Up]) -> None:
    demo = up(code=QUICK_DEMO)
    began = time.monotonic()
    demo.until("are searchable; try:")
    assert time.monotonic() - began < 30
    demo.wait(
        lambda: demo.get("/v1/search?namespace=shop&query=%22order+placed%22")["rows"], "order"
    )
    evicted = demo.until(r"demo: killed the collector and deleted payments/(\S+) unread: see")[1]
    demo.wait(lambda: demo.get("/v1/gaps")["gaps"], "gap")
    (gap,) = demo.get("/v1/gaps")["gaps"]
    assert (gap["namespace"], gap["pod"]) == ("payments", evicted)
    assert gap["end_exact"] is False
    replaced = [path.name.split("_")[1] for path in demo.data.glob("demo/pods/payments_ledger*")]
    assert replaced
    assert evicted not in replaced
    demo.wait(lambda: len(demo.pids()) == 5, "collector")
    pids = demo.pids()
    assert demo.stop() == 0
    assert all(gone(pid) for pid in pids.values())


def test_a_process_that_dies_is_restarted_and_none_outlives_the_supervisor(
    up: Callable[..., Up], logs: tuple[Path, list[Truth]]
) -> None:
    one = up("--logs", str(logs[0]))
    one.until("are searchable")
    before = one.pids()
    os.kill(before["indexer"], signal.SIGKILL)
    one.until(r"indexer ended, killed by SIGKILL; restarting in 0\.5 s, see \S+/logs/indexer\.log")
    one.wait(lambda: one.pids().get("indexer") not in (None, before["indexer"]), "new indexer")
    pids = one.pids()
    one.process.kill()
    one.process.wait()
    end = time.monotonic() + 10
    while not all(gone(pid) for pid in pids.values()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_busy_port_is_an_error_before_anything_starts(up: Callable[..., Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        one = up("--port", str(port))
        assert one.ends() == 1
    assert f"port {port} is in use" in one.printed
    assert "--port" in one.printed
    assert not (one.data / "processes.json").exists()
    assert not (one.data / "topic").exists()


def test_a_data_directory_has_one_supervisor(
    up: Callable[..., Up], logs: tuple[Path, list[Truth]]
) -> None:
    first = up("--logs", str(logs[0]))
    first.wait((first.data / "processes.json").exists, "process")
    second = up("--logs", str(logs[0]))
    assert second.ends() == 1
    assert "another `everyline up` uses" in second.printed
    assert first.process.poll() is None


def test_a_process_that_refuses_its_settings_stops_everything_with_its_message(
    up: Callable[..., Up], logs: tuple[Path, list[Truth]]
) -> None:
    one = up("--logs", str(logs[0]), EVERYLINE_INDEXER_FLUSH_AGE_MS="soon")
    assert one.ends(40) == 1
    assert "indexer does not start: everyline: setting of indexer:" in one.printed
    assert "flush_age_ms" in one.printed
    assert one.pids() == {}


# -- names -----------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("data", "a", "b"):
        (tmp_path / name).mkdir()
    return tmp_path / "data"


def test_names_are_kept_where_they_were_first_given(data: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    names, nodes = settle_names(data, [str(a), f"n2={b}"], "east", "n1")
    assert (names.cluster, nodes) == ("east", {"n1": [a], "n2": [b]})
    names, nodes = settle_names(data, [f"n2={b}"], None, None)
    assert (names.cluster, names.node, nodes) == ("east", "n1", {"n2": [b]})


def test_a_node_named_twice_is_one_collector_with_both_directories(
    data: Path, tmp_path: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    _, nodes = settle_names(data, [f"n={a}", f"n={b}"], None, None)
    assert nodes == {"n": [a, b]}


def test_a_node_goes_on_reading_what_it_read_before(data: Path, tmp_path: Path) -> None:
    settle_names(data, [], None, None)
    _, nodes = settle_names(data, [str(tmp_path / "a")], None, None)
    assert nodes == {"node-1": [data / "demo" / "pods", tmp_path / "a"]}


def test_a_data_directory_may_be_moved_with_its_demo(data: Path, tmp_path: Path) -> None:
    settle_names(data, [], None, None)
    moved = data.rename(tmp_path / "moved")
    assert settle_names(moved, [], None, None)[1] == {"node-1": [moved / "demo" / "pods"]}


@pytest.mark.parametrize(
    ("logs", "cluster", "says"),
    [
        (["n=a"], "other", "holds the cluster 'local'"),
        (["m=a"], None, "was read as node 'n' before"),
        (["n=missing"], None, "there is no directory"),
        (["no name=b"], None, "'no name' is no name for a node"),
    ],
)
def test_a_name_that_would_change_or_cannot_be_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    logs: list[str], cluster: str | None, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    settle_names(data, ["n=a"], None, None)
    with pytest.raises(CannotStart, match=re.escape(says)):
        settle_names(data, logs, cluster, None)


@pytest.mark.parametrize("name", ["pc%20t", "a[1]", "a|b"])
def test_a_data_directory_that_no_table_can_be_in_is_refused_at_once(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(BucketError, match=re.escape(name)):
        main(["--data", str(tmp_path / name)], {})
    assert list(tmp_path.iterdir()) == []


# -- what is said ----------------------------------------------------------------------------------


def test_a_time_range_is_printed_for_old_lines_only_and_takes_in_the_last() -> None:
    span = ("2023-01-29T08:42:09.000000001Z", "2023-01-29T09:00:00.999999999Z")
    now_ns = parse_time("2023-01-29T09:30:00Z", "now", 0)
    assert between_flags(span, now_ns) == []
    assert between_flags(span, now_ns + 3600 * 10**9) == [
        "--from=2023-01-29T08:42:09.000000001Z", "--to=2023-01-29T09:00:01Z"
    ]  # fmt: skip


def test_a_log_line_becomes_one_short_line_with_its_short_fields_first() -> None:
    line = {"time": "t", "level": "warning", "message": "lines\nare missing", "path": "/x" * 200}
    text = one_line("collector a", {**line, "start": 7})
    assert text.startswith("collector a: warning: lines are missing (start=7 path=/x")
    assert len(text) == 200


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"", ""),
        (b'{"message": "waiting", "error": "no topic"}\n', "waiting: no topic"),
        (b"Traceback (most recent call last):\nValueError: bad\n\n", "ValueError: bad"),
        (b'{"message": "died", "exception": "Trace\\nKeyError: 1"}', "died: KeyError: 1"),
    ],
)
def test_the_last_words_of_a_process_are_found(tmp_path: Path, log: bytes, words: str) -> None:
    (tmp_path / "log").write_bytes(b"of an earlier start\n" + log)
    assert last_words(tmp_path / "log", len(b"of an earlier start\n")) == words
