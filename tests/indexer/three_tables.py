"""The tables of a cluster as indexer and keeper leave them, for other programs to read.

Generated logs of every kind go in: several hours, an hour that comes late, bytes that are no
UTF-8, commits without rows. ``row_text`` is the text that every program has to make of a row.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import prometheus_client
import pyarrow as pa
from deltalake import DeltaTable

from collector.topic.open import open_topic
from collector.wire.batch import Batch, Meta, encode, record_headers
from indexer.index import Indexer
from indexer.keeper.jobs import Jobs
from indexer.keeper.metrics import KeeperMetrics
from indexer.keeper.run import Keeper
from indexer.keeper.settings import KeeperSettings
from indexer.metrics import IndexerMetrics
from indexer.settings import IndexerSettings
from indexer.store.bucket import Bucket
from load_tests.generate import EVERYTHING, START_NS, generate
from tests.indexer.shipped import CLUSTER, COMPRESSOR, File, Run

TABLES = ("logs", "ledger-2", "streams")
NULL, BETWEEN = "-", "|"
_HOUR_NS = 3600 * 10**9


def write(folder: Path, bucket: Bucket, *, compacted: bool) -> None:
    """Write the three tables of the cluster ``test`` into a bucket."""
    asyncio.run(_index(str(folder / "topic"), bucket, list(_commits(folder))))
    jobs = Jobs(
        KeeperSettings(cluster=CLUSTER, gather_objects_min=2),
        bucket,
        KeeperMetrics(prometheus_client.CollectorRegistry()),
    )
    if compacted:
        Keeper(jobs).turn()
    jobs.fold()
    jobs.streams()


def _commits(folder: Path) -> Iterable[Batch]:
    run = Run()
    for hours in (0, 1, 5, -30):  # the last one comes late
        logs = folder / f"logs{hours}"
        generate(
            logs, pods=2, lines=150, kinds=EVERYTHING, seed=hours,
            first_ns=START_NS + hours * _HOUR_NS - 10**8,
        )  # fmt: skip
        files = [
            File(path.read_bytes(), pod=f"pod{hours}-{number}")
            for number, path in enumerate(sorted(logs.glob("*/*/*.log")))
        ]
        for file in files:
            ranges = file.ranges(range(0, len(file.data), 100_000))
            yield run.batch(*ranges, of=[file], metas=(_meta(file, hours), _meta(file, hours + 9)))
        yield run.inventory([(file, len(file.data), len(file.data)) for file in files])


def _meta(file: File, seen: int) -> Meta:
    of = file.stream
    labels = {"app": "Zürich", "empty": "", "hour": str(seen)}
    said = (labels, {"team": "a"}, "Deployment", "api")
    return Meta(of.namespace, of.pod, of.pod_uid, START_NS + seen * _HOUR_NS, *said)


async def _index(url: str, bucket: Bucket, batches: list[Batch]) -> None:
    """Commit each batch by itself."""
    topic = open_topic(url, partitions=1)
    settings = IndexerSettings(cluster=CLUSTER, topic=url, flush_age_ms=600_000)
    metrics = IndexerMetrics(prometheus_client.CollectorRegistry())
    indexer = Indexer(settings, lambda: open_topic(url, partitions=0), bucket, metrics)
    try:
        await topic.partitions()  # makes it
        await indexer.start()
        for batch in batches:
            await (await topic.append(0, encode(batch, COMPRESSOR), record_headers(batch)))
            while indexer.status()["positions"][0] < (await topic.bounds(0))[1]:
                await indexer.turn()
                await indexer.flush()
    finally:
        await indexer.close()
        await topic.close()


def opened(bucket: Bucket, name: str) -> DeltaTable:
    """Open one of the tables."""
    return DeltaTable(f"{bucket.uri}/{CLUSTER}/{name}", storage_options=bucket.storage_options)


def row_text(row: dict[str, Any], schema: pa.Schema) -> str:
    """Return the columns of a row in the schema's order as one text."""
    return BETWEEN.join(
        NULL if row[field.name] is None else _text_of(field.type)(row[field.name])
        for field in schema
    )


def _text_of(kind: pa.DataType) -> Callable[[Any], str]:
    if pa.types.is_timestamp(kind):
        return _micros
    if pa.types.is_binary(kind):
        return bytes.hex
    if pa.types.is_boolean(kind):
        return lambda value: str(value).lower()
    if pa.types.is_date(kind):
        return date.isoformat
    if pa.types.is_map(kind):
        return lambda pairs: ",".join(f"{key}={value}" for key, value in pairs)
    return str


def _micros(time: datetime) -> str:
    return str(int(time.timestamp()) * 10**6 + time.microsecond)


def checksum(texts: Iterable[str]) -> int:
    """Return the sum of a hash of each row: their order does not matter, a doubled one does."""
    return sum(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) for text in texts)


def by_pyarrow(table: DeltaTable) -> tuple[int, int]:
    """Return the number of rows and their checksum."""
    rows = table.to_pyarrow_table()
    return rows.num_rows, checksum(row_text(row, rows.schema) for row in rows.to_pylist())
