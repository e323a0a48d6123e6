"""A topic in Kafka: acks=all, an idempotent producer, positions that are Kafka's offsets.

Kafka's consumer groups are not used: the table says where to read on. Payloads are compressed
already, so the producer does not compress again. What it fails to deliver is sent again through
a new one, for as long as it takes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import aiokafka
from aiokafka import errors as kafka

from collector.errors import PositionOutOfRange, TopicError, TopicMissing, TopicUnavailable
from collector.topic import Headers, Record

RECORD_BYTES_MAX = 1_000_000
QUEUED_BYTES_MAX = 32 << 20
_TIMEOUT_S = 30.0
_CLOSE_S = 5.0
_RETRY_S = 1.0
# Sending such a record again cannot help.
_REFUSALS = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Queued:
    partition: int
    value: bytes
    headers: Headers
    future: "asyncio.Future[int]"


class KafkaTopic:
    """The Kafka body of Topic; connects on first use."""

    dense = False

    def __init__(self, brokers: Sequence[str], name: str) -> None:
        self._brokers = list(brokers)
        self._name = name
        self._producer: aiokafka.AIOKafkaProducer | None = None
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._positions: dict[int, int] = {}
        self._queue: list[_Queued] = []
        self._queued_bytes = 0
        self._room = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

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
        producer = await self._started()
        if partition not in await self._answer(producer.partitions_for(self._name)):
            raise TopicMissing(f"topic {self._name!r} has no partition {partition}; add partitions")
        while self._queued_bytes >= QUEUED_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Queued(partition, value, headers, future))
        self._queued_bytes += len(value)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return future

    async def _write(self) -> None:
        """Send the queue until all of it is acknowledged or refused.

        An idempotent producer that has failed once refuses the partition for ever, hence a new
        one for what is left.
        """
        said = ""
        while self._queue:
            error = await self._send(self._queue[:])
            self._queue = [queued for queued in self._queue if not queued.future.done()]
            self._queued_bytes = sum(len(queued.value) for queued in self._queue)
            self._room.set()
            if error is not None:
                if repr(error) != said:
                    said = repr(error)
                    _log.error("kafka did not take batches; retrying", extra={"error": said})
                await self._drop_producer()
                await asyncio.sleep(_RETRY_S)

    async def _send(self, taken: Sequence[_Queued]) -> BaseException | None:
        """Send records and resolve the futures of those that were taken; return a failure."""
        failure: BaseException | None = None
        sent: list[tuple[_Queued, asyncio.Future[aiokafka.structs.RecordMetadata]]] = []
        try:
            producer = await self._started()
            for queued in taken:
                headers = list(queued.headers)
                partition = queued.partition
                try:
                    sending = await producer.send(
                        self._name, queued.value, partition=partition, headers=headers
                    )
                except _REFUSALS as error:
                    _refuse(queued, error)
                else:
                    sent.append((queued, sending))
        except (kafka.KafkaError, TopicUnavailable, OSError) as error:
            failure = error
        answers = await asyncio.gather(*(sending for _, sending in sent), return_exceptions=True)
        for (queued, _), answer in zip(sent, answers, strict=True):
            if isinstance(answer, _REFUSALS):
                _refuse(queued, answer)
                failure = failure or answer
            elif isinstance(answer, BaseException):
                failure = failure or answer
            elif not queued.future.done():
                queued.future.set_result(answer.offset)
        return failure

    async def _started(self) -> aiokafka.AIOKafkaProducer:
        if self._producer is None:
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=self._brokers,
                acks="all",
                enable_idempotence=True,
                max_request_size=RECORD_BYTES_MAX + 48_576,
                max_batch_size=RECORD_BYTES_MAX,
            )
            await self._start(producer)
            self._producer = producer
        return self._producer

    async def _start(self, client: aiokafka.AIOKafkaProducer | aiokafka.AIOKafkaConsumer) -> None:
        try:
            await self._answer(client.start())
        except TopicUnavailable:
            await client.stop()
            raise

    async def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            await asyncio.wait_for(producer.stop(), _CLOSE_S)
        except TimeoutError:  # it waits for a broker that is away
            await producer._sender.close()
            await producer.client.close()

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
        """Flush the queue for a while and leave."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=_CLOSE_S)
            self._writer.cancel()
        await self._drop_producer()
        if self._consumer is not None:
            await self._consumer.stop()
        self._consumer = None

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
            await self._start(consumer)
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


def _refuse(queued: _Queued, error: BaseException) -> None:
    if not queued.future.done():
        size = len(queued.value)
        refusal = TopicError(f"kafka refused a batch of {size} bytes for ever: {error!r}")
        queued.future.set_exception(refusal)
