"""The command against a real service process, as a user has both."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from indexer.times import format_time
from tests.query_api.written import CLUSTER, SECOND, Line, Written

pytestmark = pytest.mark.real  # each test starts processes

CLI = [sys.executable, "-m", "query_api.command.cli"]


def everyline(*words: str, url: str = "", **more) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "EVERYLINE_URL": url}
    return subprocess.run(
        [*CLI, *words], capture_output=True, text=True, timeout=60, env=environ, check=False, **more
    )


@pytest.fixture
def service(written, request: pytest.FixtureRequest):
    """The URL of a service process over the table; a parameter says where it listens."""
    bucket = written.bucket.uri
    listen = getattr(request, "param", "127.0.0.1:0")
    flags = ["--bucket", bucket, "--cluster", CLUSTER, "--listen", listen]
    process = subprocess.Popen(
        [*CLI, "query", *flags, "--refresh-ms", "50"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    listening = json.loads(process.stderr.readline())
    yield f"http://{listening['address']}"
    process.send_signal(signal.SIGTERM)
    log = process.communicate(timeout=30)[1]
    assert process.returncode == 0, log
    assert [json.loads(line)["message"] for line in log.splitlines()] == ["stopped"]


@pytest.fixture
def now_ns() -> int:
    return time.time_ns() - 10 * SECOND


def test_a_search_prints_rows_in_the_order_of_time(written: Written, service, now_ns):
    written.ship(Line(now_ns, "INFO one"), Line(now_ns + 1, "no \x1b[31mcolour\x07"))
    written.inventory(now_ns + SECOND)
    done = everyline("search", "--to", format_time(now_ns + SECOND), url=service)
    assert done.stdout.splitlines() == [
        f"{format_time(now_ns)}  api-1/app  info   INFO one",
        f"{format_time(now_ns + 1)}  api-1/app  -      no \\x1b[31mcolour\\x07",
    ]
    assert done.stderr.startswith("complete: complete until ")
    assert done.returncode == 0


def test_a_time_before_now_is_no_flag(written: Written, service, now_ns):
    written.ship(Line(now_ns, "INFO one"))
    done = everyline("search", "--from", "-15m", "--to", "-1s", "one", url=service)
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["one"]


def test_the_exit_code_tells_that_lines_may_be_missing(written: Written, service, now_ns):
    written.ship(Line(now_ns, "one"))
    for output in ("text", "json", "ndjson"):
        done = everyline("search", "one", "-o", output, url=service)
        assert done.returncode == 3, done.stderr
        assert "one" in done.stdout
    assert everyline("gaps", url=service).returncode == 3


def test_json_and_ndjson_are_what_the_service_answers(written: Written, service, now_ns):
    written.ship(Line(now_ns, "one"), Line(now_ns + 1, "two"))
    answer = json.loads(everyline("search", "-o", "json", url=service).stdout)
    assert [row["message"] for row in answer["rows"]] == ["two", "one"]
    records = everyline("search", "-o", "ndjson", "--order", "asc", url=service).stdout
    header, *rows, last = map(json.loads, records.splitlines())
    assert header["version"] == answer["version"]
    assert [row["message"] for row in rows] == ["one", "two"]
    assert last["completeness"]["verdict"] == "unknown"
    streams = everyline("streams", "-o", "ndjson", url=service).stdout.splitlines()
    assert json.loads(streams[0])["pod"] == "api-1"
    assert "completeness" in json.loads(streams[-1])


def test_a_bad_query_is_shown_with_its_column(written: Written, service):
    done = everyline("search", "ok", "level:eror", url=service)
    assert done.returncode == 2
    assert done.stdout == ""
    shown = done.stderr.splitlines()
    assert shown[0] == "everyline: level 'eror' is none at column 10"
    assert shown[1] == "  ok level:eror"
    assert shown[2] == "           ^"
    assert everyline("search", "--level", "loud", url=service).returncode == 2
    assert everyline("search", "--no-such-flag", url=service).returncode == 2


def test_gaps_streams_and_status_are_tables(written: Written, service, now_ns):
    line = Line(now_ns, "one")
    written.ship(line)
    written.now_ns = now_ns
    written.lose(line.stream, 500, True, now_ns, now_ns + 1)
    written.inventory(now_ns + SECOND)
    done = everyline("gaps", url=service)
    assert "LOST_ROTATED" in done.stdout
    assert "node-1 shop/api-1/app" in done.stdout
    assert f"bytes {len(line.bytes)}..500" in done.stdout
    assert done.returncode == 3
    done = everyline("streams", url=service)
    assert done.stdout.splitlines()[0].split()[:2] == ["NODE", "STREAM"]
    assert "shop/api-1/app" in done.stdout
    done = everyline("status", url=service)
    assert "open gaps: 1" in done.stdout
    assert done.returncode == 3


def test_a_service_that_is_not_there_is_one_line_of_error():
    done = everyline("status", url="http://127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("everyline: cannot reach the query service at http://127.0.0.1:1")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_error(written: Written, service, now_ns):
    written.ship(*(Line(now_ns + n, "x" * 1000) for n in range(1_000)))
    environ = {**os.environ, "EVERYLINE_URL": service}
    words = [*CLI, "search", "--limit", "1000"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert "Broken" not in said
    assert "unknown" in said  # the verdict is told all the same, and is the exit code
    assert process.returncode == 3


def test_follow_prints_each_new_line_once(written: Written, service):
    begin_ns = time.time_ns()
    written.ship(Line(begin_ns, "first"))
    environ = {**os.environ, "EVERYLINE_URL": service}
    process = subprocess.Popen(
        [*CLI, "search", "--follow", "-o", "ndjson"], stdout=subprocess.PIPE, text=True, env=environ
    )
    lines = process.stdout
    assert lines is not None
    printed: list[str] = []
    reader = threading.Thread(
        target=lambda: printed.extend(json.loads(line)["message"] for line in lines)
    )
    reader.start()
    try:
        wait_for(printed, ["first"])
        written.ship(Line(time.time_ns(), "second"), Line(begin_ns + 1, "late", pod="slow"))
        wait_for(printed, ["first", "late", "second"])
        written.inventory(time.time_ns())
        written.ship(Line(begin_ns + 2, "later", pod="slower"))
        wait_for(printed, ["first", "late", "second", "later"])
        written.inventory(time.time_ns())
        written.ship(Line(time.time_ns(), "third"))
        wait_for(printed, ["first", "late", "second", "later", "third"])
        time.sleep(1.5)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
        reader.join()
        lines.close()
    assert (code, printed) == (0, ["first", "late", "second", "later", "third"])


def wait_for(printed: list[str], expected: list[str]) -> None:
    until = time.monotonic() + 20
    while printed != expected:
        assert time.monotonic() < until, printed
        time.sleep(0.05)


@pytest.mark.parametrize("service", ["[::1]:0", "localhost:0"], indirect=True)
def test_the_service_is_asked_at_addresses_of_both_families(written: Written, service):
    written.ship(Line(time.time_ns(), "over there"))
    for done in (
        everyline("search", "there", "-o", "ndjson", url=service),
        everyline("search", "there", "-o", "ndjson", "--url", service),
    ):
        assert "over there" in done.stdout, done.stderr


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_the_service_refuses_an_address_that_others_can_reach(tmp_path, listen: str):
    done = everyline("query", "--listen", listen, "--bucket", str(tmp_path))
    assert done.returncode == 1
    assert "can be reached from other machines" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_and_version_say_what_there_is():
    shown = everyline("--help").stdout
    for word in ("collector", "indexer", "keeper", "query", "up", "search", "gaps", "status"):
        assert word in shown
    assert everyline("--version").stdout.startswith("everyline 0.")
    assert everyline().returncode == 2


def test_starting_a_collector_loads_no_heavy_library():
    code = (
        "import sys\n"
        "from query_api.command.cli import main\n"
        "try: main(['collector', '--help'], {})\n"
        "except SystemExit: pass\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(json.loads(done.stderr.replace("'", '"')))
    assert "collector" in loaded
    assert not loaded & {"fastapi", "pyarrow", "pydantic", "numpy", "deltalake", "boto3", "numba"}
