"""Which topic a URL names: Kafka, or a local directory.

A URL goes in, a ``Topic`` comes out; nothing is connected or made before it is used.
"""

from collector.errors import SettingError
from collector.topic.interface import Topic
from collector.topic.local import LocalTopic
from collector.topic.security import KafkaSettings, Security


def open_topic(url: str, *, partitions: int = 1, security: Security | None = None) -> Topic:
    """Return the topic at ``url``: ``kafka://HOST:PORT[,HOST:PORT]/NAME`` or a directory.

    A local directory is made with ``partitions`` partitions; with 0 it must be there already.
    ``security`` is for Kafka, and may be that of several topics; without it nothing is encrypted.
    Raises SettingError for another URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return LocalTopic(rest if separator else url, partitions=partitions)
    if scheme == "kafka":
        brokers, _, name = rest.partition("/")
        if not brokers or not name or "/" in name:
            raise SettingError(f"topic {url!r} is not of the form kafka://HOST:PORT/NAME")
        from collector.topic.kafka import KafkaTopic  # aiokafka is an extra

        return KafkaTopic(brokers.split(","), name, security or Security(KafkaSettings()))
    raise SettingError(f"topic {url!r}: expected a directory or kafka://HOST:PORT/NAME")
