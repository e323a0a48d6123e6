"""What a question is about: a span of time, and for some columns the values allowed.

Search, verdict and deletion speak of the same scope, so that all three are of the same lines.
"""

from collections.abc import Mapping
from dataclasses import dataclass

WORDS = ("namespace", "pod", "container", "node", "level")
"""Columns that a question may ask to be equal to one of some values."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked: times ``[from_ns, to_ns)``, and for some columns the values allowed."""

    from_ns: int
    to_ns: int
    equals: Mapping[str, tuple[str, ...]]

    def allows(self, name: str, value: str) -> bool:
        """Return whether the scope allows this value of a column."""
        wanted = self.equals.get(name)
        return not wanted or value in wanted

    def overlaps(self, from_ns: int | None, to_ns: int | None) -> bool:
        """Return whether a span of time touches the scope; an unknown bound is open."""
        starts = from_ns is None or from_ns < self.to_ns
        return starts and (to_ns is None or to_ns >= self.from_ns)
