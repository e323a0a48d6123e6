"""One Apache Kafka broker in KRaft mode, started for a test run.

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

from tests.real_parts.guard import TOOLS, Guarded, ServerError, accepts, free_port

_POM = Path(__file__).with_name("pom.xml")
_CLUSTER_ID = "everyline-tests-000000"  # 22 characters of base64, as Kafka's own ids
_STARTED = "Kafka Server started"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
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
            _format(folder, port)
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


def _format(folder: Path, port: int) -> None:
    properties = _PROPERTIES.format(folder=folder, port=port, controller_port=free_port())
    (folder / "server.properties").write_text(properties)
    (folder / "log4j2.properties").write_text(_LOG4J)
    storage = ["kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c"]
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
