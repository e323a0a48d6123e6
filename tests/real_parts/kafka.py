"""Apache Kafka brokers in KRaft mode, started for a test run: open, secured, or three together.

Goes out: an address on loopback and topics made to order. The jars are in .tools, where make puts
them; the version is that of pom.xml. Nothing is kept: logs and data are in a folder of the run.
"""

import asyncio
import contextlib
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.real_parts.certificates import Authority
from tests.real_parts.guard import TOOLS, Guarded, ServerError, accepts, free_port

_POM = Path(__file__).with_name("pom.xml")
_CLUSTER_ID = "everyline-tests-000000"  # 22 characters of base64, as Kafka's own ids
_STARTED = "Kafka Server started"

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
# Kafka's default; no client of ours may make use of it.
auto.create.topics.enable=true
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A broker that was killed may come back when its last session has ended.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
# Retention shows within a test, not within five minutes.
log.initial.task.delay.ms=500
log.retention.check.interval.ms=500
"""

# The later of two lines with one name counts.
_SECURED = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},\\
SASL_SSL://127.0.0.1:{sasl},SSL://127.0.0.1:{mutual}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.plain.sasl.jaas.config=\\
org.apache.kafka.common.security.plain.PlainLoginModule required{plain};
# With no more than this, the broker takes tokens without a signature.
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \\
unsecuredLoginStringClaim_sub="broker";
# Who comes in by a password and is not named here has no rights at all.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:shipper;User:CN=shipper
ssl.keystore.type=PEM
ssl.keystore.location={broker_pem}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.ssl.ssl.client.auth=required
"""

_LOG4J = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c %m%n
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=INFO
"""


@dataclass
class Broker:
    """A running broker; `bootstrap` is its host:port."""

    bootstrap: str
    folder: Path
    server: Guarded

    @classmethod
    def start(cls) -> "Broker":
        """Format a new folder and start a broker on it; returns when it serves, after some 4 s."""
        return cls.member(1, {1: free_port()})

    @classmethod
    def member(cls, node: int, controllers: Mapping[int, int]) -> "Broker":
        """Start one broker of several; `controllers` has a port for the quorum of each."""
        folder = Path(tempfile.mkdtemp(prefix="everyline-kafka-"))
        try:
            port = free_port()
            _format(folder, _properties(folder, port, node, controllers))
            return cls(f"127.0.0.1:{port}", folder, _serve(folder, port))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def kill(self) -> None:
        """End the broker as a power cut would, but keep its folder and address."""
        self.server.stop(keep_folder=True)

    def restart(self) -> None:
        """Start the broker again after `kill`, at the same address with the same data."""
        self.server = _serve(self.folder, int(self.bootstrap.rpartition(":")[2]))

    def move(self) -> None:
        """Kill the broker and start it with the same data at another port, which it advertises."""
        self.kill()
        path, old, port = self.folder / "server.properties", self.bootstrap, free_port()
        self.bootstrap = f"127.0.0.1:{port}"
        path.write_text(path.read_text().replace(old, self.bootstrap))
        self.server = _serve(self.folder, port)

    def close(self) -> None:
        """End the broker and remove all that it has written."""
        self.server.stop()

    async def new_topic(
        self, partitions: int = 1, config: Mapping[str, str] | None = None, *, name: str = ""
    ) -> str:
        """Create a topic of a new name, with Kafka's topic settings in `config`; its name."""
        topic = NewTopic(name or _new_name(), partitions, 1, topic_configs=dict(config or {}))
        return await _create(self.bootstrap, topic)


@dataclass
class Cluster:
    """Three brokers, whose topics have three replicas; two of them must have each record."""

    brokers: Sequence[Broker]

    @classmethod
    def start(cls) -> "Cluster":
        """Start three brokers at once; each waits for another one."""
        controllers = {node: free_port() for node in (1, 2, 3)}
        with ThreadPoolExecutor() as pool:
            started = [pool.submit(Broker.member, node, controllers) for node in controllers]
        brokers = [each.result() for each in started if each.exception() is None]
        if len(brokers) < len(started):
            for broker in brokers:
                broker.close()
            raise ServerError(f"kafka did not start: {[each.exception() for each in started]}")
        return cls(brokers)

    @property
    def bootstrap(self) -> str:
        """The host:port of each, separated by commas."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    async def new_topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic of a new name; its name."""
        configs = {"min.insync.replicas": "2", **(config or {})}
        topic = NewTopic(_new_name(), partitions, 3, topic_configs=configs)
        return await _create(self.bootstrap, topic)

    async def leader(self, name: str, partition: int = 0) -> Broker:
        """The broker that takes the records of a partition, when there is one."""
        leaders: dict[int, int] = {}
        async with _administrator(self.bootstrap) as admin, asyncio.timeout(30):
            while leaders.get(partition, -1) == -1:  # not each broker knows a new topic at once
                (topic,) = await admin.describe_topics([name])
                leaders = {each["partition"]: each["leader"] for each in topic["partitions"]}
        return self.brokers[leaders[partition] - 1]

    def close(self) -> None:
        """End all brokers and remove all that they have written."""
        for broker in self.brokers:
            broker.close()


