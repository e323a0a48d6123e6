"""One partition's records on their way into Kafka, in order, until Kafka has them.

Records are queued and futures come out, which hold positions. What a producer fails to deliver is
sent again through a new one, for as long as it takes and with the time of sending, so that nothing
expires before it was in the topic. Each partition has a producer of its own: none waits for
another one's leader.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiokafka
from aiokafka import errors as kafka

from collector.errors import BatchTooLarge, TopicUnavailable
from collector.topic.interface import Headers
from collector.topic.kafka_connection import Connection

_CLOSE_S = 5.0
_RETRY_S = 1.0
_STALLED_S = 5.0
_GIVEN_UP_S = 300.0
# Sending such a record again cannot help.
_REFUSALS = (kafka.MessageSizeTooLargeError, kafka.RecordListTooLargeError)

_log = logging.getLogger(__name__)

_Sending = asyncio.Future[aiokafka.structs.RecordMetadata]


@dataclass(frozen=True, slots=True, eq=False)
class _Queued:
    value: bytes
    headers: Headers
    future: "asyncio.Future[int]"


class Appender:
    """The queue of one partition, and the task that sends it."""

    def __init__(
        self,
        at: aiokafka.TopicPartition,
        producer: Connection[aiokafka.AIOKafkaProducer],
        tell: Callable[[str], None],
    ) -> None:
        """``tell`` hears why nothing is taken, and an empty text when something is."""
        self._at = at
        self._producer = producer
        self._tell = tell
        self._queue: list[_Queued] = []
        self._writer: asyncio.Task[None] | None = None

    def append(self, value: bytes, headers: Headers) -> "asyncio.Future[int]":
        """Queue a record; its future is done when all in-sync replicas have it."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(_Queued(value, headers, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return future

    async def close(self) -> None:
        """Flush the queue for a while and disconnect."""
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=_CLOSE_S)
            self._writer.cancel()
        await self._producer.drop()

    async def _write(self) -> None:
        """Send the queue until all of it is acknowledged or refused.

        An idempotent producer that has failed once refuses the partition for ever, hence a new
        one for what is left.
        """
        while self._queue:
            try:
                await self._write_out()
            except Exception as error:  # a fault of aiokafka or ours: what waits is not given up
                _log.exception("cannot send to kafka; retrying")
                self._tell(f"{self._place()}: {error!r}")
                await asyncio.sleep(_RETRY_S)
                await self._producer.drop()

    async def _write_out(self) -> None:
        alone = 0
        while self._queue:
            try:
                producer = await self._ready()
            except TopicUnavailable as unavailable:
                self._tell(str(unavailable))
                await asyncio.sleep(_RETRY_S)
                continue
            # A refusal speaks of all records that shared a request, so they go one by one then.
            taken = self._queue[:1] if alone else self._queue[:]
            error = await self._send(producer, taken)
            refused = isinstance(error, _REFUSALS)
            alone = len(taken) if refused and len(taken) > 1 else max(alone - 1, 0)
            self._queue = [queued for queued in self._queue if not queued.future.done()]
            if error is not None:
                await self._producer.drop()
            if error is None or refused:
                self._tell("")
            else:
                self._tell(str(error))
                await asyncio.sleep(_RETRY_S)

    async def _ready(self) -> aiokafka.AIOKafkaProducer:
        """Return a producer that knows the partition's leader; raise TopicUnavailable."""
        producer = await self._producer.client()
        cluster = producer.client.cluster
        if cluster.leader_for_partition(self._at) in (None, -1):
            # A client that has just started knows no topic until its metadata is asked for.
            producer.client.add_topic(self._at.topic)
            await self._producer.refresh()
        leader = cluster.leader_for_partition(self._at)
        if leader is None:
            missing = cluster.partitions_for_topic(self._at.topic) is None
            what = "create it" if missing else "add partitions"
            raise TopicUnavailable(f"{self._place()} does not exist; {what}")
        if leader == -1:
            raise TopicUnavailable(f"{self._place()} has no leader; look at its brokers")
        return producer

    def _place(self) -> str:
        return f"partition {self._at.partition} of topic {self._at.topic!r}"

    async def _send(
        self, producer: aiokafka.AIOKafkaProducer, taken: Sequence[_Queued]
    ) -> Exception | None:
        """Send records and resolve the futures of those that were taken; return a failure."""
        failure: Exception | None = None
        sent: list[tuple[_Queued, _Sending]] = []
        try:
            for queued in taken:
                topic, partition = self._at
                headers = list(queued.headers)
                try:
                    sending = await producer.send(
                        topic, queued.value, partition=partition, headers=headers
                    )
                except _REFUSALS:
                    _refuse(queued)
                else:
                    sent.append((queued, sending))
        except (kafka.KafkaError, OSError, AssertionError) as error:
            failure = error  # aiokafka asserts that there is such a partition still
        failure = await self._settled([sending for _, sending in sent]) or failure
        for queued, sending in sent:
            if not sending.done():
                sending.add_done_callback(_forget)
                continue
            answer = sending.exception()
            if isinstance(answer, _REFUSALS):
                if len(taken) == 1:
                    _refuse(queued)
                failure = answer
            elif isinstance(answer, Exception):
                failure = failure or answer
            elif not queued.future.done():
                queued.future.set_result(sending.result().offset)
        return failure

    async def _settled(self, sending: Sequence[_Sending]) -> TopicUnavailable | None:
        """Wait for all answers; return why they cannot come, if that is so.

        An idempotent producer waits for ever: with its first login, for brokers where they were.
        """
        waiting = set(sending)
        stalled_s = 0.0
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=_STALLED_S)
            stalled_s = 0.0 if done else stalled_s + _STALLED_S
            if not waiting or not stalled_s:
                continue
            lost = await self._producer.why_lost()
            if lost is not None:
                return lost
            unanswered = TopicUnavailable(
                f"{self._place()}: its leader acknowledges nothing; look at its replicas"
            )
            if stalled_s >= _GIVEN_UP_S:
                return unanswered
            self._tell(str(unanswered))
        return None


def _forget(sending: _Sending) -> None:
    """Look at the answer of a producer that was given up, or asyncio reports it as overlooked."""
    if not sending.cancelled():
        sending.exception()


def _refuse(queued: _Queued) -> None:
    if not queued.future.done():
        queued.future.set_exception(BatchTooLarge(len(queued.value)))
