"""Apache Kafka's admin programs as somebody calls them in a shell, and what they print as rows.

Each call is a process of its own, with the exit code and the streams that a shell would see.
"""

import re
import subprocess
from typing import NamedTuple, Optional

from . import java

TIMEOUT_S = 60


class Said(NamedTuple):
    """How a call ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def both(self) -> str:
        return self.out + self.err


class Tool:
    """One of the programs, pointed at a broker: `topics("--list")`."""

    def __init__(self, program: str, bootstrap: str):
        self._program, self._bootstrap = program, bootstrap

    def __call__(self, *arguments: str) -> str:
        """A call that must succeed; its standard output."""
        said = self.call(*arguments)
        assert said.code == 0, f"{self._program} {arguments} exited {said.code}:\n{said.both}"
        return said.out

    def fails(self, *arguments: str) -> str:
        """A call that must exit with 1; everything that it said."""
        said = self.call(*arguments)
        assert said.code == 1, f"{self._program} {arguments} exited {said.code}, not 1:\n{said.both}"
        return said.both

    def call(self, *arguments: str) -> Said:
        """A call that may end as it likes: some of the programs print an error and exit with 0."""
        where = ("--bootstrap-server", self._bootstrap)
        # kafka-cluster.sh has its verb before its options.
        verb, options = (arguments[:1], arguments[1:]) if self._program == java.CLUSTER else ((), arguments)
        line = java.command(self._program, *verb, *where, *options, flags=java.SHORT_LIVED)
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
        return Said(done.returncode, done.stdout, done.stderr)


def rows(text: str, first: str) -> list[dict]:
    """The rows of every table whose header starts with the word `first`, by the words of the header.

    A cell has no spaces, unless it is the last. A table ends where a line is empty.
    """
    header, found = None, []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [first]:
            header = words
        elif not words:
            header = None
        elif header:
            cells = line.rstrip().split(None, len(header) - 1)
            assert len(cells) == len(header), f"not a row under {header}: {line!r}"
            found.append(dict(zip(header, cells)))
    return found


class Topic(NamedTuple):
    """What kafka-topics.sh --describe says of a topic: its fields, without the settings; the settings; the partitions.

    Without the line of the topic, fields and settings are None; without lines of partitions, there are none.
    """

    fields: Optional[dict]
    settings: Optional[dict]
    partitions: list


def topics(text: str) -> dict[str, Topic]:
    """What `kafka-topics.sh --describe` printed, by topic."""
    found: dict[str, Topic] = {}
    for line in filter(str.strip, text.splitlines()):
        parts = [part.partition(":") for part in line.strip("\t").split("\t")]
        fields = {name.strip(): value.strip() for name, _, value in parts}
        name = fields.pop("Topic")
        if "PartitionCount" in fields:
            assert name not in found, f"{name} twice"
            found[name] = Topic(fields, _pairs(fields.pop("Configs")), [])
        else:
            found.setdefault(name, Topic(None, None, [])).partitions.append(fields)
    return found


def _pairs(text: str) -> dict[str, str]:
    """`a.b=1,c.d=x,y` as {"a.b": "1", "c.d": "x,y"}."""
    pairs = re.split(r",(?=[a-z][a-z0-9.]*=)", text) if text else []
    return dict(pair.split("=", 1) for pair in pairs)


class Setting(NamedTuple):
    """A setting as kafka-configs.sh describes it: its value, and `SOURCE:name=value` from the strongest on."""

    value: str
    synonyms: list


_SETTING = re.compile(r"  (\S+?)=(.*) sensitive=(?:true|false) synonyms=\{(.*)\}")


def settings(text: str) -> dict[str, dict[str, Setting]]:
    """What `kafka-configs.sh --describe` printed: {heading: {name: setting}}."""
    found: dict[str, dict[str, Setting]] = {}
    for line in filter(str.strip, text.splitlines()):
        if not line.startswith("  "):
            found[line.strip()] = {}
            continue
        matched = _SETTING.fullmatch(line)
        assert matched and found, f"not a setting below a heading: {line!r}"
        name, value, synonyms = matched.groups()
        found[list(found)[-1]][name] = Setting(value, synonyms.split(", ") if synonyms else [])
    return found
