"""The settings of indexer and keeper: each limit with its unit, its default and one sentence."""

from typing import Annotated

import msgspec

from collector.process import setting
from collector.topic.security import KafkaSettings


class IndexerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Write what is in the topic as segments of the table."""

    kafka: KafkaSettings = KafkaSettings()
    cluster: Annotated[str, setting("name of the cluster whose table is written")] = "local"
    topic: Annotated[str, setting("a directory, or kafka://HOST:PORT/NAME")] = "everyline/topic"
    partitions: Annotated[
        str, setting("partitions to follow, separated by ',', or all; empty: the group's share")
    ] = ""
    group: Annotated[
        str, setting("group of indexers that share the partitions; empty: everyline-CLUSTER")
    ] = ""
    group_session_ms: Annotated[
        int, setting("time unheard of after which an indexer's partitions go to others", ge=6_000)
    ] = 10_000
    bucket: Annotated[str, setting("a directory, or s3://BUCKET/PREFIX")] = "everyline/bucket"
    listen: Annotated[str, setting("HOST:PORT of metrics and health")] = "127.0.0.1:9602"
    log_level: Annotated[str, setting("debug, info, warning or error")] = "info"
    flush_age_ms: Annotated[int, setting("age of the oldest batch that makes a commit", ge=10)] = (
        2_000
    )
    flush_bytes: Annotated[
        int,
        setting(
            "bytes of lines, and 64 more for each, that make a commit", ge=1 << 20, le=512 << 20
        ),
    ] = 32 << 20
    fetch_bytes: Annotated[int, setting("bytes asked of the topic at a time", ge=65_536)] = 4 << 20
    buffer_bytes: Annotated[
        int,
        setting(
            "bytes fetched, decoded and being committed, and 64 a line, until no more are read",
            ge=1 << 20,
        ),
    ] = 96 << 20
    dead_letters_in_row_max: Annotated[
        int,
        setting("records in a row that are no batch, from which a partition is unhealthy", ge=1),
    ] = 100
    check_interval_ms: Annotated[
        int, setting("time between two looks at whether the topic is still the same", ge=10)
    ] = 10_000
    retention_hours: Annotated[
        int, setting("oldest hour that keeps a place of its own; 0: every past hour", ge=0)
    ] = 0
    plain_time_formats: Annotated[
        str,
        setting("NAME_GLOB=PATTERN of times in plain lines, separated by ';'; empty: guess them"),
    ] = ""
    plain_time_zone: Annotated[
        str, setting("UTC or +hh:mm, of times in plain lines that do not name theirs")
    ] = "UTC"
    retry_ms: Annotated[
        int, setting("first pause after the topic or the bucket was away; doubles", ge=10)
    ] = 500
    retry_most_ms: Annotated[int, setting("longest such pause", ge=10)] = 30_000
    bucket_connect_ms: Annotated[
        int, setting("longest wait for a connection to the object store", ge=100)
    ] = 5_000
    bucket_read_ms: Annotated[
        int, setting("longest wait for more of an answer of the object store", ge=100)
    ] = 30_000
    bucket_attempts: Annotated[
        int, setting("times that a request to the object store is made before it has failed", ge=1)
    ] = 5
    upload_threads: Annotated[
        int, setting("objects, and parts of a large object, uploaded at once", ge=1, le=16)
    ] = 4
