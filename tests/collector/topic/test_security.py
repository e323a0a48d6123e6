"""TLS and logins against a real broker: who comes in, what a refusal says, files that change."""

import asyncio
import base64
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from collector.errors import SettingError, TopicUnavailable
from collector.topic.interface import Record, Topic
from collector.topic.kafka_login import host_and_port
from collector.topic.open import open_topic
from collector.topic.security import KafkaSettings, Security
from collector.wire.batch import Batch, decode
from tests.collector.node import Node, check_lanes, content_of, gaps_of, lines
from tests.collector.test_run import begin
from tests.real_parts.certificates import Authority, Signed
from tests.real_parts.kafka import SecuredBroker

Opener = Callable[..., Topic]


@pytest.fixture
async def opened(secured_kafka: SecuredBroker) -> AsyncIterator[Opener]:
    """Opens a topic of the secured broker, always the same, at an address with settings."""
    name = await secured_kafka.new_topic(2)
    topics: list[Topic] = []

    def new(address: str, settings: dict[str, Any]) -> Topic:
        security = Security(KafkaSettings(**settings))
        topics.append(open_topic(f"kafka://{address}/{name}", security=security))
        return topics[-1]

    yield new
    for topic in topics:
        await topic.close()


def password_settings(broker: SecuredBroker, folder: Path, mechanism: str) -> dict[str, Any]:
    """Settings of the broker's user; the password's file is `password` in the folder."""
    (folder / "password").write_text(broker.users["shipper"] + "\n")
    return {
        "kafka_tls": True,
        "kafka_tls_ca": str(broker.authority.certificate),
        "kafka_sasl_mechanism": mechanism,
        "kafka_sasl_username": "shipper",
        "kafka_sasl_password_file": str(folder / "password"),
    }


def certificate_settings(broker: SecuredBroker, folder: Path) -> dict[str, Any]:
    """Settings of a client certificate: `tls.pem` and `tls.key` in the folder."""
    mount(broker.authority.sign("shipper"), folder)
    return {
        "kafka_tls": True,
        "kafka_tls_ca": str(broker.authority.certificate),
        "kafka_tls_certificate": str(folder / "tls.pem"),
        "kafka_tls_key": str(folder / "tls.key"),
    }


def mount(signed: Signed, folder: Path) -> None:
    """Put a certificate and its key in place, each by a rename of its own."""
    for source, name in ((signed.key, "tls.key"), (signed.certificate, "tls.pem")):
        shutil.copy(source, folder / "new")
        (folder / "new").rename(folder / name)


async def put(topic: Topic, *values: bytes) -> None:
    futures = [await topic.append(0, value, ()) for value in values]
    await asyncio.wait_for(asyncio.gather(*futures), 30)


async def take(topic: Topic, position: int, count: int) -> list[bytes]:
    records: list[Record] = []
    async with asyncio.timeout(30):
        while len(records) < count:
            found = await topic.read({0: position + len(records)}, 1 << 20, 200)
            records += found.get(0, [])
    return [record.value for record in records]


# -- who comes in --------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_a_user_writes_and_reads_over_tls(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path, mechanism: str
) -> None:
    settings = password_settings(secured_kafka, tmp_path, mechanism)
    topic = opened(secured_kafka.sasl, settings)
    assert await topic.partitions() == 2
    await put(topic, b"a", b"b")
    assert await take(opened(secured_kafka.sasl, settings), 0, 2) == [b"a", b"b"]


async def test_a_certificate_writes_and_reads(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path
) -> None:
    topic = opened(secured_kafka.mutual, certificate_settings(secured_kafka, tmp_path))
    await put(topic, b"a", b"b")
    assert await take(topic, 0, 2) == [b"a", b"b"]


def token(lifetime_s: float) -> str:
    """A token of the user, without a signature."""
    claims = {"sub": "shipper", "iat": time.time() - 60, "exp": time.time() + lifetime_s}
    parts = (msgspec.json.encode(part) for part in ({"alg": "none"}, claims))
    return "".join(base64.urlsafe_b64encode(part).decode().rstrip("=") + "." for part in parts)


