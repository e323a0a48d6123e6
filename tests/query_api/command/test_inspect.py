"""`everyline inspect` on files that the product's own parts have written, whole and damaged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from collector.files.checkpoint import Checkpoint, FileState, LaneState, Mark, save
from collector.ship.pack import SENT_HEADER, sent
from collector.ship.spool import Spool
from collector.topic.local import LocalTopic
from collector.topic.record_frame import frame
from collector.wire.batch import Batch, Inventory, Meta, Seal, encode, record_headers
from indexer.ledger.stored import LedgerTable
from indexer.schema import SEGMENT_SCHEMA
from indexer.store.bucket import Bucket
from indexer.table.coverage import Expired, to_object
from query_api.command.cli import main
from query_api.command.inspect_command import KINDS
from tests.indexer.shipped import File, Run, Way
from tests.query_api.written import CLUSTER, START_NS, Line, Written
from tests.real_parts.guard import ROOT

SECRET = b"2026-01-01T00:00:00Z stdout F user=eve \x1b[31mred\n2026-01-01T00:00:01Z stdout F \xff\n"
FILE = File(SECRET)
COMPRESSOR = zstandard.ZstdCompressor()
Out = pytest.CaptureFixture[str]


def batch_of(run: Run) -> Batch:
    (whole,) = FILE.ranges([])
    return run.batch(
        whole,
        of=[FILE],
        seals=(Seal(FILE.id, 0, len(SECRET), 2, 7, "renamed"),),
        metas=(Meta("shop", "web", "uid-web", START_NS, {"app": "web"}, {}, "Job", "j"),),
        inventory=Inventory(START_NS, (0,), True, (), (), 3, ("/x: denied",), None),
    )


def shown(out: Out, *words: str, code: int = 0) -> str:
    """What the command prints."""
    assert main(["inspect", *words], {}) == code
    printed = out.readouterr()
    assert (printed.err == "") is (code == 0)
    return printed.out


def items(out: Out, *words: str, code: int = 0) -> dict[str, list[dict[str, Any]]]:
    """What it finds, by what it is called."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in shown(out, *words, "--output", "ndjson", code=code).splitlines():
        item = json.loads(line)
        found.setdefault(item.pop("item"), []).append(item)
    return found


def said(out: Out, *words: str) -> str:
    """The one sentence about what cannot be shown."""
    assert main(["inspect", *words], {}) == 1
    (line,) = out.readouterr().err.splitlines()
    assert line.startswith(f"everyline: {words[1]} ")
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_in_the_reference(kind: str) -> None:
    lines = (ROOT / "deploy" / "REFERENCE.md").read_text("utf-8").splitlines()
    assert any(line.startswith(f"| `{kind}` | `{KINDS[kind][1]}` | ") for line in lines)


# -- files of a node -------------------------------------------------------------------------------


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "batch"
    path.write_bytes(encode(batch_of(Run()), COMPRESSOR))
    return path


@pytest.fixture
def spooled(tmp_path: Path) -> Path:
    """A spool's file of one batch."""
    made = batch_of(Run())
    headers = (*record_headers(made), (SENT_HEADER, msgspec.msgpack.encode(sent(made))))
    Spool(tmp_path / "spool").put(encode(made, COMPRESSOR), headers)
    (path,) = (tmp_path / "spool").iterdir()
    return path


@pytest.fixture
async def topic(tmp_path: Path) -> Path:
    """A local topic's file of three records, the second of which is not a batch."""
    topic, run = LocalTopic(tmp_path / "topic"), Run()
    values = [encode(batch_of(run), COMPRESSOR), b"no batch", encode(batch_of(run), COMPRESSOR)]
    for value in values:
        await (await topic.append(0, value, (("run", b"r" * 16),)))
    await topic.close()
    return tmp_path / "topic" / "0" / f"{0:020d}.log"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A collector's checkpoint of one file."""
    file = FileState(
        file_id=FILE.id, epoch=2, namespace="shop", pod="web", pod_uid="uid-web", container="app",
        restart=1, partition=0, path="/pods/0.log", acked=len(SECRET), tail=SECRET[-40:],
        spooled=Mark(offset=500, tail=SECRET[-9:]),
    )  # fmt: skip
    lanes = [LaneState(partition=0, oldest_unacked=9)]
    save(tmp_path, Checkpoint(run=b"r" * 16, lanes=lanes, files=[file], scan_began_ns=START_NS))
    return tmp_path / "checkpoint"


