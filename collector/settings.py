"""The collector's settings: each limit with its unit, its default and one sentence."""

from typing import Annotated

import msgspec

from collector.labels.metadata import MetadataSettings
from collector.process import setting
from collector.topic.security import KafkaSettings


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ship the container logs of one node to the topic."""

    kafka: KafkaSettings = KafkaSettings()
    metadata: MetadataSettings = MetadataSettings()
    cluster: Annotated[str, setting("name of the cluster; part of every file's identity")] = "local"
    node: Annotated[str, setting("name of the node; part of every file's identity")] = "local"
    roots: Annotated[str, setting("directories in the kubelet's layout, separated by ':'")] = (
        "/var/log/pods"
    )
    docker_roots: Annotated[
        str, setting("such directories of nodes whose containers write Docker's JSON lines")
    ] = ""
    link_targets: Annotated[
        str, setting("directories below which a link from a root may lead, separated by ':'")
    ] = ""
    plain_files: Annotated[
        str, setting("NAME=GLOB of files on the node, separated by ':'; ** is any depth")
    ] = ""
    topic: Annotated[str, setting("a directory, or kafka://HOST:PORT/NAME")] = "everyline/topic"
    state: Annotated[str, setting("directory for checkpoint and spool")] = "everyline/collector"
    policy: Annotated[
        str, setting("TOML file with rules that drop, sample, limit or redact; empty: none")
    ] = ""
    listen: Annotated[str, setting("HOST:PORT of metrics and health")] = "127.0.0.1:9601"
    log_level: Annotated[str, setting("debug, info, warning or error")] = "info"
    partitions: Annotated[
        int, setting("partitions of the topic to use; 0: all it has at the first start", ge=0)
    ] = 0
    later_partitions: Annotated[
        str, setting("more partitions from a time on, COUNT@TIME, separated by ','; only appended")
    ] = ""
    partition_spread: Annotated[
        int, setting("how many partitions the pods of one node are spread over", ge=1)
    ] = 4
    compression_level: Annotated[int, setting("zstd level of a batch", ge=1, le=19)] = 1
    read_bytes: Annotated[
        int, setting("bytes read from one file in one turn", ge=4096, le=16 << 20)
    ] = 512 << 10
    event_bytes: Annotated[
        int, setting("longest event or line that is kept whole", ge=4096, le=32 << 20)
    ] = 2 << 20
    event_wait_ms: Annotated[
        int, setting("how long an open event or line may hold back its file", ge=0)
    ] = 5_000
    batch_raw_bytes: Annotated[
        int, setting("raw bytes at which a batch is closed", ge=4096, le=16 << 20)
    ] = 4 << 20
    batch_wire_bytes: Annotated[
        int, setting("largest batch on the wire; a larger one is cut in two", ge=65_536)
    ] = 900_000
    flush_age_ms: Annotated[int, setting("age at which a batch is closed", ge=10)] = 1_000
    unacked_bytes: Annotated[
        int, setting("unacknowledged wire bytes at which reading pauses", ge=1 << 20)
    ] = 16 << 20
    spool_bytes: Annotated[
        int, setting("largest size of the spool, in the state directory", ge=1 << 20)
    ] = 1 << 30
    spool_after_ms: Annotated[
        int, setting("how long the topic may let a batch wait before the spool is used", ge=10)
    ] = 5_000
    held_bytes: Annotated[
        int, setting("disk space that deleted files may hold before unread ones are given up", ge=0)
    ] = 1 << 30
    kubelet_log_bytes: Annotated[
        int, setting("the kubelet's containerLogMaxSize, to tell when files are deleted", ge=1)
    ] = 10 << 20
    kubelet_log_files: Annotated[int, setting("the kubelet's containerLogMaxFiles", ge=2)] = 5
    kubelet_check_ms: Annotated[int, setting("the kubelet's containerLogMonitorInterval", ge=1)] = (
        10_000
    )
    scan_interval_ms: Annotated[int, setting("time between two scans", ge=10)] = 1_000
    depth_max: Annotated[
        int, setting("directories below a root that a scan goes down", ge=3, le=256)
    ] = 32
    directories_max: Annotated[int, setting("directories that a scan looks into", ge=1)] = 100_000
    scan_late_ms: Annotated[
        int, setting("delay of a scan from which it may have missed a whole file", ge=100)
    ] = 10_000
    inventory_interval_ms: Annotated[int, setting("time between two inventories", ge=10)] = 10_000
    inventory_full_interval_ms: Annotated[
        int, setting("time between two inventories of all files", ge=10)
    ] = 300_000
    seal_quiet_ms: Annotated[
        int, setting("quiet time after which a renamed or deleted file has ended", ge=0)
    ] = 20_000
    gone_after_ms: Annotated[
        int,
        setting(
            "how long scans must have missed a file before it is forgotten; "
            "the ledger relies on an hour",
            ge=3_600_000,
        ),
    ] = 3_600_000
    checkpoint_interval_ms: Annotated[int, setting("time between two checkpoints", ge=10)] = 1_000
    stuck_ms: Annotated[
        int, setting("time without progress after which /healthz asks for a restart", ge=1_000)
    ] = 300_000
    drain_ms: Annotated[int, setting("time at a stop to send what was read", ge=0)] = 10_000
