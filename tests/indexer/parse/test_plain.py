"""Times of plain lines, guessed and described, against Python's datetime."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import SettingError
from indexer.parse.described_time import GUESSING, PlainTimes
from tests.indexer.pieces import Piece, Row, parsed, rows_of, table

AT = datetime(2026, 1, 2, 15, 4, 5, 123456, UTC)
SECOND = AT.replace(microsecond=0)
READ_NS = 1_767_369_999 * 10**9  # 2026-01-02T16:06:39Z


def ns_of(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def times(*lines: str, plain_times: PlainTimes = GUESSING, container: str = "app") -> list[int]:
    """Return the time of each line, 0 where it is none of its own."""
    data = "".join(f"{line}\n" for line in lines).encode()
    piece = Piece(data, format="plain", read_time_ns=READ_NS, container=container)
    rows = rows_of(parsed(piece, plain_times=plain_times))
    assert [row.content.decode() for _, row in rows] == list(lines)
    return [row.time_ns if row.time_source == "line" else 0 for _, row in rows]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2026-01-02T15:04:05.123456Z x", AT),
        ("2026-01-02T15:04:05.123456+01:00", AT - timedelta(hours=1)),
        ("2026-01-02 15:04:05,123456 INFO x", AT),
        ("[2026-01-02 15:04:05.123456] x", AT),
        ("2026-01-02 15:04:05.123456 +0100 x", AT - timedelta(hours=1)),
        ("2026-01-02 15:04:05.123456+01 x", AT - timedelta(hours=1)),
        ("2026-01-02 15:04:05.123456 UTC [1] x", AT),
        ("2026/01/02 15:04:05.123456 [error] x", AT),
        ("time=2026-01-02T15:04:05.123456Z level=info", AT),
        ('ts="2026-01-02T15:04:05.123456Z" level=info', AT),
        ("I0102 15:04:05.123456       1 main.go:1] x", AT),
        ("Jan  2 15:04:05.123456 host app[1]: x", AT),
        ("<34>1 2026-01-02T15:04:05.123456Z host app", AT),
        ("<34>Jan  2 15:04:05.123456 host app", AT),
        ("[Fri Jan 02 15:04:05.123456 2026] [error] x", AT),
        ("02-Jan-2026 15:04:05.123456 INFO [main]", AT),
        ("1767366245.123456 x", AT),
        ("1767366245123456 x", AT),
        ('{"level":"info","ts":1767366245.123456,"msg":"x"}', AT),
        ('{"a":"time","time": "2026-01-02T15:04:05.123456Z"}', AT),
        ('{"timestamp":1767366245123456}', AT),
        ('{"@timestamp":"2026-01-02T16:04:05.123456+01:00"}', AT),
        ('{"ts":"no time","time":"2026-01-02T15:04:05.123456"}', AT),
        (
            '10.0.0.1 - me [02/Jan/2026:16:04:05 +0100] "GET / HTTP/1.1" 200 5',
            AT.replace(microsecond=0),
        ),
        ("Jan  3 15:04:05 within a day of reading", AT.replace(day=3, microsecond=0)),
        ("Jan  4 15:04:05 of the year before", AT.replace(2025, day=4, microsecond=0)),
        # A zone or half of the day before the year, as `date` and ctime have it.
        ("Fri Jan  2 15:04:05 UTC 2024 x", SECOND.replace(2024)),
        ("Fri Jan  2 16:04:05 +01 2024", SECOND.replace(2024)),
        ("Fri Jan  2 03:04:05 PM UTC 2024 x", SECOND.replace(2024)),
        ("Fri Jan  2 15:04:05 CET 2024", SECOND.replace(2024)),
        ("Tue Jan  2 15:04:05 2024", SECOND.replace(2024)),
        ("Jan  2 15:04:05 UTC: 2024 is a message", SECOND),
        ("Jan  2 15:04:05 host 2024 is a message", SECOND),
        ("Jan  2 15:04:05 2001 files copied", SECOND),
        ("Jan  2 15:04:05 HTTP 2000 requests", SECOND),
        ("[Jan  2 15:04:05 2024] x", SECOND.replace(2024)),
        ("Jan  2 15:04:05 2024", SECOND.replace(2024)),
        ("Jan  2 15:04:05 -0500 items", SECOND),
        ("Jan  2 16:04:05 +0100 2024", SECOND.replace(2024)),
        ("Jan  2 12:04:05 AM host", SECOND.replace(hour=0)),
        ("Jan 2, 2024 3:04:05 PM com.example.Main run", SECOND.replace(2024)),
        ("Jan 02, 2024 15:04:05 x", SECOND.replace(2024)),
        ("[Tue Jan 02 2024 16:04:05 GMT+0100 (CET)] INFO x", SECOND.replace(2024)),
        ("Tue, 02 Jan 2024 15:04:05 GMT x", SECOND.replace(2024)),
        ("Tue, 2 Jan 2024 16:04:05 +0100", SECOND.replace(2024)),
        ("2 Jan 2024 15:04:05 x", SECOND.replace(2024)),
        ("02.01.2024 15:04:05 x", SECOND.replace(2024)),
        ("1:M 02 Jan 2026 15:04:05.123456 * Ready", AT),
        ("I20260102 15:04:05.123456       1 main.cc:1] x", AT),
        ("20260102T150405.123456Z x", AT),
        ("20260102-16:04:05.123456 +0100 x", AT),
        ("2026.01.02 15:04:05.123456 x", AT),
        ("2026-01-02_15:04:05.123456 x", AT),
        ("2026-01-02 03:04:05.123456 PM x", AT),
        ("INFO 2026-01-02 15:04:05,123456 module", AT),
        ("[INFO ] [2026-01-02 15:04:05,123456] x", AT),
        ("I, [2026-01-02T15:04:05.123456 #7]  INFO -- : x", AT),
        ("\x1b[32m2026-01-02 15:04:05.123456\x1b[0m x", AT),
        ("level=info ts=2026-01-02T15:04:05.123456Z caller=x", AT),
        ("t=2026-01-02T15:04:05.123456Z lvl=info", AT),
        ('{"t":{"$date":"2026-01-02T16:04:05.123456+01:00"},"s":"I","c":"NETWORK"}', AT),
        # Zones in every common spelling.
        ("2026-01-02 17:04:05.123456 UTC+02:00 x", AT),
        ("2026-01-02 10:04:05.123456 UTC-05:00 x", AT),
        ("2026-01-02 17:04:05.123456 GMT+02:00 x", AT),
        ("2026-01-02 17:04:05.123456 UTC+2 x", AT),
        ("2026-01-02 17:04:05.123456 GMT+0200 x", AT),
        ("2026-01-02T17:04:05.123456UTC+02:00 x", AT),
        ("2026-01-02 17:04:05.123456 +02:00 x", AT),
        ("2026-01-02 10:04:05.123456\u221205:00 x", AT),
        ("2026-01-02t15:04:05.123456z x", AT),
        ("2026-01-02 15:04:05.123456 GMT x", AT),
        ("2026-01-02 15:04:05.123456 UTC - started", AT),
        ("2026-01-02 15:04:05.123456 UTC -3 of 5", AT),
        # JSON: the line's own keys in any case; what is nested, or a duration, is no time.
        (
            '{"request":{"time":"1999-01-01T00:00:00Z"},"time":"2026-01-02T15:04:05.123456Z"}',
            AT,
        ),
        ('[{"time":"1999-01-01T00:00:00Z"}] {}', None),
        ('{"list":[{"ts":"1999-01-01T00:00:00Z"}],"ts":"2026-01-02T15:04:05.123456Z"}', AT),
        ('{"msg":"slow","time":1500000000,"ts":"2026-01-02T15:04:05.123456Z"}', AT),
        ('{"msg":"slow","time":1500000000}', None),
        ('{"time":1767366245,"msg":"x"}', SECOND),
        (
            '{"time":1500000000123.5,"msg":"an old file"}',
            datetime(2017, 7, 14, 2, 40, 0, 123000, UTC),
        ),
        ('{"Timestamp":"2026-01-02T15:04:05.123456Z","Level":"Error"}', AT),
        ('{"@t":"2026-01-02T15:04:05.123456Z","@l":"Error"}', AT),
        ('{"asctime" : "2026-01-02 15:04:05,123456", "x": 1}', AT),
        ('{"msg":"time","x":"ts","t":"2026-01-02T15:04:05.123456Z"}', AT),
        ('{"time":"Fri, 02 Jan 2026 15:04:05 GMT"}', SECOND),
        ('{"request":{"time":"1999-01-01T00:00:00Z"}}', None),
        # Numbers that count something.
        ("1073741824 bytes (1.1 GB, 1.0 GiB) copied, 2.1 s, 511 MB/s", None),
        ("1767366245 rows read", None),
        ("1767366245123 ms", None),
        ("1767366245% done", None),
        ("1767366245 starting", SECOND),
        # A byte order mark.
        ("\ufeff2026-01-02 15:04:05.123456 INFO first", AT),
        ('\ufeff{"time":"2026-01-02T15:04:05.123456Z"}', AT),
        ("Feb 29 00:00:00 of a leap year", datetime(2024, 2, 29, tzinfo=UTC)),
        ("2016-12-31 23:59:60", datetime(2016, 12, 31, 23, 59, 59, 999999, UTC)),
    ],
)
def test_the_usual_times_are_found(line: str, expected: datetime | None) -> None:
    [found] = times(line)
    assert found // 1000 == (ns_of(expected) // 1000 if expected else 0)


def test_a_number_far_from_the_times_around_it_is_none() -> None:
    lines = (
        "2026-01-02 15:04:05 backup started",
        "1073741824 of it done",
        "1790000000 to come",  # after the time of reading
        "1767366300 retrying",
        "2026-01-02 15:06:05 backup ended",
        '{"time":1500000000}',
        '{"time":1767366400}',
    )
    told = [found // 10**9 - ns_of(SECOND) // 10**9 if found else None for found in times(*lines)]
    assert told == [0, None, None, 55, 120, None, 155]


def test_numbers_go_on_after_days_without_a_line() -> None:
    lines = ("1735830245 weekly", "1736435045 weekly", "1767366245 after a year")
    assert [found // 10**9 for found in times(*lines)] == [1735830245, 1736435045, 1767366245]


@pytest.mark.parametrize(
    "line",
    [
        "", "x", "{", "[", "<", "<34>", "time=", 'time="', "t", '{"time":', '{"ts":"', '{"time"',
        "2026-02-30 15:04:05", "2026-01-02 24:04:05", "2026-01-02", "2026-01-02 15:04",
        "2026-01/02 15:04:05", "at 2026-01-02 15:04:05", "Jan", "Jan 32 15:04:05", "May be late",
        "123456789 x", "12345678901 x", "0123456789 x", "9999999999 x", "1767366245-1 x",
        "1767366245abc", "01/02/2026 15:04:05", "01-02-2026 15:04:05", "26-01-02 15:04:05 x",
        "2026-W01-5T15:04:05Z", "20260102 150405 x", "20260102T1504Z xxxxxxx", "15:04:05.1 [x] y",
        "GET 1767366245 x", "1: 02 Jan 2026 15:04:05 x", "Fri, Jan", "Jan 2, x 15:04:05", "lvl=x",
        "\x1b[32", "t=", "level=x t=", "I20260102", "Jan 2, 2026 25:04:05 x", "Jan  2 1:2:3 x y z",
        "1600000000/7 rate",
        "1767366245.5.5.5 x", "I0102", "Q0102 15:04:05.000000 x",
        "[02/Foo/2026:15:04:05 +0100]", "x" * 130 + "[02/Jan/2026:15:04:05 +0100]",
        '{"x":"' + "y" * 4096 + '","ts":1767366245}', '{"time":17673662}', "\x00\xff",
    ],
)  # fmt: skip
def test_what_is_no_time_is_not_taken_for_one(line: str) -> None:
    assert times(line) == [0]


@given(
    st.datetimes(datetime.fromisoformat("1900-01-01"), datetime.fromisoformat("2200-01-01")),
    st.sampled_from([None, 0, 60, -330, 840, -1]),
    st.sampled_from(["T", " "]),
    st.sampled_from(["+01:00", "-11:45", "UTC"]),
)
def test_a_guessed_time_is_that_of_datetime(at, minutes, between, zone):
    if minutes is not None:
        at = at.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    line = at.isoformat(between)
    local = datetime.fromisoformat(f"2000-01-01T00:00:00{zone.replace('UTC', 'Z')}").tzinfo
    expected = at if at.tzinfo else at.replace(tzinfo=local)
    found = times(line, line.replace(".", ","), plain_times=PlainTimes.of("", zone))
    assert found == [ns_of(expected)] * 2


PATTERNS = "%Y-%m-%dT%H:%M:%S.%f%z", "%d.%m.%Y %H:%M:%S.%f", "(%b %e %Y) %H:%M:%S,%f", "%s x"


@given(
    st.datetimes(datetime.fromisoformat("2001-09-10"), datetime.fromisoformat("2068-01-01")),
    st.sampled_from([*PATTERNS, "%H:%M:%S.%f%% %y%m%d", "%b %d %H:%M:%S.%f %Y"]),
    st.sampled_from(["", "*"]),
)
def test_a_described_time_is_that_of_datetime(at, pattern, prefix):
    at = at.replace(tzinfo=UTC)
    head = "some text " if prefix else ""
    line = head + at.strftime(pattern)
    described = PlainTimes.of(f"other=%s;ap*={prefix}{pattern}", "UTC")
    whole = at if "%f" in pattern else at.replace(microsecond=0)
    assert times(line, plain_times=described) == [ns_of(whole)]
    assert times(f"?{line}", plain_times=described) == [ns_of(whole) if prefix else 0]


def test_a_described_container_is_not_guessed_and_others_are() -> None:
    described = PlainTimes.of("app=%d.%m.%Y  %H:%M;x=%m/%d %H:%M:%S", "-01:00")
    line = "2026-01-02 15:04:05"
    assert times(line, "02.01.2026 15:04", plain_times=described) == [
        0, ns_of(datetime(2026, 1, 2, 16, 4, tzinfo=UTC)),
    ]  # fmt: skip
    zoned = ns_of(AT.replace(microsecond=0)) + 3600 * 10**9
    assert times(line, plain_times=described, container="other") == [zoned]
    assert times("01/02 15:04:05", plain_times=described, container="x") == [zoned]


@pytest.mark.parametrize(
    ("formats", "zone", "error"),
    [
        ("app", "UTC", "has 'app'; write NAME=PATTERN"),
        ("=%s", "UTC", "has ''; write NAME=PATTERN"),
        ("a=%Q", "UTC", "has %Q in '%Q'"),
        ("a=%s %", "UTC", "has %\0 in"),
        ("a=%H:%M:%S", "UTC", "has no day, month and hour"),
        ("a=%s" + "x" * 64, "UTC", "the maximum is 64 characters"),
        ("", "Europe/Berlin", "plain_time_zone is 'Europe/Berlin'"),
        ("", "+25:00", "plain_time_zone is"),
        ("", "", "plain_time_zone is"),
    ],
)
def test_a_wrong_description_is_refused(formats: str, zone: str, error: str) -> None:
    with pytest.raises(SettingError) as raised:
        PlainTimes.of(formats, zone)
    assert error in str(raised.value)


def test_a_line_without_a_time_has_that_of_the_line_before_it() -> None:
    data = b"no time yet\n2026-01-02 15:04:05 \xff\n  at x\nend"
    rows = [row for _, row in rows_of(parsed(Piece(data, format="plain", read_time_ns=READ_NS)))]
    at = ns_of(AT.replace(microsecond=0))
    assert rows == [
        Row(READ_NS, "read", "unknown", 0, False, b"no time yet"),
        Row(at, "line", "unknown", 12, False, b"2026-01-02 15:04:05 \xff"),
        Row(at, "previous", "unknown", 34, False, b"  at x"),
        Row(at, "previous", "unknown", 41, True, b"end"),
    ]


plain_lines = st.sampled_from(
    ["2026-01-02 15:04:05 INFO x", "no time", "  at x", "", "}", "\tat y", "Jan  1 00:00:00 z",
     "Traceback (most recent call last):", "ValueError: x", "panic: x", "goroutine 1 [running]:"]
)  # fmt: skip


@given(st.lists(plain_lines), st.data())
def test_rows_do_not_depend_on_where_the_file_is_cut(lines, data):
    cut = data.draw(st.integers(0, len(lines)))
    head, tail = (
        "".join(f"{line}\n" for line in some).encode() for some in (lines[:cut], lines[cut:])
    )
    whole = parsed(Piece(head + tail, format="plain"))
    first = parsed(Piece(head, format="plain"))
    state = first.state_after[0].tolist()
    second = parsed(
        Piece(tail, 0, False, state[-1], format="plain", file_start=len(head), state=state)
    )
    rest = table(second)
    for row, _, _ in rest:
        row.offset += len(head)
    assert table(first) + rest == table(whole)
    assert second.state_after.tolist() == whole.state_after.tolist()


@given(st.binary(max_size=300))
def test_any_bytes_are_kept_whole(data: bytes) -> None:
    rows = rows_of(parsed(Piece(data, format="plain")))
    lines = data.split(b"\n")
    assert [row.content for _, row in rows] == (lines if lines[-1] else lines[:-1])
