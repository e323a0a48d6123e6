"""The lines around a line of a file, as they stand in it: by file and offset, and by no time.

A snapshot, a file and a place in it go in; out come the rows up to the limits that were asked for,
or up to the next bytes that are not there, and what of the file they may be missing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.ledger.entries import FileEntry, FileKey
from indexer.query.meant import EVER_NS
from indexer.query.scope import Scope
from indexer.times import SECOND_NS, format_optional
from query_api.completeness.files import Files
from query_api.completeness.gaps import file_in_scope
from query_api.completeness.replica import Snapshot
from query_api.completeness.statement import plain
from query_api.completeness.stretch import (
    Break,
    Edge,
    Stretch,
    begins,
    end_of,
    judge_stretch,
    stretch_of,
)
from query_api.completeness.verdict import Trouble
from query_api.errors import BadParameter, NotComplete
from query_api.questions.answer import BreakView, plain_rows
from query_api.questions.parameters import ContextParameters
from query_api.questions.search import Search
from query_api.scan.nearby import Near
from query_api.scan.page import Page
from query_api.scan.segment import RESULT_SCHEMA
from query_api.settings import QuerySettings

_NAMES = ("namespace", "pod", "container", "node")


@dataclass(frozen=True, slots=True)
class Around:
    """Rows around a place (RESULT_SCHEMA, in the order of the file), and whether more are known."""

    rows: pa.Table
    more_before: bool
    more_behind: bool


class Contexts:
    """Answers for lines around others over one replica; may be used from any thread."""

    def __init__(self, settings: QuerySettings, search: Search, files: Files) -> None:
        """Take what all answers have in common."""
        self._settings = settings
        self._search = search
        self._files = files

    def answer(
        self, asked: ContextParameters, latest: Snapshot, scope: Scope, began_s: float
    ) -> dict[str, Any]:
        """Return the rows around a line; raise BadParameter for a file that is not in the scope.

        Raises NotComplete, and what the table does.
        """
        self._search.check_limit("context_rows", "before", asked.before)
        self._search.check_limit("context_rows", "after", asked.after)
        key = asked.file(), asked.epoch
        file = self._files.find(latest, key)
        if file is None or (file.pod and not file_in_scope(file, scope)):
            raise _unknown(key)
        stretch, trouble, page = stretch_of(file, asked.offset), Trouble(), Page()
        around, planned = self._around(asked, latest, scope, file, stretch, page, trouble)
        if not file.pod and not (file := _named(file, around.rows)).pod:
            raise _unknown(key)
        first: Edge = "gap" if stretch.before else "file"
        last: Edge = "gap" if stretch.behind else end_of(file)
        first = "limit" if around.more_before else first
        last = "limit" if around.more_behind else last
        reached = stretch.reached(first, last)
        completeness = judge_stretch(
            latest, file, reached, last, _times(file, around.rows, first, last),
            self._settings.cluster, trouble,
        )  # fmt: skip
        if asked.require and completeness.verdict != "complete":
            raise NotComplete(completeness)
        considered = len(latest.segments)
        cost = self._search.cost(considered, planned, page, trouble, began_s)
        return {
            "rows": _entries(around.rows, asked.offset, stretch, first, last),
            "file_id": asked.file_id.lower(),
            "epoch": asked.epoch,
            "cluster": self._settings.cluster,
            "node": file.node,
            **file.stream.fields(),
            "begins_at": first,
            "ends_at": last,
            "previous_file": _file_name(self._files.before(latest, file)),
            "next_file": _file_name(self._files.behind(latest, file)),
            "completeness": plain(completeness),
            "cost": plain(cost),
            "version": latest.version,
        }

    def _around(
        self,
        asked: ContextParameters,
        latest: Snapshot,
        scope: Scope,
        file: FileEntry,
        stretch: Stretch,
        page: Page,
        trouble: Trouble,
    ) -> tuple[Around, int]:
        """Return the rows of a stretch, and how many segments were planned for them."""
        if stretch.low >= stretch.high:
            return Around(RESULT_SCHEMA.empty_table(), False, False), 0
        equals = dict(scope.equals) | {
            name: (value,) for name in _NAMES if (value := getattr(file, name))
        }
        times = (file.first_ns - SECOND_NS if file.first_ns else EVER_NS[0],
                 file.last_ns + SECOND_NS)  # fmt: skip
        found, planned = self._rows(asked, latest, Scope(*times, equals), stretch, page, trouble)
        start = max(stretch.low, begins(file))
        offsets = found.rows["offset"]
        if not found.more_before and (not len(offsets) or offsets[0].as_py() > start):
            # Of a file that has gone on since it was settled, the first time may not be known.
            ever = Scope(*EVER_NS, equals)
            found, planned = self._rows(asked, latest, ever, stretch, page, trouble)
        return found, planned

    def _rows(
        self,
        asked: ContextParameters,
        latest: Snapshot,
        scope: Scope,
        stretch: Stretch,
        page: Page,
        trouble: Trouble,
    ) -> tuple[Around, int]:
        planned = latest.segments.plan(scope)
        near = Near(
            asked.file(), asked.epoch, asked.offset, stretch.low, stretch.high,
            asked.before + 1, asked.after + 1,
        )  # fmt: skip
        rows = self._search.near(planned, scope, near, trouble, page)
        offsets = rows["offset"].to_numpy()
        before = int(np.count_nonzero(offsets < asked.offset))
        behind = int(np.count_nonzero(offsets > asked.offset))
        first = max(0, before - asked.before)
        length = len(rows) - first - max(0, behind - asked.after)
        more = (first > 0, behind > asked.after)
        return self._fitting(Around(rows.slice(first, length), *more), asked.offset), len(planned)

    def _fitting(self, found: Around, offset: int) -> Around:
        """Return as many rows nearest to the place as an answer may have, and the first of them."""
        rows = found.rows
        if not len(rows):
            return found
        size = pc.add(
            pc.fill_null(pc.binary_length(rows["message"]), 0),
            pc.fill_null(pc.binary_length(rows["raw"]), 0),
        ).to_numpy()
        here = min(int(np.searchsorted(rows["offset"].to_numpy(), offset)), len(rows) - 1)
        first, end, held = here, here + 1, int(size[here])
        most = self._settings.page_bytes
        while (first or end < len(rows)) and held < most:
            if end == len(rows) or (first and here - first < end - here):
                first, held = first - 1, held + int(size[first - 1])
            else:
                end, held = end + 1, held + int(size[end])
        more = (found.more_before or first > 0, found.more_behind or end < len(rows))
        return Around(rows.slice(first, end - first), *more)


def _unknown(key: FileKey) -> BadParameter:
    message = f"no file {key[0].hex()} of epoch {key[1]} is known"
    return BadParameter(message, "take file_id, epoch and offset of a row")


def _named(file: FileEntry, rows: pa.Table) -> FileEntry:
    """Return the entry of a file of which only the size is known, with the names of its rows."""
    for row in rows.slice(0, 1).to_pylist():
        for name in ("namespace", "pod", "pod_uid", "container", "restart", "node"):
            setattr(file, name, row[name])
    return file


def _times(file: FileEntry, rows: pa.Table, first: Edge, last: Edge) -> tuple[int, int]:
    """Return the first and the last time of what was shown, with what is gone at its ends."""
    times = rows["ns"].to_numpy() if len(rows) else np.array([file.first_ns, file.last_ns])
    low, high = int(times.min()), int(times.max())
    if first == "file":
        low = min(low, file.first_ns or low)
    if last in ("file", "open"):
        high = max(high, file.last_ns)
    return low, high


def _entries(
    rows: pa.Table, offset: int, stretch: Stretch, first: Edge, last: Edge
) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    if first == "gap" and stretch.before:
        shown.append(_break(stretch.before))
    shown += (
        {**row, "anchor": True} if row["offset"] == offset else row for row in plain_rows(rows)
    )
    if last == "gap" and stretch.behind and stretch.behind is not stretch.before:
        shown.append(_break(stretch.behind))
    return shown


def _break(found: Break) -> dict[str, Any]:
    gap = found.gap
    view = BreakView(
        type=gap.type if gap else None,
        state=gap.state if gap else "PENDING",  # type: ignore[arg-type]
        id=gap.id if gap else None,
        start=found.start,
        end=found.end,
        end_exact=bool(gap is None or gap.end_exact),
        bytes=found.end - found.start,
        from_=format_optional(gap.from_ns if gap else None),
        to=format_optional(gap.to_ns if gap else None),
        reason=gap.reason if gap else "not come yet",
    )
    return {"gap": plain(view)}


def _file_name(key: FileKey | None) -> dict[str, Any] | None:
    return None if key is None else {"file_id": key[0].hex(), "epoch": key[1]}
