"""Segments as pyarrow, DuckDB, Polars and Delta Lake read them."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.transaction import AddAction, RemoveAction
from hypothesis import given
from hypothesis import strategies as st

from collector.wire.range import Stream
from indexer.parse.parse import Rows
from indexer.schema import SEGMENT_SCHEMA, open_segment
from indexer.segment import write as segment
from indexer.segment.blob import read_blob, write_blob
from indexer.segment.parquet import stats_of
from indexer.segment.reader import SegmentReader
from indexer.segment.token_filter import TokenFilter
from indexer.segment.write import PieceHeader, SegmentWriter, build_segments
from indexer.store.checked_file import checked_name
from indexer.store.local import LocalBucket
from tests.indexer import pieces as pieces_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_NS = 3_600 * 10**9
START_NS = 1_700_000_000 * 10**9 // HOUR_NS * HOUR_NS
COMMIT_NS = START_NS + 100 * HOUR_NS + 5
ALWAYS = (None, 2**62)


def parsed(*pieces: list[tuple[int, str]], starts: tuple[int, ...] = ()) -> Rows:
    """Parse pieces of (ns, message) on stdout; ``starts`` says where they begin in their files."""
    texts = []
    for lines in pieces:
        stamps = [EPOCH + timedelta(microseconds=ns // 1000) for ns, _ in lines]
        texts.append(
            "".join(
                f"{at:%Y-%m-%dT%H:%M:%S.%f}{ns % 1000:03}Z stdout F {message}\n"
                for at, (ns, message) in zip(stamps, lines, strict=True)
            ).encode()
        )
    places = starts or (0,) * len(texts)
    return pieces_of.parsed(
        *(pieces_of.Piece(text, file_start=at) for text, at in zip(texts, places, strict=True))
    )


def header(pod: str = "api-1", start: int = 0) -> PieceHeader:
    file_id = pod.encode().ljust(16)
    return PieceHeader(Stream("shop", pod, f"uid-{pod}", "server", 2), "node-1", file_id, 1, start)


def table_of(data: bytes) -> pa.Table:
    return open_segment(io.BytesIO(data)).read()


def range_of(data: bytes):
    return lambda offset, length: data[offset : offset + length]


def test_every_column_says_what_was_parsed():
    rows = parsed(
        [(START_NS + 1, "INFO a"), (START_NS + 1002, "b")],
        [(START_NS + 5, "ERROR c")],
        starts=(1000, 7),
    )
    pieces = [header("api-1", 1000), header("api-2", 7)]
    [found] = build_segments(rows, pieces, COMMIT_NS, ALWAYS)
    table = table_of(found.data)
    table.validate(full=True)
    assert table.schema.equals(SEGMENT_SCHEMA)
    begin = EPOCH + timedelta(hours=START_NS // HOUR_NS)
    assert (found.date, found.hour, found.rows) == (begin.date().isoformat(), begin.hour, 3)
    assert found.raw_bytes == len("INFO abERROR c")
    assert table.to_pydict() == {
        "time": [begin, begin + timedelta(microseconds=1), begin],
        "time_ns": [1, 2, 5],
        "time_source": ["line"] * 3,
        "namespace": ["shop"] * 3,
        "pod": ["api-1", "api-1", "api-2"],
        "container": ["server"] * 3,
        "pod_uid": ["uid-api-1", "uid-api-1", "uid-api-2"],
        "restart": [2] * 3,
        "node": ["node-1"] * 3,
        "output": ["stdout"] * 3,
        "level": ["info", "unknown", "error"],
        "message": ["INFO a", "b", "ERROR c"],
        "raw": [None] * 3,
        "partial": [False] * 3,
        "event_offset": [None] * 3,
        "file_id": [b"api-1".ljust(16)] * 2 + [b"api-2".ljust(16)],
        "epoch": [1] * 3,
        "offset": [1000, 1000 + 47, 7],
    }


@given(
    st.lists(st.lists(st.integers(-3 * HOUR_NS, 3 * HOUR_NS), max_size=6), min_size=1, max_size=4),
    st.sampled_from([ALWAYS, (START_NS - HOUR_NS, START_NS + HOUR_NS), (START_NS, START_NS)]),
)
def test_each_row_is_in_the_segment_of_its_hour_and_in_its_order(times, window):
    lines = [[(START_NS + at, f"{p}.{i}") for i, at in enumerate(of)] for p, of in enumerate(times)]
    rows = parsed(*lines)
    found = build_segments(rows, [header()] * len(times), COMMIT_NS, window)
    expected: dict[tuple[str, int], list[tuple[int, str, str]]] = {}
    for ns, message in (line for of in lines for line in of):
        inside = (window[0] is None or window[0] <= ns) and ns <= window[1]
        hour = EPOCH + timedelta(hours=(ns if inside else COMMIT_NS) // HOUR_NS)
        row = (ns, message, "line" if inside else "line-outside")
        expected.setdefault((hour.date().isoformat(), hour.hour), []).append(row)
    for one in found:
        table = table_of(one.data)
        micros = pc.cast(table["time"], pa.int64()).to_pylist()
        digits = table["time_ns"].to_pylist()
        stamps = [us * 1000 + ns for us, ns in zip(micros, digits, strict=True)]
        columns = (stamps, table["message"].to_pylist(), table["time_source"].to_pylist())
        assert list(zip(*columns, strict=True)) == expected.pop((one.date, one.hour))
        assert (one.min_time_us, one.max_time_us) == (min(micros), max(micros))
        assert one.rows == len(stamps)
    assert not expected
    assert found == sorted(found, key=lambda one: (one.date, one.hour))


@pytest.mark.parametrize(("rows_most", "bytes_most"), [(3, 1 << 20), (100, 25), (100, 1)])
def test_row_groups_stay_below_their_limits(monkeypatch, rows_most, bytes_most):
    monkeypatch.setattr(segment, "ROW_GROUP_ROWS", rows_most)
    monkeypatch.setattr(segment, "ROW_GROUP_BYTES", bytes_most)
    messages = ["x" * (i % 13) for i in range(50)]
    rows = parsed([(START_NS + i, message) for i, message in enumerate(messages)])
    [found] = build_segments(rows, [header()], COMMIT_NS, ALWAYS)
    file = pq.ParquetFile(io.BytesIO(found.data))
    assert file.num_row_groups > 1
    for i in range(file.num_row_groups):
        group = file.read_row_group(i)
        size = sum(map(len, group["message"].to_pylist()))
        assert group.num_rows <= rows_most
        assert size <= bytes_most or group.num_rows == 1
    assert file.read()["message"].to_pylist() == messages


def test_row_groups_that_are_written_again_are_the_same_rows_with_the_same_statistics():
    times = [START_NS + at for at in (7, 1_999, 3_000_000)]
    lines = [[(ns, f"{level} {ns}") for ns in times] for level in ("INFO", "ERROR", "b")]
    headers = [header("api-1"), header("api-\xe4"), header("zoo")]
    [found] = build_segments(parsed(*lines), headers, COMMIT_NS, ALWAYS)
    table = table_of(found.data)
    writer = SegmentWriter(zstd_level=9)
    for start in range(0, table.num_rows, 2):
        writer.append(table.slice(start, 2))
    data = writer.finish()
    file = open_segment(io.BytesIO(data))
    assert file.num_row_groups == 5
    assert file.read().equals(table)
    assert stats_of(file.metadata) == found.stats


def test_a_blob_alone_is_a_table_without_rows(tmp_path):
    data = write_blob(b"what this commit covers", "coverage")
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    assert open_segment(path).schema_arrow.equals(SEGMENT_SCHEMA)
    metadata = pq.read_metadata(path).metadata
    assert read_blob(metadata, "coverage", range_of(data)) == b"what this commit covers"
    assert read_blob(metadata, "other", range_of(data)) == b""
    with duckdb.connect() as base:
        assert base.read_parquet(str(path)).fetchall() == []
    assert pl.read_parquet(path).height == 0


def test_no_rows_make_no_segment():
    assert build_segments(parsed([]), [header()], COMMIT_NS, ALWAYS) == []


def test_the_file_has_statistics_of_what_is_asked_for_and_no_dictionary_of_messages():
    rows = parsed([(START_NS, "a"), (START_NS + 5000, "b")])
    [found] = build_segments(rows, [header()], COMMIT_NS, ALWAYS)
    group = pq.read_metadata(io.BytesIO(found.data)).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["message"].statistics is None
    assert "RLE_DICTIONARY" not in columns["message"].encodings
    assert "RLE_DICTIONARY" in columns["pod"].encodings
    assert "DELTA_BINARY_PACKED" in columns["time"].encodings
    assert columns["time"].statistics.has_min_max
    assert not columns["time"].has_column_index
    # Of the words in use, not of the whole dictionary.
    assert columns["level"].statistics.min == columns["level"].statistics.max == "unknown"
    assert {column.compression for column in columns.values()} == {"ZSTD"}


def test_delta_lake_prunes_by_the_statistics_and_loses_no_row(tmp_path):
    times = [START_NS + 1_999, START_NS + 3 * HOUR_NS + 999_999_999]
    rows = parsed([(times[0], "INFO a")], [(times[1], "b")])
    found = build_segments(rows, [header("api-ä"), header("zoo")], COMMIT_NS, ALWAYS)
    stats = [json.loads(one.stats) for one in found]
    assert stats[0]["numRecords"] == 1
    assert stats[0]["minValues"]["pod"] == stats[0]["maxValues"]["pod"] == "api-ä"
    assert set(stats[0]["nullCount"]) == set(stats[0]["minValues"]) == set(stats[0]["maxValues"])
    assert stats[1]["maxValues"]["time"].endswith(":00.999999Z")

    plain = pa.schema(
        [
            pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
            for f in SEGMENT_SCHEMA
            if not pa.types.is_fixed_size_binary(f.type)
        ]
        + [pa.field("date", pa.string()), pa.field("hour", pa.int32())]
    )
    write_deltalake(tmp_path, plain.empty_table(), partition_by=["date", "hour"])
    table = DeltaTable(tmp_path)
    adds: list[AddAction | RemoveAction] = []
    for number, one in enumerate(found):
        folder = tmp_path / f"date={one.date}" / f"hour={one.hour}"
        folder.mkdir(parents=True)
        (folder / f"{number}.parquet").write_bytes(one.data)
        path = f"date={one.date}/hour={one.hour}/{number}.parquet"
        of = {"date": one.date, "hour": str(one.hour)}
        adds.append(AddAction(path, len(one.data), of, 0, True, one.stats))
    table.create_write_transaction(
        adds, "append", table.schema(), ["date", "hour"], commit_properties=CommitProperties()
    )
    table = DeltaTable(tmp_path)
    actions = pa.table(table.get_add_actions(flatten=True))
    assert sorted(actions["num_records"].to_pylist()) == [1, 1]
    assert sorted(actions["max.pod"].to_pylist()) == ["api-ä", "zoo"]
    micros = {one.max_time_us for one in found}
    assert set(pc.cast(actions["max.time"], pa.int64()).to_pylist()) == micros
    for one in found:
        at = EPOCH + timedelta(microseconds=one.max_time_us)
        scan = pl.scan_delta(str(tmp_path)).filter(pl.col("time") == at)
        assert scan.select("message").collect().height == 1


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_segment_with_a_token_filter_of_the_first_version_is_still_read(
    version, request, tmp_path
):
    path = Path(__file__).parents[2] / "golden" / f"segment-v{version}.parquet"
    lines = [f"often only{n} {n % 5} caf\xe9 {'Connection refused ' * 20}" for n in range(100)]
    rows = parsed([(START_NS + n, line) for n, line in enumerate(lines)])
    [found] = build_segments(rows, [header()], COMMIT_NS, ALWAYS)
    table = table_of(found.data)
    if version == 4 and request.config.getoption("--update-golden"):
        writer = SegmentWriter()
        for start in range(0, 100, 20):
            writer.append(table.slice(start, 20))
        path.write_bytes(writer.finish())
    data = path.read_bytes()
    footer = pq.read_metadata(path)
    if version == 4:  # it has checksums, which name and reader go by
        bucket = LocalBucket(tmp_path)
        name = checked_name("", data)
        bucket.put(name, data)
        whole = pa.concat_tables(SegmentReader(bucket, name, len(data)).row_groups())
        assert whole.equals(open_segment(path).read())
    read = open_segment(path).read()
    begins = pc.coalesce(read["event_offset"], read["offset"])  # version 2 has no nulls
    assert begins.equals(read["offset"])
    assert read.drop_columns("event_offset").equals(table.drop_columns("event_offset"))
    assert stats_of(footer) == found.stats
    reader = TokenFilter(footer.metadata, footer.num_row_groups, range_of(data))
    assert footer.num_row_groups == 5
    assert reader.row_groups("caf\xe9".encode()).tolist() == [True] * 5
    for n in range(100):
        held = reader.row_groups(f"only{n}".encode())
        assert held[n // 20]
        assert held.sum() <= 2
    assert reader.row_groups(b"absent").sum() <= 1