def test_a_batch_is_shown_with_all_that_it_carries(batch: Path, capsys: Out) -> None:
    found = items(capsys, "batch", str(batch))
    (about,) = found["batch"]
    assert (about["node"], about["run"]) == ("node-1", b"run-1".ljust(16).hex())
    assert (about["raw_bytes"], about["bytes"]) == (len(SECRET), batch.stat().st_size)
    assert found["file"][0]["file_id"] == found["range"][0]["file_id"] == FILE.id.hex()
    assert (found["range"][0]["end"], found["range"][0]["lines"]) == (len(SECRET), 2)
    assert found["seal"][0]["why"] == "renamed"
    assert found["meta"][0]["labels"] == {"app": "web"}
    assert found["inventory"][0]["errors"] == ["/x: denied"]


def test_text_has_tables_of_many_and_fields_of_one(tmp_path: Path, capsys: Out) -> None:
    path = tmp_path / "batch"
    path.write_bytes(encode(Run().batch(*FILE.ranges([20, 40]), of=[FILE]), COMPRESSOR))
    lines = shown(capsys, "batch", str(path)).splitlines()
    assert lines[0] == "batch:"
    assert "  node            node-1" in lines
    assert any(line.startswith("  created         2026-09-21T") for line in lines)
    head = lines[lines.index("range: 3") + 1]
    assert head.split()[:4] == ["FILE_ID", "EPOCH", "START", "END"]
    assert "-" in lines[-1].split()  # no CRC-32 of what nobody has overwritten


def test_one_json_object_has_the_same_items(batch: Path, capsys: Out) -> None:
    whole = json.loads(shown(capsys, "batch", str(batch), "-o", "json"))
    assert (whole["kind"], whole["file"]) == ("batch", str(batch))
    assert [each["item"] for each in whole["items"]][:3] == ["batch", "file", "range"]


@pytest.mark.parametrize("kind", ["batch", "spooled", "topic", "checkpoint"])
@pytest.mark.parametrize("output", ["text", "json", "ndjson"])
def test_bytes_of_lines_are_shown_on_request_only(
    request: pytest.FixtureRequest, capsys: Out, kind: str, output: str
) -> None:
    path = request.getfixturevalue(kind)
    words = [kind.removesuffix("ed") if kind == "spooled" else kind, str(path), "-o", output]
    words += ["--position", "0"] if kind == "topic" else []
    assert "user=eve" not in shown(capsys, *words)
    printed = shown(capsys, *words, "--lines")
    assert "\x1b" not in printed
    assert r"\xff" in printed.replace(r"\\", "\\")
    assert ("user=eve" in printed) is (kind != "checkpoint")  # which has the last bytes alone


def test_a_spooled_batch_is_shown_with_its_record(spooled: Path, capsys: Out) -> None:
    found = items(capsys, "spool", str(spooled))
    (record,) = found["record"]
    assert (record["position"], record["start"], record["end"]) == (0, 0, spooled.stat().st_size)
    assert (record["sequence"], record["ranges"]) == (0, 1)
    assert record["sent_bytes"] > 0
    assert found["batch"][0]["raw_bytes"] == record["raw_bytes"] == len(SECRET)


def test_a_spooled_batch_under_another_name_is_said(spooled: Path, capsys: Out) -> None:
    other = spooled.rename(spooled.with_name(f"{7:020d}.log"))
    assert "holds position 0, not that of its name" in said(capsys, "spool", str(other))


