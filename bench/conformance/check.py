#!/usr/bin/env python3
"""What scripts/test does: brings what is missing or names it, then runs every check in order, each with its time.

Nothing is ever skipped: a part that is missing and cannot be installed ends the run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Optional

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import paths  # noqa: E402

JDK_OLDEST = 17
# Program -> Debian package.
ALWAYS = {"cc": "build-essential", "kcat": "kcat"}
FOR_THE_WHOLE = {"java": "openjdk-17-jdk-headless", "mvn": "maven"}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="no JVM, nothing slow: under five minutes when built")
    arguments.add_argument("scenarios", nargs="*", help="further arguments for pytest, after --")
    options = arguments.parse_args()
    began = time.monotonic()
    os.chdir(paths.REPOSITORY)

    step("Rust", check_rust)
    step("Debian packages", lambda: bring_packages(options.quick))
    step("Python environment", bring_virtual_environment)
    if not options.quick:
        step("Apache Kafka's programs", lambda: run(sys.executable, "bench/conformance/kafka/install.py"))
    step("cargo fmt", lambda: run("cargo", "fmt", "--all", "--check"))
    step("cargo clippy", lambda: run("cargo", "clippy", *WORKSPACE, "--all-targets", "--", "-D", "warnings"))
    if not options.quick:
        no_warnings = {"RUSTDOCFLAGS": "-D warnings"}
        step("cargo doc", lambda: run("cargo", "doc", *WORKSPACE, "--no-deps", environment=no_warnings))
    step("cargo test", lambda: run("cargo", "test", *WORKSPACE))
    step("cargo build --release", lambda: run("cargo", "build", "--release", "--locked"))
    step("scenarios with real clients", lambda: run_scenarios(options))
    say(f"all passed in {time.monotonic() - began:.0f} s")


WORKSPACE = ("--workspace", "--locked")


def step(name: str, work) -> None:
    """One part: its name, its time, and the end of everything when it fails."""
    say(f"{name} ...")
    began = time.monotonic()
    try:
        work()
    except subprocess.CalledProcessError as failure:
        raise SystemExit(f"scripts/test: {name} failed (exit code {failure.returncode})") from None
    say(f"{name}: passed, {time.monotonic() - began:.0f} s")


def say(line: str) -> None:
    print(f"== {line}", flush=True)


def run(*command: str, environment: Optional[dict] = None) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})


def check_rust() -> None:
    """cargo with rustfmt and clippy; what rustup can add, it adds."""
    if shutil.which("cargo") is None:
        raise SystemExit("scripts/test: cargo is missing: install Rust with rustup (its default profile is enough)")
    parts = {"rustfmt": "fmt", "clippy": "clippy"}
    missing = [part for part, verb in parts.items() if not answers("cargo", verb, "--version")]
    if not missing:
        return
    if shutil.which("rustup") is None:
        raise SystemExit(f"scripts/test: missing beside cargo: {', '.join(missing)}; install as Rust was installed")
    run("rustup", "component", "add", *missing)


def bring_packages(quick: bool) -> None:
    """Installs what is missing where we may; else says what is missing and how to install it."""
    missing = missing_packages(quick)
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(
            f"scripts/test: missing: {', '.join(missing)}\n"
            f"  on Debian or Ubuntu: sudo apt-get install {' '.join(missing)}\n"
            "  elsewhere, the packages that bring the same programs"
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-q", environment=quiet)
    run("apt-get", "install", "-q", "-y", "--no-install-recommends", *missing, environment=quiet)
    if still := missing_packages(quick):
        raise SystemExit(f"scripts/test: still missing after the installation: {', '.join(still)}")


def missing_packages(quick: bool) -> list:
    wanted = ALWAYS if quick else {**ALWAYS, **FOR_THE_WHOLE}
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    if not quick and "openjdk-17-jdk-headless" not in missing and java_version() < JDK_OLDEST:
        missing.append("openjdk-17-jdk-headless")
    if not answers(sys.executable, "-c", "import venv, ensurepip"):
        missing.append("python3-venv")
    return missing


def java_version() -> int:
    said = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    found = re.search(r'version "(\d+)', said)
    return int(found.group(1)) if found else 0


def answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


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


def run_scenarios(options) -> None:
    selection = ("-m", "not jvm and not slow") if options.quick else ()
    python = str(paths.virtual_environment() / "bin" / "python")
    pytest = (python, "-m", "pytest", "-c", "bench/conformance/pytest.ini", "bench/conformance")
    run(*pytest, *selection, *options.scenarios)


if __name__ == "__main__":
    main()
