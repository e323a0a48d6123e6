"""The rules of the policy: what a file of them says, checked, and ready to be applied.

A TOML file of ``[[rule]]`` tables goes in, frozen rules in its order come out. Whatever is wrong in
it is an error that names the file, the line, the rule and what to do; nothing is ignored.
"""

import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from collector.errors import SettingError
from collector.levels import LEVELS, WORDS
from collector.policy.events import Finder
from collector.policy.level import level_of
from collector.policy.patterns import Pattern, compiled
from collector.process import described, did_you_mean, setting
from collector.wire.range import Stream

_NAME = re.compile(r"[\w.-]{1,63}", re.ASCII)
_M64 = (1 << 64) - 1

Globs = str | list[str]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class RuleTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[rule]]`` as it stands in the file."""

    name: Annotated[
        str, setting("unique; letters, digits, '.', '_' and '-'; stands in each entry it makes")
    ]
    namespace: Annotated[Globs, setting("glob or list of globs; absent: any")] = "*"
    pod: Annotated[Globs, setting("glob or list of globs; absent: any")] = "*"
    container: Annotated[Globs, setting("glob or list of globs; absent: any")] = "*"
    output: Annotated[
        Literal["stdout", "stderr"] | None, setting("only lines of this output; absent: both")
    ] = None
    drop_levels: Annotated[
        list[Literal["trace", "debug", "info", "warn", "error", "fatal"]] | None,
        setting("drop events of these levels, found as the indexer finds them"),
    ] = None
    drop_pattern: Annotated[
        str | None, setting("drop events in whose message this regular expression of RE2 is found")
    ] = None
    sample: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=1)] | None,
        setting("keep this share of the events, the same ones at each replay"),
    ] = None
    rate_limit_bytes_per_s: Annotated[
        _Positive | None, setting("drop what a container instance writes above this rate")
    ] = None
    burst_bytes: Annotated[
        _Positive | None, setting("bytes that may come at once; absent: 10 s of the rate")
    ] = None
    redact_pattern: Annotated[
        str | None,
        setting("overwrite what this regular expression of RE2 finds in messages with '*'"),
    ] = None
    redact_group: Annotated[
        str | int, setting("name or number of its group to overwrite; 0: the whole match")
    ] = 0


_ACTIONS = (
    "drop_levels", "drop_pattern", "sample", "rate_limit_bytes_per_s", "redact_pattern",
)  # fmt: skip
_NEEDS = {"burst_bytes": "rate_limit_bytes_per_s", "redact_group": "redact_pattern"}


@dataclass(frozen=True, slots=True)
class DropLevels:
    """Drop events by level."""

    levels: frozenset[str]
    finder: Finder | None

    def drops(self, message: bytes, file_id: bytes, offset: int) -> bool:
        """Return whether the event of this message goes."""
        return level_of(message) in self.levels


@dataclass(frozen=True, slots=True)
class DropPattern:
    """Drop events by their message."""

    pattern: Pattern

    @property
    def finder(self) -> Finder | None:
        """What finds the lines that may go."""
        return self.pattern.finder

    def drops(self, message: bytes, file_id: bytes, offset: int) -> bool:
        """Return whether the event of this message goes."""
        return self.pattern.search(message)


@dataclass(frozen=True, slots=True)
class Sample:
    """Keep ``share`` of the events, chosen by where they stand."""

    share: float
    finder: None = None

    def drops(self, message: bytes, file_id: bytes, offset: int) -> bool:
        """Return whether the event at ``offset`` of the file goes.

        The mixing is that of splitmix64 (S. Vigna): equal steps of offsets spread evenly.
        """
        mixed = (int.from_bytes(file_id[:8], "big") + offset * 0x9E37_79B9_7F4A_7C15) & _M64
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58_476D_1CE4_E5B9) & _M64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D0_49BB_1331_11EB) & _M64
        return mixed >> 11 >= self.share * (1 << 53)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Drop what comes faster than ``bytes_per_s``, beyond ``burst_bytes``."""

    bytes_per_s: int
    burst_bytes: int


@dataclass(frozen=True, slots=True)
class Redact:
    """Overwrite a group of each match."""

    pattern: Pattern
    group: int