async def test_a_token_writes_and_reads_and_a_late_one_is_named(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(token(-30))
    settings = {
        "kafka_tls": True,
        "kafka_tls_ca": str(secured_kafka.authority.certificate),
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_sasl_token_file": str(path),
    }
    topic = opened(secured_kafka.sasl, settings)
    with pytest.raises(TopicUnavailable, match=f"authentication failed by OAUTHBEARER.*{path}"):
        await topic.partitions()
    path.write_text(token(600))
    await put(topic, b"a")
    path.write_text(token(900))
    await put(topic, b"b")
    assert await take(topic, 0, 2) == [b"a", b"b"]


# -- what a refusal says, and that it can be mended ------------------------------------------------


async def test_a_wrong_password_is_named_and_works_when_corrected(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path
) -> None:
    settings = password_settings(secured_kafka, tmp_path, "SCRAM-SHA-512")
    (tmp_path / "password").write_text("guessed badly")
    topic = opened(secured_kafka.sasl, settings)
    with pytest.raises(TopicUnavailable) as caught:
        await topic.partitions()
    assert "authentication failed for user 'shipper' by SCRAM-SHA-512" in str(caught.value)
    assert str(tmp_path / "password") in str(caught.value)
    assert "guessed" not in str(caught.value)
    waiting = await topic.append(0, b"a", ())
    await asyncio.sleep(1)
    assert not waiting.done()
    (tmp_path / "password").write_text(secured_kafka.users["shipper"])
    await asyncio.wait_for(waiting, 30)
    assert await take(topic, 0, 1) == [b"a"]


async def test_an_authority_that_did_not_sign_is_named_and_works_when_corrected(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path
) -> None:
    settings = password_settings(secured_kafka, tmp_path, "SCRAM-SHA-512")
    trusted = tmp_path / "trusted.pem"
    shutil.copy(Authority(tmp_path / "other").certificate, trusted)
    topic = opened(secured_kafka.sasl, settings | {"kafka_tls_ca": str(trusted)})
    with pytest.raises(TopicUnavailable, match=f"certificate verify failed.*{trusted}"):
        await topic.partitions()
    shutil.copy(secured_kafka.authority.certificate, trusted)
    await put(topic, b"a")


async def test_a_broker_under_another_name_is_refused(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path
) -> None:
    settings = password_settings(secured_kafka, tmp_path, "SCRAM-SHA-512")
    other_name = secured_kafka.sasl.replace("127.0.0.1", "localhost")
    with pytest.raises(TopicUnavailable, match="certificate verify failed: Hostname mismatch"):
        await opened(other_name, settings).partitions()


async def test_a_mechanism_that_the_broker_does_not_take_is_named(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path
) -> None:
    settings = password_settings(secured_kafka, tmp_path, "SCRAM-SHA-256")
    with pytest.raises(TopicUnavailable, match="does not support SCRAM-SHA-256; choose another"):
        await opened(secured_kafka.sasl, settings).partitions()


async def test_a_missing_client_certificate_is_named(
    secured_kafka: SecuredBroker, opened: Opener
) -> None:
    settings = {"kafka_tls": True, "kafka_tls_ca": str(secured_kafka.authority.certificate)}
    with pytest.raises(TopicUnavailable, match="kafka_tls_certificate is not set"):
        await opened(secured_kafka.mutual, settings).partitions()


# -- files that change -----------------------------------------------------------------------------


async def test_a_new_password_that_is_refused_leaves_the_old_connection(
    secured_kafka: SecuredBroker,
    opened: Opener,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = opened(secured_kafka.sasl, password_settings(secured_kafka, tmp_path, "SCRAM-SHA-512"))
    await put(topic, b"a")
    assert await take(topic, 0, 1) == [b"a"]
    (tmp_path / "password").write_text("of tomorrow")
    await put(topic, b"b")
    await put(topic, b"c")
    assert await take(topic, 0, 3) == [b"a", b"b", b"c"]
    told = [r for r in caplog.records if "changed files were refused" in r.message]
    assert len(told) == 2  # one of the writer, one of the reader
    assert "authentication failed for user 'shipper'" in vars(told[0])["error"]
    (tmp_path / "password").write_text(secured_kafka.users["shipper"])
    await put(topic, b"d")
    assert await take(topic, 0, 4) == [b"a", b"b", b"c", b"d"]
    assert "of tomorrow" not in caplog.text


async def test_broken_new_files_are_named_once_and_leave_the_old_connection(
    secured_kafka: SecuredBroker,
    opened: Opener,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = opened(secured_kafka.mutual, certificate_settings(secured_kafka, tmp_path))
    await put(topic, b"a")
    (tmp_path / "tls.pem").write_text("not PEM")
    for value in (b"b", b"c"):
        await put(topic, value)
    told = [r for r in caplog.records if "changed files cannot be used" in r.message]
    assert [str(tmp_path / "tls.pem") in vars(r)["error"] for r in told] == [True]
    mount(secured_kafka.authority.sign("shipper"), tmp_path)
    await put(topic, b"d")
    assert await take(topic, 0, 4) == [b"a", b"b", b"c", b"d"]


async def test_certificates_exchanged_under_load_lose_and_repeat_nothing(
    secured_kafka: SecuredBroker, opened: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    topic = opened(secured_kafka.mutual, certificate_settings(secured_kafka, tmp_path))
    values = [b"%d" % number for number in range(400)]
    futures = []
    for number, value in enumerate(values):
        futures.append(await topic.append(0, value, ()))
        if number % 100 == 50:
            mount(secured_kafka.authority.sign("shipper"), tmp_path)
        await asyncio.sleep(0.005)
    await asyncio.wait_for(asyncio.gather(*futures), 30)
    assert await take(topic, 0, 400) == values
    assert caplog.text.count("connected to kafka with changed files") >= 4


@pytest.mark.parametrize("how", ["certificate", "password"])
async def test_a_collector_goes_on_while_its_files_are_exchanged(
    secured_kafka: SecuredBroker, tmp_path: Path, how: str
) -> None:
    if how == "certificate":
        address, settings = secured_kafka.mutual, certificate_settings(secured_kafka, tmp_path)
    else:
        address = secured_kafka.sasl
        settings = password_settings(secured_kafka, tmp_path, "SCRAM-SHA-512")
        (tmp_path / "password").write_text("wrong at first")
    name = await secured_kafka.new_topic(2)
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    node = Node(tmp_path)
    path = node.file()
    node.write(path, lines(0, 50))
    process = begin(node, f"--topic=kafka://{address}/{name}", *flags)
    try:
        for turn in range(1, 21):
            node.write(path, lines(turn * 50, 50))
            await asyncio.sleep(0.2)
            assert process.poll() is None
            if turn == 10 and how == "certificate":
                (tmp_path / "tls.pem").unlink()
                (tmp_path / "tls.key").unlink()
            elif turn == 13 and how == "certificate":
                mount(secured_kafka.authority.sign("shipper"), tmp_path)
            elif turn == 15 and how == "password":
                (tmp_path / "password").write_text(secured_kafka.users["shipper"])
        await until_shipped(f"kafka://{secured_kafka.bootstrap}/{name}", path.read_bytes())
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 0, said
    expected = {
        "certificate": "connected to kafka with changed files",
        "password": "authentication failed for user 'shipper'",
    }
    assert expected[how] in said
    assert "wrong at first" not in said
    assert "Traceback" not in said


async def until_shipped(url: str, expected: bytes) -> None:
    """Wait until the topic has the whole file, without a hole, a gap or a lane out of order."""
    topic, decompressor = open_topic(url), zstandard.ZstdDecompressor()
    batches: list[Batch] = []
    positions = dict.fromkeys(range(2), 0)
    async with asyncio.timeout(60):
        while list(content_of(batches).values()) != [expected]:
            for partition, records in (await topic.read(positions, 1 << 20, 200)).items():
                batches += [decode(record.value, decompressor) for record in records]
                positions[partition] = records[-1].position + 1
    await topic.close()
    check_lanes(batches)
    assert not gaps_of(batches)


# -- settings and files, without a broker ----------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"kafka_tls_ca": "/ca"}, "kafka_tls_ca does nothing without kafka_tls;"),
        ({"kafka_tls": True, "kafka_tls_key": "/k"}, "without kafka_tls_certificate"),
        ({"kafka_sasl_username": "u"}, "without kafka_sasl_mechanism"),
        ({"kafka_sasl_mechanism": "SCRAM"}, "'SCRAM' is unknown; choose one of PLAIN, SCRAM-SHA-"),
        ({"kafka_sasl_mechanism": "PLAIN"}, "needs a user; set kafka_sasl_username"),
        ({"kafka_sasl_mechanism": "OAUTHBEARER"}, "set kafka_sasl_token_file"),
        ({"kafka_sasl_mechanism": "GSSAPI"}, "needs the Python package gssapi"),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingError, match=named):
        Security(KafkaSettings(**settings))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Signed, Signed]:
    """An authority, and two certificates of its own."""
    authority = Authority(tmp_path_factory.mktemp("keys") / "authority")
    return authority, authority.sign("a"), authority.sign("b")


@pytest.mark.parametrize(
    ("name", "broken", "told"),
    [
        ("kafka_tls_ca", None, "No such file"),
        ("kafka_tls_ca", b"x", "no certificate in it"),
        ("kafka_tls_ca", b"-----BEGIN CERTIFICATE-----\nx\n", "put PEM certificates there"),
        ("kafka_tls_certificate", None, "No such file"),
        ("kafka_tls_certificate", b"\xff\xfe", "not text in UTF-8"),
        ("kafka_tls_key", b"", "no private key in it"),
        ("kafka_tls_key", b"-----BEGIN PRIVATE KEY-----\nx\n", "not encrypted"),
        ("kafka_tls_key", "other", "the key is of another certificate"),
        ("kafka_sasl_password_file", b"\n", "is empty"),
        ("kafka_sasl_password_file", None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path,
    keys: tuple[Authority, Signed, Signed],
    name: str,
    broken: bytes | str | None,
    told: str,
) -> None:
    authority, signed, other = keys
    sound = {
        "kafka_tls_ca": authority.certificate,
        "kafka_tls_certificate": signed.certificate,
        "kafka_tls_key": signed.key,
        "kafka_sasl_password_file": tmp_path / "password",
    }
    (tmp_path / "password").write_text("secret")
    file = tmp_path / "broken"
    if broken is not None:
        file.write_bytes(broken if isinstance(broken, bytes) else other.key.read_bytes())
    files = {key: str(path) for key, path in (sound | {name: file}).items()}
    security = Security(
        KafkaSettings(
            kafka_tls=True, kafka_sasl_mechanism="PLAIN", kafka_sasl_username="u", **files
        )
    )
    with pytest.raises(TopicUnavailable, match=told) as caught:
        security.login()
    assert f"{name} {file}" in str(caught.value)
    shutil.copy(sound[name], file)
    login = security.login()
    assert security.login() is login
    assert login.password == "secret"
    assert "secret" not in repr(login)


def test_a_token_is_read_anew_at_each_login(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    settings = KafkaSettings(kafka_sasl_mechanism="OAUTHBEARER", kafka_sasl_token_file=str(path))
    security = Security(settings)
    login = security.login()
    assert (login.protocol, login.token()) == ("SASL_PLAINTEXT", "first")
    path.write_text("second\n")
    assert login.token() == "second"
    assert security.login() is not login


async def test_brokers_may_have_addresses_of_ipv6() -> None:
    """What listens there is no broker; that it is connected to is enough."""
    met = asyncio.Event()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.set()
        writer.close()

    server = await asyncio.start_server(hang_up, "::1", 0)
    port = server.sockets[0].getsockname()[1]
    topic = open_topic(f"kafka://[::1]:{port},[::1]:1/logs")
    try:
        assert host_and_port(f"[::1]:{port}") == ("::1", port)
        with pytest.raises(TopicUnavailable, match=r"\[::1\]"):
            await topic.partitions()
        assert met.is_set()
    finally:
        await topic.close()
        server.close()
