"""The settings of indexer and keeper: each limit with its unit, its default and one sentence."""

from typing import Annotated

import msgspec

from collector.process import setting
from collector.security import KafkaSettings


class IndexerSettings(KafkaSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Write what is in the topic as segments of the table."""

    cluster: Annotated[str, setting("name of the cluster whose table is written")] = "local"
    topic: Annotated[str, setting("a directory, or kafka://HOST:PORT/NAME")] = "everyline/topic"
    partitions: Annotated[
        str, setting("partitions to follow, separated by ','; empty: all of them")
    ] = ""
    bucket: Annotated[str, setting("a directory, or s3://BUCKET/PREFIX")] = "everyline/bucket"
    listen: Annotated[str, setting("HOST:PORT of metrics and health")] = "127.0.0.1:9602"
    log_level: Annotated[str, setting("debug, info, warning or error")] = "info"
    flush_age_ms: Annotated[int, setting("age of the oldest batch that makes a commit", ge=10)] = (
        2_000
    )
    flush_bytes: Annotated[
        int, setting("raw bytes that make a commit", ge=1 << 20, le=512 << 20)
    ] = 32 << 20
    fetch_bytes: Annotated[int, setting("bytes asked of the topic at a time", ge=65_536)] = 4 << 20
    check_interval_ms: Annotated[
        int, setting("time between two looks at whether the topic is still the same", ge=10)
    ] = 10_000
    retention_hours: Annotated[
        int, setting("oldest hour that keeps a place of its own; 0: every past hour", ge=0)
    ] = 0
    retry_ms: Annotated[
        int, setting("first pause after the topic or the bucket was away; doubles", ge=10)
    ] = 500
    retry_most_ms: Annotated[int, setting("longest such pause", ge=10)] = 30_000


class KeeperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fold the table's coverage into its ledger."""

    cluster: Annotated[str, setting("name of the cluster whose ledger is kept")] = "local"
    bucket: Annotated[str, setting("a directory, or s3://BUCKET/PREFIX")] = "everyline/bucket"
    listen: Annotated[str, setting("HOST:PORT of metrics and health")] = "127.0.0.1:9603"
    log_level: Annotated[str, setting("debug, info, warning or error")] = "info"
    fold_interval_ms: Annotated[int, setting("time between two folds", ge=10)] = 30_000
    sweep_interval_ms: Annotated[
        int, setting("time between two deletions of ledgers of more than a day ago", ge=1000)
    ] = 3_600_000
