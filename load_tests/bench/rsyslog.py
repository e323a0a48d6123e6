"""rsyslog, imfile to omkafka: the leanest of the common shippers, on the same files and broker.

A folder of logs and a broker go in; what rsyslogd has cost comes out once Kafka has every line.
The records carry the path of the file, as those of a shipper must, and no more.
"""

import atexit
import shutil
import subprocess
import time
from pathlib import Path

from load_tests.bench.broker import Kafka
from load_tests.bench.cost import Cost, end
from load_tests.bench.logs import Logs

_PLUGINS = ("/usr/lib/x86_64-linux-gnu/rsyslog", "/usr/lib/aarch64-linux-gnu/rsyslog")
_SBIN = "/usr/sbin:/usr/local/sbin"
_DEADLINE_S = 600
_STALLED_S = 30

# Batches of up to 1,024 messages leave rsyslog's queue at once, librdkafka makes requests of up to
# a megabyte of them; zstd and acks=all as the collector has them.
_CONFIG = """\
global(workDirectory="{folder}" maxMessageSize="256k")
module(load="imfile" mode="inotify")
module(load="omkafka")
template(name="line" type="string" string="%$!metadata!filename% %msg%")
input(type="imfile" File="{root}/*/*/*.log*" Tag="log" ruleset="ship" addMetadata="on"
      maxLinesPerMinute="0" maxBytesPerMinute="0")
ruleset(name="ship" queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="1024"
        queue.workerThreads="1" queue.timeoutEnqueue="600000" queue.discardMark="100000") {{
  action(type="omkafka" broker=["{address}"] topic="{topic}" template="line"
         partitions.auto="on" closeTimeout="60000" resubmitOnFailure="on"
         confParam=["compression.codec=zstd", "acks=all", "linger.ms=100",
                    "batch.size=1000000", "queue.buffering.max.messages=200000"])
}}
"""


def missing() -> str:
    """Return what to install before rsyslog can be measured; nothing if all is there."""
    plugins = any(Path(folder, "omkafka.so").exists() for folder in _PLUGINS)
    if plugins and shutil.which("rsyslogd", path=_SBIN):
        return ""
    return "apt-get install rsyslog rsyslog-kafka"


def ship(folder: Path, logs: Logs, kafka: Kafka) -> Cost:
    """Ship the logs to a new topic, a record a line; fail if lines do not arrive."""
    place = folder / f"rsyslog-{time.monotonic_ns()}"
    place.mkdir()
    topic = kafka.new_topic()
    config = place / "rsyslog.conf"
    name = topic.rpartition("/")[2]
    config.write_text(
        _CONFIG.format(folder=place, root=logs.root, address=kafka.address, topic=name)
    )
    command = [shutil.which("rsyslogd", path=_SBIN) or "rsyslogd", "-n"]
    command += ["-f", str(config), "-i", str(place / "pid")]
    with (place / "log").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    atexit.register(process.kill)  # does nothing to one that has been waited for
    arrived, grown = 0, time.monotonic()
    while arrived < logs.lines:
        time.sleep(0.5)
        now = kafka.records(topic)
        if now > arrived:
            arrived, grown = now, time.monotonic()
        if process.poll() is not None or time.monotonic() - grown > _STALLED_S:
            process.kill()
            told = (place / "log").read_text(errors="replace")[-2000:]
            raise SystemExit(f"bench: {arrived} of {logs.lines} lines came through rsyslog\n{told}")
    return end(process)
