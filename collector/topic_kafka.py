"""A topic in Kafka: acks=all, an idempotent producer, positions that are Kafka's offsets.

Kafka's consumer groups are not used: the table says where to read on. Payloads are compressed
already, so the producer does not compress again. What it fails to deliver is sent again through
a new one, for as long as it takes. Changed certificates or passwords make a new connection too,
between two sends or fetches; the old one stays while the new one is refused.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiokafka
from aiokafka import errors as kafka

from collector.errors import PositionOutOfRange, TopicError, TopicMissing, TopicUnavailable
from collector.login import arguments, cause, is_refusal, told
from collector.security import Login, Security
from collector.topic import Headers, Record

RECORD_BYTES_MAX = 1_000_000
QUEUED_BYTES_MAX = 32 << 20
_TIMEOUT_S = 30.0
_CLOSE_S = 5.0
_RETRY_S = 1.0
_RENEW_S = 30.0
_STALLED_S = 5.0
# Sending such a record again cannot help.
_REFUSALS = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)
_T = TypeVar("_T")
_Client = TypeVar("_Client", aiokafka.AIOKafkaProducer, aiokafka.AIOKafkaConsumer)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Queued:
    partition: int
    value: bytes
    headers: Headers
    future: "asyncio.Future[int]"


@dataclass(slots=True, eq=False)
class _Connected(Generic[_Client]):
    """A client, the login it came in with, and a newer one that was refused."""

    client: _Client
    login: Login
    refused: Login | None = None
    again_s: float = 0.0


class KafkaTopic:
    """The Kafka body of Topic; connects on first use."""

    dense = False

    def __init__(self, brokers: Sequence[str], name: str, security: Security) -> None:
        self._brokers = list(brokers)
        self._name = name
        self._security = security
        self._producer: _Connected[aiokafka.AIOKafkaProducer] | None = None
        self._consumer: _Connected[aiokafka.AIOKafkaConsumer] | None = None
        self._connecting = asyncio.Lock()
        self._partitions: frozenset[int] = frozenset()
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
        self._partitions = frozenset(found)
        return len(found)

    async def append(self, partition: int, value: bytes, headers: Headers) -> "asyncio.Future[int]":
        """Queue a record; its future is done when all in-sync replicas have it.

        Needs no broker that answers: what cannot be sent yet waits, for a login to be mended too.
        """
        if self._partitions:
            await self._check(partition)
        while self._queued_bytes >= QUEUED_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Queued(partition, value, headers, future))
        self._queued_bytes += len(value)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return future

    async def _check(self, partition: int) -> None:
        """Raise TopicMissing unless the topic has the partition."""
        if partition not in self._partitions:
            producer = await self._started()
            self._partitions = frozenset(await self._answer(producer.partitions_for(self._name)))
        if partition not in self._partitions:
            raise TopicMissing(f"topic {self._name!r} has no partition {partition}; add partitions")

    async def _write(self) -> None:
        """Send the queue until all of it is acknowledged or refused.

        An idempotent producer that has failed once refuses the partition for ever, hence a new
        one for what is left.
        """
        said = ""
        alone = 0
        while self._queue:
            # A refusal speaks of all records that shared a request, so they go one by one then.
            taken = self._queue[:1] if alone else self._queue[:]
            error = await self._send(taken)
            refused = len(taken) > 1 and isinstance(error, _REFUSALS)
            alone = len(taken) if refused else max(alone - 1, 0)
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
            await self._renew_producer()
            producer = await self._started()
            for queued in taken:
                headers = list(queued.headers)
                partition = queued.partition
                try:
                    await self._check(partition)
                    sending = await producer.send(
                        self._name, queued.value, partition=partition, headers=headers
                    )
                except TopicMissing as error:
                    if not queued.future.done():
                        queued.future.set_exception(error)
                except _REFUSALS as error:
                    _refuse(queued, error)
                else:
                    sent.append((queued, sending))
        except (kafka.KafkaError, TopicUnavailable, OSError) as error:
            failure = error
        failure = await self._settled([sending for _, sending in sent]) or failure
        for queued, sending in sent:
            if not sending.done():
                sending.add_done_callback(_forget)
                continue
            answer = sending.exception()
            if isinstance(answer, _REFUSALS):
                if len(taken) == 1:
                    _refuse(queued, answer)
                failure = answer
            elif answer is not None:
                failure = failure or answer
            elif not queued.future.done():
                queued.future.set_result(sending.result().offset)
        return failure

    async def _settled(
        self, sending: Sequence["asyncio.Future[aiokafka.structs.RecordMetadata]"]
    ) -> TopicUnavailable | None:
        """Wait for all answers; return why they cannot come, if the producer's login is refused.

        An idempotent producer waits for ever, and with no other login than its first.
        """
        waiting = set(sending)
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=_STALLED_S)
            held = self._producer
            if waiting and not done and held is not None:
                causes = await self._causes(held.login)
                if any(map(is_refusal, causes)):
                    return self._unavailable(causes, held.login)
        return None

    async def _started(self) -> aiokafka.AIOKafkaProducer:
        async with self._connecting:  # a caller of append and the writer may both be the first
            if self._producer is None:
                self._producer = await self._connected(None, self._new_producer)
            return self._producer.client

    async def _renew_producer(self) -> None:
        """Go over to a producer with the newest login; nothing may be on its way."""
        async with self._connecting:
            held = self._producer
            if held is not None:
                self._producer = await self._connected(held, self._new_producer)
                if self._producer is not held:
                    await _stop(held.client)

    def _new_producer(self, login: Login) -> aiokafka.AIOKafkaProducer:
        return aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._brokers,
            acks="all",
            enable_idempotence=True,
            max_request_size=RECORD_BYTES_MAX + 48_576,
            max_batch_size=RECORD_BYTES_MAX,
            **arguments(login),
        )

    async def _drop_producer(self) -> None:
        held, self._producer = self._producer, None
        if held is not None:
            await _stop(held.client)

    async def _connected(
        self, held: _Connected[_Client] | None, make: Callable[[Login], _Client]
    ) -> _Connected[_Client]:
        """Return ``held``, or a new client if there is a newer login that the broker takes."""
        login = self._security.login()
        if held is not None and (
            held.login is login or (held.refused is login and time.monotonic() < held.again_s)
        ):
            return held
        client = make(login)
        try:
            await self._start(client, login)
        except TopicUnavailable as error:
            if held is None:
                raise
            if held.refused is not login:
                _log.error(
                    "changed files were refused; staying connected to kafka with the old ones",
                    extra={"error": str(error)},
                )
            held.refused, held.again_s = login, time.monotonic() + _RENEW_S
            return held
        if held is not None:
            _log.info("connected to kafka with changed files")
        return _Connected(client, login)

    async def _start(self, client: _Client, login: Login) -> None:
        try:
            await asyncio.wait_for(client.start(), _TIMEOUT_S)
            producing = isinstance(client, aiokafka.AIOKafkaProducer)
            cluster = (client.client if producing else client._client).cluster
            if not cluster.brokers():  # what aiokafka makes of a token that was refused
                raise kafka.SaslAuthenticationFailed
        except asyncio.CancelledError:
            await client.stop()
            raise
        except Exception as error:  # a login can fail with any error of the library behind it
            await client.stop()
            raise self._unavailable(await self._causes(login) or [error], login) from error

    async def _causes(self, login: Login) -> list[Exception]:
        """Return why brokers cannot be reached: aiokafka does not tell, so each is asked again."""
        found = await asyncio.gather(*(cause(broker, login) for broker in self._brokers))
        return [error for error in found if error is not None]

    def _unavailable(self, causes: Sequence[Exception], login: Login) -> TopicUnavailable:
        why = "; ".join(dict.fromkeys(told(error, login) for error in causes))
        return TopicUnavailable(f"kafka at {self._brokers}: {why}")

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
        held, self._consumer = self._consumer, None
        if held is not None:
            await held.client.stop()

    async def _reader(self, bytes_max: int = 4 << 20) -> aiokafka.AIOKafkaConsumer:
        def new_consumer(login: Login) -> aiokafka.AIOKafkaConsumer:
            return aiokafka.AIOKafkaConsumer(
                bootstrap_servers=self._brokers,
                auto_offset_reset="none",
                enable_auto_commit=False,
                max_partition_fetch_bytes=bytes_max,
                fetch_max_wait_ms=200,
                metadata_max_age_ms=10_000,
                **arguments(login),
            )

        held = self._consumer
        self._consumer = await self._connected(held, new_consumer)
        if held is not None and held is not self._consumer:
            self._positions = {}
            await held.client.stop()
        return self._consumer.client

    async def _answer(self, call: Awaitable[_T]) -> _T:
        """Await a call of aiokafka and turn its failures into this package's."""
        try:
            return await asyncio.wait_for(call, _TIMEOUT_S)
        except kafka.OffsetOutOfRangeError:
            raise
        except kafka.UnknownTopicOrPartitionError as error:
            raise TopicMissing(f"topic {self._name!r}: {error!r}; create it") from error
        except (kafka.KafkaError, TimeoutError, OSError) as error:
            login = self._security.login()
            raise self._unavailable(await self._causes(login) or [error], login) from error


async def _stop(producer: aiokafka.AIOKafkaProducer) -> None:
    try:
        await asyncio.wait_for(producer.stop(), _CLOSE_S)
    except TimeoutError:  # it waits for a broker that is away
        await producer._sender.close()
        await producer.client.close()


def _forget(sending: "asyncio.Future[aiokafka.structs.RecordMetadata]") -> None:
    """Look at the answer of a producer that was given up, or asyncio reports it as overlooked."""
    if not sending.cancelled():
        sending.exception()


def _refuse(queued: _Queued, error: BaseException) -> None:
    if not queued.future.done():
        size = len(queued.value)
        refusal = TopicError(f"kafka refused a batch of {size} bytes for ever: {error!r}")
        queued.future.set_exception(refusal)
