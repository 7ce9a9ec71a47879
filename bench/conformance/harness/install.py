"""Brings what the suite and the comparison stand on: Debian packages where we may, and the pinned Python clients."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional

from . import paths

JDK = "openjdk-17-jdk-headless"
JDK_OLDEST = 17


def run(*command: str, environment: Optional[dict] = None) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})


def answers(*command: str) -> bool:
    """Whether the command is there and succeeds."""
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def bring_packages(who: str, wanted: dict) -> None:
    """Installs what is missing of {program: Debian package} where we may; else says what, and how to install it.

    `who` is the command that speaks.
    """
    missing = missing_packages(wanted)
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(
            f"{who}: missing: {', '.join(missing)}\n"
            f"  on Debian or Ubuntu: sudo apt-get install {' '.join(missing)}\n"
            "  elsewhere, the packages that bring the same programs"
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", environment=quiet)
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing, environment=quiet)
    if still := missing_packages(wanted):
        raise SystemExit(f"{who}: still missing after the installation: {', '.join(still)}")


def missing_packages(wanted: dict) -> list:
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    if JDK in wanted.values() and JDK not in missing and java_version() < JDK_OLDEST:
        missing.append(JDK)
    if not answers(sys.executable, "-c", "import venv, ensurepip"):
        missing.append("python3-venv")
    return missing


def java_version() -> int:
    said = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found.group(1)) if found else 0


def bring_promtool(who: str) -> None:
    """Prometheus' checker of rules, out of Debian's package without installing that: it would start a server."""
    if paths.promtool().exists():
        return
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SystemExit(f"{who}: missing: promtool; it comes with Prometheus")
    paths.cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.cache()) as work:
        download = ("apt-get", "download", "-q", "prometheus")
        # What the package index says may be older than what can be had.
        if subprocess.run(download, cwd=work).returncode != 0 and os.geteuid() == 0:
            run("apt-get", "update", "-q")
            subprocess.run(download, cwd=work)
        packages = list(Path(work).glob("prometheus_*.deb"))
        if not packages:
            raise SystemExit(f"{who}: missing: promtool; on Debian or Ubuntu it comes with the package prometheus")
        run("dpkg-deb", "-x", str(packages[0]), f"{work}/unpacked")
        os.replace(f"{work}/unpacked/usr/bin/promtool", paths.cache() / "promtool")


def bring_virtual_environment() -> None:
    """The pinned clients; a half-built environment is built anew."""
    home = paths.virtual_environment()
    complete = home / "complete"
    if complete.exists():
        return
    run(sys.executable, "-m", "venv", "--clear", str(home))
    pip = (str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, "-r", str(paths.CONFORMANCE / "requirements.txt"))
    complete.touch()
