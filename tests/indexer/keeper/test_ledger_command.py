"""The stored ledger against its coverage: equal to the last entry, or named; and recreated."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from indexer.keeper.fold import Fold
from indexer.keeper.ledger_command import main
from indexer.ledger.bring_up import bring_up
from indexer.ledger.ledger import Ledger
from indexer.ledger.stored import LedgerTable
from indexer.store.bucket import Bucket
from indexer.store.open import open_bucket
from indexer.table.coverage import Coverage
from indexer.table.table import Table
from query_api.command.cli import main as everyline
from tests.indexer.ledger.test_ledger import WEB, sample
from tests.indexer.ledger.test_stored import LATER_NS, shipped
from tests.indexer.shipped import CLUSTER, START_NS
from tests.indexer.table.test_table import add_coverage


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(str(tmp_path))


def folded(bucket: Bucket, commits: Sequence[Coverage], now_ns: int) -> Table:
    table = Table(bucket, CLUSTER)
    table.make()
    for coverage in commits:
        add_coverage(table, coverage)
        Fold(bucket, CLUSTER, 24, lambda: now_ns).advance(table)
    return table


def run(bucket: Bucket, what: str) -> int:
    return everyline(["ledger", what, "--cluster", CLUSTER, "--bucket", bucket.uri], {})


@pytest.mark.parametrize("commits", [sample(), shipped()], ids=["losses", "goodbyes"])
@pytest.mark.parametrize("now_ns", [START_NS, LATER_NS])
def test_a_ledger_folded_step_by_step_equals_its_coverage(
    bucket: Bucket, capsys: pytest.CaptureFixture[str], now_ns: int, commits: list[Coverage]
) -> None:
    folded(bucket, commits, now_ns)
    assert run(bucket, "--check") == 0
    assert f", version {len(commits)}) equals" in capsys.readouterr().out


def test_what_differs_is_named_and_rebuilt(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    table = folded(bucket, sample(), START_NS)
    stored = LedgerTable(bucket, CLUSTER)
    wrong = stored.load()
    file = wrong.files[WEB.id, 0]
    file.rows += 1
    [lane] = [lane for lane in wrong.lanes.values() if len(lane.seen) > 1]
    del wrong.lanes[lane.run, 0]
    jumps, wrong.jumps = wrong.jumps, wrong.jumps[1:]
    assert stored.save(wrong, wrong.version)
    assert run(bucket, "--check") == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"files {WEB.id.hex()}/0: rows is {file.rows}, folded again {file.rows - 1}"
    assert said[1] == f"lanes {lane.run.hex()}/0: in the coverage, and not stored"
    assert said[2].startswith(f"jumps 0/{jumps[0].jump.start}/")
    assert "differs from" in said[-1]
    assert run(bucket, "--rebuild") == 0
    assert run(bucket, "--check") == 0
    assert stored.load() == bring_up(Ledger(), table, table.snapshot().version())


def test_a_ledger_that_is_lost_is_rebuilt_past_files_and_all(bucket: Bucket) -> None:
    table = folded(bucket, shipped(), START_NS)
    for name in list(bucket.names(f"{CLUSTER}/ledger-2/")):
        bucket.delete(name)
    assert run(bucket, "--check") == 1
    assert run(bucket, "--rebuild") == 0
    assert run(bucket, "--check") == 0
    stored = LedgerTable(bucket, CLUSTER)
    version = table.snapshot().version()
    assert stored.load() == bring_up(Ledger(), table, version)


def test_it_must_be_told_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([], {})
    assert ended.value.code == 2
    assert "--check" in capsys.readouterr().err
