"""Where things are: the repository, the cache outside of it, the binary under test."""

import hashlib
import os
import shutil
from pathlib import Path

CONFORMANCE = Path(__file__).resolve().parent.parent
REPOSITORY = CONFORMANCE.parent.parent


def cache() -> Path:
    """Everything that is installed goes here, never into the work tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heizer"


def _named_by_content(name: str, source: Path) -> Path:
    """A cache entry whose name changes with the file that describes it, so that a stale one is never used."""
    return cache() / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"


def virtual_environment() -> Path:
    """The Python environment with the clients under test."""
    return _named_by_content("venv", CONFORMANCE / "requirements.txt")


def kafka_libs() -> Path:
    """Apache Kafka's jars."""
    return _named_by_content("kafka", CONFORMANCE / "kafka" / "pom.xml")


def target() -> Path:
    """Cargo's target folder."""
    return Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")


def heizer() -> Path:
    """The binary under test: HEIZER_BIN, or the release build."""
    return Path(os.environ.get("HEIZER_BIN") or target() / "release" / "heizer")


def promtool() -> Path:
    """Prometheus' checker of rules: the system's, or the one that `install` has brought."""
    installed = shutil.which("promtool")
    return Path(installed) if installed else cache() / "promtool"


def heizer_load() -> Path:
    """The load generator."""
    return target() / "release" / "heizer-load"
