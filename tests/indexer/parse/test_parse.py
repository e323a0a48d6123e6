"""The parser against a slow one in plain Python, and what each rule promises."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from calendar import timegm
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.range import FORMATS, closed_cut, open_outputs
from indexer.kernels import cache_directory
from indexer.parse import parse as parse_module
from indexer.schema import LEVELS, OUTPUTS
from load_tests.generate import EVERYTHING, generate, row_bytes
from tests.indexer.pieces import Piece, Row, parsed, rows_of

ROOT = Path(parse_module.__file__).parents[2]


_HEAD = re.compile(
    rb"(?=[^ ]{1,63} )(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)"
    rb" (stdout|stderr) (F(?::[^ ]*)?|P(?=[ :])(?::[^ ]*)?)(?: (.*))?",
    re.DOTALL,
)
_CLAIM = re.compile(rb"[^ ]{0,63} (stdout|stderr) (P[ :])?")


_TIME = re.compile(rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")


def time_of(text: bytes) -> int | None:
    match = _TIME.fullmatch(text)
    return slow_time(match) if match else None


def slow_time(match: re.Match[bytes]) -> int | None:
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    nanos = int((match[7] or b"")[:9].ljust(9, b"0"))
    if second == 60:
        second, nanos = 59, 999_999_999
    east = 0
    if match[8] != b"Z":
        hours, minutes = int(match[8][1:3]), int(match[8][4:])
        if hours > 23 or minutes > 59:
            return None
        east = (hours * 60 + minutes) * 60 * (1 if match[8][:1] == b"+" else -1)
    try:
        at = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    seconds = timegm(at.timetuple()) - east
    return seconds * 10**9 + nanos if -(2**63) <= seconds * 10**9 < 2**63 - 10**9 else None


def slow_parse(piece: Piece) -> tuple[list[Row], int, int]:
    """Return (rows, lines, time of the last line that has one)."""
    rows: list[Row] = []
    lines = piece.data.split(b"\n")
    ended = lines[-1] == b""
    lines = lines[:-1] if ended else lines
    last, tails, offset = piece.previous_time_ns, piece.open_before, 0
    events: dict[str, Row] = {}
    for number, line in enumerate(lines):
        torn = piece.torn_before and number == 0
        match = None if torn else _HEAD.fullmatch(line)
        time = slow_time(match) if match else None
        if match is not None and time is not None:
            output = match[9].decode()
            row = events.pop(output, None)
            if row is None:
                rows.append(row := Row(time, "line", output, offset, False, b""))
            row.content += match[11] or b""
            bit = 1 << OUTPUTS.index(output)
            row.partial |= bool(tails & bit)
            tails &= ~bit
            if match[10][:1] == b"P":
                events[output] = row
            last = time
        else:
            source = "previous" if last else "read"
            when = last or piece.read_time_ns
            rows.append(row := Row(when, source, "unknown", offset, torn, line))
            claim = None if torn else _CLAIM.match(line)
            if claim:
                output = claim[1].decode()
                bit = 1 << OUTPUTS.index(output)
                tails = tails | bit if claim[2] else tails & ~bit
                if output in events:
                    events.pop(output).partial = True
        row.partial |= number == len(lines) - 1 and not ended
        offset += len(line) + 1
    for row in events.values():
        row.partial = True
    return rows, len(lines), last


times = st.sampled_from(
    [
        b"2023-01-29T08:42:09.706182947Z",
        b"2023-01-29T16:42:09.1+08:00",
        b"1969-12-31T23:59:59.9-00:00",
        b"2016-12-31T23:59:60.5Z",
        b"2024-02-29T00:00:00.1234567891234Z",
        b"2023-02-29T00:00:00Z",
        b"2023-01-01T24:00:00Z",
        b"0001-01-01T00:00:00Z",
        b"2023-01-01T00:00:00." + b"1" * 50 + b"Z",
        b"x",
        b"",
    ]
) | st.datetimes().map(lambda at: at.isoformat().encode() + b"Z")
outputs = st.sampled_from([b"stdout"] * 4 + [b"stderr"] * 3 + [b"stdin"])
tags = st.sampled_from([b"F"] * 4 + [b"P"] * 4 + [b"F:x", b"P:x:y", b"X", b"PF", b""])
contents = st.sampled_from(
    [b"", b"a", b" b ", b"\r", b"\0", b"\xff", b"\xe2\x82", b"\xac", b"stdout P"]
)
cri_lines = st.builds(lambda *parts: b" ".join(parts), times, outputs, tags, contents)
bare_lines = st.builds(lambda *parts: b" ".join(parts), times, outputs, tags)
junk = st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")) | contents
texts = st.lists(cri_lines | cri_lines | cri_lines | bare_lines | junk, max_size=12).map(
    lambda lines: b"".join(line + b"\n" for line in lines)
)


@given(texts, st.data())
def test_rows_are_those_of_a_slow_parser_wherever_the_text_is_cut(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    pieces = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        torn = start > 0 and text[start - 1 : start] != b"\n"
        before = text[: text.rfind(b"\n", 0, start) + 1]
        previous = data.draw(st.sampled_from([0, -5, 10**18]))
        pieces.append(Piece(text[start:end], open_outputs(before), torn, previous))
    rows = parsed(*pieces)
    found = rows_of(rows)
    for number, piece in enumerate(pieces):
        expected, lines, _ = slow_parse(piece)
        assert [row for at, row in found if at == number] == expected
        assert rows.lines[number] == lines == rows.rows[number] + rows.joined[number]
        assert rows.rows[number] == len(expected)
        stamps = [row.time_ns for row in expected] or [0]
        assert rows.first_time_ns[number] == min(stamps)
        assert rows.last_time_ns[number] == max(stamps)


@given(texts, st.data())
def test_rows_do_not_depend_on_where_the_collector_cuts(text, data):
    ends = [match.end() for match in re.finditer(b"\n", text)]
    cut = closed_cut(text[: data.draw(st.sampled_from([0, *ends]))])
    head = Piece(text[:cut])
    tail = Piece(text[cut:], previous_time_ns=slow_parse(head)[2])
    whole = [row for _, row in rows_of(parsed(Piece(text)))]
    parts = rows_of(parsed(head, tail))
    for piece, row in parts:
        row.offset += piece * cut
    assert [row for _, row in parts] == whole


def test_a_malformed_line_that_the_collector_takes_for_an_end_ends_the_event():
    head = b"2023-01-01T00:00:00Z stdout P a\n"
    tail = b"2023-01-01T00:00:00Z stdout X b\n2023-01-01T00:00:00Z stdout F c\n"
    assert closed_cut(head + tail[:32]) == 64
    assert parsed(Piece(head + tail)).partial.tolist() == [True, False, False]
    assert parsed(Piece(tail, open_before=1)).partial.tolist() == [False, False]


# What random bytes hardly ever are: characters that end or go on wrongly, next to some that do not.
torn_text = st.lists(
    st.sampled_from([b"a", b"\xc3", b"\xa4", b"\xe0", b"\xed", b"\x80", b"\xa0", b"\xf0", b"\xf4"])
    | st.characters(exclude_characters="\n", exclude_categories=["Cs"]).map(str.encode),
    max_size=9,
).map(b"".join)


@given(st.lists(torn_text | st.binary(max_size=9), max_size=9))
def test_bytes_that_are_no_text_are_kept(contents):
    lines = [b"2023-01-01T00:00:00Z stdout F " + c.replace(b"\n", b"") + b"\n" for c in contents]
    rows = parsed(Piece(b"".join(lines)))
    assert [row.content for _, row in rows_of(rows)] == [line[30:-1] for line in lines]
    replaced = [line[30:-1].decode("utf-8", "replace") for line in lines]
    assert rows.message.to_pylist() == replaced


def test_utf_8_is_told_from_other_bytes_as_python_does():
    seconds = (0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)
    ends = product(range(128, 256), seconds, (0x80, 0xC0), (0x7F, 0xBF))
    contents = [bytes(whole[:size]) for whole in ends for size in (1, 2, 3, 4)]
    lines = b"".join(b"2023-01-01T00:00:00Z stdout F %s\n" % content for content in contents)
    rows = parsed(Piece(lines))
    assert [row.content for _, row in rows_of(rows)] == contents
    assert rows.message.to_pylist() == [each.decode("utf-8", "replace") for each in contents]


FIRST = datetime.fromisoformat("1678-01-01")
LAST = datetime.fromisoformat("2262-01-01")


@given(st.datetimes(FIRST, LAST), st.integers(0, 999))
def test_a_time_is_exact_to_the_nanosecond(at, nanos):
    line = f"{at:%Y-%m-%dT%H:%M:%S.%f}{nanos:03}+05:30 stderr F x\n".encode()
    line = line.rjust(len("2023-01-01T00:00:00.000000000+05:30 stderr F x\n"), b"0")
    micros = timegm(at.timetuple()) * 10**6 + at.microsecond - 19_800 * 10**6
    rows = parsed(Piece(line))
    assert rows.time_ns.tolist() == [micros * 1000 + nanos]
    assert rows.first_time_ns.tolist() == rows.last_time_ns.tolist() == rows.time_ns.tolist()


def test_fragments_join_across_the_other_output_and_across_cut_characters():
    text = (
        b"2023-01-01T00:00:01Z stdout P \xe2\x82\n"
        b"2023-01-01T00:00:02Z stderr P one,\n"
        b"no header\n"
        b"2023-01-01T00:00:03Z stdout F \xac\n"
        b"2023-01-01T00:00:04Z stderr F two\n"
    )
    rows = parsed(Piece(text))
    assert rows.message.to_pylist() == ["€", "one,two", "no header"]
    assert rows.raw.null_count == 3
    assert (rows.lines[0], rows.rows[0], rows.joined[0]) == (5, 3, 2)
    assert not rows.partial.any()


def test_nothing_parses_to_no_rows():
    rows = parsed(Piece(b""), Piece(b""))
    assert len(rows.message) == len(rows.raw) == 0
    assert rows.lines.tolist() == rows.last_time_ns.tolist() == [0, 0]


def test_too_long_a_buffer_is_refused(monkeypatch):
    monkeypatch.setattr(parse_module, "DATA_BYTES_MAX", 4)
    with pytest.raises(ValueError, match="4 bytes in one parse, the maximum is 3"):
        parsed(Piece(b"abcd"))


@pytest.mark.parametrize(
    ("message", "level"),
    [
        ("16:42:09.705 INFO  o.c.OrderController#118", "info"),
        ("WARNING", "warn"),
        ("x ERROR", "error"),
        ("SEVERE: broken pipe", "error"),
        ("a notice, NOTICE", "info"),
        ("EMERG", "fatal"),
        ("the error of ERRORS in MY_ERROR and an Error", "unknown"),
        ("[error] 7#7: [INFO]", "error"),
        ("(error] [ error ]", "unknown"),
        ("DEBUG before ERROR", "debug"),
        ("x" * 251 + " INFO", "info"),
        ("x" * 252 + " INFO", "unknown"),
        ("x" * 252 + " ERRORS", "unknown"),
        ('time=1 level=warning msg="ERROR"', "warn"),
        ('lvl="crit"', "fatal"),
        ("severity=Information", "info"),
        ("formation mergency level=formation", "unknown"),
        ("level=", "unknown"),
        ("I0102 15:04:05.000000 1 main.go:1] ERROR", "info"),
        ("W0102 15:04:05.000000 1 main.go:1]", "warn"),
        ("E0102 15:04:05.000000 1 main.go:1]", "error"),
        ("F0102 15:04:05.000000 1 main.go:1]", "fatal"),
        ("W20260102 15:04:05.000000 1 main.cc:1] ERROR", "warn"),
        ("2026-01-02 15:04:05.000000 W | pkg/fileutil: ERROR", "warn"),
        ("2026-01-02 15:04:05.000000 C | etcdmain: x", "fatal"),
        ("2026-01-02T15:04:05.000+0000 I NETWORK  [conn1] x", "info"),
        ("2026-01-02T15:04:05.000+0000 X NETWORK  [conn1] x", "unknown"),
        ("Jan 25 05:19:46 unbound[1:0] info: start of service", "info"),
        ("Jan 25 05:19:46 app[1]: an error: none", "unknown"),
        ("error: no such file", "error"),
        ("Warning: deprecated", "warn"),
        ("an error: it is part of a text", "unknown"),
        ("error in a text", "unknown"),
        ("2026-01-02T15:04:05.000Z\twarn\tlogger.go:102\tx", "warn"),
        ("a\twarn b", "unknown"),
        ("5:03PM WRN Running", "warn"),
        ("5:03PM INF Running", "unknown"),
        ("cannot read /WEB-INF/web.xml", "unknown"),
        ("[15:04:05 WRN] x", "warn"),
        ("FATA[0000] x", "fatal"),
        ("G0102 15:04:05.000000 1 main.go:1]", "unknown"),
        ("I01x2 15:04:05.000000 1 main.go:1]", "unknown"),
        ('{"msg":"ERROR","level":"debug"}', "debug"),
        ('{"level": 30, "time": 1}', "info"),
        ('{"level":10}', "trace"),
        ('{"level":60}', "fatal"),
        ('{"level":61}', "unknown"),
        ('{"level":5}', "unknown"),
        ('{"log" : {"log.level" : "ERROR"}}', "error"),
        ('{"Level":"Information"}', "info"),
        ('{"msg":"\\"level\\":\\"error\\"","levelname":"CRITICAL"}', "fatal"),
        ('{"a":"level","severity":"WARNING"}', "warn"),
        ('{"level":"?","loglevel":"info"}', "info"),
        ('{"level":"', "unknown"),
        ('{"level"', "unknown"),
        ('{"x":"' + "y" * 4070 + '","lvl":"info"}', "info"),
        ('{"x":"' + "y" * 4096 + '","lvl":"info"}', "unknown"),
        ("{not JSON} FATAL", "fatal"),
        ("ÜINFO", "unknown"),
        ("", "unknown"),
        # Behind colour codes and a byte order mark.
        ("\x1b[2m2026-01-02T15:04:05.123Z\x1b[0;39m \x1b[32m INFO\x1b[0;39m started", "info"),
        ("\x1b[2m2026-01-02T15:04:05.125Z\x1b[0;39m \x1b[31mERROR\x1b[0;39m order lost", "error"),
        ("[\x1b[1;31mERROR\x1b[m] maven", "error"),
        ("[\x1b[33mwarn\x1b[39m] x", "warn"),
        ("\x1b[31merror\x1b[39m: winston", "error"),
        ("\x1b[36mlevel\x1b[0m=info msg=x", "info"),
        ("\x1b[36mINFO\x1b[0m[0001] started", "info"),
        ('{\x1b[34;1m"level"\x1b[0m:\x1b[32m"warn"\x1b[0m}', "warn"),
        ("\x1b[31", "unknown"),
        ("\x1b[", "unknown"),
        ("\ufeffERROR x", "error"),
        ('\ufeff{"level":"warn"}', "warn"),
        # .NET's console, Serilog.
        ("trce: Shop.Api[0]", "trace"),
        ("dbug: Shop.Api[0]", "debug"),
        ("fail: Shop.Api[0]", "error"),
        ("crit: Shop.Api[0]", "fatal"),
        ("15:04:05 fail: Shop.Api[0]", "error"),
        ("2026-01-02T15:04:05.000Z info: Shop.Api[0]", "info"),
        ("it will fail: x", "unknown"),
        ("[15:04:05 INF] x", "info"),
        ("[INF] x", "info"),
        ("[15:04:05 VRB] x", "trace"),
        ('{"@t":"2026-01-02T15:04:05Z","@l":"Error"}', "error"),
        # Apache.
        ("[Fri Jan 02 15:04:05.123456 2026] [core:error] [pid 31:tid 140] x", "error"),
        ("[Fri Jan 02 15:04:05.123456 2026] [:error] [pid 5688] x", "error"),
        ("[Fri Jan 02 15:04:05.123456 2026] [mpm_event:notice] [pid 1:tid 1] x", "info"),
        ("[Fri Jan 02 15:04:05.123456 2026] [proxy:trace2] [pid 1201] x", "trace"),
        ("[Fri Jan 02 15:04:05.123456 2026] [php7:warn] x", "warn"),
        ("[a b:error] x", "unknown"),
        # Syslog, PostgreSQL, Redis, MongoDB, PHP.
        ("<11>Jan  2 15:04:05 host app: x", "error"),
        ("<30>1 2026-01-02T15:04:05Z host app - - - x", "info"),
        ("<0>x", "fatal"),
        ("<191>x", "debug"),
        ("<192>x", "unknown"),
        ("<1234>x", "unknown"),
        ("<b>x", "unknown"),
        ("2026-01-02 15:04:05.000 UTC [1] LOG:  started", "info"),
        ("2026-01-02 15:04:05.000 UTC [1] me@db LOG:  x", "info"),
        ("2026-01-02 15:04:05.000 UTC [1] ERROR:  no relation", "error"),
        ("2026-01-02 15:04:05.000 UTC [1] DEBUG2:  x", "debug"),
        ("2026-01-02 15:04:05.000 UTC [1] STATEMENT:  select 1", "unknown"),
        ("LOG: x", "unknown"),
        ("1:M 02 Jan 2026 15:04:05.123 * Ready", "info"),
        ("1:C 02 Jan 2026 15:04:05.123 # WARNING x", "warn"),
        ("12:S 02 Jan 2026 15:04:05.123 . x", "debug"),
        ("12:X 02 Jan 2026 15:04:05.123 - x", "debug"),
        ("[7] 02 Jan 15:04:05.123 # x", "warn"),
        ("1:M 02 Jan 2026 15:04:05.123 ? Ready", "unknown"),
        ("1:M 2 Jan 2026 15:04:05.123 * x", "unknown"),
        ("1:M 02 Jan", "unknown"),
        ('{"t":{"$date":"2026-01-02T16:04:05.123+01:00"},"s":"W",  "c":"NETWORK"}', "warn"),
        ('{"t":{"$date":"2026-01-02T16:04:05.123+01:00"},"s":"D1", "c":"NETWORK"}', "debug"),
        ('{"t":{"$date":"2026-01-02T16:04:05.123+01:00"},"s":"F"', "fatal"),
        ('{"t":{"$date":"2026-01-02T16:04:05.123+01:00"},"s":"', "unknown"),
        ("PHP Fatal error:  Uncaught RuntimeException: x", "fatal"),
        ("PHP Warning:  x", "warn"),
        ("Parse error: x", "error"),
        ("[2026-01-02 15:04:05] local.ERROR: broken", "error"),
        ("[2026-01-02 15:04:05,123: ERROR/MainProcess] x", "error"),
        # Values, URLs, methods and quotes.
        ('192.0.2.7 "GET /logs?level=error&from=1 HTTP/1.1" 200', "unknown"),
        ("GET /logs?level=error", "unknown"),
        ("GET /logs?x=1&level=error", "unknown"),
        ('"GET /jobs?status=ERROR HTTP/1.1" 200', "unknown"),
        ("status=ERROR", "unknown"),
        ('status="ERROR"', "unknown"),
        ("ERROR=5 WARN=7", "unknown"),
        ('"TRACE / HTTP/1.1" 405', "unknown"),
        ("TRACE /x HTTP/1.1", "unknown"),
        ("TRACE entering f", "trace"),
        ('"2026-01-02","ERROR","x"', "error"),
        ('said "an ERROR" to INFO', "info"),
        ("LEVEL=info", "info"),
        ('{"request":"GET /logs?level=error HTTP/1.1","status":200}', "unknown"),
        ('{"message":"WARNING was raised before","level":400,"level_name":"ERROR"}', "error"),
        ('{"level":250}', "info"),
        ('{"level":099}', "unknown"),
        ('{"msg":"ERROR"}', "unknown"),
        ('{"request":{"level":"error"},"level":"info"}', "info"),
        ('{"a":[{"level":"warn"}]}', "warn"),
        ("{} ERROR", "unknown"),
        ("{ERROR}", "error"),
    ],
)
def test_the_level_is_read_from_the_text(message, level):
    rows = parsed(Piece(f"2023-01-01T00:00:00Z stdout F {message}\n".encode()))
    assert LEVELS[rows.level[0]] == level


@pytest.mark.parametrize("line_format", FORMATS)
def test_the_rows_of_generated_files_are_those_of_their_truth(tmp_path, line_format):
    truths = generate(tmp_path, pods=3, lines=300, kinds=EVERYTHING, line_format=line_format)
    for truth in truths:
        rows = parsed(Piece((tmp_path / truth.path).read_bytes(), format=line_format))
        found = [row for _, row in rows_of(rows)]
        digest = hashlib.sha256()
        for row in found:
            time_ns = row.time_ns if row.time_source == "line" else None
            output = None if row.output == "unknown" else row.output
            digest.update(row_bytes(time_ns, output, row.content))
        assert (int(rows.lines[0]), len(found)) == (truth.lines, truth.rows)
        assert digest.hexdigest() == truth.sha256


_COUNTED = """
import json, sys
from indexer.schema import SEGMENT_SCHEMA
from indexer.segment import conserve, tokens
from indexer.parse import parse
from indexer import compile
if sys.argv[1:] == ["all"]:
    compile.compile_kernels()
