"""Spark reads the tables, and comes to the rows and the checksum that pyarrow finds."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from indexer.store.local import LocalBucket
from tests.indexer.shipped import CLUSTER
from tests.indexer.three_tables import TABLES, by_pyarrow, opened, write
from tests.real_parts.guard import ROOT, TOOLS

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("compacted", [False, True])
def test_spark_reads_the_same_rows(tmp_path: Path, compacted: bool) -> None:
    bucket = LocalBucket(tmp_path / "bucket")
    write(tmp_path, bucket, compacted=compacted)
    script = ROOT / "tests" / "real_parts" / "spark" / "read_tables.py"
    folders = [f"{bucket.uri}/{CLUSTER}/{name}" for name in TABLES]
    done = subprocess.run(
        [TOOLS / "spark" / "bin" / "python", script, TOOLS / "spark" / "jars", *folders],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert done.returncode == 0, done.stderr
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert found == [by_pyarrow(opened(bucket, name)) for name in TABLES]
