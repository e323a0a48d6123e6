"""Readers share a topic's partitions through a group, and those that stay are not disturbed."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from collector.errors import TopicUnavailable
from collector.topic.interface import Membership, Topic
from collector.topic.kafka import KafkaTopic
from collector.topic.open import open_topic
from tests.cancelling import cancelled_at
from tests.real_parts.guard import free_port
from tests.real_parts.kafka import Broker

SESSION_MS = 6_000


class Member:
    """A reader that asks for its partitions again and again, and remembers what it was told."""

    def __init__(self, url: str, group: str) -> None:
        self.topic: Topic = open_topic(url)
        self.membership: Membership = self.topic.join(group, SESSION_MS)
        self.seen: list[frozenset[int]] = [frozenset()]
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        while True:
            mine = await self.membership.mine()
            if mine != self.seen[-1]:
                self.seen.append(mine)
            await asyncio.sleep(0.05)

    @property
    def mine(self) -> frozenset[int]:
        return self.seen[-1]

    async def leave(self) -> None:
        self._asking.cancel()
        await asyncio.wait([self._asking])
        await self.membership.leave()
        await self.topic.close()


Joiner = Callable[[], Awaitable[Member]]


@asynccontextmanager
async def a_group(url: str, group: str) -> AsyncIterator[Joiner]:
    """Give what adds a member to the group; all of them leave in the end."""
    members: list[Member] = []

    async def join() -> Member:
        members.append(Member(url, group))
        return members[-1]

    try:
        yield join
    finally:
        await asyncio.gather(*(each.leave() for each in members))


async def settled(*members: Member, partitions: int) -> None:
    """Wait until each partition is one member's, and no member's share is above the others'."""
    async with asyncio.timeout(40):
        while True:
            shares = [each.mine for each in members]
            sizes = sorted(map(len, shares))
            whole = sum(sizes) == partitions == len(frozenset().union(*shares))
            if whole and sizes[-1] - sizes[0] <= 1:
                return
            await asyncio.sleep(0.05)


async def test_members_that_stay_keep_what_they_had_when_others_come_and_go(
    kafka: Broker,
) -> None:
    url = f"kafka://{kafka.bootstrap}/{await kafka.new_topic(6)}"
    async with a_group(url, f"group-{uuid.uuid4()}") as join:
        first = await join()
        await settled(first, partitions=6)
        second = await join()
        await settled(first, second, partitions=6)
        third = await join()
        await settled(first, second, third, partitions=6)
        # Shares only shrink as members come, and never pass through nothing.
        for shares in (first.seen[1:], second.seen[1:]):
            assert all(after < before for before, after in itertools.pairwise(shares))
            assert all(shares)
        kept = first.mine, second.mine
        await third.leave()
        await settled(first, second, partitions=6)
        assert first.mine > kept[0]
        assert second.mine > kept[1]


async def test_partitions_that_are_added_are_shared_out(kafka: Broker) -> None:
    name = await kafka.new_topic(1)
    url = f"kafka://{kafka.bootstrap}/{name}"
    async with a_group(url, f"group-{uuid.uuid4()}") as join:
        first, second = await join(), await join()
        await settled(first, second, partitions=1)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_partitions({name: NewPartitions(4)})
        await admin.close()
        await settled(first, second, partitions=4)


async def test_what_is_told_can_be_seen_from_outside_and_nothing_is_fetched(
    kafka: Broker,
) -> None:
    name, group = await kafka.new_topic(2), f"group-{uuid.uuid4()}"
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for n in range(8):
        await producer.send_and_wait(name, b"%d" % n, partition=n % 2)
    await producer.stop()
    async with a_group(f"kafka://{kafka.bootstrap}/{name}", group) as join:
        member = await join()
        await settled(member, partitions=2)
        await member.membership.tell({0: 3, 1: 4, 9: 1})
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        offsets = await admin.list_consumer_group_offsets(group)
        await admin.close()
        assert {at.partition: told.offset for at, told in offsets.items()} == {0: 3, 1: 4}
        await asyncio.sleep(0.5)
        assert member.mine == {0, 1}
        assert await member.topic.read({0: 3}, 1 << 20, 2_000)


async def test_a_group_that_cannot_be_reached_is_no_trouble_for_ever() -> None:
    topic = open_topic(f"kafka://127.0.0.1:{free_port()}/logs")
    member = topic.join("group", SESSION_MS)
    with pytest.raises(TopicUnavailable, match="kafka at") as away:
        await member.mine()
    assert away.value.retriable
    await member.leave()
    await topic.close()


async def test_a_call_that_is_cancelled_just_as_it_is_answered_does_not_go_on() -> None:
    topic = open_topic(f"kafka://127.0.0.1:{free_port()}/logs")
    assert isinstance(topic, KafkaTopic)
    went_on = False

    async def work() -> None:
        nonlocal went_on
        await topic._answer(topic._consumer, asyncio.sleep(0.01))
        went_on = True

    assert await cancelled_at(1, work(), late=True)
    assert not went_on
    await topic.close()
