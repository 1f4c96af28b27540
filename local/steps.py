"""Progress of long commands: one line a step, with the seconds it took."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import docker
from rich.console import Console

from .errors import CommandError

console = Console(stderr=True, highlight=False)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show `what` while it is done (a spinner on a terminal), then with its seconds."""
    started = time.monotonic()
    try:
        if console.is_terminal:
            with console.status(what):
                yield
        else:
            yield
    except BaseException:
        console.print(f"[red]✗[/] {what}")
        raise
    console.print(f"[green]✓[/] {what:<58} {time.monotonic() - started:6.1f} s")


def run(command: Sequence[str], *, folder: Path | None = None, seconds: float = 600, what: str = "") -> str:
    """Run a program in `folder`; `CommandError` with its last lines when it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except FileNotFoundError:
        raise CommandError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandError(f"{what or command[0]} took longer than {seconds:.0f} s") from None
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise CommandError(f"{what or ' '.join(command[:3])} failed:\n{said}")
    return done.stdout


def removed(remove: Callable[[], object], seconds: float = 30) -> None:
    """Secrets, networks and volumes are in use for a moment after what used them has gone."""

    def is_gone() -> bool:
        try:
            remove()
        except docker.errors.NotFound:
            return True
        except docker.errors.APIError:
            return False
        return True

    until(is_gone, seconds=seconds, what="the removal of what was in use")


def until(check: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll `check` until it is true; `CommandError` when the time is up."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise CommandError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.1)
