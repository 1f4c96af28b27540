"""Shows the lines of a timeline: coloured, with what goes on, on a terminal; else as they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from rich.console import Console
from rich.text import Text

from .steps import console as stderr
from .timeline import GOING_ON, LOG_INDENT

_REMOTE = "remote: "
_STYLES = (
    (LOG_INDENT, "dim"),
    (" failed", "red"),
    (" refused", "red"),
    (" live in ", "green"),
    (" done:", "green"),
)


def show(lines: Iterable[str], console: Console) -> None:
    """As they come; on a terminal, a line of what goes on stands last, beside a spinner, until the next."""
    if not console.is_terminal:
        for line in lines:
            console.file.write(f"{line}\n")
            console.file.flush()
        return
    with console.status("") as status:
        for line in lines:
            if line.endswith(GOING_ON):
                status.update(Text(line.strip()))
            else:
                console.print(Text(line, style=_style(line)), soft_wrap=True)


def followed(command: Sequence[str]) -> int:
    """Run a command that prints a timeline on stderr, as git and the git server do; its exit status."""
    if not stderr.is_terminal:
        return subprocess.run(command).returncode
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as running:
        assert running.stderr
        show(said(running.stderr), stderr)
    return running.returncode


def said(output: IO[str]) -> Iterator[str]:
    """The lines of a program's stderr, without git's word for who said it."""
    for line in output:
        yield line.rstrip().removeprefix(_REMOTE)


def out() -> Console:
    """Standard output, for what a command is asked for."""
    return Console(file=sys.stdout, highlight=False)


def _style(line: str) -> str:
    return next((style for sign, style in _STYLES if sign in line), "")
