"""DuckDB and Polars read the tables, and come to the rows and the checksum that pyarrow finds."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from indexer.object_names import COVERAGE_FOLDER
from indexer.store.bucket import Bucket
from indexer.store.local import LocalBucket
from tests.indexer.three_tables import BETWEEN, NULL, TABLES, by_pyarrow, checksum, opened, write

_DUCKDB_TEXT = {
    "timestamp": "epoch_us({})::varchar",
    "binary": "lower(hex({}))",
    "map": "array_to_string([e.key || '=' || e.value for e in map_entries({})], ',')",
}
_POLARS_TEXT: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "timestamp": lambda of: of.dt.epoch("us").cast(pl.String),
    "binary": lambda of: of.bin.encode("hex"),
    "map": lambda of: of.map.entries().list.eval(
        pl.concat_str(pl.element().struct[0], pl.element().struct[1], separator="=")
    ).list.join(","),
}  # fmt: skip


def kind(of: pa.DataType) -> str:
    """The name of a type without its parameters."""
    return str(of).partition("[")[0].partition("<")[0]


@pytest.fixture(params=["as written", "compacted"])
def written(request: pytest.FixtureRequest, store: Bucket, tmp_path: Path) -> Bucket:
    """A bucket with all tables."""
    write(tmp_path, store, compacted=request.param == "compacted")
    return store


def schema_of(table: DeltaTable) -> pa.Schema:
    return table.to_pyarrow_dataset().schema


def by_duckdb(bucket: Bucket, name: str) -> tuple[int, int]:
    """Count and checksum by one query.

    On the files that the log names, where they are files: the extensions that read Delta tables
    and S3 are no part of the package. Else on an Arrow dataset.
    """
    table = opened(bucket, name)
    with duckdb.connect() as base:
        if isinstance(bucket, LocalBucket):
            hive = "hive_partitioning = true, hive_types = {'date': date, 'hour': int}"
            rows = f"read_parquet($files{', ' + hive if name == 'logs' else ''})"
            files = {"files": table.file_uris()}
        else:
            base.register("rows_of_it", table.to_pyarrow_dataset())
            rows, files = "rows_of_it", {}
        texts = [
            f"coalesce({_DUCKDB_TEXT.get(kind(f.type), '{}::varchar')}, '{NULL}')".format(
                f'"{f.name}"'
            )
            for f in schema_of(table)
        ]
        query = f"""
            select count(*), coalesce(sum(('0x' || substr(sha256(line), 1, 15))::hugeint), 0)
            from (select concat_ws('{BETWEEN}', {", ".join(texts)}) as line from {rows})
        """  # noqa: S608
        found = base.execute(query, files).fetchone()
    assert found is not None
    return found[0], int(found[1])


def scanned_by_polars(bucket: Bucket, name: str) -> pl.LazyFrame:
    # Polars takes retries for its own setting, and as a number.
    options = {key: of for key, of in bucket.storage_options.items() if key != "max_retries"}
    return pl.scan_delta(opened(bucket, name).table_uri, storage_options=options)


def by_polars(bucket: Bucket, name: str) -> tuple[int, int]:
    """Count and checksum of the texts that Polars makes of the rows: it has no hash of others."""
    table = opened(bucket, name)
    texts = [
        _POLARS_TEXT.get(kind(field.type), lambda of: of.cast(pl.String))(pl.col(field.name))
        for field in schema_of(table)
    ]
    scan = scanned_by_polars(bucket, name)
    line = pl.concat_str([text.fill_null(NULL) for text in texts], separator=BETWEEN)
    lines = scan.select(line.alias("line")).collect()["line"]
    return len(lines), checksum(lines)


def test_every_program_reads_the_same_rows(written: Bucket) -> None:
    for name in TABLES:
        found = by_pyarrow(opened(written, name))
        assert found[0] > 0
        assert by_duckdb(written, name) == found, name
        assert by_polars(written, name) == found, name


def test_what_they_read_holds_all_that_could_disturb_them(written: Bucket) -> None:
    logs = opened(written, "logs")
    rows = logs.to_pyarrow_table()
    assert 0 < rows["raw"].null_count < rows.num_rows
    assert any("\x00" in message for message in rows["message"].to_pylist())
    hours = {(row["date"], row["hour"]) for row in rows.select(["date", "hour"]).to_pylist()}
    assert len(hours) == 4
    paths = logs.get_add_actions().column("path").to_pylist()
    objects = Counter(path.startswith(COVERAGE_FOLDER) for path in paths)
    # Two files and an inventory an hour; after the compaction one segment an hour.
    assert objects in ({False: 8, True: 12}, {False: 4, True: 1})
    assert opened(written, "ledger-2").to_pyarrow_table()["file_id"].null_count
    labels = opened(written, "streams").to_pyarrow_table()["labels"].to_pylist()
    assert ("app", "Zürich") in labels[0]


def test_every_program_reads_one_hour_without_the_others(written: Bucket) -> None:
    logs = opened(written, "logs")
    rows = logs.to_pyarrow_table(columns=["hour"])["hour"].to_pylist()
    scan = scanned_by_polars(written, "logs")
    with duckdb.connect() as base:
        base.register("rows_of_it", logs.to_pyarrow_dataset())
        for hour in set(rows):
            of = scan.filter(pl.col("hour") == hour).select(pl.len()).collect().item()
            query = "select count(*) from rows_of_it where hour = $1"
            assert base.execute(query, [hour]).fetchone() == (of,) == (rows.count(hour),)
