"""Apache Kafka's own programs, run out of the cached jars."""

import os
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
DUMP_LOG = "kafka.tools.DumpLogSegments"
STORAGE = "kafka.tools.StorageTool"
SERVER = "kafka.Kafka"


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


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"
