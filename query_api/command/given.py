"""What was given on the command line, before anybody is asked.

Parsed options go in; an option that is there and says nothing is refused, as an unset variable of a
shell gives it: it must not mean "any".
"""

import argparse
from collections.abc import Iterable

from query_api.errors import BadParameter

SCOPE = ("namespace", "pod", "container", "node", "level", "from_", "to")
"""Options that say which lines are meant; the columns can have several values."""


def refuse_empty(asked: argparse.Namespace, names: Iterable[str]) -> None:
    """Raise BadParameter for the first of these options that was given without a value."""
    for name in names:
        value = getattr(asked, name, None)
        values = value if isinstance(value, list) else [value]
        if any(isinstance(each, str) and not each.strip() for each in values):
            option = name.rstrip("_").replace("_", "-")
            raise BadParameter(f"--{option} is empty", "give a value, or leave the option out")
