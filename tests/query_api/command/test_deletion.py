"""Deletion as an operator asks for it: the command, the keeper, and what answers say then."""

import json
from pathlib import Path

import pytest

from indexer.table.request import Requests
from query_api.command.cli import main
from tests.indexer.kept import Kept, PodFile
from tests.indexer.shipped import CLUSTER
from tests.way import cri


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """One pod that named a person."""
    from indexer.store.open import open_bucket

    kept = Kept(open_bucket(str(tmp_path / "bucket")))
    kept.commit(PodFile(cri(1) + cri(2, "eve@example.org came") + cri(3)))
    return kept


def ask(kept: Kept, *words: str) -> int:
    place = [f"--bucket={kept.bucket.uri}", f"--cluster={CLUSTER}"]
    return main([*words, *place], {})


def test_what_was_asked_for_is_done_by_the_keeper_and_listed(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--namespace=shop", "--text=eve@", "--reason=art. 17", "--by=dpo"]
    assert ask(kept, "delete", *words, "--from=2026-01-01T00:00:00Z") == 0
    name = capsys.readouterr().out.strip()
    [(request, done)] = Requests(kept.bucket, CLUSTER).all()
    assert (request.id, request.by, request.query, done) == (name, "dpo", "eve@", None)
    ask(kept, "deletions")
    assert "open" in capsys.readouterr().out
    kept.now_ns = max(kept.now_ns, request.to_ns)
    jobs = kept.jobs(delete_open_ms=0)
    jobs.delete()
    assert kept.messages() == ["line 1", "line 3"]
    jobs.fold()
    jobs.delete()
    ask(kept, "deletions", "--output=ndjson")
    shown = json.loads(capsys.readouterr().out)
    assert (shown["id"], shown["state"], shown["rows"]) == (name, "done", 1)


def test_a_dry_run_counts_and_shows_what_a_search_shows_and_asks_for_nothing(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--namespace=shop", "--query=EVE@example.org", "--reason=x", "--dry-run"]
    words += ["--from=2026-01-01T00:00:00Z", "--to=2027-01-01T00:00:00Z"]
    assert ask(kept, "delete", *words) == 0
    shown = capsys.readouterr()
    assert "eve@example.org came" in shown.out
    assert shown.err.startswith("1 rows, 20 bytes of messages, in 1 segments; nothing was")
    assert ask(kept, "delete", *words, "-o", "ndjson") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1
    assert list(Requests(kept.bucket, CLUSTER).all()) == []


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--namespace=shpo", "no stream has ever had namespace 'shpo'"),
        ("--pod=nothing", "no stream has ever had pod 'nothing'"),
        ("--container=sidecar", "no stream has ever had container 'sidecar'"),
        ("--node=n", "no stream has ever had node 'n'"),
    ],
)
def test_a_name_that_no_stream_has_ever_had_is_refused(
    kept: Kept, capsys: pytest.CaptureFixture[str], option: str, says: str
) -> None:
    words = ["--namespace=shop", option, "--reason=x", "--from=-1h"]
    assert ask(kept, "delete", *words) == 2
    assert says in capsys.readouterr().err
    kept.jobs(delete_open_ms=0).fold()  # whoever knows of the streams
    assert ask(kept, "delete", *words) == 2
    assert says in capsys.readouterr().err
    assert list(Requests(kept.bucket, CLUSTER).all()) == []
    assert ask(kept, "delete", "--namespace=shop", "--pod=web", "--reason=x", "--from=-1h") == 0


def test_deletions_tell_how_many_rows_have_gone_before_they_are_done(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--namespace=shop", "--text=eve@", "--reason=x", "--from=2026-01-01T00:00:00Z"]
    ask(kept, "delete", *words)
    kept.now_ns = max(kept.now_ns, next(Requests(kept.bucket, CLUSTER).all())[0].to_ns)
    capsys.readouterr()
    for rows in (0, 1):
        ask(kept, "deletions", "--output=ndjson")
        shown = json.loads(capsys.readouterr().out)
        assert (shown["state"], shown["rows"]) == ("open", rows)
        kept.jobs(delete_open_ms=3_600_000).delete()


def test_a_request_that_makes_no_sense_stores_nothing(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--namespace=shop", "--regex=(", "--reason=x", "--from=-1h"]
    assert ask(kept, "delete", *words) == 2
    assert "missing )" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        ask(kept, "delete", "--namespace=shop", "--from=-1h")
    assert list(Requests(kept.bucket, CLUSTER).all()) == []


@pytest.mark.parametrize("option", ["namespace", "pod", "container", "text", "regex"])
def test_an_empty_value_is_refused_and_never_means_any(
    kept: Kept, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    words = ["--namespace=shop", "--reason=x", "--from=-1h", f"--{option}="]
    assert ask(kept, "delete", *words) != 0
    assert f"--{option} is empty" in capsys.readouterr().err
    assert list(Requests(kept.bucket, CLUSTER).all()) == []


@pytest.mark.parametrize("words", [["deletions"], ["delete", "--namespace=a", "--reason=x"]])
def test_a_place_without_a_table_is_refused(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    more = ["--from=-1h"] if words[0] == "delete" else []
    for place in (
        [f"--bucket={tmp_path / 'typo'}", f"--cluster={CLUSTER}"],
        [f"--bucket={kept.bucket.uri}", "--cluster=prod"],
    ):
        assert main([*words, *more, *place], {}) != 0
        assert "there is no table" in capsys.readouterr().err
    assert not any(path.is_file() for path in (tmp_path / "typo").rglob("*"))
    assert list(Requests(kept.bucket, "prod").all()) == []
