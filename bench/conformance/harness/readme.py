"""The commands of README.md, as they stand there."""

import re
from typing import NamedTuple

from markdown_it import MarkdownIt

from . import paths

README = paths.REPOSITORY / "README.md"
# What a block is called behind its fence, and what runs it. An indented block is for the shell.
_KINDS = {"sh": "shell", "bash": "shell", "shell": "shell", "python": "python"}
_UNKNOWN = "unknown"


class Command(NamedTuple):
    """One command of the shell, or one program."""

    line: int
    kind: str
    text: str

    @property
    def name(self) -> str:
        """Short, for a report: where it is and how it starts."""
        words = re.sub(r"[^\w./-]+", " ", self.text).strip()
        return f"{self.line} {words}"[:60].strip()


def commands(*sections: str) -> list[Command]:
    """What the sections of these headings say to type, in order.

    A block that nobody here knows how to run is one command of the kind `unknown`; a heading that is not there is an
    error.
    """
    found, missing, heading = [], set(sections), ""
    tokens = MarkdownIt().parse(README.read_text())
    for token, following in zip(tokens, [*tokens[1:], None]):
        if token.type == "heading_open" and token.tag == "h2":
            heading = following.content
            missing.discard(heading)
        elif heading in sections and token.type == "code_block":
            found += _shell(token.content, token.map[0] + 1)
        elif heading in sections and token.type == "fence":
            kind, line = _KINDS.get(token.info.strip(), _UNKNOWN), token.map[0] + 2
            found += _shell(token.content, line) if kind == "shell" else [Command(line, kind, token.content)]
    assert not missing, f"README.md has no section {missing}"
    return found


def _shell(block: str, line: int) -> list[Command]:
    """A command a line; a backslash at its end goes on in the next."""
    found, begun = [], None
    for number, text in enumerate(block.splitlines(), start=line):
        if begun is None and (not text.strip() or text.lstrip().startswith("#")):
            continue
        first, before = begun or (number, "")
        begun = (first, before + text + "\n")
        if not text.endswith("\\"):
            found.append(Command(first, "shell", begun[1].rstrip("\n")))
            begun = None
    assert begun is None, f"README.md:{begun[0]}: a command without an end"
    return found
