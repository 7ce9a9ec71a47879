#!/usr/bin/env python3
"""Brings Apache Kafka's jars, as pom.xml pins them, into Heizer's cache; does nothing when they are there.

Needs Maven and a JDK. Prints the folder with the jars.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import paths  # noqa: E402

COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def install() -> Path:
    """Returns the folder with the jars. Two installs at once are harmless: the last rename wins."""
    libs = paths.kafka_libs()
    if libs.is_dir():
        return libs
    if shutil.which("mvn") is None:
        raise SystemExit("kafka/install.py: Maven (mvn) is missing; on Debian: apt-get install maven")
    fresh = libs.with_name(f"{libs.name}.{os.getpid()}")
    fresh.mkdir(parents=True)
    command = ["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), COPY_GOAL, f"-DoutputDirectory={fresh}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    try:
        fresh.rename(libs)
    except OSError:
        shutil.rmtree(fresh)
    return libs


if __name__ == "__main__":
    print(install())
