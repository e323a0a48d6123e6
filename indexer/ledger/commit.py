"""One commit as it is folded: its notes are decoded once, and what it changes is gathered.

A coverage object goes in; out comes what each of its files is said to have.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from collector.wire.batch import Gap, Inventory, Seal
from indexer.ledger.entries import FileKey
from indexer.ledger.settled import SettledFile
from indexer.table.coverage import Control, Coverage, FileCover, Note, note_entry

_BEYOND = 1 << 62  # more than any file has


@dataclass(slots=True)
class Commit:
    """One commit as it is folded: its coverage with the notes decoded, and what it changes."""

    coverage: Coverage
    notes: list[tuple[Note, Control]]
    covers: dict[FileKey, FileCover]
    settled: dict[FileKey, SettledFile] | None = None  # those of its files, once it was asked
    changed: set[FileKey] = field(default_factory=set)

    @classmethod
    def of(cls, coverage: Coverage) -> "Commit":
        """Decode the notes, once for all who look at them."""
        # What an inventory does not list may have been opened after its scan: openings first.
        notes = sorted(coverage.notes, key=lambda note: note.kind == "inventory")
        covers = {(each.file_id, each.epoch): each for each in coverage.files}
        return cls(coverage, [(note, note_entry(note)) for note in notes], covers)

    @property
    def now_ns(self) -> int:
        """When it was made."""
        return self.coverage.committed_ns

    def begins(self, key: FileKey) -> bool:
        """Return whether it has the beginning of a file."""
        return key in self.covers and any(span.start == 0 for span in self.covers[key].spans)

    def claims(self) -> Iterator[tuple[FileKey, int, int]]:
        """Yield of files up to where they are said to have come, and how large they are at least.

        A GAP makes what was a whole file none.
        """
        for each in self.coverage.files:
            if each.spans:
                end = max(span.end for span in each.spans)
                yield (each.file_id, each.epoch), end, end
        for _, entry in self.notes:
            if isinstance(entry, Seal):
                yield (entry.file_id, entry.epoch), entry.size, entry.size
            elif isinstance(entry, Gap):
                yield (entry.file_id, entry.epoch), entry.end or 1, _BEYOND
            elif isinstance(entry, Inventory):
                for seen in entry.files:
                    yield (seen.file_id, seen.epoch), seen.acked, seen.size
