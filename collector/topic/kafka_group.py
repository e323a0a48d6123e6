"""A reader's place in one of Kafka's consumer groups, which share out a topic's partitions.

A group's name goes in, and out comes which partitions are this member's. The group says nothing
else: nothing is fetched through it, and offsets are committed to it for those who watch the lag.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import aiokafka
from aiokafka import errors as kafka
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from collector.topic.kafka_connection import Connection
from collector.topic.security import Security

_TELL_S = 1.0
_HEARTBEATS = 3  # of a session

_log = logging.getLogger(__name__)


class KafkaMembership:
    """Kafka's body of Membership; joins when it is first asked.

    aiokafka only knows protocols that take every partition away from everybody when the group
    changes. Here a member keeps what it had until the group has rebalanced, so that one that keeps
    a partition is not disturbed.
    """

    def __init__(
        self, brokers: Sequence[str], topic: str, security: Security, group: str, session_ms: int
    ) -> None:
        self._topic = topic
        self._group = group
        self._session_ms = session_ms
        self._connection = Connection(brokers, security, self._new_client)
        self._client: aiokafka.AIOKafkaConsumer | None = None
        self._mine: frozenset[int] = frozenset()
        # The assignor keeps what it remembers in its class, as if a process had one member.
        self._assignor = type("Sticky", (StickyPartitionAssignor,), {})

    async def mine(self) -> frozenset[int]:
        """Return the partitions that the group gave to this member when it last met."""
        client = await self._connection.client()
        if client is not self._client:
            self._client = client
            client.subscribe([self._topic], listener=_Listener(self, client))
        try:
            # All is paused, so nothing is fetched: this shows that the member is alive, and what
            # the group has against it.
            await client.getmany(timeout_ms=0)
        except kafka.KafkaError as error:
            await self._connection.drop()
            raise await self._connection.unavailable(error) from error
        return self._mine

    async def tell(self, positions: Mapping[int, int]) -> None:
        """Commit offsets of this member's partitions to the group; a failure is no trouble."""
        client = self._client
        if client is None:
            return
        offsets = {
            at: positions[at.partition] for at in client.assignment() if at.partition in positions
        }
        if not offsets:
            return
        try:
            async with asyncio.timeout(_TELL_S):
                await client.commit(offsets)
        except (kafka.KafkaError, TimeoutError) as error:
            _log.debug("offsets were not committed to the group", extra={"error": str(error)})

    async def leave(self) -> None:
        """Leave the group."""
        await self._connection.drop()

    def _new_client(self, **common: Any) -> aiokafka.AIOKafkaConsumer:
        return aiokafka.AIOKafkaConsumer(
            group_id=self._group,
            session_timeout_ms=self._session_ms,
            rebalance_timeout_ms=self._session_ms,
            heartbeat_interval_ms=self._session_ms // _HEARTBEATS,
            partition_assignment_strategy=(self._assignor,),
            enable_auto_commit=False,
            # Where a partition has no offset yet; nothing is fetched there either.
            auto_offset_reset="latest",
            metadata_max_age_ms=10_000,  # until added partitions are seen
            **common,
        )

    def assigned(self, client: aiokafka.AIOKafkaConsumer, partitions: frozenset[int]) -> None:
        """Take over what the group has agreed on."""
        if client is not self._client:
            return
        if partitions != self._mine:
            _log.info(
                "the group has shared out the partitions",
                extra={"group": self._group, "partitions": sorted(partitions)},
            )
        self._mine = partitions


class _Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]  # has no types
    """What one client is told by its group."""

    def __init__(self, membership: KafkaMembership, client: aiokafka.AIOKafkaConsumer) -> None:
        self._membership = membership
        self._client = client

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Do nothing: most of them will come back."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Pause them before anything is fetched, and pass them on."""
        with contextlib.suppress(kafka.IllegalStateError):  # the group is meeting again already
            self._client.pause(*assigned)
        self._membership.assigned(self._client, frozenset(each.partition for each in assigned))
