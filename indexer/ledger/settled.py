"""Settled files: all of them is covered and no more of them is expected, so a few bytes are enough.

Keys of files that the fold is done with go in; out comes of any key whether it is one of them, and
how far it is covered. They are columns, one set for each node and partition, since a full inventory
asks for all that it lists at once; and what no inventory lists any more is forgotten.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.ledger.entries import FileEntry, FileKey

SECOND_NS = 1_000_000_000
SETTLED_KEPT_S = 48 * 3600
"""How long a settled file is remembered that no full inventory lists: longer than one that waits in
a collector's spool may come late. One that is spoken of after that is looked up on storage."""

_KEY = np.dtype("S20")  # file_id and epoch; NumPy pads with the zeros that it has taken off
_ROW = np.dtype(
    [("key", _KEY), ("size", "<i8"), ("last_s", "<u4"), ("seen_s", "<u4"), ("sealed", "?")]
)


class SettledFile(NamedTuple):
    """One of them: its size, and the time of its last line in whole seconds (0: not known).

    ``sealed``: by its collector; else it was only said to be gone.
    """

    key: FileKey
    size: int
    last_s: int
    sealed: bool


def packed(keys: Iterable[FileKey]) -> npt.NDArray[np.bytes_]:
    """Return keys as the columns have them."""
    return np.frombuffer(b"".join(_packed(*key) for key in keys), _KEY)


def _packed(file_id: bytes, epoch: int) -> bytes:
    return file_id[:16].ljust(16, b"\0") + (epoch & 0xFFFFFFFF).to_bytes(4, "big")


@dataclass(frozen=True, slots=True, eq=False)
class SettledFiles:
    """Those of one node in one partition, sorted by key; never changed."""

    rows: npt.NDArray[np.void]  # of _ROW

    @classmethod
    def of(
        cls,
        keys: npt.NDArray[np.bytes_],
        sizes: npt.NDArray[np.int64],
        last_s: npt.NDArray[np.int64],
        seen_s: npt.NDArray[np.int64],
        sealed: npt.NDArray[np.bool_],
    ) -> "SettledFiles":
        """Make one of columns; of several rows of one key the last one holds."""
        rows = np.empty(len(keys), _ROW)
        rows["key"], rows["size"], rows["last_s"], rows["seen_s"] = keys, sizes, last_s, seen_s
        rows["sealed"] = sealed
        return cls(_latest(rows))

    @classmethod
    def of_entries(cls, files: Sequence[FileEntry], now_s: int) -> "SettledFiles":
        """Make one of entries that have just settled."""
        rows = np.empty(len(files), _ROW)
        rows["key"] = packed((file.file_id, file.epoch) for file in files)
        rows["size"] = [file.size for file in files]
        rows["last_s"] = [seconds(file.last_ns) for file in files]
        rows["seen_s"] = now_s
        rows["sealed"] = [file.sealed for file in files]
        return cls(_latest(rows))

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same."""
        return isinstance(other, SettledFiles) and self.rows.tobytes() == other.rows.tobytes()

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.rows)

    def find(self, keys: Sequence[FileKey]) -> list[SettledFile | None]:
        """Return of each key the file; None if it is none of these."""
        if not len(self.rows):
            return [None] * len(keys)
        at, here = self._at(packed(keys))
        columns = (self.rows[name][at].tolist() for name in ("size", "last_s", "sealed"))
        return [
            SettledFile(key, *values) if is_here else None
            for key, is_here, *values in zip(keys, here.tolist(), *columns, strict=True)
        ]

    def plus(self, others: "SettledFiles") -> "SettledFiles":
        """Return these and others, which hold where both have a key."""
        return SettledFiles(_latest(np.concatenate([self.rows, others.rows])))

    def without(self, keys: Sequence[FileKey]) -> "SettledFiles":
        """Return these less some."""
        at, here = self._at(packed(keys))
        return SettledFiles(np.delete(self.rows, at[here]))

    def listed(self, keys: Sequence[FileKey], now_s: int) -> "SettledFiles":
        """Return these less those that no full inventory has listed for SETTLED_KEPT_S.

        ``keys`` are what one that was committed at ``now_s`` lists.
        """
        rows = self.rows.copy()
        at, here = self._at(packed(keys))
        rows["seen_s"][at[here]] = now_s
        return SettledFiles(rows[rows["seen_s"].astype(np.int64) + SETTLED_KEPT_S >= now_s])

    def _at(
        self, keys: npt.NDArray[np.bytes_]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Return of each key a place in the rows, and whether it is there."""
        if not len(self.rows):
            return np.zeros(len(keys), np.intp), np.zeros(len(keys), np.bool_)
        ours = self.rows["key"]
        at = np.minimum(np.searchsorted(ours, keys), len(ours) - 1)
        return at, ours[at] == keys


NONE_SETTLED = SettledFiles(np.empty(0, _ROW))


def seconds(ns: int) -> int:
    """Return a time in whole seconds since 1970, as the columns can hold it."""
    return min(max(ns // SECOND_NS, 0), 0xFFFFFFFF)


def _latest(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Return rows sorted by key, of several of one key the last."""
    rows = rows[np.argsort(rows["key"], kind="stable")]
    if len(rows) < 2:
        return rows
    is_last = np.append(rows["key"][1:] != rows["key"][:-1], True)
    return rows if is_last.all() else rows[is_last]