else:
    conserve.row_hashes(SEGMENT_SCHEMA.empty_table())
kernels = conserve._hash_strings, parse._parse_pieces, tokens._add_tokens, tokens._fill
stats = [kernel.stats for kernel in kernels]
hits = [sum(each.cache_hits.values()) for each in stats]
misses = [sum(each.cache_misses.values()) for each in stats]
print(json.dumps([hits, misses, str(stats[0].cache_path)]))
"""


def _counted(environ, folder, *words):
    """Return how often a new process has loaded and how often compiled each kernel, and where."""
    run = [sys.executable, "-W", "error", "-c", _COUNTED, *words]
    done = subprocess.run(run, env=environ, cwd=folder, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@pytest.mark.real
def test_a_second_start_compiles_nothing_even_where_only_the_temporary_directory_is_writable(
    tmp_path,
):
    for package in ("collector", "indexer"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
        # A file in the folder's place: not even root can write below it.
        (tmp_path / package / "__pycache__").touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environ = {
        "HOME": str(tmp_path / "indexer" / "__init__.py" / "home"),
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
    }
    starts = [_counted(environ, tmp_path) for _ in range(2)]
    assert [(hits[0], misses[0]) for hits, misses, _ in starts] == [(0, 1), (1, 0)]
    assert all(Path(cache).is_relative_to(temporary) for _, _, cache in starts)


@pytest.mark.real
def test_whoever_compiles_kernels_ahead_compiles_all_of_them():
    compiled_before = _counted(dict(os.environ), ROOT, "all")
    hits, misses, _ = _counted(dict(os.environ), ROOT, "all")
    assert (hits, misses) == ([1] * 4, [0] * 4), compiled_before


def test_kernels_are_kept_at_the_first_place_that_can_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environ = {"NUMBA_CACHE_DIR": str(blocked), "EVERYLINE_CACHE": str(tmp_path / "named")}
    assert cache_directory(environ, tmp_path / "package") == tmp_path / "named"
    assert cache_directory({}, tmp_path / "package") == tmp_path / "package"
    home = {"HOME": str(tmp_path)}
    assert cache_directory(home, blocked / "x") == tmp_path / ".cache" / "everyline"
    own = cache_directory({}, blocked)
    assert own == tmp_path / f"everyline-{os.geteuid()}"
    own.chmod(0o777)  # where others can write, somebody else's code may lie
    assert cache_directory({}, blocked) not in (own, blocked)
