"""Find the batch that makes a commit fail its balance, so that it holds up no other one.

A commit goes in that could not be made; out comes, for each partition to blame, which of its
batches cannot be taken, or that the fault is in none of them alone. Nothing is written here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from indexer.assemble import Assembled, Intake, assemble
from indexer.errors import NotBalanced
from indexer.ledger.entries import FileEntry, FileKey
from indexer.ownership import Uncommitted
from indexer.parse.described_time import PlainTimes
from indexer.table.coverage import to_object

# What values that no collector sends do to arithmetic, arrays and schemas.
_IMPOSSIBLE = (ArithmeticError, LookupError, TypeError, ValueError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class State:
    """What every commit of the moment is made against; times in ns."""

    files: Mapping[FileKey, FileEntry]
    now_ns: int
    retention_ns: int | None
    plain_times: PlainTimes


def assemble_whole(intakes: Sequence[Intake], state: State) -> tuple[Assembled, bytes]:
    """Return what a commit of ``intakes`` adds, and the bytes of its coverage object.

    Raises NotBalanced if bytes or lines would be lost or doubled, or if what the batches say is
    impossible.
    """
    try:
        assembled = assemble(
            intakes, state.files, state.now_ns, state.retention_ns, state.plain_times
        )
        return assembled, to_object(assembled.coverage)
    except _IMPOSSIBLE as error:
        raise NotBalanced(f"a commit cannot be made of this: {error!r}") from error


def suspects(cut: Mapping[int, Uncommitted], state: State) -> dict[int, dict[int, str]]:
    """Return, for each partition that does not balance, why, by position of the batch to blame.

    A partition without positions does not balance although each batch of it does.
    """
    found = {}
    for partition, each in cut.items():
        if _why(each, state):
            whole = zip(each.batch_positions, each.batches, strict=True)
            reasons = {at: _why(Intake(each.position, [batch]), state) for at, batch in whole}
            found[partition] = {at: why for at, why in reasons.items() if why}
    return found


def _why(intake: Intake, state: State) -> str:
    try:
        assemble_whole([intake], state)
    except NotBalanced as error:
        return str(error)
    return ""
