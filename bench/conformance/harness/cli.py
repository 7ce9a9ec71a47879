"""`heizer` as typed in a shell."""

import json
import subprocess
from typing import Optional

from . import paths

TIMEOUT_S = 40


def run(*arguments, stdin="") -> subprocess.CompletedProcess:
    line = [str(paths.heizer()), *map(str, arguments)]
    return subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S)


class Cli:
    """Verbs that talk to one broker."""

    def __init__(self, bootstrap: str):
        self.bootstrap = bootstrap

    def __call__(self, *arguments, stdin="") -> str:
        """Runs a verb that must succeed; returns its standard output."""
        done = run(*arguments, "--bootstrap-server", self.bootstrap, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, *arguments, stdin="") -> list:
        """The cells of a table, by line, without its titles."""
        return [line.split() for line in self(*arguments, stdin=stdin).splitlines()[1:]]

    def json(self, *arguments, stdin=""):
        """What a listing says as a document."""
        return json.loads(self(*arguments, "--output", "json", stdin=stdin))

    def failing(self, *arguments, server: Optional[str] = None, stdin="", code: Optional[int] = None) -> str:
        """Runs a verb that must fail with one line; returns that line."""
        done = run(*arguments, "--bootstrap-server", server or self.bootstrap, stdin=stdin)
        assert done.returncode == code if code is not None else done.returncode != 0, done.stderr
        said = done.stderr.splitlines()
        assert len(said) == 1 and said[0].startswith("heizer: "), f"not one clear line: {done.stderr!r}"
        return said[0]