@dataclass
class SecuredBroker(Broker):
    """A broker that asks who one is: `bootstrap` takes what has no secrets, for its topics.

    `sasl` is host:port of TLS with a login by SCRAM-SHA-512 or PLAIN as one of `users`, or by
    a token of OAUTHBEARER without a signature; `mutual` is that of TLS with a certificate of
    `authority`.
    """

    sasl: str
    mutual: str
    authority: Authority
    users: Mapping[str, str]

    @classmethod
    def start(cls) -> "SecuredBroker":
        """Make an authority, certificates and users, and start a broker with them."""
        folder = Path(tempfile.mkdtemp(prefix="everyline-kafka-"))
        try:
            port, sasl, mutual = (free_port() for _ in range(3))
            authority = Authority(folder / "authority")
            users = {"shipper": "right of course", "guest": "looks around"}
            plain = "".join(f' user_{name}="{word}"' for name, word in users.items())
            controller = free_port()
            properties = _properties(folder, port, 1, {1: controller}) + _SECURED.format(
                port=port,
                controller=controller,
                sasl=sasl,
                mutual=mutual,
                broker_pem=authority.sign("broker").joined(),
                ca=authority.certificate,
                plain=plain,
            )
            scram = [f"SCRAM-SHA-512=[name={name},password={word}]" for name, word in users.items()]
            _format(folder, properties, *(each for word in scram for each in ("--add-scram", word)))
            server = _serve(folder, port)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        place = "127.0.0.1:{}".format
        return cls(place(port), folder, server, place(sasl), place(mutual), authority, users)

    def set_plain_password(self, user: str, word: str) -> None:
        """Change what PLAIN takes from a user, from the next `restart` on."""
        path = self.folder / "server.properties"
        old = f'user_{user}="{self.users[user]}"'
        path.write_text(path.read_text().replace(old, f'user_{user}="{word}"'))
        self.users = {**self.users, user: word}


@contextlib.asynccontextmanager
async def _administrator(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


def _new_name() -> str:
    return f"logs-{uuid.uuid4().hex[:12]}"


async def _create(bootstrap: str, topic: NewTopic) -> str:
    async with _administrator(bootstrap) as admin:
        answer = await admin.create_topics([topic])
    for _, code, *message in answer.topic_errors:
        if code:
            raise ServerError(f"kafka did not create a topic: {code} {message}")
    return str(topic.name)


def _properties(folder: Path, port: int, node: int, controllers: Mapping[int, int]) -> str:
    voters = ",".join(f"{each}@127.0.0.1:{at}" for each, at in controllers.items())
    controller = controllers[node]
    return _PROPERTIES.format(
        folder=folder, port=port, node=node, voters=voters, controller=controller
    )


def _format(folder: Path, properties: str, *options: str) -> None:
    (folder / "server.properties").write_text(properties)
    (folder / "log4j2.properties").write_text(_LOG4J)
    storage = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, *options, "-c"]
    done = subprocess.run(
        [*_java(folder), *storage, str(folder / "server.properties")],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ServerError(f"kafka did not format its folder:\n{done.stdout}{done.stderr}")


def _serve(folder: Path, port: int) -> Guarded:
    command = [*_java(folder), "kafka.Kafka", str(folder / "server.properties")]
    log = folder / "server.log"
    already = log.read_text().count(_STARTED) if log.exists() else 0
    server = Guarded(command, folder)
    server.wait_until(
        lambda: accepts(port) and server.log().count(_STARTED) > already,
        timeout_s=60,
    )
    return server


def _java(folder: Path) -> list[str]:
    found = re.search("<kafka.version>(.*)</kafka.version>", _POM.read_text())
    assert found is not None
    jars = TOOLS / f"kafka-{found[1]}" / "lib"
    if not jars.is_dir():
        raise ServerError(f"Apache Kafka {found[1]} is missing in .tools; run make tools")
    log4j = f"-Dlog4j2.configurationFile={folder}/log4j2.properties"
    return [
        "java",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        f"{jars}/*",
        log4j,
    ]
