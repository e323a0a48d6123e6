"""Changes of state: one function makes them all, and refuses what a life cycle does not have.

A state and its successor go in, with the transitions of their life cycle; the successor comes out.
"""

from collections.abc import Collection, Mapping
from enum import Enum
from typing import TypeVar

from indexer.errors import NoSuchTransition

_State = TypeVar("_State", bound=Enum)


def changed(
    now: _State, to: _State, transitions: Mapping[_State, Collection[_State]], of: str
) -> _State:
    """Return ``to``; raise NoSuchTransition, which names ``of``, unless ``now`` leads there."""
    if to not in transitions[now]:
        raise NoSuchTransition(f"{of} is {now.name}, and that does not lead to {to.name}")
    return to
