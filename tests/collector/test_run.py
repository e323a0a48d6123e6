"""The real process: one a node, killed at any time, stopped in order."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from collector.errors import AnotherCollector, SettingError
from collector.run import main
from tests.collector.node import Node, content_of, gaps_of, lines, seals_of
from tests.real_parts.guard import free_port

pytestmark = pytest.mark.real  # each test starts processes

CODE = "import os, sys; from collector.run import main; sys.exit(main(sys.argv[1:], os.environ))"


def begin(node: Node, *more: str, port: int = 0) -> subprocess.Popen[str]:
    """Start ``everyline collector`` on the node's folders."""
    flags = [
        f"--roots={node.root}",
        f"--state={node.state}",
        f"--topic={node.topic_folder}",
        f"--listen=127.0.0.1:{port}",
        "--partitions=2",
        "--scan-interval-ms=20",
        "--flush-age-ms=20",
        "--checkpoint-interval-ms=20",
        *more,
    ]
    return subprocess.Popen([sys.executable, "-c", CODE, *flags], stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal and wait; what the process has said."""
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    return said


def test_ten_kills_while_files_grow_and_rotate_lose_nothing(tmp_path: Path) -> None:
    node = Node(tmp_path)
    paths = [node.file(pod=f"api-{i}") for i in range(3)]
    number = 0

    def grow(seconds: float, turn: int) -> None:
        nonlocal number
        until, step = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            step += 1
            for path in paths:
                node.write(path, lines(number, 40))
                number += 40
            if step % 12 == 0:
                path = paths[step // 12 % 3]
                path.rename(path.with_name(f"0.log.{turn:02}-{step:04}"))
                node.write(path, lines(number, 1))
                number += 1
            time.sleep(0.005)

    for turn in range(10):
        process = begin(node)
        grow(0.45 + 0.03 * turn, turn)
        end(process, signal.SIGKILL)
        grow(0.02, turn + 50)
    port = free_port()
    process = begin(node, "--seal-quiet-ms=100", port=port)
    has_read(port, files=len(paths))  # the rotated ones are sealed
    said = end(process, signal.SIGTERM)
    assert process.returncode == 0, said
    batches = asyncio.run(node.batches())
    assert not gaps_of(batches)
    expected = sorted(path.read_bytes() for path in node.root.glob("*/*/*"))
    assert sorted(content_of(batches).values()) == expected
    rotated = {path.stat().st_size for path in node.root.glob("*/*/0.log.*")}
    assert {seal.size for seal in seals_of(batches).values()} >= rotated


def test_a_stop_sends_what_was_read_and_the_next_start_sends_nothing_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write(node.file(), lines(0, 500))
    said = ""
    for _ in range(3):
        port = free_port()
        process = begin(node, "--flush-age-ms=60000", port=port)
        has_read(port, files=1)
        said = end(process, signal.SIGTERM)
        assert process.returncode == 0, said
    batches = asyncio.run(node.batches())
    assert [len(r.data) for b in batches for r in b.ranges] == [len(lines(0, 500))]
    assert '"everything_sent": true' in said


def test_a_second_collector_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    node = Node(tmp_path)
    port = free_port()
    process = begin(node, port=port)
    try:
        assert status(port, "/readyz", wait_s=10)["ready"]
        with pytest.raises(AnotherCollector, match="another collector uses"):
            main([f"--state={node.state}", "--listen=127.0.0.1:0"], {})
    finally:
        said = end(process, signal.SIGKILL)
    again = begin(node)
    time.sleep(1)
    assert again.poll() is None, said
    end(again, signal.SIGTERM)


def has_read(port: int, files: int) -> None:
    """Wait until a collector follows so many files and has read all that is in them."""
    until = time.monotonic() + 30
    found = status(port, "/status", wait_s=30)
    while (found.get("files"), found.get("unread_bytes")) != (files, 0):  # it has none at its start
        assert time.monotonic() < until, found
        time.sleep(0.05)
        found = status(port, "/status")


def status(port: int, path: str, wait_s: float = 0) -> dict:
    until = time.monotonic() + wait_s
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def test_its_page_shows_health_metrics_and_lag(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.write(node.file(), lines(0, 500))
    port = free_port()
    process = begin(node, port=port)
    try:
        assert status(port, "/readyz", wait_s=10)["process"] == "collector"
        assert status(port, "/healthz")["files"] == 1
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        for name in ("files", "unread_bytes", "unacked_bytes", "oldest_unacked_seconds"):
            assert f"everyline_collector_{name} " in text
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/other", timeout=5)
    finally:
        end(process, signal.SIGTERM)


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        (["--read-bytes=1"], {}, "read_bytes"),
        (["--read-bytes=many"], {}, "read_bytes"),
        ([], {"EVERYLINE_COLLECTOR_ROOT": "/x"}, "did you mean 'roots'"),
        (["--config=/nonexistent.toml"], {}, "cannot read settings"),
        (["--listen=nowhere"], {}, "cannot listen on"),
        (["--topic=http://x"], {}, "topic"),
    ],
)
def test_a_wrong_setting_is_named(
    tmp_path: Path, flags: list[str], environ: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingError, match=said):
        main([f"--state={tmp_path}/state", *flags], environ)
