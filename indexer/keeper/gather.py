"""Many coverage objects become one: an hour of commits is one object to read, and loses nothing.

Objects that the stored ledger has folded go in; out comes an object that holds the coverage of each
commit as it was, with the table's version that it had. So the ledger can be folded again from them
in the same order, position by position.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from indexer.errors import VersionGone
from indexer.keeper.fence import FencedTable
from indexer.object_names import MERGED_FOLDER, delta_log_folder, is_merged, named_version
from indexer.table.coverage import Coverage
from indexer.table.table import Live, Table, in_order

OBJECTS_MAX = 4096
BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Gathered:
    """How many objects one commit has replaced by one, and their bytes before and after."""

    objects: int
    bytes_before: int
    bytes_after: int


class Versions:
    """At which version of the table each coverage object came, as far as the log reaches back."""

    def __init__(self, table: Table) -> None:
        """Know nothing yet."""
        self._table = table
        self._read_up_to = -1
        self._of: dict[str, int] = {}
        self.first = 0
        """The oldest version whose log entry is still kept."""

    def of(self, name: str) -> int:
        """Return the version that added an object; for an older one, a version before all known."""
        return self._of.get(name, self.first - 1)

    def read(self, until: int, wanted: Iterable[str]) -> None:
        """Read the log up to ``until``, and forget objects that are not ``wanted`` any more."""
        after = self._read_up_to
        if after < 0:
            after = self.first = _first_version(self._table)
            after -= 1
        try:
            for entry in self._table.log(after, until):
                self._of.update(dict.fromkeys(entry.coverage, entry.version))
        except VersionGone:  # cleaned up since: begin again where the log begins now
            self._read_up_to = -1
            self._of.clear()
            raise
        self._read_up_to = until
        kept = set(wanted)
        self._of = {name: version for name, version in self._of.items() if name in kept}


def _first_version(table: Table) -> int:
    found = map(named_version, table.bucket.names(delta_log_folder(table.folder)))
    return min((version for version in found if version is not None), default=0)


def plan_gathering(
    objects: Iterable[Live], versions: Mapping[str, int], folded: int, objects_min: int
) -> Iterator[list[Live]]:
    """Yield runs of coverage objects, in the order of versions, each to become one object.

    Only those up to version ``folded`` count, and runs of fewer than ``objects_min`` wait.
    """
    loose = [
        each
        for each in objects
        if each.is_coverage and not is_merged(each.name) and versions[each.name] <= folded
    ]
    loose.sort(key=lambda each: versions[each.name])
    run: list[Live] = []
    size = 0
    for each in loose:
        if len(run) >= OBJECTS_MAX or size + each.size > BYTES_MAX:
            yield run
            run, size = [], 0
        run.append(each)
        size += each.size
    if len(run) >= objects_min:
        yield run


def gather(
    fenced: FencedTable, versions: Versions, folded: int, objects_min: int
) -> Iterator[Gathered]:
    """Merge what ``folded`` allows; yield each merger as it is committed.

    ``folded`` is the version of the ledger in the bucket. Raises PositionMoved if another keeper
    is at work.
    """
    objects = fenced.take()
    versions.read(fenced.version, [each.name for each in objects if each.is_coverage])
    of = {each.name: versions.of(each.name) for each in objects if each.is_coverage}
    for run in plan_gathering(objects, of, folded, objects_min):
        commits = _commits(fenced.table, run, of)
        added = fenced.upload_coverage(*commits, folder=MERGED_FOLDER)
        fenced.commit([added], run, same_rows=True)
        yield Gathered(len(run), sum(each.size for each in run), added.size)


def _commits(table: Table, run: Sequence[Live], of: Mapping[str, int]) -> list[Coverage]:
    """Return the coverage of each object with its version, in the order of the commits."""
    found: dict[int, list[Coverage]] = {}
    for each in run:
        version = of[each.name]
        found.setdefault(version, []).extend(
            msgspec.structs.replace(coverage, version=version)
            for coverage in table.coverage(each.name)
        )
    return [coverage for version in sorted(found) for coverage in in_order(found[version])]