def test_a_torn_spool_file_is_said_and_what_is_whole_is_shown(spooled: Path, capsys: Out) -> None:
    whole = spooled.read_bytes()
    spooled.write_bytes(whole[:-1])
    assert f"no whole record in its {len(whole) - 1} bytes" in said(capsys, "spool", str(spooled))
    spooled.write_bytes(b"rubbish" + whole + whole[:9])
    error = said(capsys, "spool", str(spooled))
    assert f"damaged or torn in 16 of its {len(whole) + 16} bytes, from byte 0 on; a coll" in error
    found = items(capsys, "spool", str(spooled), code=1)
    assert found["damaged"] == [
        {"start": 0, "end": 7, "bytes": 7},
        {"start": len(whole) + 7, "end": len(whole) + 16, "bytes": 9},
    ]
    assert found["batch"][0]["raw_bytes"] == len(SECRET)


def test_a_topic_is_a_table_of_its_records(topic: Path, capsys: Out) -> None:
    found = items(capsys, "topic", str(topic))
    assert found.keys() == {"record"}
    assert [each["position"] for each in found["record"]] == [0, 1, 2]
    assert found["record"][1]["no_batch"].endswith("do not start with a batch's magic")
    ends = [each["end"] for each in found["record"]]
    assert [each["start"] for each in found["record"]] == [0, *ends[:-1]]
    assert "record: 3" in shown(capsys, "topic", str(topic))


def test_one_record_of_a_topic_is_shown_with_its_batch(topic: Path, capsys: Out) -> None:
    found = items(capsys, "topic", str(topic), "--position", "2", "--lines")
    assert [each["position"] for each in found["record"]] == [2]
    assert found["batch"][0]["sequence"] == 1
    assert [each["offset"] for each in found["line"]] == [0, SECRET.index(b"\n") + 1]
    assert items(capsys, "topic", str(topic), "--position", "1").keys() == {"record"}
    assert "no record at position 3" in said(capsys, "topic", str(topic), "--position", "3")


def test_a_damaged_record_of_a_topic_is_said_in_its_place(topic: Path, capsys: Out) -> None:
    data = bytearray(topic.read_bytes())
    data[data.index(b"no batch")] ^= 1
    topic.write_bytes(data)
    lines = shown(capsys, "topic", str(topic), code=1).splitlines()
    assert [line for line in lines if line.endswith(":")] == ["record:", "damaged:", "record:"]
    assert "everyline gaps" in said(capsys, "topic", str(topic))


def test_a_checkpoint_is_shown_file_by_file(checkpoint: Path, capsys: Out) -> None:
    found = items(capsys, "checkpoint", str(checkpoint))
    assert found["checkpoint"][0]["scan_began_ns"] == START_NS
    assert found["lane"] == [{"partition": 0, "oldest_unacked": 9}]
    (file,) = found["file"]
    assert (file["file_id"], file["path"], file["acked"]) == (
        FILE.id.hex(), "/pods/0.log", len(SECRET),
    )  # fmt: skip
    assert (file["spooled"], file["tail_bytes"]) == (500, 40)


def test_a_damaged_checkpoint_names_the_one_that_is_taken(checkpoint: Path, capsys: Out) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes().replace(b"shop", b"shed"))
    assert "checkpoint.previous" in said(capsys, "checkpoint", str(checkpoint))


# -- objects of a bucket ---------------------------------------------------------------------------


class Table:
    """A table with a commit of three lines, a gap, and its ledger; and where its objects are."""

    def __init__(self, bucket: Bucket) -> None:
        written = Written(bucket)
        lines = [Line(START_NS + n, f"user=eve {n}", pod=f"api-{n % 2}") for n in range(3)]
        written.ship(*lines)
        file = written.node().files[lines[1].stream]
        written.lose(lines[1].stream, file.size + 9, True, START_NS, START_NS + 1)
        assert LedgerTable(bucket, CLUSTER).save(written.ledger, -1)
        self.uri = bucket.uri
        names = sorted(bucket.names(f"{CLUSTER}/"))
        self.segment = next(name for name in names if "/hour=" in name and "date=2" in name)
        self.coverage = sorted(
            (name for name in names if "__HIVE" in name), key=bucket.size, reverse=True
        )
        self.opened = next(name for name in names if "/open/" in name)
        self.state = next(name for name in names if "/state/" in name)

    def path(self, name: str) -> str:
        return f"{self.uri}/{name}"