Drop = DropLevels | DropPattern | Sample


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with the events of some streams."""

    name: str
    namespace: tuple[str, ...]
    pod: tuple[str, ...]
    container: tuple[str, ...]
    output: bytes | None
    action: Drop | RateLimit | Redact

    def speaks_of(self, stream: Stream) -> bool:
        """Return whether the rule is for this stream."""
        return (
            _any(self.namespace, stream.namespace)
            and _any(self.pod, stream.pod)
            and _any(self.container, stream.container)
        )


def _any(globs: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Return the rules of a file in its order; raise SettingError if one of them is wrong."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise SettingError(
            f"cannot read the policy {path}: {error.strerror}; mount it there, or name no policy"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingError(f"policy {path}: not text in UTF-8; write it as UTF-8") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"policy {path}: {error}; write it as TOML") from error
    _check_known(tables, ("rule",), f"policy {path}: ", "write each rule as a table [[rule]]")
    if not isinstance(found := tables.get("rule", []), list):
        raise SettingError(f"policy {path}: [rule] is one table; write each rule as [[rule]]")
    places = [text.count("\n", 0, m.end()) + 1 for m in _TABLE.finditer(text)]
    rules: dict[str, Rule] = {}
    for number, table in enumerate(found):
        line = f", line {places[number]}" if len(places) == len(found) else ""
        name = table.get("name", number + 1) if isinstance(table, dict) else number + 1
        where = f"policy {path}{line}, rule {name!r}: "
        rule = _rule(table, where)
        if rule.name in rules:
            raise SettingError(f"{where}the name is taken by an earlier rule; choose another")
        rules[rule.name] = rule
    return tuple(rules.values())


_TABLE = re.compile(r"^[ \t]*\[\[[ \t]*[\"']?rule[\"']?[ \t]*\]\]", re.MULTILINE)


def _check_known(table: dict[str, Any], known: Any, where: str, otherwise: str) -> None:
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known, otherwise)
            raise SettingError(f"{where}unknown key {key!r}; {hint}")


def _rule(table: Any, where: str) -> Rule:
    if isinstance(table, dict):
        known = described(RuleTable)
        _check_known(table, known, where, f"the keys are {', '.join(known)}")
    try:
        said = msgspec.convert(table, RuleTable)
    except msgspec.ValidationError as error:
        raise SettingError(f"{where}{error}; see the table of keys in REFERENCE.md") from error
    if not _NAME.fullmatch(said.name):
        raise SettingError(
            f"{where}a name has 1 to 63 letters, digits, '.', '_' or '-'; choose such a name"
        )
    actions = [key for key in _ACTIONS if getattr(said, key) is not None]
    if len(actions) != 1:
        found = " and ".join(actions) or "none"
        raise SettingError(
            f"{where}a rule has exactly one action, here {found}; choose of {', '.join(_ACTIONS)}"
        )
    for key, value in table.items():
        if value == []:
            raise SettingError(f"{where}{key} is an empty list; name something, or leave it out")
    for key, action in _NEEDS.items():
        if key in table and action not in actions:
            raise SettingError(f"{where}{key} does nothing without {action}; set it too")
    return Rule(
        said.name,
        _globs(said.namespace),
        _globs(said.pod),
        _globs(said.container),
        said.output.encode() if said.output else None,
        _action(said, where),
    )


def _globs(said: Globs) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said)


def _action(said: RuleTable, where: str) -> Drop | RateLimit | Redact:
    if said.drop_levels is not None:
        return DropLevels(frozenset(said.drop_levels), _level_finder(frozenset(said.drop_levels)))
    if said.drop_pattern is not None:
        pattern = compiled(said.drop_pattern, f"{where}drop_pattern")
        if pattern.is_found_in_all():
            raise SettingError(
                f"{where}drop_pattern {said.drop_pattern!r} is found in every message; "
                f"narrow it, or drop everything by sample = 0"
            )
        return DropPattern(pattern)
    if said.sample is not None:
        return Sample(said.sample)
    if said.rate_limit_bytes_per_s is not None:
        rate = said.rate_limit_bytes_per_s
        return RateLimit(rate, said.burst_bytes or 10 * rate)
    pattern = compiled(said.redact_pattern or "", f"{where}redact_pattern")
    group = said.redact_group
    number = group if isinstance(group, int) else pattern.names.get(group, -1)
    if not 0 <= number <= pattern.groups:
        raise SettingError(f"{where}redact_pattern has no group {group!r}; name one that it has")
    return Redact(pattern, number)


def _level_finder(levels: frozenset[str]) -> Finder | None:
    """Return where a rare level may stand; levels that most lines have need no search."""
    if not levels <= {"trace", "debug"}:
        return None
    words = [word.encode() for level in sorted(levels) for word in WORDS[level]]
    tens = b"".join(b"%d" % (LEVELS.index(level) + 1) for level in sorted(levels))
    sought = [(word, rb"%b(?!\w)" % word) for word in words]
    sought += [(b"", rb'%b\\?"?[%b]\d(?!\w)' % (sign, tens)) for sign in (b'" *: *', b"=")]
    return Finder(tuple((text, re.compile(each)) for text, each in sought), folded=True)
