"""Every error that the indexer and the keeper raise, in one tree.

IndexerError
├── BucketError             the object store did not do what was asked
│   ├── BucketUnavailable     it may do so later (retriable)
│   ├── ObjectMissing         there is no such object
│   ├── ObjectDamaged         an object is not what was written
│   ├── ObjectExists          there is one already, and nothing was overwritten
│   └── StoreUnfit            it ignores conditions that exactly once depends on
├── TableError              the table cannot be read or written
│   ├── TableUnavailable      it may be later (retriable)
│   ├── TableDamaged          an object of its log is not what was written
│   ├── PositionMoved         another indexer committed these positions
│   └── VersionGone           this version of the table is no longer kept
├── NotBalanced             a commit that would not add up; refused
├── SegmentUnsorted         a segment whose rows are in no order; left as it is
├── SegmentDamaged          a segment that cannot be decoded; left as it is
├── BadRequest              a request for deletion that nobody can carry out
├── BadQuery                the text of a query cannot be understood; points at a column
├── CoverageError           bytes that are not a coverage object
└── SelectorError           a selector of labels with a pattern that is not one

NoSuchTransition stands beside it: a fault of the program, which nobody handles.
"""


class IndexerError(Exception):
    """Root of the tree; ``retriable`` says whether the same call may succeed later."""

    retriable = False


class BucketError(IndexerError):
    """The object store did not do what was asked."""


class BucketUnavailable(BucketError):
    """The object store is away or overloaded; the same call may succeed later."""

    retriable = True


class ObjectMissing(BucketError):
    """There is no such object."""


class ObjectDamaged(BucketError):
    """Bytes of an object are not what was written."""


class ObjectExists(BucketError):
    """There is an object of this name already; it was not overwritten."""


class StoreUnfit(BucketError):
    """The object store overwrites what it was told not to: nothing may be written to it."""


class TableError(IndexerError):
    """The table cannot be read or written."""


class TableUnavailable(TableError):
    """The table is away; the same call may succeed later."""

    retriable = True


class TableDamaged(TableError):
    """An object of a table's log is not what was written; names it, and what to do."""


class PositionMoved(TableError):
    """Another writer has moved a position since it was read: take it again from the table."""


class VersionGone(TableError):
    """The version asked for has been vacuumed: ask again without a cursor."""


class NotBalanced(IndexerError):
    """Bytes or lines of a commit do not balance; nothing was written."""


class SegmentUnsorted(IndexerError):
    """The rows of a segment are not in the table's order; it was left as it is."""


class SegmentDamaged(IndexerError):
    """A segment cannot be decoded; it was left as it is, and the scrubber names it."""


class BadRequest(IndexerError):
    """A request for deletion makes no sense; nothing was deleted for it."""


class BadQuery(IndexerError):
    """The text of a query cannot be understood; ``column`` counts from 1."""

    code = "bad_query"

    def __init__(self, message: str, column: int, hint: str = "") -> None:
        super().__init__(f"{message} at column {column}")
        self.column = column
        self.hint = hint


class CoverageError(IndexerError):
    """Bytes that are not a coverage object."""


class SelectorError(IndexerError):
    """A selector of labels has a pattern that is not a regular expression."""


class NoSuchTransition(Exception):
    """A change of state that its life cycle does not have; the state stays as it was."""