@pytest.fixture
def table(local: Bucket) -> Table:
    return Table(local)


def test_coverage_is_shown_with_its_equations(table: Table, capsys: Out) -> None:
    both = [items(capsys, "coverage", table.path(name)) for name in table.coverage]
    (shipped,) = (each for each in both if "span" in each)
    assert shipped["balance"][0]["rows"] == 3
    assert shipped["balance"][0]["holds"] is True
    assert [each["spans"] for each in shipped["file"]] == [1, 1]
    assert {each["file_id"] for each in shipped["span"]} == {
        each["file_id"] for each in shipped["file"]
    }
    assert shipped["position"][0]["end"] == 1
    (lost,) = (each for each in both if "note" in each)
    assert lost["note"][0]["kind"] == "gap"
    assert lost["note"][0]["entry"]["reason"] == "deleted while away"


def test_several_commits_of_one_object_follow_each_other(
    local: Bucket, capsys: Out, tmp_path: Path
) -> None:
    way = Way()
    for _ in range(2):
        way.commit(Run().batch(*FILE.ranges([]), of=[FILE]))
    marked = msgspec.structs.replace(way.commits[1], expired=[Expired("dev", 1, 2, "dev=1")])
    path = tmp_path / "coverage.parquet"
    path.write_bytes(to_object(way.commits[0], marked))
    found = items(capsys, "coverage", str(path))
    assert len(found["commit"]) == 2
    assert found["expired"] == [{"namespace": "dev", "hour": 1, "rows": 2, "rule": "dev=1"}]


def test_a_segment_is_shown_by_its_footer(table: Table, capsys: Out) -> None:
    path = table.path(table.segment)
    found = items(capsys, "segment", path)
    (about,) = found["segment"]
    assert (about["rows"], about["bytes"]) == (3, Path(path).stat().st_size)
    assert [each["name"] for each in found["column"]] == SEGMENT_SCHEMA.names
    assert (found["row_group"][0]["first_pod"], found["row_group"][0]["last_pod"]) == (
        "api-0", "api-1",
    )  # fmt: skip
    assert found["filter"] == [{"tokens": "no filter"}]  # it is too small for one
    for output in ("text", "json", "ndjson"):
        assert "user=eve" not in shown(capsys, "segment", path, "-o", output)
    lines = items(capsys, "segment", path, "--lines")["line"]
    assert sorted(line["message"] for line in lines) == [f"user=eve {n}" for n in range(3)]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_segments_of_every_version_are_shown(capsys: Out, version: int) -> None:
    found = items(capsys, "segment", str(ROOT / f"tests/golden/segment-v{version}.parquet"))
    assert len(found["row_group"]) == found["segment"][0]["row_groups"]
    if version > 1:
        assert found["filter"][0]["row_groups"] == found["segment"][0]["row_groups"]
        assert found["filter"][0]["blocks"] > 0


def test_an_object_of_the_ledger_is_shown_entry_by_entry(table: Table, capsys: Out) -> None:
    found = items(capsys, "ledger", table.path(table.opened))
    assert found["ledger"][0]["rows"] == len(found["file"]) == 2
    lost = [each for file in found["file"] for each in file["lost"]]
    assert [each["type"] for each in lost] == ["LOST_ROTATED"]
    state = items(capsys, "ledger", table.path(table.state))
    assert {"position", "lane"} <= state.keys()
    assert "ledger:" in shown(capsys, "ledger", table.path(table.state))


