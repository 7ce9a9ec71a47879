#!/usr/bin/env python3
"""Measures the storage engine from outside, beside what the disk does: durable writes, large ones, a cold backlog, and
how a broker comes back after kill -9.

`bench/measure/measure.py` starts `heizer serve` anew for each round; `--row NAME...` leaves out all but some of the
subjects. Needs the Python environment of scripts/test. Prints a table of medians; `--json FILE` keeps every round.
"""

import argparse
import json
import os
import platform
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

from harness import paths  # noqa: E402

try:
    import confluent_kafka  # noqa: F401
except ImportError:
    python = paths.virtual_environment() / "bin" / "python"
    if Path(sys.executable) == python or not python.exists():
        raise SystemExit("measure: confluent-kafka is missing: run scripts/test once, it makes the environment")
    os.execv(python, [str(python), *sys.argv])

import disk  # noqa: E402
import durable  # noqa: E402
import recovery  # noqa: E402
from results import Results  # noqa: E402

ROWS = {
    "durable": durable.durable,
    "sequential": disk.sequential,
    "backlog": disk.backlog,
    "unsealed": recovery.unsealed,
    "thousand": recovery.thousand,
    "ten-thousand": recovery.ten_thousand,
}


def main() -> None:
    options = parse()
    # Leaves through the finally blocks, which end the broker.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("measure: terminated"))
    results = Results()
    machine = {
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_average_before": Path("/proc/loadavg").read_text().split()[:3],
    }
    print(" ".join(f"{name} {value}" for name, value in machine.items()), file=sys.stderr)
    for name in options.row:
        print(name, file=sys.stderr)
        ROWS[name](options, results)
    results.print()
    if options.json:
        settings = {name: str(value) for name, value in vars(options).items()}
        report = {"machine": machine, "options": settings, "results": results.rows(), "notes": results.notes}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    binary = paths.heizer()
    data = paths.target() / "bench-data"
    parser.add_argument("--row", choices=ROWS, nargs="+", default=list(ROWS), help="[default: all of them]")
    parser.add_argument("--binary", type=Path, default=binary, help=f"the program [default: {binary}]")
    parser.add_argument("--data", type=Path, default=data, help=f"its data go below this folder [default: {data}]")
    parser.add_argument("--serve", default="", metavar="FLAGS", help="further flags for heizer serve, in one argument")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gb", type=float, default=2.0, help="10^9 bytes of values per load [default: 2]")
    parser.add_argument("--idle-seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
