"""The parameters of each endpoint, from the text of a URL to a scope.

Text goes in; a value out of bounds or a name that is not known is an error that says what to do,
so that a misspelt filter never gives an answer to another question.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from indexer.ledger.entries import GAP_TYPES
from indexer.query.scope import Scope
from indexer.schema import LEVELS
from query_api.completeness.gaps import STATES
from query_api.errors import BadParameter
from query_api.times import parse_time

EMPTY_VALUE = "empty_value"
"""Pydantic's type of the error that a list has an empty value."""


def _split(given: object) -> list[str]:
    """Return the values of a parameter that is given several times, or once with commas.

    An empty one is an error: as an unset variable gives it, it must not mean "any".
    """
    texts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    values = [value.strip() for text in texts for value in str(text).split(",")]
    if "" in values:
        raise PydanticCustomError(EMPTY_VALUE, "has an empty value")
    return values


Words = Annotated[
    list[str],
    BeforeValidator(_split),
    Field(default_factory=list, description="one or more values, repeated or separated by commas"),
]


def _some(given: object) -> list[str]:
    """Return the values of a parameter of a body; null or none at all is an error there."""
    values = _split(given)
    if not values:
        raise PydanticCustomError(EMPTY_VALUE, "has an empty value")
    return values


Some = Annotated[list[str], BeforeValidator(_some)]
_TIME = (
    "RFC 3339 or a part of it (2026-01-31, 08:30; UTC), today, yesterday, a number since 1970 "
    "(s, ms, us or ns), relative as -15m, or now"
)


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    namespace: Words
    pod: Words
    container: Words
    node: Words

    def _equals(self) -> dict[str, tuple[str, ...]]:
        names = ("namespace", "pod", "container", "node")
        return {name: tuple(getattr(self, name)) for name in names if getattr(self, name)}


Require = Annotated[
    Literal["", "complete"],
    Field(description="complete: answer with an error unless the answer is complete"),
]


class _RowParameters(_Parameters):
    """Which rows are meant."""

    from_: Annotated[str, Field(alias="from", description=_TIME)] = "-1h"
    to: Annotated[str, Field(description=_TIME + "; rows before it")] = "now"
    level: Words
    query: Annotated[
        str,
        Field(description='words, "phrases", patterns, /regex/, field:value, AND OR NOT ( )'),
    ] = ""

    def scope(self, now_ns: int) -> Scope:
        """Return what is asked for; raise BadParameter."""
        equals = self._equals()
        if self.level:
            for level in self.level:
                if level not in LEVELS:
                    raise BadParameter(
                        f"level={level!r} is not a level", "one of " + ", ".join(LEVELS)
                    )
            equals["level"] = tuple(self.level)
        return _bounded(self.from_, self.to, equals, now_ns)


class AnsweredParameters(_RowParameters):
    """Which rows are answered, and how."""

    require: Require = ""
    dry_run: Annotated[
        bool, Field(description="say what it would take at most, and read nothing")
    ] = False


class SearchParameters(AnsweredParameters):
    """What a search asks for."""

    order: Annotated[
        Literal["desc", "asc"], Field(description="by time: newest or oldest first")
    ] = "desc"
    limit: Annotated[int, Field(ge=1, description="maximum number of rows in a page")] = 100
    cursor: Annotated[str, Field(description="`next` of the previous page")] = ""

    def question(self) -> str:
        """Return a text that two pages of one question share."""
        page = {"cursor", "limit", "require", "dry_run"}
        plain = json.dumps(self.model_dump(exclude=page), sort_keys=True)
        return hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()


class HistogramParameters(AnsweredParameters):
    """What a histogram counts."""

    by: Annotated[
        Literal["", "namespace", "pod", "container", "node", "output", "level"],
        Field(description="column whose values are counted apart"),
    ] = "level"
    steps: Annotated[int, Field(ge=1, description="of time, at most so many of one length")] = 60


class FacetParameters(AnsweredParameters):
    """Of which fields the most frequent values are told."""

    field: Annotated[
        list[str],
        BeforeValidator(_split),
        Field(
            min_length=1,
            max_length=10,
            description="columns, or fields of messages; up to ten, repeated or with commas",
        ),
    ]
    limit: Annotated[int, Field(ge=1, le=1_000, description="maximum number of values")] = 10


