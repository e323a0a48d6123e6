"""A topic in Kafka: acks=all, idempotent producers, positions that are Kafka's offsets.

Kafka's consumer groups share out partitions and no more: the table says where to read on. Payloads
are compressed already, so the producer does not compress again. Changed certificates or passwords
make a new connection, between two sends or fetches, and so do brokers that have moved.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import aiokafka
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from collector.errors import PositionOutOfRange, TopicMissing
from collector.topic.interface import Headers, Membership, Record, TopicLimits
from collector.topic.kafka_append import Appender
from collector.topic.kafka_connection import Connection
from collector.topic.kafka_group import KafkaMembership
from collector.topic.kafka_limits import advice, configs_of, number, replicas_of
from collector.topic.security import Security

VALUE_BYTES_MAX = 1_000_000
QUEUED_BYTES_MAX = 32 << 20
# What Kafka counts beside a record's value, and the headers, take less.
_OVERHEAD_BYTES = 1024
_TIMEOUT_S = 30.0
_CLOSE_S = 10.0
_SILENT_S = 10.0
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class KafkaTopic:
    """The Kafka body of Topic; connects on first use."""

    dense = False

    def __init__(self, brokers: Sequence[str], name: str, security: Security) -> None:
        self._brokers = list(brokers)
        self._name = name
        self._security = security
        self._connection = partial(Connection, brokers, security)
        self._consumer: Connection[aiokafka.AIOKafkaConsumer] = self._connection(self._new_consumer)
        self._limits = TopicLimits(VALUE_BYTES_MAX)
        self._partitions: frozenset[int] = frozenset()
        self._fetch_bytes = 4 << 20
        self._heard_s = 0.0
        self._positions: dict[int, int] = {}
        self._appenders: dict[int, Appender] = {}
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._troubles: dict[int, str] = {}
        self.trouble = ""  # why some partitions take nothing; read by other threads too
        self._said: set[str] = set()

    async def identity(self) -> str:
        """Return the topic's name: aiokafka shows no id that a new topic would change."""
        return self._name

    async def partitions(self) -> int:
        """Return the number of partitions."""
        consumer = await self._consumer.client()
        # A client that has just started knows no topic until its metadata is asked for.
        await self._refresh()
        found = consumer.partitions_for_topic(self._name)
        if not found:
            raise self._missing()
        self._partitions = frozenset(found)
        return len(found)

    async def limits(self) -> TopicLimits:
        """Return what the broker and this client allow; each advice is logged once."""
        connection: Connection[AIOKafkaAdminClient] = self._connection(AIOKafkaAdminClient)
        admin = await connection.client()
        try:
            configs = await self._answer(connection, configs_of(admin, self._name))
            # Asked for by this client, a topic could be made; with settings it is there.
            replicas = 0
            if configs:
                replicas = await self._answer(connection, replicas_of(admin, self._name))
        finally:
            await connection.drop()
        allowed = number(configs, "max.message.bytes", VALUE_BYTES_MAX + _OVERHEAD_BYTES)
        value_bytes_max = min(max(allowed - _OVERHEAD_BYTES, 1), VALUE_BYTES_MAX)
        found = TopicLimits(value_bytes_max, tuple(advice(configs, replicas)))
        for each in found.advice:
            if each not in self._limits.advice:
                _log.warning("the topic's settings should be changed", extra={"advice": each})
        self._limits = found
        return found

    async def append(self, partition: int, value: bytes, headers: Headers) -> "asyncio.Future[int]":
        """Queue a record; its future is done when all in-sync replicas have it.

        Needs no broker that answers: what cannot be sent yet waits, for a login to be mended too.
        """
        if self._partitions and partition not in self._partitions:
            await self.partitions()
            if partition not in self._partitions:
                raise TopicMissing(f"topic {self._name!r} has no partition {partition}; add it")
        while self._queued_bytes >= QUEUED_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        if partition not in self._appenders:
            at = aiokafka.TopicPartition(self._name, partition)
            producer = self._connection(self._new_producer)
            self._appenders[partition] = Appender(at, producer, partial(self._tell, partition))
        self._queued_bytes += len(value)
        future = self._appenders[partition].append(value, headers)
        future.add_done_callback(partial(self._taken, len(value)))
        return future

    def _taken(self, size: int, _: "asyncio.Future[int]") -> None:
        self._queued_bytes -= size
        self._room.set()

    def _tell(self, partition: int, trouble: str) -> None:
        """Keep why a partition takes nothing; log each reason once, until all take batches."""
        if trouble:
            self._troubles[partition] = trouble
            if trouble not in self._said:
                self._said.add(trouble)
                _log.error("kafka did not accept batches; retrying", extra={"error": trouble})
        elif self._troubles.pop(partition, "") and not self._troubles:
            self._said.clear()
            _log.info("kafka accepts batches again")
        self.trouble = "; ".join(dict.fromkeys(self._troubles.values()))

    def _missing(self) -> TopicMissing:
        return TopicMissing(f"topic {self._name!r} does not exist on {self._brokers}; create it")

    def _new_producer(self, **common: Any) -> aiokafka.AIOKafkaProducer:
        return aiokafka.AIOKafkaProducer(
            acks="all",
            enable_idempotence=True,
            max_request_size=VALUE_BYTES_MAX + 48_576,
            max_batch_size=self._limits.value_bytes_max,
            metadata_max_age_ms=60_000,
            **common,
        )

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the log start offset and the high watermark."""
        consumer = await self._consumer.client()
        at = aiokafka.TopicPartition(self._name, partition)
        start = await self._answer(self._consumer, consumer.beginning_offsets([at]))
        end = await self._answer(self._consumer, consumer.end_offsets([at]))
        return start[at], end[at]

    async def read(
        self, positions: Mapping[int, int], bytes_max: int, wait_ms: int
    ) -> dict[int, list[Record]]:
        """Return the next records, up to ``bytes_max`` of each broker and a record more.

        Between two reads at most as much again is on its way: a client left alone would fetch
        a part of each partition ahead, however many there are.
        """
        if bytes_max != self._fetch_bytes:
            self._fetch_bytes = bytes_max
            await self._consumer.drop()
        consumer = await self._consumer.client()
        partitions = {p: aiokafka.TopicPartition(self._name, p) for p in positions}
        if consumer.assignment() != set(partitions.values()):
            consumer.assign(list(partitions.values()))
            self._positions = {}
        for p, position in positions.items():
            if self._positions.get(p) != position:
                consumer.seek(partitions[p], position)
                self._positions[p] = position
        consumer.resume(*partitions.values())
        try:
            fetched = await self._answer(self._consumer, consumer.getmany(timeout_ms=wait_ms))
            consumer.pause(*partitions.values())
        except kafka.OffsetOutOfRangeError as error:
            at, position = next(iter(error.args[0].items()))
            self._positions = {}
            raise PositionOutOfRange(at.partition, position) from error
        if fetched or time.monotonic() - self._heard_s > _SILENT_S:
            if not fetched:  # aiokafka never says that brokers are gone
                await self._refresh()
            self._heard_s = time.monotonic()
        found = {}
        for at, messages in fetched.items():
            found[at.partition] = [Record(m.offset, m.value or b"", m.headers) for m in messages]
            self._positions[at.partition] = messages[-1].offset + 1
        return found

    def join(self, group: str, session_ms: int) -> Membership:
        """Return a place in one of Kafka's consumer groups."""
        return KafkaMembership(self._brokers, self._name, self._security, group, session_ms)

    async def forget(self, partition: int, before: int) -> None:
        """Do nothing: Kafka's own retention deletes."""

    async def close(self) -> None:
        """Flush the queue for a while and leave."""
        leaving = [appender.close() for appender in self._appenders.values()]
        # One that waits for a broker which is away ends with the process.
        tasks = [asyncio.create_task(each) for each in (*leaving, self._consumer.drop())]
        await asyncio.wait(tasks, timeout=_CLOSE_S)

    def _new_consumer(self, **common: Any) -> aiokafka.AIOKafkaConsumer:
        return aiokafka.AIOKafkaConsumer(
            auto_offset_reset="none",
            enable_auto_commit=False,
            fetch_max_bytes=self._fetch_bytes,
            max_partition_fetch_bytes=self._fetch_bytes,
            fetch_max_wait_ms=200,
            metadata_max_age_ms=10_000,
            **common,
        )

    async def _refresh(self) -> None:
        """Let the consumer ask for topics and brokers; raise TopicUnavailable if none answers."""
        if not await self._consumer.refresh():
            await self._consumer.drop()
            raise await self._consumer.unavailable(ConnectionError("the brokers have moved"))

    async def _answer(self, connection: Connection[Any], call: Awaitable[_T]) -> _T:
        """Await a call of aiokafka and turn its failures into this package's."""
        try:
            # Unlike `wait_for` of Python 3.11, it loses no cancellation as the answer comes.
            async with asyncio.timeout(_TIMEOUT_S):
                return await call
        except kafka.OffsetOutOfRangeError:
            raise
        except kafka.UnknownTopicOrPartitionError as error:
            raise self._missing() from error
        except (kafka.KafkaError, TimeoutError, OSError) as error:
            await connection.drop()  # its brokers may have moved
            raise await connection.unavailable(error) from error
