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


async def configs_of(admin: AIOKafkaAdminClient, name: str) -> dict[str, str | None]:
    """Return settings of a topic, the broker's where it has none; none if we may not ask.

    Raises an error of aiokafka, UnknownTopicOrPartitionError if there is no such topic.
    """
    wanted = ConfigResource(ConfigResourceType.TOPIC, name, dict.fromkeys(_CONFIGS))
    responses = await admin.describe_configs([wanted])
    resources = [resource for response in responses for resource in response.resources]
    if not resources:
        return {}
    (code, message, _, _, entries) = resources[0]
    error = kafka.for_code(code)
    if error in (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError):
        return {}
    if error is not kafka.NoError:
        raise error(message)
    return {entry[0]: entry[1] for entry in entries}


async def replicas_of(admin: AIOKafkaAdminClient, name: str) -> int:
    """Return the replication factor of a topic; 0 if the brokers do not say."""
    topics = await admin.describe_topics([name])
    partitions = [each for topic in topics for each in topic.get("partitions") or ()]
    return max((len(each.get("replicas") or ()) for each in partitions), default=0)


def advice(configs: Mapping[str, str | None], replicas: int) -> Iterator[str]:
    """Yield a sentence for each setting that is better changed, or for not knowing them."""
    if not configs:
        yield (
            "kafka does not show the topic's settings to this user, so they are not checked; "
            "allow it DescribeConfigs"
        )
        return
    unknown = [name for name in _CONFIGS if not configs.get(name)]
    if unknown:
        yield (
            f"kafka does not say what {', '.join(unknown)} are, so they are not "
            "checked; see whether this user may read them"
        )
    compression = configs.get("compression.type") or "producer"
    if compression not in ("producer", "uncompressed"):
        yield (
            f"compression.type is {compression}: brokers compress again what is compressed; "
            "set it to producer"
        )
    if configs.get("min.insync.replicas") == "1" and replicas > 1:
        yield (
            f"min.insync.replicas is 1 of {replicas} replicas: what is acknowledged may be on one "
            "disk only; set it to 2"
        )
    if "compact" in (configs.get("cleanup.policy") or ""):
        yield "cleanup.policy compacts: batches have no key and are refused; set it to delete"
    retention_ms = number(configs, "retention.ms", -1)
    retention_bytes = number(configs, "retention.bytes", -1)
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


def number(configs: Mapping[str, str | None], name: str, otherwise: int) -> int:
    """Return a setting that is a number; ``otherwise`` if the broker does not say it."""
    try:
        return int(configs.get(name) or otherwise)
    except ValueError:
        return otherwise
