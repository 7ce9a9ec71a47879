"""`/metrics`, read as strictly as Prometheus reads it."""

import re
import urllib.request
from typing import NamedTuple

_TIMEOUT_S = 10.0
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
# What samples of a family of each kind are called beyond its name.
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}


class Family(NamedTuple):
    kind: str
    help: str


class Metrics:
    """All samples of one scrape, by name and labels."""

    def __init__(self, text: str):
        self.families: dict[str, Family] = {}
        self.samples: dict[tuple, float] = {}
        assert text.endswith("\n# EOF\n") and text.count("# EOF") == 1, "the text is cut short"
        name = help_ = None
        for line in text.split("\n")[:-2]:
            if line.startswith("# HELP "):
                name, help_ = line[len("# HELP ") :].split(" ", 1)
            elif line.startswith("# TYPE "):
                assert line.split(" ")[2] == name and name not in self.families, f"out of order: {line}"
                self.families[name] = Family(line.split(" ")[3], help_)
            else:
                self._take_sample(name, line)

    def _take_sample(self, family: str, line: str) -> None:
        found = _SAMPLE.match(line)
        assert found, f"no sample: {line}"
        name, labels, value = found.groups()
        allowed = [family + suffix for suffix in SUFFIXES[self.families[family].kind]]
        assert name in allowed, f"{name} among the samples of {family}"
        key = (name, frozenset(_labels(labels or "").items()))
        assert key not in self.samples, f"twice: {line}"
        self.samples[key] = float(value)

    def names(self) -> set[str]:
        """What samples may be called, also where there are none at the moment."""
        return {name + suffix for name, family in self.families.items() for suffix in SUFFIXES[family.kind]}

    def find(self, name: str, **labels: str) -> dict[frozenset, float]:
        """The samples of that name that have these labels, perhaps among others."""
        assert name in self.names(), f"there is no {name}"
        wanted = labels.items()
        return {found: value for (of, found), value in self.samples.items() if of == name and wanted <= found}

    def sum(self, name: str, **labels: str) -> float:
        return sum(self.find(name, **labels).values())

    def value(self, name: str, **labels: str) -> float:
        """The one sample of that name with these labels."""
        found = self.find(name, **labels)
        assert len(found) == 1, f"{len(found)} samples of {name} with {labels}"
        return next(iter(found.values()))


def _labels(text: str) -> dict[str, str]:
    labels, at = {}, 0
    while at < len(text):
        found = _LABEL.match(text, at)
        assert found and found.group(1) not in labels, f"no labels: {text}"
        labels[found.group(1)] = re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), found.group(2))
        at = found.end()
    return labels


def scrape(server) -> Metrics:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.admin_port}/metrics", timeout=_TIMEOUT_S) as answer:
        return Metrics(answer.read().decode())
