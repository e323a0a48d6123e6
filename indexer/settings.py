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
        str, setting("partitions to read, separated by ',', or all; empty: the group's share")
    ] = ""
    group: Annotated[
        str, setting("group of indexers that share the partitions; empty: everyline-CLUSTER")
    ] = ""
    group_session_ms: Annotated[
        int, setting("silence after which an indexer's partitions are given to others", ge=6_000)
    ] = 10_000
    bucket: Annotated[str, setting("a directory, or s3://BUCKET/PREFIX")] = "everyline/bucket"
    listen: Annotated[str, setting("HOST:PORT of metrics and health")] = "127.0.0.1:9602"
    log_level: Annotated[str, setting("debug, info, warning or error")] = "info"
    flush_age_ms: Annotated[
        int, setting("age of the oldest batch at which a commit is made", ge=10)
    ] = 2_000
    flush_bytes: Annotated[
        int,
        setting(
            "bytes of lines at which a commit is made; each line counts 64 bytes more",
            ge=1 << 20,
            le=512 << 20,
        ),
    ] = 32 << 20
    fetch_bytes: Annotated[int, setting("bytes requested from the topic at a time", ge=65_536)] = (
        4 << 20
    )
    buffer_bytes: Annotated[
        int,
        setting(
            "bytes held at which reading pauses; each line counts 64 bytes more",
            ge=1 << 20,
        ),
    ] = 96 << 20
    dead_letters_in_row_max: Annotated[
        int,
        setting("undecodable records in a row that make a partition unhealthy", ge=1),
    ] = 100
    check_interval_ms: Annotated[
        int, setting("time between two checks that the topic is still the same", ge=10)
    ] = 10_000
    retention_hours: Annotated[
        int,
        setting("age in hours up to which rows are filed under their own hour; 0: any age", ge=0),
    ] = 0
    plain_time_formats: Annotated[
        str,
        setting("NAME_GLOB=PATTERN of times in plain lines, separated by ';'; empty: guess them"),
    ] = ""
    plain_time_zone: Annotated[
        str, setting("UTC or +hh:mm, of times in plain lines that do not name theirs")
    ] = "UTC"
    retry_ms: Annotated[
        int,
        setting(
            "first pause after the topic or the bucket has failed; it doubles each time", ge=10
        ),
    ] = 500
    retry_most_ms: Annotated[int, setting("longest pause between two attempts", ge=10)] = 30_000
    bucket_connect_ms: Annotated[
        int, setting("longest wait for a connection to the object store", ge=100)
    ] = 5_000
    bucket_read_ms: Annotated[
        int, setting("longest wait for more of an answer of the object store", ge=100)
    ] = 30_000
    bucket_attempts: Annotated[
        int, setting("attempts at a request to the object store before it counts as failed", ge=1)
    ] = 5
    upload_threads: Annotated[
        int, setting("objects, and parts of a large object, uploaded at the same time", ge=1, le=16)
    ] = 4
