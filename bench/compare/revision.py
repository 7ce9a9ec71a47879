"""Another revision's heizer, built in a work tree of its own; only the program is kept."""

import os
import shutil
import subprocess
from pathlib import Path

from harness import install, paths


def resolve(name: str) -> str:
    """The commit's full name, or one line of refusal."""
    line = ["git", "-C", str(paths.REPOSITORY), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    found = subprocess.run(line, capture_output=True, text=True)
    if found.returncode != 0:
        raise SystemExit(f"scripts/bench: --compare {name}: no such commit in this repository")
    return found.stdout.strip()


def binary(commit: str, folder: Path) -> Path:
    """Its program, built when it is not there yet."""
    program = folder / commit / "heizer"
    if program.is_file():
        return program
    tree = folder / f"{commit}-{os.getpid()}"
    git = ("git", "-C", str(paths.REPOSITORY), "worktree")
    tree.parent.mkdir(parents=True, exist_ok=True)
    try:
        install.run(*git, "add", "--detach", "--force", str(tree), commit)
        manifest, target = ("--manifest-path", str(tree / "Cargo.toml")), {"CARGO_TARGET_DIR": str(tree / "target")}
        install.run("cargo", "build", "--release", "--locked", "-p", "heizer-broker", *manifest, environment=target)
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / "target" / "release" / "heizer", program)
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], capture_output=True)
    return program
