"""A Kafka broker to measure with: one that was given, or one that is started for the run.

Goes out: new topics, and how many records each holds.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.real_parts.guard import ServerError
from tests.real_parts.kafka import Broker

_PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Kafka:
    """A broker at ``address`` (HOST:PORT) that takes anybody's records."""

    address: str

    def new_topic(self) -> str:
        """Create a topic; return its URL, whose last part is its name."""
        name = f"everyline-bench-{uuid.uuid4().hex[:12]}"
        asyncio.run(_create(self.address, name))
        return f"kafka://{self.address}/{name}"

    def records(self, topic: str) -> int:
        """Return how many records the topic of this URL has taken."""
        return asyncio.run(_records(self.address, topic.rpartition("/")[2]))


async def _create(address: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, _PARTITIONS, 1)])
    finally:
        await admin.close()


async def _records(address: str, name: str) -> int:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=address)
    await consumer.start()
    try:
        partitions = [aiokafka.TopicPartition(name, number) for number in range(_PARTITIONS)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


@contextlib.contextmanager
def open_kafka(address: str) -> Iterator[Kafka | None]:
    """Give the broker at ``address``, or a new one; None, and say why, if none can be started."""
    if address:
        yield Kafka(address)
        return
    try:
        broker = Broker.start()
    except (ServerError, OSError) as error:
        print(f"Left out what needs Kafka: {error}; or name a broker, --kafka HOST:PORT\n")
        yield None
        return
    try:
        yield Kafka(broker.bootstrap)
    finally:
        broker.close()
