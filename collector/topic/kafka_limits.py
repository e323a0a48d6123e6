"""What a topic in Kafka allows, and which of its settings undo what Everyline relies on.

An administrator's client and a name go in; the topic's settings come out, as they are in effect,
and a sentence for each that is better changed. Without the right to ask nothing is known, and a
batch that is too large is found by sending it.
"""

from collections.abc import Iterator, Mapping

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

_RETENTION_MS_MIN = 3_600_000
_RETENTION_BYTES_MIN = 1 << 30
_CONFIGS = (
    "max.message.bytes",
    "compression.type",
    "min.insync.replicas",
    "cleanup.policy",
    "retention.ms",
    "retention.bytes",
)


async def configs_of(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    """Return settings of a topic, the broker's where it has none; none if we may not ask.

    Raises an error of aiokafka, UnknownTopicOrPartitionError if there is no such topic.
    """
    wanted = ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(_CONFIGS))
    (response,) = await admin.describe_configs([wanted])
    (code, message, _, _, entries) = response.resources[0]
    error = kafka.for_code(code)
    if error in (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError):
        return {}
    if error is not kafka.NoError:
        raise error(message)
    return {entry[0]: entry[1] for entry in entries}


async def replicas_of(admin: AIOKafkaAdminClient, name: str) -> int:
    """Return the replication factor of a topic."""
    (topic,) = await admin.describe_topics([name])
    return max((len(partition["replicas"]) for partition in topic["partitions"]), default=0)


def advice(configs: Mapping[str, str], replicas: int) -> Iterator[str]:
    """Yield a sentence for each setting that is better changed, or for not knowing them."""
    if not configs:
        yield (
            "kafka does not show the topic's settings to this user, so they are not checked; "
            "allow it DescribeConfigs"
        )
        return
    compression = configs["compression.type"]
    if compression not in ("producer", "uncompressed"):
        yield (
            f"compression.type is {compression}: brokers compress again what is compressed; "
            "set it to producer"
        )
    if configs["min.insync.replicas"] == "1" and replicas > 1:
        yield (
            f"min.insync.replicas is 1 of {replicas} replicas: what is acknowledged may be on one "
            "disk only; set it to 2"
        )
    if "compact" in configs["cleanup.policy"]:
        yield "cleanup.policy compacts: batches have no key and are refused; set it to delete"
    retention_ms, retention_bytes = int(configs["retention.ms"]), int(configs["retention.bytes"])
    if 0 <= retention_ms < _RETENTION_MS_MIN:
        yield (
            f"retention.ms is {retention_ms}: batches expire while an indexer is away for that "
            "time; set it to days"
        )
    if 0 <= retention_bytes < _RETENTION_BYTES_MIN:
        yield (
            f"retention.bytes is {retention_bytes}: batches expire while an indexer is behind by "
            "that much in a partition; set it to what fills days"
        )
