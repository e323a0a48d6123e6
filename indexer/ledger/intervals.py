"""Intervals ``[start, end)`` of whole numbers: what two of them make, and what they leave out.

Pure functions of plain pairs; duplicates and losses of bytes are found by these alone.
"""

from collections.abc import Iterable, Iterator


def holes(parts: Iterable[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of ``[start, end)`` that lie in none of ``parts``, sorted by start."""
    for part_start, part_end in parts:
        if part_end <= start:
            continue
        if part_start >= end:
            break
        if start < part_start:
            yield start, part_start
        start = part_end
    if start < end:
        yield start, end


def united(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts sorted, those that touch or overlap as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(parts):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found
