"""Apache Kafka's kafka-dump-log as the judge of files on disk."""

import re
from pathlib import Path

from . import java

_COMPLAINT = re.compile(
    r"isvalid: false|invalid bytes|mismatch|non-consecutive|out of order|not found in the log|exception|error",
    re.IGNORECASE,
)
_GAP = "non-consecutive"
_FILES_AT_ONCE = 150


def partition_files(data: Path, topic: str, partition: int) -> list[Path]:
    """Segments, their indexes and producer snapshots, oldest first."""
    folders = [path for path in data.glob(f"**/{topic}-{partition}") if path.is_dir()]
    assert len(folders) == 1, f"{topic}-{partition} has {len(folders)} folders below {data}"
    wanted = (".log", ".index", ".timeindex", ".snapshot")
    return sorted(path for path in folders[0].iterdir() if path.suffix in wanted)


def check(files: list[Path], gaps: bool = False) -> int:
    """Every file must pass without a complaint; returns how many records the segments hold.

    `gaps`: offsets may be missing, as compaction leaves them.
    """
    records = 0
    for start in range(0, len(files), _FILES_AT_ONCE):
        chunk = files[start : start + _FILES_AT_ONCE]
        output = java.run(java.DUMP_LOG, "--deep-iteration", "--files", ",".join(map(str, chunk)), heap="512m")
        lines = output.splitlines()
        assert sum(line.startswith("Dumping ") for line in lines) == len(chunk), "a file was left out"
        complaints = [line for line in lines if _COMPLAINT.search(line) and not (gaps and _GAP in line.lower())]
        assert not complaints, "kafka-dump-log complains:\n" + "\n".join(complaints[:20])
        records += sum(line.startswith("| offset: ") for line in lines)
    return records


_FIELD = re.compile(r"(\w+): (\S+)")


def batches(segment: Path) -> list[dict]:
    """What kafka-dump-log says of each batch of a segment, by its own names, as texts."""
    output = java.run(java.DUMP_LOG, "--files", str(segment), heap="512m")
    lines = [line for line in output.splitlines() if line.startswith("baseOffset: ")]
    return [dict(_FIELD.findall(line)) for line in lines]


def records(segment: Path) -> list[dict]:
    """What kafka-dump-log says of each record of a segment, with keys and payloads as text."""
    output = java.run(java.DUMP_LOG, "--print-data-log", "--files", str(segment), heap="512m")
    lines = [line for line in output.splitlines() if line.startswith("| offset: ")]
    return [dict(_FIELD.findall(line)) for line in lines]
