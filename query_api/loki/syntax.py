"""What a LogQL text says, as values: what the parser makes and the rest of the room walks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

MatchOperator = Literal["=", "!=", "=~", "!~"]


@dataclass(frozen=True, slots=True)
class Match:
    """What a label must be, or must not; ``column`` is where the query says so."""

    label: str
    operator: MatchOperator
    value: str
    column: int


@dataclass(frozen=True, slots=True)
class NumberMatch:
    """What the number in a label is compared with; ``unit`` as of ``tree.Compared``."""

    label: str
    operator: Literal["<", "<=", ">", ">=", "==", "!="]
    number: float
    unit: str
    column: int


@dataclass(frozen=True, slots=True)
class AllMatch:
    """All of these must hold."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AnyMatch:
    """One of these must hold."""

    parts: tuple["Condition", ...]


Condition = Match | NumberMatch | AllMatch | AnyMatch


@dataclass(frozen=True, slots=True)
class LineFilter:
    """What a line must hold, or must not: one of some texts, expressions or patterns."""

    operator: Literal["|=", "!=", "|~", "!~", "|>", "!>"]
    texts: tuple[str, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """Fields of the message become labels; of some it is said which path a label has."""

    paths: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """Labels that are left out of the answer (``drops``), or the only ones in it."""

    drops: bool
    names: frozenset[str]


Stage = LineFilter | Condition | Parsed | Shown


@dataclass(frozen=True, slots=True)
class LogQuery:
    """A selector of streams and what follows it."""

    matches: tuple[Match, ...]
    stages: tuple[Stage, ...] = ()

    def shows(self, label: str) -> bool:
        """Return whether an answer has this label, as far as ``drop`` and ``keep`` say."""
        shown = (stage for stage in self.stages if isinstance(stage, Shown))
        return all((label in stage.names) != stage.drops for stage in shown)


RangeKind = Literal["count_over_time", "rate", "bytes_over_time", "bytes_rate", "absent_over_time"]


@dataclass(frozen=True, slots=True)
class RangeCount:
    """How much there is in the time before each point."""

    kind: RangeKind
    query: LogQuery
    range_ns: int
    offset_ns: int = 0


@dataclass(frozen=True, slots=True)
class Grouping:
    """The labels that series are put together by; ``without``: by all but these."""

    labels: tuple[str, ...]
    without: bool = False


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One series made of several; ``parameter`` is the number of ``topk``."""

    kind: Literal["sum", "avg", "min", "max", "count", "topk", "bottomk"]
    of: "Metric"
    grouping: Grouping | None = None
    parameter: int = 0


@dataclass(frozen=True, slots=True)
class Number:
    """The same number at each point."""

    value: float


@dataclass(frozen=True, slots=True)
class Vector:
    """One series without labels, the same number at each point."""

    value: float


@dataclass(frozen=True, slots=True)
class Operation:
    """Two numbers at each point made one; ``column`` is where the operator stands."""

    operator: Literal["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">="]
    left: "Metric"
    right: "Metric"
    is_bool: bool
    column: int


Metric = RangeCount | Aggregation | Number | Vector | Operation
LogQL = LogQuery | Metric


def ranges_of(metric: Metric) -> Iterator[RangeCount]:
    """Yield what a metric counts."""
    if isinstance(metric, RangeCount):
        yield metric
    elif isinstance(metric, Aggregation):
        yield from ranges_of(metric.of)
    elif isinstance(metric, Operation):
        yield from ranges_of(metric.left)
        yield from ranges_of(metric.right)
