"""Numbers as logs and people write them, with or without a unit of time or of bytes.

A text goes in; a number comes out, in nanoseconds or bytes where it has a unit.
"""

import re

_TIMES = {
    "ns": 1, "us": 10**3, "\u00b5s": 10**3, "\u03bcs": 10**3, "ms": 10**6, "s": 10**9,
    "m": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9,
}  # fmt: skip
_BYTES = {"b": 1} | {
    f"{letter}{suffix}b": base**power
    for power, letter in enumerate("kmgtp", 1)
    for suffix, base in (("", 1_000), ("i", 1_024))
}
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([A-Za-z\u00b5\u03bc]+)")
_PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def quantity(text: str) -> tuple[float, str] | None:
    """Return a number and what it counts: "ns", "B" or "" for nothing; None: it is no number.

    ``1m30s`` is one number; ``m`` is minutes, and what ends with ``B`` bytes, in either case.
    """
    if _PLAIN.fullmatch(text):
        return float(text), ""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text)
    parts = _PARTS.findall(rest)
    if not parts or "".join(map("".join, parts)) != rest:
        return None
    if all(unit in _TIMES for _, unit in parts):
        return sign * sum(float(number) * _TIMES[unit] for number, unit in parts), "ns"
    [(number, unit), *more] = parts
    if more or unit.lower() not in _BYTES:
        return None
    return sign * float(number) * _BYTES[unit.lower()], "B"
