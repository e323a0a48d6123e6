"""The settings of the keeper: each limit with its unit, its default and one sentence."""

from typing import Annotated

import msgspec

from collector.process import setting


class KeeperSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keep the table and its ledger in order."""

    cluster: Annotated[str, setting("name of the cluster whose table is kept")] = "local"
    bucket: Annotated[str, setting("a directory, or s3://BUCKET/PREFIX")] = "everyline/bucket"
    listen: Annotated[str, setting("HOST:PORT of metrics and health")] = "127.0.0.1:9603"
    log_level: Annotated[str, setting("debug, info, warning or error")] = "info"
    fold_interval_ms: Annotated[int, setting("time between two folds", ge=10)] = 30_000
    gone_live_hours: Annotated[
        int, setting("how long indexers load a deleted file; the topic's retention and a day", ge=1)
    ] = 192
    sweep_interval_ms: Annotated[
        int,
        setting(
            "time between two deletions of ledgers and streams of more than a day ago", ge=1000
        ),
    ] = 3_600_000
    checkpoint_commits: Annotated[
        int, setting("commits after which the table's log gets a checkpoint", ge=1)
    ] = 100
    job_most_ms: Annotated[
        int, setting("time after which a long job lets others be done, and goes on later", ge=10)
    ] = 60_000
    standby_ms: Annotated[
        int, setting("how long a keeper that has met another one changes nothing", ge=10)
    ] = 300_000
    compact_interval_ms: Annotated[
        int, setting("time between two looks for segments to compact", ge=10)
    ] = 60_000
    compact_target_bytes: Annotated[
        int, setting("size of a segment from whose half on it is left alone", ge=1 << 16)
    ] = 512 << 20
    compact_inputs_min: Annotated[
        int, setting("segments of an hour that still grows that are worth merging", ge=2)
    ] = 8
    compact_memory_bytes: Annotated[
        int, setting("decoded rows that one compaction holds; bounds its segments", ge=64 << 20)
    ] = 1 << 30
    compact_settle_ms: Annotated[
        int, setting("age at which an hour counts as one that no longer grows", ge=0)
    ] = 900_000
    compact_threads: Annotated[int, setting("compactions at once", ge=1)] = 1
    gather_interval_ms: Annotated[
        int, setting("time between two mergers of coverage objects", ge=10)
    ] = 3_600_000
    gather_objects_min: Annotated[int, setting("coverage objects that are worth merging", ge=2)] = (
        16
    )
    retention: Annotated[
        str, setting("NAMESPACE_GLOB=HOURS, separated by ','; the first that fits; empty: for ever")
    ] = ""
    expire_interval_ms: Annotated[
        int, setting("time between two looks for rows that have expired", ge=10)
    ] = 900_000
    delete_interval_ms: Annotated[
        int, setting("time between two looks for requests for deletion", ge=10)
    ] = 60_000
    delete_open_ms: Annotated[
        int, setting("how long a request stays open for rows that are still on their way", ge=0)
    ] = 86_400_000
    scrub_interval_ms: Annotated[
        int, setting("time between two turns of reading committed objects again", ge=10)
    ] = 60_000
    scrub_bytes_per_s: Annotated[
        int, setting("bytes of committed objects that are read again in a second", ge=1)
    ] = 16 << 20
    scrub_round_hours: Annotated[
        int, setting("least time from one reading of all objects to the next", ge=1)
    ] = 168
    vacuum_interval_ms: Annotated[
        int, setting("time between two deletions of objects that no version names", ge=10)
    ] = 21_600_000
    vacuum_age_hours: Annotated[
        int, setting("age of such an object; above any commit's and any cursor's", ge=24)
    ] = 25
