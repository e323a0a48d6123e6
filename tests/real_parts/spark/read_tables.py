"""Run by the Python that has PySpark: count and checksum of Delta tables, by one query each.

Folders of tables go in as arguments, after that of Delta's jars; a line of JSON with count and
checksum of each comes out. The text of a row is that of ``tests/indexer/three_tables.py``.
"""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession

_TEXT = {
    "timestamp": "cast(unix_micros({}) as string)",
    "binary": "lower(hex({}))",
    "map": "array_join(transform(map_entries({}), e -> concat(e.key, '=', e.value)), ',')",
}

jars, *folders = sys.argv[1:]
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", ",".join(map(str, Path(jars).glob("*.jar"))))
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
    .config("spark.databricks.delta.snapshotPartitions", "1")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .getOrCreate()
)
for folder in folders:
    rows = spark.read.format("delta").load(folder)
    texts = [
        _TEXT.get(kind.partition("<")[0], "cast({} as string)").format(f"`{name}`")
        for name, kind in rows.dtypes
    ]
    line = "concat_ws('|', {})".format(", ".join(f"coalesce({text}, '-')" for text in texts))
    hashed = f"cast(conv(substr(sha2({line}, 256), 1, 15), 16, 10) as decimal(38, 0))"
    [found] = rows.selectExpr("count(*)", f"sum({hashed})").collect()
    sys.stdout.write(json.dumps([int(found[0]), int(found[1])]) + "\n")
