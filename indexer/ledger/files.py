"""The part of the ledger that is about files: what of each is covered, and which need no entry.

Commits go in; entries of the files that are open, columns of those that are settled, and totals of
their streams come out. What a settled file may still be asked for is answered by a few bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from dataclasses import field as plain_field

import msgspec
from msgspec import field

from collector.wire.batch import Gap, Inventory, Seal
from collector.wire.range import CRC_UNKNOWN
from indexer.ledger.entries import Covered, Entries, FileEntry, FileKey, NodeKey
from indexer.ledger.losses import cover
from indexer.ledger.settled import NONE_SETTLED, SECOND_NS, SettledFile, SettledFiles
from indexer.ledger.totals import StreamTotals
from indexer.table.coverage import Control, Coverage, FileCover, Note, Span, note_entry

_BEYOND = 1 << 62  # more than any file has


@dataclass(slots=True)
class Commit:
    """One commit as it is folded: its coverage with the notes decoded, and what it changes."""

    coverage: Coverage
    notes: list[tuple[Note, Control]]
    covers: dict[FileKey, FileCover]
    settled: dict[FileKey, SettledFile] | None = None  # those of its files, once it was asked
    changed: set[FileKey] = plain_field(default_factory=set)

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


class FileLedger(msgspec.Struct):
    """The files of a ledger.

    One that ``settles`` keeps no entry of a file that is settled: ``leaving`` has those that have
    settled since it was last emptied, ``settled`` a few bytes of each. ``going_on`` are the files
    that more may be written to, ``swept_hour`` the last one (since 1970) of which a commit is here.
    """

    files: Entries[FileKey, FileEntry] = field(default_factory=Entries)
    totals: StreamTotals = field(default_factory=StreamTotals)
    settles: bool = False
    settled: dict[NodeKey, SettledFiles] = {}
    leaving: dict[FileKey, FileEntry] = {}
    going_on: dict[NodeKey, frozenset[FileKey]] = {}
    swept_hour: int = 0

    def unknown(self, commit: Commit) -> set[bytes]:
        """Return the files of which a commit claims what only their entry can tell of.

        That is no longer, or not yet, here: of a settled file that goes on, and of one that was
        known before and is forgotten, or whose beginning has not come.
        """
        commit.settled = self.settled_of(commit.covers)
        found: set[bytes] = set()
        for key, end, size in commit.claims():
            file = self.files.get(key)
            if (file is not None and file.is_begun) or key in self.leaving:
                continue
            if (known := commit.settled.get(key)) is not None:
                is_told = size <= known.size
            else:
                is_told = not end or commit.begins(key)
            if not is_told:
                found.add(key[0])
        return found

    def put_back(self, keys: Iterable[FileKey], known: Set[FileKey]) -> set[FileKey]:
        """Let go again of the entries that were revived and are settled as they were.

        Those that were ``known`` otherwise before have changed by that, and are returned.
        """
        changed = set()
        for key in keys:
            if (file := self.files.get(key)) is not None and file.settled_ns:
                place = (file.node, file.partition)
                new = SettledFiles.of_entries([file], self.swept_hour * 3600)
                self.settled[place] = self.settled.get(place, NONE_SETTLED).plus(new)
                del self.files[key]
                if key in known:
                    self.leaving[key] = file
                    changed.add(key)
        return changed

    def revive(self, past: FileEntry) -> None:
        """Take a file in again as it was stored, with what has been covered of it since."""
        key = (past.file_id, past.epoch)
        if (known := self.files.get(key)) is not None:
            for part in known.covered:
                times = (part.first_ns, part.last_ns)
                cover(
                    past,
                    Span(part.start, part.end, CRC_UNKNOWN, 0, 0, *times, "", part.parser_state),
                )
            for end in known.ends.items():
                past.add_end(*end)
            self.totals.add(self.row(known), files=-1, opened=-known.goes_on)
        elif self.totals.find((past.node, past.stream)) is None:  # it was forgotten
            self.totals.add(self.row(past), files=1, opened=int(past.goes_on))
        self.files[key] = past
        self.take_out(past)
        self.index_file(past)

    def let_go(self, settled_before_ns: int) -> None:
        """Forget the files that were settled before that time."""
        for key in [k for k, f in self.files.items() if 0 < f.settled_ns < settled_before_ns]:
            del self.files[key]

    def settled_of(self, covers: Mapping[FileKey, FileCover]) -> dict[FileKey, SettledFile]:
        """Return those of some files that are settled and have no entry."""
        asked: dict[NodeKey, list[FileKey]] = {}
        for key, each in covers.items():
            place = (each.node, each.partition)
            if place in self.settled and key not in self.files:
                asked.setdefault(place, []).append(key)
        found = (self.settled[place].find(keys) for place, keys in asked.items())
        return {file.key: file for files in found for file in files if file is not None}

    def cover_file(self, each: FileCover, commit: Commit) -> None:
        """Take what a commit has of a file, of which it may be the first that is heard."""
        key = (each.file_id, each.epoch)
        settled_bytes = self.settled_bytes(key, commit)
        if settled_bytes is None and key not in self.files:
            self._begin(each)
            commit.changed.add(key)
        for span in each.spans:
            if settled_bytes is not None and span.end <= settled_bytes:
                continue  # it is there already
            if (file := self.change(key, commit)) is not None:
                new_bytes = cover(file, span)
                times = (span.first_ns, span.last_ns)
                self.totals.cover(self.row(file), span.rows, new_bytes, *times)

    def _begin(self, each: FileCover) -> FileEntry:
        file = FileEntry(
            file_id=each.file_id,
            epoch=each.epoch,
            partition=each.partition,
            node=each.node,
            **each.stream.fields(),
        )
        self.files[file.file_id, file.epoch] = file
        self.totals.add(self.row(file), files=1, opened=1)
        return file

    def row(self, file: FileEntry) -> int:
        """Return the row of a file's stream in the totals."""
        return self.totals.row(file.node, file.stream)

    def settled_bytes(self, key: FileKey, commit: Commit) -> int | None:
        """Return the size of a file that is settled; None of any other."""
        if (file := self.files.get(key)) is not None:
            return file.size if file.settled_ns else None
        settled = (commit.settled or {}).get(key)
        return None if settled is None else settled.size

    def change(self, key: FileKey, commit: Commit) -> FileEntry | None:
        """Return the entry of a file to change it, also of a settled one; None if it is unknown."""
        file = self.files.own(key)
        if file is None and (settled := (commit.settled or {}).pop(key, None)) is not None:
            each = commit.covers[key]
            file = self.leaving.pop(key, None) or FileEntry(
                file_id=each.file_id,
                epoch=each.epoch,
                partition=each.partition,
                node=each.node,
                **each.stream.fields(),
                covered=[Covered(0, settled.size, 0, settled.last_s * SECOND_NS)],
                size=settled.size,
                sealed=settled.sealed,
                gone_ns=0 if settled.sealed else commit.now_ns,
            )
            self.take_out(file)
            self.files[key] = file
        if file is not None:
            file.settled_ns = 0
            commit.changed.add(key)
        return file

    def take_out(self, file: FileEntry) -> None:
        """Note that a file has an entry, so that nothing else need be remembered of it."""
        key, place = (file.file_id, file.epoch), (file.node, file.partition)
        if place in self.settled:
            self.settled[place] = self.settled[place].without([key])

    def settle_files(self, commit: Commit) -> None:
        """Note which of the files that were changed are settled; let go of their entries."""
        whole: list[FileEntry] = []
        for key in commit.changed:
            file = self.files.get(key)
            if file is not None and file.is_whole and (own := self.files.own(key)) is not None:
                whole.append(file := own)
            if file is not None:
                self.index_file(file)
        self._settle_all(whole, commit.now_ns)

    def let_settle(self, keys: Iterable[FileKey], commit: Commit) -> None:
        """Take files for settled of which some is missing, and nobody will ask for that."""
        own = [file for key in keys if (file := self.files.own(key)) is not None]
        commit.changed.update((file.file_id, file.epoch) for file in own)
        self._settle_all(own, commit.now_ns)

    def _settle_all(self, files: Iterable[FileEntry], now_ns: int) -> None:
        settled: dict[NodeKey, list[FileEntry]] = {}
        for file in files:
            file.settled_ns = now_ns
            if self.settles:
                settled.setdefault((file.node, file.partition), []).append(file)
                key = (file.file_id, file.epoch)
                self.leaving[key] = file
                del self.files[key]
        for place, of in settled.items():
            new = SettledFiles.of_entries(of, now_ns // SECOND_NS)
            self.settled[place] = self.settled.get(place, NONE_SETTLED).plus(new)

    def index_file(self, file: FileEntry) -> None:
        """Note whether a file goes on."""
        key, place = (file.file_id, file.epoch), (file.node, file.partition)
        known = self.going_on.get(place, frozenset())
        if file.goes_on == (key in known):
            return
        if file.goes_on:
            self.going_on[place] = known | {key}
        elif len(known) == 1:
            del self.going_on[place]
        else:
            self.going_on[place] = known - {key}
