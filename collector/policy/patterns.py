"""The regular expressions of rules: RE2's, on bytes that need not be text.

An expression goes in as it was written; out comes a pattern of bounded size, which is looked for in
a time that grows with the length of a text and no faster. What ``re`` has and RE2 lacks is an error
that says so, never something else in silence.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from collector.errors import SettingError
from collector.policy.events import Finder, readable

_MEMORY_BYTES = 1 << 20
_STEPS_MOST = 2_000  # each costs 4 ns a byte where RE2 can do no better than try them all

# What ``re`` repeats up to so many times, and RE2 takes as it stands.
_UP_TO = re.compile(r"(?<!\\)\{,\d+\}")
_LACKS: Mapping[str, str] = {
    r"\(\?<?[=!]": "RE2 has no look-around; match what stands there too, and redact a group",
    r"\\[1-9]|\(\?P\b": "RE2 has no backreferences; write out what may be repeated",
    r"repetition operator: .[+*?]|\(\?>": "RE2 has no possessive or atomic parts, and needs none",
    r"\(\?\(": "RE2 has no conditions; write the alternatives out",
    r"\(\?#|\(\?[a-zA-Z]*[aLux]": "RE2 has no comments, and of the flags i, m and s",
    r"\\Z": r"RE2 writes \z for the end",
    r"too large|repetition size": "shorten it, or repeat less often",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """What ``re`` finds in bytes, for expressions in ASCII; other expressions see characters.

    To ``\\s`` a vertical tab is no blank. In characters, bytes that are no UTF-8 count as one
    character each that is neither letter nor blank.
    """

    groups: int
    names: Mapping[str, int]
    finder: Finder | None
    """Finds the lines in whose message the pattern is found, and maybe others."""
    _found: Any
    _of_characters: bool

    def search(self, message: bytes) -> bool:
        """Return whether it is found."""
        return self._found.search(self._seen(message)) is not None

    def is_found_in_all(self) -> bool:
        """Return whether it matches nothing, and so is found everywhere."""
        return all(self._found.match(each) is not None for each in (b"", b"\0"))

    def spans(self, message: bytes, group: int) -> Iterator[tuple[int, int]]:
        """Yield where the group stands in each match; -1, -1 where it has no part in one."""
        for hit in self._found.finditer(self._seen(message)):
            yield hit.span(group)

    def _seen(self, message: bytes) -> bytes:
        return readable(message) if self._of_characters else message


def compiled(source: str, where: str) -> Pattern:
    """Return the pattern of an expression; raise SettingError, which begins with ``where``."""
    if _UP_TO.search(source):
        raise SettingError(f"{where} {source!r}: RE2 takes {{,N}} literally; write {{0,N}}")
    found = _compiled(source, where)
    steps = max(found.programsize, found.reverseprogramsize)
    if steps > _STEPS_MOST:
        raise SettingError(
            f"{where} {source!r}: it is too large, {steps} of at most {_STEPS_MOST} steps; "
            "shorten it, or repeat less often"
        )
    names = {name.decode(): number for name, number in found.groupindex.items()}
    of_characters = not source.isascii()
    sought = _sought(source)
    finder = None
    if sought is not None:
        finder = Finder(
            ((b"", _compiled(sought, where, within_line=True)),), characters=of_characters
        )
        if any(each.match(b"") for _, each in finder.patterns):
            finder = None
    return Pattern(found.groups, names, finder, found, of_characters)


def _compiled(source: str, where: str, *, within_line: bool = False) -> Any:
    try:
        import re2  # an extra, and loaded only where a rule has a pattern
    except ImportError as error:
        raise SettingError(
            f"{where} {source!r}: patterns need the package google-re2; "
            "pip install 'everyline[collector]'"
        ) from error
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    options.never_capture = options.never_nl = within_line
    encodings = re2.Options.Encoding
    options.encoding = encodings.LATIN1 if source.isascii() else encodings.UTF8
    try:
        return re2.compile(source.encode(), options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        why = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        hints = (hint for lacked, hint in _LACKS.items() if re.search(lacked, why))
        hint = next(hints, "correct the expression")
        raise SettingError(f"{where} {source!r}: {why}; {hint}") from error


def _sought(source: str) -> str | None:
    """Return what finds in many lines at once those that the expression is found in, maybe others.

    A message's start and end are no place there. They can be left out at the very start or end of
    an alternative; with one elsewhere there is no such expression.
    """
    flag = "(?i)" if source.startswith("(?i)") else ""
    rest = source.removeprefix(flag)
    if "|" not in rest:
        branches = [rest]
    elif any(each in rest for each in "([\\"):  # the bar may stand inside of something
        return None if _has_place(rest) else source
    else:
        branches = rest.split("|")
    branches = [each.removeprefix("^") for each in branches]
    branches = [each if each.endswith("\\$") else each.removesuffix("$") for each in branches]
    found = flag + "|".join(branches)
    return None if _has_place(found) else found


def _has_place(source: str) -> bool:
    """Return whether an expression may ask for the start or the end of a message."""
    # Behind a bracket a caret means all others, or finds nothing anyway.
    return "^" in source.replace("[^", "[") or any(
        each in source for each in ("$", "\\A", "\\z", "\\Q")
    )
