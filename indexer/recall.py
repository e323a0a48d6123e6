"""Which files an indexer looks up in the whole ledger before it trims.

What has come goes in, and the live state; out come the ids of files that may be past ones. Without
that look, what a collector sends again after weeks would be taken for new.
"""

import re
from collections.abc import Iterable

from collector.wire.range import Range
from indexer.assemble import Intake
from indexer.ledger.ledger import Ledger
from indexer.times import DAY_NS, to_datetime

_DATES = {
    "cri": re.compile(rb"\d{4}-\d\d-\d\d(?=T)"),
    "docker": re.compile(rb'[^\n]*"time":"(\d{4}-\d\d-\d\d)T'),
}


def to_recall(intakes: Iterable[Intake], ledger: Ledger) -> set[bytes]:
    """Return the ids of files whose beginning the ledger lacks, and that may be past ones.

    That is every such file after a reset of its topic, else those with bytes that do not begin the
    file, or whose first line is no younger than the youngest past file (a day is for clocks that
    differ) or does not tell.
    """
    if not ledger.past_ns:
        return set()
    horizon = to_datetime(ledger.past_ns + DAY_NS).date().isoformat().encode()
    found: set[bytes] = set()
    for intake in intakes:
        reset = intake.position.generation > 0
        for batch in intake.batches:
            for whole in batch.ranges:
                if reset or whole.start > 0 or _first_date(whole) <= horizon:
                    found.add(whole.file_id)
            found.update(entry.file_id for entry in batch.elided)
    return {each for each in found if not _begins(ledger, each)}


def _begins(ledger: Ledger, file_id: bytes) -> bool:
    file = ledger.files.get((file_id, 0))
    return file is not None and bool(file.covered) and file.covered[0].start == 0


def _first_date(whole: Range) -> bytes:
    """Return the day of the first line; empty if its format tells none."""
    pattern = _DATES.get(whole.format)
    found = pattern.match(whole.data) if pattern is not None else None
    return found[found.lastindex or 0] if found is not None else b""
