"""The README's five minutes, and the commands of its settings: each is run as it stands there.

A network of the scenario's own gives the broker the ports that README.md names; its folder has what a reader's has,
with the programs of a Kafka distribution in bin/ and the binary under test where cargo leaves it. The commands build
upon each other and are run in their order; those that need no JVM build upon none that does.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness import java, paths, readme, tools
from harness.namespace import private_network
from harness.server import Heizer

pytestmark = pytest.mark.heizer

SECTIONS = ("Five minutes", "Settings")
COMMANDS = readme.commands(*SECTIONS)
COMMAND_TIMEOUT_S = 60
# Exit codes do not tell all: some programs print an error and exit with 0.
COMPLAINT = re.compile(
    r"^% ?(ERROR|FATAL)|^%[0-3]\|"  # kcat, librdkafka
    r"|^\s*Error\b|^\[.*\] (ERROR|FATAL) |\w+Exception\b"  # Kafka's programs
    r"|^Traceback |command not found|No such file",
    re.MULTILINE,
)


class ByScript(Heizer):
    """The broker that `scripts/run` starts: on its default ports, with its data in ./data."""

    def __init__(self, home: Path, prefix: tuple):
        super().__init__(home, prefix=prefix)
        self.port, self.admin_port = 9092, 9644

    def _command(self) -> list[str]:
        # What is under test has been built already: cargo is asked, and has nothing to do.
        nothing_to_do = self.home / "cargo"
        nothing_to_do.mkdir(exist_ok=True)
        cargo = nothing_to_do / "cargo"
        cargo.write_text("#!/bin/sh\n")
        cargo.chmod(0o755)
        run = f'PATH="{nothing_to_do}:$PATH" exec scripts/run'
        return [*self.prefix, "env", "-u", "CARGO_TARGET_DIR", "bash", "-c", run]


class Tour:
    """A reader's folder, shell and broker."""

    def __init__(self, home: Path, prefix: tuple):
        self._home, self._prefix = home, prefix
        self._variables = home / "variables"
        self._variables.touch()
        for path in paths.REPOSITORY.iterdir():
            if path.name not in ("target", "data", "bin"):
                (home / path.name).symlink_to(path)
        (home / "target" / "release").mkdir(parents=True)
        (home / "target" / "release" / "heizer").symlink_to(paths.heizer().resolve())
        self.broker = ByScript(home, prefix)

    def run(self, command: readme.Command) -> tools.Said:
        """Runs one command to its end."""
        if needs_a_jvm(command):
            java.write_scripts(self._home / "bin")
        if "kafka-dump-log.sh" not in command.text:
            return self._run(command)
        # As the README says: it is for segments that are sealed, which after a stop all are.
        self.broker.stop()
        said = self._run(command)
        self.broker.start()
        return said

    def _run(self, command: readme.Command) -> tools.Said:
        if command.kind == "python":
            line = [sys.executable, "-c", command.text]
        else:
            # As in one shell: what one command exports, the next has.
            keep = f'code=$?\nexport -p > "{self._variables}"\nexit $code\n'
            line = ["bash", "-o", "pipefail", "-c", f'. "{self._variables}"\n{command.text}\n{keep}']
        options = {"cwd": self._home, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        done = subprocess.run([*self._prefix, *line], timeout=COMMAND_TIMEOUT_S, **options)
        return tools.Said(done.returncode, done.stdout, done.stderr)


def needs_a_jvm(command: readme.Command) -> bool:
    return bool(re.search(r"\bbin/\S+\.sh\b", command.text))


def lines(*expected):
    """Exactly these lines, in any order: partitions have none among them."""
    return lambda out: sorted(out.splitlines()) == sorted(expected)


def has(*patterns):
    """A line that matches, for each of them."""
    return lambda out: all(re.search(pattern, out, re.MULTILINE) for pattern in patterns)


def column(out, first, name):
    """What the table whose first title is `first` has under `name`, of the topic readings."""
    return [row[name] for row in tools.rows(out, first) if row.get("TOPIC", "readings") == "readings"]


def numbers(cells):
    return [int(cell) for cell in cells if cell != "-"]


def dashboard_is_at_the_end(out):
    offsets, lags = (numbers(column(out, "TOPIC", name)) for name in ("OFFSET", "LAG"))
    return out.startswith("group dashboard: Empty, 0 members") and sum(offsets) == 3 and set(lags) == {0}


def dashboard_would_begin_anew(out):
    return set(column(out, "TOPIC", "NEW")) == {"0"} and "\nnothing was changed; " in out


def ends_of_six_partitions(out):
    return len(column(out, "PARTITION", "EARLIEST")) == 6 and sum(numbers(column(out, "PARTITION", "LATEST"))) == 3


def dashboard_has_read_all(out):
    offsets, lags = (column(out, "GROUP", name) for name in ("CURRENT-OFFSET", "LAG"))
    return sum(numbers(offsets)) == 3 and set(lags) <= {"0", "-"}


def dashboard_begins_anew(out):
    return column(out, "GROUP", "NEW-OFFSET") == ["0"] * 6


# What is in the command, and what its output must be. A command that is not here must succeed without a complaint.
OUTPUTS = {
    "heizer topic create readings": has(r"\breadings\b"),
    "heizer consume readings --from-beginning --print-key": lines("sensor-1\t21.5", "sensor-2\t19.0", "sensor-1\t21.7"),
    "heizer consume readings --group dashboard": lines("21.5", "19.0", "21.7"),
    "heizer topic describe readings": has(r"^topic readings: 5 partitions, 1 replicas"),
    "heizer topic list": has(r"^cold\b", r"^readings\b"),
    "heizer group describe dashboard": dashboard_is_at_the_end,
    "heizer group reset dashboard": dashboard_would_begin_anew,
    "heizer config set topic readings": has(r"^set retention\.ms = 3600000 of topic readings$"),
    "heizer config get topic readings": has(r"^retention\.ms +3600000 +DYNAMIC_TOPIC_CONFIG$"),
    "heizer topic alter readings": has(r"^gave readings 6 partitions in place of 5\b"),
    "heizer topic offsets readings": ends_of_six_partitions,
    "heizer topic delete cold": has(r"\bcold\b"),
    "heizer cluster info": has(r"^cluster \S+: controller 1, 1 brokers, ", r"\b127\.0\.0\.1:9092\b"),
    "kcat -b 127.0.0.1:9092 -L": has(r'topic "readings" with 6 partitions', r"127\.0\.0\.1:9092"),
    "-t greetings -C": lines("0 0 k1 hello", "0 1 k2 world"),
    "-G people greetings": lines("hello", "world"),
    "from confluent_kafka import Consumer, Producer": lines(*(f"0 {n} b'{n}' b'value {n}'" for n in range(10))),
    "from kafka import KafkaConsumer, KafkaProducer": lines("0 0 {'id': 1, 'reading': 21.5}"),
    "kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --create --topic orders": has(r"^Created topic orders\.$"),
    "kafka-console-consumer.sh": lines("a\t1", "b\t2", "a\t3"),
    "kafka-consumer-groups.sh --bootstrap-server 127.0.0.1:9092 --describe --group dashboard": dashboard_has_read_all,
    "kafka-consumer-groups.sh --bootstrap-server 127.0.0.1:9092 --reset-offsets --group dashboard": dashboard_begins_anew,
    "--alter --entity-type topics --entity-name orders": has(r"^Completed updating config for topic orders\.$"),
    "--describe --all --entity-type topics --entity-name orders": has(
        r"^All configs for topic orders are:$", r"^  retention\.ms=86400000 sensitive=false "
    ),
    # Java's default partitioner puts the key `a` there.
    "kafka-dump-log.sh --print-data-log": has(r"\bkey: a payload: 1$", r"\bkey: a payload: 3$"),
    "--describe --all --entity-type brokers --entity-name 1": has(r"^  node\.id=1 ", r"^  log\.dirs=\S+ "),
    "from confluent_kafka.admin import AdminClient": has(r"^num\.partitions=1$", r"^heizer\.durability=durable$"),
}


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    with private_network() as network:
        tour = Tour(tmp_path_factory.mktemp("tour"), network.prefix)
        try:
            tour.broker.start()
            yield tour
            tour.broker.close()
        finally:
            tour.broker.abandon()


def test_the_commands_are_what_this_scenario_expects():
    unknown = [f"README.md:{command.line}" for command in COMMANDS if command.kind == "unknown"]
    assert not unknown, f"blocks of a kind that nobody here knows how to run: {unknown}"
    idle = [part for part in OUTPUTS if not any(part in command.text for command in COMMANDS)]
    assert not idle, f"expected of commands that README.md does not have: {idle}"


def _parameter(command):
    marks = [pytest.mark.jvm] if needs_a_jvm(command) else []
    return pytest.param(command, id=command.name, marks=marks)


@pytest.mark.parametrize("command", [_parameter(command) for command in COMMANDS if command.kind != "unknown"])
def test_a_command_of_the_readme_works(tour, command):
    said = tour.run(command)
    shown = f"README.md:{command.line}: {command.text}\n{said.out}\n{said.err}"
    assert said.code == 0, f"exit code {said.code}: {shown}"
    complaint = COMPLAINT.search(f"{said.out}\n{said.err}")
    assert not complaint, f"{complaint[0]!r} in: {shown}"
    for part, check in OUTPUTS.items():
        assert part not in command.text or check(said.out), f"not what it should say: {shown}"
    tour.broker.assert_alive()
