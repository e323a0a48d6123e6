"""Which partitions an indexer follows: its group's share of them, all of them, or those it is told.

Whatever the choice, the same loop asks for it again and again, so that a share may change.
"""

from collections.abc import Mapping

from collector.errors import SettingError
from collector.topic.interface import Membership, Topic
from indexer.settings import IndexerSettings

ALL = "all"


class _Chosen:
    """A reader outside of any group; no partitions named: all that there are."""

    def __init__(self, topic: Topic, partitions: frozenset[int]) -> None:
        self._topic = topic
        self._partitions = partitions

    async def mine(self) -> frozenset[int]:
        """Return the partitions named, or as many as the topic has by now."""
        return self._partitions or frozenset(range(await self._topic.partitions()))

    async def tell(self, positions: Mapping[int, int]) -> None:
        """Do nothing: there is no group."""

    async def leave(self) -> None:
        """Do nothing: there is no group."""


def membership(settings: IndexerSettings, topic: Topic) -> Membership:
    """Return what says which partitions of ``topic`` to follow; raise SettingError."""
    chosen = settings.partitions
    if not chosen:
        group = settings.group or f"everyline-{settings.cluster}"
        return topic.join(group, settings.group_session_ms)
    if chosen == ALL:
        return _Chosen(topic, frozenset())
    try:
        return _Chosen(topic, frozenset(int(each) for each in chosen.split(",")))
    except ValueError as error:
        raise SettingError(f"partitions {chosen!r}: write numbers as in 0,1,2, or all") from error
