"""What was given on the command line, before anybody is asked.

Parsed options go in; an option that is there and says nothing is refused, as an unset variable of a
shell gives it: it must not mean "any".
"""

import argparse
from collections.abc import Iterable, Sequence

from query_api.errors import BadParameter

SCOPE = ("namespace", "pod", "container", "node", "level", "from_", "to")
"""Options that say which lines are meant; the columns can have several values."""


_QUESTIONS = ("search", "explain")
_SHORT = ("-f", "-o", "-h")
OUTPUTS = ("text", "json", "ndjson")


def with_times(argv: Sequence[str]) -> list[str]:
    """Return the words with each time joined to its flag: argparse takes `-15m` for a flag."""
    words: list[str] = []
    for word in argv:
        if words and words[-1] in ("--from", "--to") and word.startswith("-"):
            words[-1] += f"={word}"
        elif words and words[-1] == "--since":
            words[-1] = f"--from=-{word.removeprefix('-')}"
        else:
            words.append(word)
    return words


def with_denials(argv: Sequence[str]) -> list[str]:
    """Return the words with a blank before each word that a query denies, so that it is no option.

    ``query_of`` takes the blanks away. What comes behind `--` is of the query anyway.
    """
    if not argv or argv[0] not in _QUESTIONS:
        return list(argv)
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    for at in range(1, end):
        word = words[at]
        is_option = word.startswith("--") or word in _SHORT or word.removeprefix("-o") in OUTPUTS
        if word.startswith("-") and len(word) > 1 and not is_option:
            words[at] = f" {word}"
    return words


def query_of(asked: argparse.Namespace) -> str:
    """Return the query that was given in words."""
    return " ".join(word.removeprefix(" ") for word in getattr(asked, "query", ()))


def refuse_other_bytes(argv: Sequence[str]) -> None:
    """Raise BadParameter for a word that is not UTF-8."""
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            said = word.encode(errors="surrogateescape").decode(errors="backslashreplace")
            hint = "write it in UTF-8"
            raise BadParameter(f"{said} is not UTF-8", hint) from error


def refuse_empty(asked: argparse.Namespace, names: Iterable[str]) -> None:
    """Raise BadParameter for the first of these options that was given without a value."""
    for name in names:
        value = getattr(asked, name, None)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, str) and not each.strip() for each in values):
            option = name.rstrip("_").replace("_", "-")
            raise BadParameter(f"--{option} is empty", "give a value, or leave the option out")
