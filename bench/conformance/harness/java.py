"""Apache Kafka's own programs, run out of the cached jars."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import paths

TOOLS = "org.apache.kafka.tools."
CONSOLE_PRODUCER = TOOLS + "ConsoleProducer"
CONSOLE_CONSUMER = TOOLS + "consumer.ConsoleConsumer"
PRODUCER_PERFORMANCE = TOOLS + "ProducerPerformance"
CONSUMER_PERFORMANCE = TOOLS + "ConsumerPerformance"
END_TO_END_LATENCY = TOOLS + "EndToEndLatency"
TOPIC_COMMAND = TOOLS + "TopicCommand"
GROUP_COMMAND = TOOLS + "consumer.group.ConsumerGroupCommand"
GET_OFFSETS = TOOLS + "GetOffsetShell"
CONFIG_COMMAND = "kafka.admin.ConfigCommand"
DELETE_RECORDS = TOOLS + "DeleteRecordsCommand"
LOG_DIRS = TOOLS + "LogDirsCommand"
BROKER_API_VERSIONS = TOOLS + "BrokerApiVersionsCommand"
CLUSTER = TOOLS + "ClusterTool"
CLIENT_METRICS = TOOLS + "ClientMetricsCommand"
DUMP_LOG = "kafka.tools.DumpLogSegments"
STORAGE = "kafka.tools.StorageTool"
SERVER = "kafka.Kafka"

# What a distribution of Kafka's has in bin/, and the class behind it.
SCRIPTS = {
    "kafka-broker-api-versions.sh": BROKER_API_VERSIONS,
    "kafka-client-metrics.sh": CLIENT_METRICS,
    "kafka-cluster.sh": CLUSTER,
    "kafka-configs.sh": CONFIG_COMMAND,
    "kafka-console-consumer.sh": CONSOLE_CONSUMER,
    "kafka-console-producer.sh": CONSOLE_PRODUCER,
    "kafka-consumer-groups.sh": GROUP_COMMAND,
    "kafka-consumer-perf-test.sh": CONSUMER_PERFORMANCE,
    "kafka-delete-records.sh": DELETE_RECORDS,
    "kafka-dump-log.sh": DUMP_LOG,
    "kafka-e2e-latency.sh": END_TO_END_LATENCY,
    "kafka-get-offsets.sh": GET_OFFSETS,
    "kafka-log-dirs.sh": LOG_DIRS,
    "kafka-producer-perf-test.sh": PRODUCER_PERFORMANCE,
    "kafka-topics.sh": TOPIC_COMMAND,
}
# For a program that asks one question and ends: the time goes into its start, not into its loops.
SHORT_LIVED = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


def command(program: str, *arguments: str, heap: str = "256m", flags: Sequence[str] = ()) -> list[str]:
    """The command line that runs one of the classes above; `flags` for the JVM replace the small heap."""
    libs = paths.kafka_libs()
    if not libs.is_dir():
        raise AssertionError("Apache Kafka's jars are not installed: run bench/conformance/kafka/install.py")
    logging = paths.CONFORMANCE / "kafka" / "log4j2.properties"
    flags = [*(flags or (f"-Xmx{heap}", "-XX:+UseSerialGC")), f"-Dlog4j2.configurationFile=file:{logging}"]
    return [_java(), *flags, "-cp", f"{libs}/*", program, *arguments]


def run(program: str, *arguments: str, stdin: str = "", timeout_s: float = 120, heap: str = "256m") -> str:
    """Runs a program to its end, which must be a success, and returns its standard output."""
    line = command(program, *arguments, heap=heap)
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{program} {arguments} exited {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_scripts(folder: Path) -> None:
    """Puts the programs into `folder` under the names that a distribution of Kafka's gives them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in SCRIPTS.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(command(program, flags=SHORT_LIVED))} "$@"\n')
        script.chmod(0o755)


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"
