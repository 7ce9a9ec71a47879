#!/usr/bin/env python3
"""Measures Heizer beside Apache Kafka on this machine, and writes target/bench/report.json and report.html.

Brings what it needs, builds, starts both brokers on the same CPU and the same disk, and lets one at a time work: rounds
A B A B. See bench/compare/README.md.
"""

import argparse
import datetime
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "conformance"))

from harness import install, paths  # noqa: E402

PACKAGES = {"cc": "build-essential", "fio": "fio", "taskset": "util-linux"}
PACKAGES_FOR_KAFKA = {"java": install.JDK, "mvn": "maven"}


def main() -> None:
    options = parse()
    os.chdir(paths.REPOSITORY)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("scripts/bench: terminated"))
    if not is_environment():
        bring(options)
        os.execv(environment_python(), [environment_python(), str(HERE / "main.py"), *sys.argv[1:]])
    try:
        sys.exit(measure(options))
    except KeyboardInterrupt:
        sys.exit("scripts/bench: interrupted")


def environment_python() -> str:
    return str(paths.virtual_environment() / "bin" / "python")


def is_environment() -> bool:
    return Path(sys.prefix).resolve() == paths.virtual_environment().resolve()


def bring(options) -> None:
    """What the measuring needs: programs, clients, Kafka's jars, and both binaries of ours."""
    if shutil.which("cargo") is None:
        raise SystemExit("scripts/bench: cargo is missing: install Rust with rustup (its default profile is enough)")
    wanted = {**PACKAGES, **(PACKAGES_FOR_KAFKA if options.kafka else {})}
    steps = [
        ("Debian packages", lambda: install.bring_packages("scripts/bench", wanted)),
        ("Python environment", install.bring_virtual_environment),
    ]
    if options.kafka:
        kafka = ("bench/conformance/kafka/install.py",)
        steps.append(("Apache Kafka's programs", lambda: install.run(sys.executable, *kafka)))
    build = ("cargo", "build", "--release", "--locked", "-p", "heizer-broker", "-p", "heizer-load")
    steps.append(("cargo build --release", lambda: install.run(*build)))
    for name, work in steps:
        print(f"== {name}", file=sys.stderr, flush=True)
        try:
            work()
        except subprocess.CalledProcessError as failure:
            raise SystemExit(f"scripts/bench: {name} failed (exit code {failure.returncode})") from None


def measure(options) -> int:
    """Everything behind the installation; the exit code."""
    import machine
    import run

    cpus = machine.divide_cpus()
    machine.settle_here(cpus)
    home = options.data.absolute() / f"bench-{os.getpid()}"
    home.mkdir(parents=True)
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        if options.compare:
            return run.compare(options, cpus, home)
        return run.report(options, cpus, home, date)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = paths.target() / "bench"
    parser.add_argument("--quick", action="store_true", help="only the rows of the design, in ten minutes")
    parser.add_argument("--row", nargs="+", default=[], metavar="NAME", help="only these rows or parts; `list`")
    parser.add_argument("--rounds", type=positive, help="[default: 3, with --quick 2]")
    parser.add_argument("--data", type=Path, default=out / "data", help="the data go below it [default: %(default)s]")
    parser.add_argument("--out", type=Path, default=out, help="where the report goes [default: %(default)s]")
    parser.add_argument("--compare", metavar="REV", help="with Heizer of this revision instead of Apache Kafka")
    parser.add_argument("--long", type=positive, metavar="MINUTES", help="further: latency over that time")
    parser.add_argument("--without-kafka", dest="kafka", action="store_false", help="Heizer and the limits only")
    options = parser.parse_args()
    options.kafka = options.kafka and not options.compare
    options.mode = "quick" if options.quick else "full"
    options.rounds = options.rounds or (2 if options.quick else 3)
    check_rows(parser, options.row)
    return options


def check_rows(parser: argparse.ArgumentParser, names: list) -> None:
    import parts

    if names == ["list"]:
        for part in (*parts.PARTS, parts.NEUTRAL):
            print(f"{part.name}: {part.title}")
            print("".join(f"    {row.name:<32}{row.what}\n" for row in part.rows), end="")
        sys.exit(0)
    known = {*parts.ROW_NAMES, *(part.name for part in parts.PARTS), parts.NEUTRAL.name}
    for name in names:
        if name not in known:
            parser.error(f"--row {name}: no such row or part; --row list shows them")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    main()
