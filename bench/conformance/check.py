#!/usr/bin/env python3
"""What scripts/test does: brings what is missing or names it, then runs every check in order, each with its time.

Nothing is ever skipped: a part that is missing and cannot be installed ends the run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import install, paths  # noqa: E402
from harness.install import answers, run  # noqa: E402

# Program -> Debian package.
ALWAYS = {"cc": "build-essential", "kcat": "kcat", "dpkg-shlibdeps": "dpkg-dev", "systemd-analyze": "systemd"}
FOR_THE_WHOLE = {"java": install.JDK, "mvn": "maven"}


def main() -> None:
    arguments = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="no JVM, nothing slow: under five minutes when built")
    arguments.add_argument("scenarios", nargs="*", help="further arguments for pytest, after --")
    options = arguments.parse_args()
    began = time.monotonic()
    os.chdir(paths.REPOSITORY)

    step("Rust", check_rust)
    wanted = ALWAYS if options.quick else {**ALWAYS, **FOR_THE_WHOLE}
    step("Debian packages", lambda: install.bring_packages("scripts/test", wanted))
    step("Python environment", install.bring_virtual_environment)
    step("promtool", lambda: install.bring_promtool("scripts/test"))
    if not options.quick:
        step("Apache Kafka's programs", lambda: run(sys.executable, "bench/conformance/kafka/install.py"))
    step("cargo fmt", lambda: run("cargo", "fmt", "--all", "--check"))
    step("cargo clippy", lambda: run("cargo", "clippy", *WORKSPACE, "--all-targets", "--", "-D", "warnings"))
    if not options.quick:
        no_warnings = {"RUSTDOCFLAGS": "-D warnings"}
        step("cargo doc", lambda: run("cargo", "doc", *WORKSPACE, "--no-deps", environment=no_warnings))
    step("cargo test", lambda: run("cargo", "test", *WORKSPACE))
    step("cargo build --release", lambda: run("cargo", "build", "--release", *WORKSPACE, "--bins"))
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


def run_scenarios(options) -> None:
    selection = ("-m", "not jvm and not slow") if options.quick else ()
    python = str(paths.virtual_environment() / "bin" / "python")
    pytest = (python, "-m", "pytest", "-c", "bench/conformance/pytest.ini", "bench/conformance")
    run(*pytest, *selection, *options.scenarios)


if __name__ == "__main__":
    main()