class ExportParameters(AnsweredParameters):
    """Which rows are written out, and how."""

    order: Annotated[
        Literal["desc", "asc"], Field(description="by time: newest or oldest first")
    ] = "desc"
    format: Annotated[
        Literal["ndjson", "csv", "csv-spreadsheet", "parquet"],
        Field(description="csv-spreadsheet: with ' before what would be a formula"),
    ] = "ndjson"
    names: Annotated[
        Literal["", "otel"],
        Field(description="otel: columns named as OpenTelemetry does; not for CSV"),
    ] = ""

    def check(self) -> None:
        """Raise BadParameter for names that the format does not have."""
        if self.names and self.format.startswith("csv"):
            message = f"names={self.names!r} is not for format={self.format!r}"
            raise BadParameter(message, "take ndjson or parquet, or leave out names")


class FieldParameters(AnsweredParameters):
    """Of which rows the names of fields are told."""


class ContextParameters(BaseModel):
    """Around which line of which file; no time is asked for, since a line may bear any."""

    model_config = ConfigDict(extra="forbid")

    file_id: Annotated[str, Field(description="of the file, as a row has it")]
    epoch: Annotated[int, Field(ge=0, le=2**31 - 1, description="of the file")] = 0
    offset: Annotated[int, Field(ge=0, lt=2**62, description="where the line begins, in bytes")]
    before: Annotated[int, Field(ge=0, description="maximum number of rows before it")] = 50
    after: Annotated[int, Field(ge=0, description="maximum number of rows behind it")] = 50
    require: Require = ""

    def scope(self, _: int) -> Scope:
        """Return what is asked for: anything, for a file has one place."""
        return Scope(-(2**63), 2**63, {})

    def file(self) -> bytes:
        """Return the id of the file; raise BadParameter."""
        try:
            file_id = bytes.fromhex(self.file_id)
        except ValueError:
            file_id = b""
        if len(file_id) != 16:
            hint = "32 hexadecimal digits, as a row has them"
            raise BadParameter(f"file_id={self.file_id!r} is no id of a file", hint)
        return file_id


class DeletionParameters(_RowParameters):
    """What a request for deletion says: what a search does, who asks, and why.

    What is left out means any; what is there and empty is refused.
    """

    namespace: Some
    pod: Annotated[Some, Field(default_factory=list)]
    container: Annotated[Some, Field(default_factory=list)]
    node: Annotated[Some, Field(default_factory=list)]
    level: Annotated[Some, Field(default_factory=list)]
    query: Annotated[str, Field(min_length=1)] = ""
    from_: Annotated[str, Field(alias="from", description=_TIME)]
    reason: Annotated[str, Field(min_length=1)]
    by: Annotated[str, Field(min_length=1)]
    dry_run: Annotated[bool, Field(description="count the rows and show some")] = False


class _ListParameters(_Parameters):
    from_: Annotated[
        str | None, Field(alias="from", description=_TIME + "; else from the start")
    ] = None
    to: Annotated[str, Field(description=_TIME)] = "now"
    limit: Annotated[int, Field(ge=1, description="maximum number of entries in the list")] = 1_000

    def scope(self, now_ns: int) -> Scope:
        """Return what is asked for; raise BadParameter."""
        from_ = "0" if self.from_ is None else self.from_
        return _bounded(from_, self.to, self._equals(), now_ns)


class GapParameters(_ListParameters):
    """Which gaps to list."""

    type: Words
    state: Words

    def check(self) -> None:
        """Raise BadParameter for a type or a state that does not exist."""
        for name, given, known in (("type", self.type, GAP_TYPES), ("state", self.state, STATES)):
            for value in given:
                if value not in known:
                    hint = "one of " + ", ".join(known)
                    raise BadParameter(f"{name}={value!r} is not a {name}", hint)


class StreamParameters(_ListParameters):
    """Which streams to list."""


class NoParameters(BaseModel):
    """An endpoint without parameters."""

    model_config = ConfigDict(extra="forbid")


def _bounded(from_: str, to: str, equals: dict[str, tuple[str, ...]], now_ns: int) -> Scope:
    from_ns, to_ns = parse_time(from_, "from", now_ns), parse_time(to, "to", now_ns)
    if from_ns >= to_ns:
        raise BadParameter(f"from={from_!r} is not before to={to!r}", "swap or widen them")
    return Scope(from_ns, to_ns, equals)
