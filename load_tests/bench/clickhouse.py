"""ClickHouse on the same rows: what it takes to insert, index and merge them, and to keep them.

Segments go in as Parquet, from which a server would have to make rows too; out come CPU seconds and
bytes on disk, as ClickHouse itself counts those. It runs in a process of its own.
"""

import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_ROWS = """\
SELECT fromUnixTimestamp64Nano(toUnixTimestamp64Micro(time) * 1000 + time_ns) AS time,
    namespace, pod, container, message
FROM file('{segments}', Parquet)"""
_TABLE = """\
CREATE TABLE bench.logs (
    time DateTime64(9), namespace LowCardinality(String), pod LowCardinality(String),
    container LowCardinality(String), message String{index}
) ENGINE = MergeTree ORDER BY (namespace, container, pod, time)"""
_INDEX = ", INDEX words message TYPE text(tokenizer = 'splitByNonAlpha')"
_BYTES = "SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'bench' AND active"


@dataclass(frozen=True, slots=True)
class Inserted:
    """CPU seconds of reading the rows, of inserting them and of merging; bytes and rows kept."""

    read_s: float
    insert_s: float
    merge_s: float
    stored_bytes: int
    rows: int


def missing() -> str:
    """Return what to install before ClickHouse can be measured; nothing if it is there."""
    return "" if importlib.util.find_spec("chdb") else "pip install -r requirements/bench.txt"


def insert(folder: Path, segments: Path, *, indexed: bool) -> Inserted:
    """Insert the rows of all segments below a folder into a new table, on one thread, and merge."""
    shutil.rmtree(place := folder / "clickhouse", ignore_errors=True)
    words = [str(place), f"{segments}/date=2*/hour=*/*.parquet", _INDEX if indexed else ""]
    command = [sys.executable, "-m", "load_tests.bench.clickhouse", *words]
    return Inserted(**json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def _insert(place: str, segments: str, index: str) -> Inserted:
    server = importlib.import_module("chdb.session").Session(place)
    rows = _ROWS.format(segments=segments)

    def cpu_s(statement: str) -> float:
        began = time.process_time()
        server.query(statement)
        return time.process_time() - began

    server.query(
        "SET max_threads = 1, max_insert_threads = 1, allow_experimental_full_text_index = 1"
    )
    server.query("CREATE DATABASE bench")
    server.query(_TABLE.format(index=index))
    read_s = cpu_s(f"{rows} FORMAT Null")
    insert_s = cpu_s(f"INSERT INTO bench.logs {rows}")
    merge_s = cpu_s("OPTIMIZE TABLE bench.logs FINAL")
    count = int(str(server.query("SELECT count() FROM bench.logs")))
    return Inserted(read_s, insert_s, merge_s, int(str(server.query(_BYTES))), count)


if __name__ == "__main__":
    done = _insert(*sys.argv[1:])
    print(json.dumps({name: getattr(done, name) for name in Inserted.__slots__}))
