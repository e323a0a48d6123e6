"""The ordered, durable hand-over between collector and indexer: what every topic promises.

Records go in under a partition and come out under positions that only grow. What ``append`` has
acknowledged survives a crash of every process.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a topic, as it was appended."""

    position: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """How large a record's value may be, and what to change about the topic, a sentence each."""

    value_bytes_max: int
    advice: tuple[str, ...] = ()


class Membership(Protocol):
    """One reader's place in a group of readers that share the partitions of a topic.

    Two members may hold a partition at once for a while: whoever must not do work twice needs a
    fence of its own. Every method but ``leave`` may raise TopicUnavailable (retriable).
    """

    async def mine(self) -> frozenset[int]:
        """Return the partitions that are this member's now; none before the group has met.

        A member that no longer asks, for minutes, loses them to others.
        """
        ...

    async def tell(self, positions: Mapping[int, int]) -> None:
        """Say where this member's partitions will be read on, for those who watch the lag."""
        ...

    async def leave(self) -> None:
        """Give up this member's place."""
        ...


class Topic(Protocol):
    """Partitions of records; every method may raise TopicUnavailable (retriable)."""

    @property
    def trouble(self) -> str:
        """Why nothing can be appended at the moment; empty while all goes well."""
        ...

    @property
    def dense(self) -> bool:
        """Whether positions count records without holes (Kafka's do not)."""
        ...

    async def identity(self) -> str:
        """Return a name that changes when the topic is recreated, as far as that can be told."""
        ...

    async def partitions(self) -> int:
        """Return the number of partitions; raise TopicMissing if there is no such topic."""
        ...

    async def limits(self) -> TopicLimits:
        """Return what the topic allows now; raise TopicMissing if there is no such topic."""
        ...

    async def append(self, partition: int, value: bytes, headers: Headers) -> "asyncio.Future[int]":
        """Queue a record; the future holds its position once it is durable.

        Records of one caller keep their order within a partition, but for one that is refused
        and those after it. The call waits while too much is queued; the future waits out an
        absent topic and never fails on a timer. It raises BatchTooLarge, which holds nothing
        else up, for what is larger than ``limits`` allows.
        """
        ...

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first position held and the one that the next record will get."""
        ...

    async def read(
        self, positions: Mapping[int, int], bytes_max: int, wait_ms: int
    ) -> dict[int, list[Record]]:
        """Return records at and after the given position of each partition.

        Waits up to ``wait_ms`` for the first one; a partition without news is left out. Raises
        PositionOutOfRange where a position lies outside the topic's bounds.
        """
        ...

    def join(self, group: str, session_ms: int) -> Membership:
        """Return a place in the group of this name; a member unheard of for so long loses it."""
        ...

    async def forget(self, partition: int, before: int) -> None:
        """Allow records below ``before`` to be deleted, unless the topic expires them itself.

        The record at ``before - 1`` is kept, so that a reader can compare it later.
        """
        ...

    async def close(self) -> None:
        """Release everything; records whose future is not done may be lost."""
        ...
