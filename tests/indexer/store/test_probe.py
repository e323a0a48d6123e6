"""A store that ignores conditions is told from one that keeps them, before anything is written."""

from pathlib import Path

import pytest

from indexer.errors import ObjectExists, StoreUnfit
from indexer.store.bucket import Bucket
from indexer.store.local import LocalBucket
from indexer.store.open import open_bucket
from indexer.store.probe import probe
from query_api.command.cli import main
from tests.real_parts.fault_proxy import FaultProxy, without
from tests.real_parts.s3 import Bucket as RealBucket
from tests.way import environment


def test_a_store_that_keeps_conditions_passes_and_is_left_as_it_was(store: Bucket) -> None:
    store.put("c/logs/a", b"1")
    probe(store, "c")
    assert list(store.names("")) == ["c/logs/a"]


class _Overwriting(LocalBucket):
    """Refuses a second put, and has done it all the same."""

    def put(self, name: str, data: bytes) -> None:
        try:
            super().put(name, data)
        except ObjectExists:
            self.delete(name)
            super().put(name, data)
            raise


def test_a_store_that_refuses_and_overwrites_is_unfit(tmp_path: Path) -> None:
    with pytest.raises(StoreUnfit, match="has overwritten what was there"):
        probe(_Overwriting(tmp_path), "c")


@pytest.fixture
def behind_proxy(
    bucket: RealBucket, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Bucket:
    """A real S3 server whose conditions a proxy can take away."""
    for name, value in environment(bucket).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", fault_proxy.endpoint)
    return open_bucket(f"s3://{bucket.name}")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/probe/", "a second put to the same name was not refused"),
        ("/race", "16 of 16 writers won the same put"),
        ("_delta_log", "writers won the same commit to a Delta table"),
    ],
)
def test_a_store_that_ignores_a_condition_is_unfit(
    behind_proxy: Bucket, bucket: RealBucket, fault_proxy: FaultProxy, path: str, why: str
) -> None:
    ignored = fault_proxy.arm(without("If-None-Match", bucket), "PUT", path, times=None)
    with pytest.raises(StoreUnfit, match="ignores conditional writes") as refused:
        probe(behind_proxy, "c")
    assert why in str(refused.value)
    assert f"s3://{bucket.name}" in str(refused.value)
    assert not refused.value.retriable
    assert ignored.struck > 1
    assert list(behind_proxy.names("")) == []


def test_an_indexer_does_not_start_on_an_unfit_store(
    behind_proxy: Bucket,
    bucket: RealBucket,
    fault_proxy: FaultProxy,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault_proxy.arm(without("If-None-Match", bucket), "PUT", times=None)
    topic = tmp_path / "topic"
    flags = ["--topic", str(topic), "--bucket", f"s3://{bucket.name}", "--listen", "127.0.0.1:0"]
    assert main(["indexer", *flags], {}) == 1
    assert "ignores conditional writes" in capsys.readouterr().err
    assert list(behind_proxy.names("")) == []
