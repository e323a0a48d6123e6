"""Apache Kafka brokers in KRaft mode, started for a test run: an open one and a secured one.

Goes out: an address on loopback and topics made to order. The jars are in .tools, where make puts
them; the version is that of pom.xml. Nothing is kept: logs and data are in a folder of the run.
"""

import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
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
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
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
        folder = Path(tempfile.mkdtemp(prefix="everyline-kafka-"))
        try:
            port = free_port()
            _format(folder, _PROPERTIES.format(folder=folder, port=port, controller=free_port()))
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

    def close(self) -> None:
        """End the broker and remove all that it has written."""
        self.server.stop()

    async def new_topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic of a new name, with Kafka's topic settings in `config`; its name."""
        name = f"logs-{uuid.uuid4().hex[:12]}"
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            topic = NewTopic(name, partitions, 1, topic_configs=dict(config or {}))
            answer = await admin.create_topics([topic])
        finally:
            await admin.close()
        for _, code, *message in answer.topic_errors:
            if code:
                raise ServerError(f"kafka did not create a topic: {code} {message}")
        return name


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
            users = {"shipper": "right of course"}
            plain = "".join(f' user_{name}="{word}"' for name, word in users.items())
            properties = (_PROPERTIES + _SECURED).format(
                folder=folder,
                port=port,
                controller=free_port(),
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
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", log4j]
