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
        int,
        setting(
            "how long indexers go on loading a settled file; the topic's retention and a day", ge=1
        ),
    ] = 192
    sweep_interval_ms: Annotated[
        int,
        setting(
            "time between two deletions of ledger and streams objects out of use for a day", ge=1000
        ),
    ] = 3_600_000
    checkpoint_commits: Annotated[
        int, setting("commits after which the table's log gets a checkpoint", ge=1)
    ] = 100
    job_most_ms: Annotated[
        int, setting("time after which a long job pauses, so that others get their turn", ge=10)
    ] = 60_000
    standby_ms: Annotated[
        int, setting("how long a keeper stands by after another one was faster", ge=10)
    ] = 300_000
    unhealthy_after_ms: Annotated[
        int,
        setting("time for which a job fails or hangs before /healthz says unhealthy", ge=1000),
    ] = 3_600_000
    compact_interval_ms: Annotated[
        int, setting("time between two checks for segments to compact", ge=10)
    ] = 60_000
    compact_target_bytes: Annotated[
        int, setting("target size; a segment of half of it or more is left alone", ge=1 << 16)
    ] = 512 << 20
    compact_inputs_min: Annotated[
        int, setting("number of segments from which an hour that still grows is compacted", ge=2)
    ] = 8
    compact_memory_bytes: Annotated[
        int, setting("memory for the decoded rows of one compaction", ge=64 << 20)
    ] = 1 << 30
    compact_settle_ms: Annotated[
        int,
        setting("time since its last change after which an hour no longer counts as growing", ge=0),
    ] = 900_000
    compact_threads: Annotated[int, setting("compactions that run at the same time", ge=1)] = 1
    gather_interval_ms: Annotated[
        int, setting("time between two merges of coverage objects", ge=10)
    ] = 3_600_000
    gather_objects_min: Annotated[
        int, setting("number of coverage objects from which they are merged", ge=2)
    ] = 16
    retention: Annotated[
        str, setting("NAMESPACE_GLOB=HOURS, separated by ','; the first that fits; empty: for ever")
    ] = ""
    expire_interval_ms: Annotated[
        int, setting("time between two checks for rows that have expired", ge=10)
    ] = 900_000
    delete_interval_ms: Annotated[
        int, setting("time between two checks for requests for deletion", ge=10)
    ] = 60_000
    delete_open_ms: Annotated[
        int, setting("how long a request stays open for rows that are still on their way", ge=0)
    ] = 86_400_000
    scrub_interval_ms: Annotated[
        int,
        setting(
            "time between two turns of the scrubber, which reads committed objects again", ge=10
        ),
    ] = 60_000
    scrub_bytes_per_s: Annotated[
        int, setting("bytes of committed objects that are read again in a second", ge=1)
    ] = 16 << 20
    scrub_round_hours: Annotated[
        int, setting("minimum time between two complete rounds of the scrubber", ge=1)
    ] = 168
    vacuum_interval_ms: Annotated[
        int, setting("time between two vacuums, which delete objects that no version names", ge=10)
    ] = 21_600_000
    vacuum_age_hours: Annotated[
        int,
        setting(
            "minimum age of an object to vacuum; longer than any commit or cursor lives", ge=24
        ),
    ] = 25
