"""Files that somebody may replace while a process runs, and whether one of them has changed.

Paths go in; out comes whether it is time to read them again. A look costs one stat of each, also
where a link leads to the file.
"""

import os
from collections.abc import Iterable
from pathlib import Path


class WatchedFiles:
    """Some files, as they were at the last look."""

    def __init__(self, paths: Iterable[str | Path]) -> None:
        """Look at nothing yet."""
        self._paths = tuple(paths)
        self._seen: list[tuple[int, ...]] | None = None

    def have_changed(self) -> bool:
        """Look; return whether a file is another than at the last look, as it is at the first one.

        To be asked before they are read: a change meanwhile then shows at the next look.
        """
        before, self._seen = self._seen, [_stamp(path) for path in self._paths]
        return self._seen != before


def _stamp(path: str | Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
