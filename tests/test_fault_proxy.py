"""The fault proxy does what a test arms it to do, once, to the request that is meant."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.real_parts import fault_proxy as faults
from tests.real_parts.fault_proxy import Action, Delay, FaultProxy, Hold, a_fault_proxy
from tests.real_parts.s3 import Bucket, S3Server

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

BODY = b"0123456789" * 10_000


@pytest.fixture
def client(bucket: Bucket, fault_proxy: FaultProxy) -> "S3Client":
    """A client, whose bucket is called logs, on the far side of the proxy."""
    return replace(bucket, endpoint=fault_proxy.endpoint).client()


def put(client: "S3Client", bucket: Bucket, key: str, **more) -> int:
    """Return the status of the answer, 0 if there was none."""
    try:
        answer = client.put_object(Bucket=bucket.name, Key=key, Body=BODY, **more)
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]
    except BotoCoreError:
        return 0
    return answer["ResponseMetadata"]["HTTPStatusCode"]


def get(client: "S3Client", bucket: Bucket, key: str) -> bytes:
    return client.get_object(Bucket=bucket.name, Key=key)["Body"].read()


def keys(bucket: Bucket) -> list[str]:
    """Return what is on the server itself."""
    found = bucket.client().list_objects_v2(Bucket=bucket.name)
    return [each["Key"] for each in found.get("Contents", ())]


def test_without_faults_nothing_is_changed(client: "S3Client", bucket: Bucket) -> None:
    assert put(client, bucket, "a/b c+d") == 200
    assert get(client, bucket, "a/b c+d") == BODY
    assert client.head_object(Bucket=bucket.name, Key="a/b c+d")["ContentLength"] == len(BODY)
    part = client.get_object(Bucket=bucket.name, Key="a/b c+d", Range="bytes=3-5")
    assert (part["ResponseMetadata"]["HTTPStatusCode"], part["Body"].read()) == (206, b"345")
    assert put(client, bucket, "a/b c+d", IfNoneMatch="*") == 412
    client.delete_object(Bucket=bucket.name, Key="a/b c+d")
    assert keys(bucket) == []


@pytest.mark.parametrize(
    ("action", "status", "stored"),
    [
        (faults.refusing(503, "SlowDown"), 503, False),
        (faults.refusing(500, "InternalError", done=True), 500, True),
        (faults.refusing(409, "ConditionalRequestConflict"), 409, False),
        (faults.cutting(), 0, False),
        (faults.cutting(done=True), 0, True),
        (faults.cutting_request(), 0, False),
        (faults.pretending(), 200, False),
        (Delay(0.01), 200, True),
    ],
    ids=[
        "refused", "refused and done", "in conflict", "cut", "cut and done", "cut in its body",
        "answered and not done", "late",
    ],
)  # fmt: skip
def test_a_put_is_answered_and_stored_as_the_fault_says(
    client: "S3Client",
    bucket: Bucket,
    fault_proxy: FaultProxy,
    action: Action,
    status: int,
    stored: bool,
) -> None:
    fault = fault_proxy.arm(action, "PUT", "/second$")
    assert put(client, bucket, "first") == 200
    assert put(client, bucket, "second") == status
    assert keys(bucket) == ["first", "second"][: 1 + stored]
    assert (fault.seen, fault.struck) == (1, 1)
    assert put(client, bucket, "second") == 200
    assert (fault.seen, fault.struck) == (2, 1)


def test_a_condition_can_be_kept_from_the_server(
    client: "S3Client", bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    assert put(client, bucket, "key") == 200
    fault = fault_proxy.arm(faults.without("If-None-Match", bucket), "PUT")
    assert put(client, bucket, "key", IfNoneMatch="*") == 200
    assert put(client, bucket, "key", IfNoneMatch="*") == 412
    assert fault.struck == 1


def test_less_can_be_stored_than_was_sent(
    client: "S3Client", bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    fault_proxy.arm(faults.storing_otherwise(lambda body: body[:-1], bucket), "PUT")
    assert put(client, bucket, "key") == 200
    assert get(client, bucket, "key") == BODY[:-1]


def test_an_answer_can_be_cut_or_altered(
    client: "S3Client", bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    client.put_object(Bucket=bucket.name, Key="key", Body=BODY)
    fault_proxy.arm(faults.cutting_answer(), "GET")
    with pytest.raises(BotoCoreError):
        get(client, bucket, "key")
    fault_proxy.arm(faults.answering_otherwise(faults.flipped), "GET")
    part = client.get_object(Bucket=bucket.name, Key="key", Range="bytes=0-3")
    assert part["Body"].read() == b"0133"
    assert get(client, bucket, "key") == BODY


def test_faults_strike_from_a_request_on_and_so_many_times(
    client: "S3Client", bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    fault_proxy.arm(faults.refusing(503, "SlowDown"), "PUT", first=2, times=2)
    statuses = [put(client, bucket, str(n)) for n in range(5)]
    assert statuses == [200, 503, 503, 200, 200]
    fault_proxy.arm(faults.refusing(503, "SlowDown"), "PUT", times=None)
    assert [put(client, bucket, str(n)) for n in range(3)] == [503, 503, 503]
    fault_proxy.disarm()
    assert put(client, bucket, "last") == 200


def test_chance_comes_from_a_seed(
    client: "S3Client", bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    runs = []
    for seed in (1, 1, 2):
        fault_proxy.arm(faults.refusing(503, "SlowDown"), "PUT", times=None, chance=0.5, seed=seed)
        runs.append([put(client, bucket, "key") for _ in range(20)])
        fault_proxy.disarm()
    assert runs[0] == runs[1] != runs[2]
    assert set(runs[0]) == {200, 503}


@pytest.mark.parametrize("done", [False, True])
def test_what_is_held_is_done_before_or_after(
    client: "S3Client", bucket: Bucket, fault_proxy: FaultProxy, done: bool
) -> None:
    hold = Hold(done=done)
    fault_proxy.arm(hold, "PUT")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(put, client, bucket, "key")
        hold.wait()
        assert keys(bucket) == ["key"] * done
        assert not held.done()
        hold.release()
        assert held.result(10) == 200
    assert keys(bucket) == ["key"]


def test_what_is_held_may_end_in_another_fault(
    client: "S3Client", bucket: Bucket, fault_proxy: FaultProxy
) -> None:
    hold = Hold(then=faults.cutting())
    fault_proxy.arm(hold, "PUT")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(put, client, bucket, "key")
        hold.wait()
        hold.release()
        assert held.result(10) == 0
    assert keys(bucket) == []


def test_a_proxy_that_ends_lets_go_what_it_holds_and_leaves_no_thread(
    s3: S3Server, bucket: Bucket
) -> None:
    before = set(threading.enumerate())
    with ThreadPoolExecutor(2) as pool:
        with a_fault_proxy(s3.endpoint) as proxy:
            client = replace(bucket, endpoint=proxy.endpoint).client()
            hold = Hold()
            proxy.arm(hold, "PUT", "/held")
            proxy.arm(Delay(600), "PUT", "/late")
            calls = [pool.submit(put, client, bucket, key) for key in ("held", "late")]
            hold.wait()
            began = time.monotonic()
        assert all(call.result(10) in (0, 200) for call in calls)
        assert time.monotonic() - began < 10
    assert set(threading.enumerate()) <= before
