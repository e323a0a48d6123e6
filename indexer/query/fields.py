"""Fields of a message: of a JSON object, by dots, or of ``key=value`` pairs.

A message and a name go in; out come all values of that name. Text that is no JSON object has pairs
at most; what is no pair is passed over.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from indexer.query.quantity import quantity
from indexer.query.tree import Compared, Exists, Regex, Term, Value, Wild

_decode = msgspec.json.Decoder().decode
_WORD = r"0-9A-Za-z_\x80-\U0010ffff"  # as collector/token_bytes.py has it, in characters
_NO_BLANKS = r"[^ \t\r\n\v\f]*"
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__,
}  # fmt: skip


_NAME = r"[A-Za-z_][\w.\-/]*"
_DEPTH_MAX = 8  # of names; what lies deeper is one value
_NESTED_MAX = 200  # of anything; what is deeper is no JSON object, but text


def _pairs(name: str) -> re.Pattern[str]:
    value = r'(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*))'
    return re.compile(rf"(?:^|[\s,;({{\[]){name}={value}", re.DOTALL)


_ANY_PAIR = _pairs(f"({_NAME})")


class FieldPlace:
    """Where a field stands in messages."""

    def __init__(self, name: str) -> None:
        """Compile what is looked for."""
        self._parts = name.split(".")
        self._pair = _pairs(re.escape(name))

    def values(self, message: str, found: Any) -> Iterator[Any]:
        """Yield the field's values in a message that was ``decoded``."""
        if found is not None:
            yield from _at(found, self._parts)
            return
        for quoted, bare in self._pair.findall(message):
            yield _unquoted(quoted) if quoted else bare


class MessageField:
    """One field of messages, and what it must be."""

    def __init__(self, name: str, value: Value) -> None:
        """Compile what is compared with each message."""
        self._place = FieldPlace(name)
        self._fits = fits(value)

    def matches(self, message: str) -> bool:
        """Tell whether one of the field's values in the message is as asked for."""
        return any(map(self._fits, self._place.values(message, decoded(message))))


def decoded(message: str) -> Any:
    """Return the JSON object that a message is; None if it is none, or nested beyond reason."""
    if message.lstrip().startswith("{"):
        try:
            found = _decode(message)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return None if _is_deep(message, found) else found
    return None


def _is_deep(message: str, found: Any) -> bool:
    """Return whether values lie so deep that Python would not get there, nor write them down."""
    if message.count("[") + message.count("{") <= _NESTED_MAX:
        return False
    inside = [found]
    for _ in range(_NESTED_MAX):
        lists = (each.values() if isinstance(each, dict) else each
                 for each in inside if isinstance(each, dict | list))  # fmt: skip
        inside = [each for some in lists for each in some]
    return bool(inside)


def named_values(message: str) -> Iterator[tuple[str, Any]]:
    """Yield each field of a message with a value; a name comes again for each of its values."""
    found = decoded(message)
    if found is not None:
        yield from _leaves(found, ())
        return
    for name, quoted, bare in _ANY_PAIR.findall(message):
        yield name, _unquoted(quoted) if quoted else bare


def _leaves(found: Any, parts: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(found, list):
        for each in found:
            yield from _leaves(each, parts)
    elif isinstance(found, dict) and found and len(parts) < _DEPTH_MAX:
        for key, value in found.items():
            yield from _leaves(value, (*parts, key))
    elif parts:
        yield ".".join(parts), found


def _unquoted(text: str) -> str:
    return re.sub(r'\\(["\\])', r"\1", text)


def _at(found: Any, parts: list[str]) -> Iterator[Any]:
    """Yield what stands at a path; keys may have dots themselves, and lists are looked through."""
    if isinstance(found, list):
        for each in found:
            yield from _at(each, parts)
    elif not parts:
        yield found
    elif isinstance(found, dict):
        for length in range(1, len(parts) + 1):
            key = ".".join(parts[:length])
            if key in found:
                yield from _at(found[key], parts[length:])


def fits(value: Value) -> Callable[[Any], bool]:
    """Return what tells whether one value of a field is as asked for."""
    if isinstance(value, Exists):
        return lambda _: True
    if isinstance(value, Compared):
        return _comparison(value)
    if isinstance(value, Regex):
        return _by_re2(value.pattern)
    if isinstance(value, Wild):
        return _by_re2(wild_for_re2(value))
    pattern = re.compile(_term_pattern(value), re.IGNORECASE | re.ASCII)

    def fit(found: Any) -> bool:
        if isinstance(found, int | float) and not isinstance(found, bool):
            return _is_number(found, value.text)
        return pattern.search(text_of(found)) is not None

    return fit


def _is_number(found: float, text: str) -> bool:
    """Tell whether a number is the one that a text says, integers to the last digit."""
    try:
        return found == int(text)
    except ValueError:
        said = quantity(text)
        return said == (found, "")


def _comparison(value: Compared) -> Callable[[Any], bool]:
    compare = _OPERATORS[value.operator]

    def fit(found: Any) -> bool:
        if isinstance(found, str):
            said = quantity(found.strip())
        elif isinstance(found, int | float) and not isinstance(found, bool):
            said = float(found), ""
        else:
            return False
        return said is not None and said[1] == value.unit and compare(said[0], value.number)

    return fit


def text_of(found: Any) -> str:
    """Return a value as a text that patterns are looked for in."""
    if isinstance(found, str):
        return found
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _by_re2(pattern: str) -> Callable[[Any], bool]:
    import pyarrow as pa  # its RE2 is the one that messages are looked through with
    import pyarrow.compute as pc

    def fit(found: Any) -> bool:
        text = pa.array([text_of(found)], pa.string())
        return bool(pc.match_substring_regex(text, pattern=pattern)[0].as_py())

    return fit


def _term_pattern(term: Term) -> str:
    before = rf"(?<![{_WORD}])" if term.starts_token else ""
    behind = rf"(?![{_WORD}])" if term.ends_token else ""
    return before + re.escape(term.text) + behind


def wild_for_re2(wild: Wild) -> str:
    """Return pieces with anything but blanks between them; RE2 looks neither ahead nor back."""
    first, last = wild.pieces[0], wild.pieces[-1]
    before = r"(?:^|[^0-9A-Za-z_\x{80}-\x{10ffff}])" if first and _in_token(first[0]) else ""
    behind = r"(?:$|[^0-9A-Za-z_\x{80}-\x{10ffff}])" if last and _in_token(last[-1]) else ""
    pieces = (_folded(piece) for piece in wild.pieces)
    return f"(?s){before}{_NO_BLANKS.join(pieces)}{behind}"


def _in_token(character: str) -> bool:
    return not character.isascii() or character.isalnum() or character == "_"


def _folded(text: str) -> str:
    """Return a text for RE2, its ASCII letters in either case and no other ones."""
    return "".join(
        f"[{c.lower()}{c.upper()}]" if c.isascii() and c.isalpha()
        else c if not c.isascii() or c.isalnum() or c == "_" else f"\\x{{{ord(c):x}}}"
        for c in text
    )  # fmt: skip
