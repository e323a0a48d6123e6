"""Fixtures for all tests: the real servers, one of each per run, started when first asked for.

A server that cannot be had fails the tests that ask for it, by name; nothing is skipped.
"""

from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.examples import WHOLE
from tests.real_parts.fault_proxy import FaultProxy, a_fault_proxy
from tests.real_parts.kafka import Broker, Cluster, SecuredBroker
from tests.real_parts.s3 import Bucket, S3Server

settings.load_profile(WHOLE)  # --hypothesis-profile, which is read later, counts instead

SERVERS = {"kafka", "secured_kafka", "kafka_cluster", "s3"}
NO_UNIT = ("real", "slow", "kubernetes", "node", "spark")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that accepts what is new in golden files."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that ask for a server as real, and those without any mark as unit."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker("real")
        if not any(map(item.get_closest_marker, NO_UNIT)):
            item.add_marker("unit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a worker send what a test has logged of names that are no text."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """A running Kafka broker; take a topic of your own with `await kafka.new_topic()`."""
    broker = Broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def secured_kafka() -> Iterator[SecuredBroker]:
    """A running Kafka broker with TLS and logins."""
    broker = SecuredBroker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="module")
def kafka_cluster() -> Iterator[Cluster]:
    """Three running Kafka brokers, which are ended with the module: they take much memory."""
    cluster = Cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A running S3 server; most tests want `bucket` instead."""
    server = S3Server.start()
    yield server
    server.close()


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A new, empty bucket on a real S3 server."""
    return s3.new_bucket()


@pytest.fixture
def fault_proxy(s3: S3Server) -> Iterator[FaultProxy]:
    """A proxy in front of the S3 server; use the bucket with ``endpoint=fault_proxy.endpoint``."""
    with a_fault_proxy(s3.endpoint) as proxy:
        yield proxy