def test_damaged_objects_are_named_with_what_to_do(table: Table, capsys: Out) -> None:
    kinds = {"segment": table.segment, "coverage": table.coverage[0], "ledger": table.opened}
    for kind, name in kinds.items():
        path = Path(table.path(name))
        path.write_bytes(path.read_bytes()[:-20])
        assert "copy of the bucket" in said(capsys, kind, str(path))


def test_a_damaged_page_is_said_after_what_can_be_read(table: Table, capsys: Out) -> None:
    path = Path(table.path(table.segment))
    data = bytearray(path.read_bytes())
    data[4:1000] = bytes(996)
    path.write_bytes(data)
    assert "segment" in items(capsys, "segment", str(path))
    assert "is damaged" in said(capsys, "segment", str(path), "--lines")


def test_an_entry_of_a_later_version_is_said(table: Table, capsys: Out, tmp_path: Path) -> None:
    rows = pq.read_table(table.path(table.opened))
    kinds = pa.array(["wish"] * len(rows))
    later = rows.set_column(rows.schema.get_field_index("kind"), "kind", kinds)
    pq.write_table(later, tmp_path / "later.parquet")
    assert "kind 'wish'" in said(capsys, "ledger", str(tmp_path / "later.parquet"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_such_file_is_an_error_of_one_line(
    table: Table, capsys: Out, tmp_path: Path, kind: str
) -> None:
    strange = tmp_path / "strange"
    for content in (b"", b"\0" * 100, b"PAR1" * 9, frame(0, (), b"")[:-1], b"ELB\x02" * 9):
        strange.write_bytes(content)
        said(capsys, kind, str(strange))
    assert "check its name" in said(capsys, kind, str(tmp_path / "none"))
    assert "cannot be read" in said(capsys, kind, str(tmp_path))
    assert "names no file" in said(capsys, kind, f"{tmp_path}/")
    assert "names no file" in said(capsys, kind, "s3://bucket")


def test_a_file_of_another_kind_is_an_error(
    table: Table, batch: Path, checkpoint: Path, capsys: Out
) -> None:
    paths = {
        "segment": table.path(table.segment),
        "coverage": table.path(table.coverage[0]),
        "ledger": table.path(table.opened),
        "batch": str(batch),
        "checkpoint": str(checkpoint),
    }
    for kind in KINDS:
        for other, path in paths.items():
            if other != kind:
                said(capsys, kind, path)
    assert "inspect it as coverage" in said(capsys, "segment", paths["coverage"])


def test_a_batch_of_a_newer_version_says_to_upgrade(batch: Path, capsys: Out) -> None:
    batch.write_bytes(b"ELB\xff" + batch.read_bytes()[4:])
    assert "upgrade the reader first" in said(capsys, "batch", str(batch))


def test_a_position_is_a_word_for_topics_only(batch: Path, capsys: Out) -> None:
    assert main(["inspect", "batch", str(batch), "--position", "1"], {}) == 2
    assert "--position is for the kind topic" in capsys.readouterr().err


@pytest.mark.real
def test_objects_are_read_from_the_bucket(any_bucket: Bucket, capsys: Out) -> None:
    table = Table(any_bucket)
    assert items(capsys, "segment", table.path(table.segment))["segment"][0]["rows"] == 3
    assert "commit" in items(capsys, "coverage", table.path(table.coverage[0]))
    assert "file" in items(capsys, "ledger", table.path(table.opened))
    assert "check its name" in said(capsys, "segment", table.path("none"))


@pytest.mark.real
@pytest.mark.parametrize("kind", ["", "batch"])
def test_no_more_is_loaded_than_is_needed(batch: Path, kind: str) -> None:
    words = ["inspect", kind, str(batch)] if kind else ["--help"]
    code = (
        "import sys\n"
        "from query_api.command.cli import main\n"
        f"try: main({words!r}, {{}})\n"
        "except SystemExit: pass\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = set(done.stderr.split())
    assert "query_api" in loaded
    assert not loaded & {"numpy", "pyarrow", "deltalake", "numba", "boto3", "fastapi", "aiokafka"}
