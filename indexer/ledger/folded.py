"""What the tables beside ``logs`` have in common: they are folded from it, version by version.

A table goes in; out comes up to which version it has folded ``logs``. Every commit carries that
number, so of two keepers that go on from one version one is refused.
"""

from deltalake import CommitProperties, DeltaTable, Transaction

_APP_ID = "folded"


def folded_version(table: DeltaTable) -> int:
    """Return the version of ``logs`` that a table was folded up to; -1 if it never was."""
    version = table.transaction_version(_APP_ID)
    return -1 if version is None else version


def folded_up_to(version: int) -> CommitProperties:
    """Return what a commit carries that brings a table up to a version of ``logs``."""
    return CommitProperties(app_transactions=[Transaction(_APP_ID, version)])


def sweep(table: DeltaTable) -> int:
    """Delete objects that nothing of the last day uses; return how many."""
    gone = table.vacuum(retention_hours=24, dry_run=False, enforce_retention_duration=False)
    table.cleanup_metadata()
    return len(gone)
