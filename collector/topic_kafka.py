"""A topic in Kafka: acks=all, an idempotent producer, positions that are Kafka's offsets.

Kafka's consumer groups are not used: the table says where to read on. Payloads are compressed
already, so the producer does not compress again.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

import aiokafka
from aiokafka import errors as kafka

from collector.errors import PositionOutOfRange, TopicError, TopicMissing, TopicUnavailable
from collector.topic import Headers, Record

RECORD_BYTES_MAX = 1_000_000
_TIMEOUT_S = 30.0
_T = TypeVar("_T")


class KafkaTopic:
    """The Kafka body of Topic; connects on first use."""

    dense = False

    def __init__(self, brokers: Sequence[str], name: str) -> None:
        self._brokers = list(brokers)
        self._name = name
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._positions: dict[int, int] = {}

    async def identity(self) -> str:
        """Return the topic's name: aiokafka shows no id that a new topic would change."""
        return self._name

    async def partitions(self) -> int:
        """Return the number of partitions."""
        consumer = await self._reader()
        # A client that has just started knows no topic until its metadata is asked for.
        await self._answer(consumer._client.force_metadata_update())
        found = consumer.partitions_for_topic(self._name)
        if not found:
            raise TopicMissing(f"topic {self._name!r} does not exist on {self._brokers}; create it")
        return len(found)

    async def append(self, partition: int, value: bytes, headers: Headers) -> "asyncio.Future[int]":
        """Queue a record; its future is done when all in-sync replicas have it."""
        if self._producer is None:
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=self._brokers,
                acks="all",
                enable_idempotence=True,
                max_request_size=RECORD_BYTES_MAX + 48_576,
                max_batch_size=RECORD_BYTES_MAX,
            )
            await self._answer(producer.start())
            self._producer = producer
        sent = await self._answer(
            self._producer.send(
                self._name, value, partition=partition, headers=[(k, v) for k, v in headers]
            )
        )
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def acknowledge(done: "asyncio.Future[aiokafka.structs.RecordMetadata]") -> None:
            if future.done():
                return
            if done.cancelled():
                future.cancel()
            elif (error := done.exception()) is not None:
                future.set_exception(TopicError(f"the topic refused a batch: {error!r}"))
            else:
                future.set_result(done.result().offset)

        sent.add_done_callback(acknowledge)
        return future

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the log start offset and the high watermark."""
        consumer = await self._reader()
        at = aiokafka.TopicPartition(self._name, partition)
        start = await self._answer(consumer.beginning_offsets([at]))
        end = await self._answer(consumer.end_offsets([at]))
        return start[at], end[at]

    async def read(
        self, positions: Mapping[int, int], bytes_max: int, wait_ms: int
    ) -> dict[int, list[Record]]:
        """Return the next records; ``bytes_max`` is Kafka's fetch size and so approximate."""
        consumer = await self._reader(bytes_max)
        partitions = {p: aiokafka.TopicPartition(self._name, p) for p in positions}
        if consumer.assignment() != set(partitions.values()):
            consumer.assign(list(partitions.values()))
            self._positions = {}
        for p, position in positions.items():
            if self._positions.get(p) != position:
                consumer.seek(partitions[p], position)
                self._positions[p] = position
        try:
            fetched = await self._answer(consumer.getmany(timeout_ms=wait_ms))
        except kafka.OffsetOutOfRangeError as error:
            at, position = next(iter(error.args[0].items()))
            self._positions = {}
            raise PositionOutOfRange(at.partition, position) from error
        found = {}
        for at, messages in fetched.items():
            found[at.partition] = [Record(m.offset, m.value or b"", m.headers) for m in messages]
            self._positions[at.partition] = messages[-1].offset + 1
        return found

    async def forget(self, partition: int, before: int) -> None:
        """Do nothing: Kafka's own retention deletes."""

    async def close(self) -> None:
        """Flush the producer for a while and leave."""
        if self._producer is not None:
            await self._producer.stop()
        if self._consumer is not None:
            await self._consumer.stop()
        self._producer = self._consumer = None

    async def _reader(self, bytes_max: int = 4 << 20) -> aiokafka.AIOKafkaConsumer:
        if self._consumer is None:
            consumer = aiokafka.AIOKafkaConsumer(
                bootstrap_servers=self._brokers,
                auto_offset_reset="none",
                enable_auto_commit=False,
                max_partition_fetch_bytes=bytes_max,
                fetch_max_wait_ms=200,
                metadata_max_age_ms=10_000,
            )
            await self._answer(consumer.start())
            self._consumer = consumer
        return self._consumer

    async def _answer(self, call: Awaitable[_T]) -> _T:
        """Await a call of aiokafka and turn its failures into this package's."""
        try:
            return await asyncio.wait_for(call, _TIMEOUT_S)
        except kafka.OffsetOutOfRangeError:
            raise
        except kafka.UnknownTopicOrPartitionError as error:
            raise TopicMissing(f"topic {self._name!r}: {error!r}; create it") from error
        except (kafka.KafkaError, TimeoutError, OSError) as error:
            raise TopicUnavailable(f"kafka at {self._brokers}: {error!r}") from error
