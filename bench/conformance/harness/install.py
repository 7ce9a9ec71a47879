"""Brings what the suite and the comparison stand on: Debian packages where we may, and the pinned Python clients."""

import os
import re
import shutil
import subprocess
import sys
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
