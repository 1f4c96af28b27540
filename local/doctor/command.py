"""The command: what is given and known, then one line a finding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from sdk import secrets, stack
from sdk.secrets import Keys

from .. import place
from ..images import ROOT
from ..showing import out
from ..state import State
from . import examination, machine
from .cloud import Cloud
from .findings import STYLES, Finding, are_fine, summary

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("doctor")
@place.options
@click.option(
    "--payload-secret-file", type=_FILE, help="The secret payload-secret: the functions are asked, too."
)
@click.option(
    "--webhook-secret-file", type=_FILE, help="The GitHub App's webhook secret: gh-push is sent a ping."
)
@click.option(
    "--measure", is_flag=True, help="Hold calls open as long as the longest push takes, 13 minutes."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(
    url: str | None,
    username: str,
    password_file: Path | None,
    payload_secret_file: Path | None,
    webhook_secret_file: Path | None,
    measure: bool,
    as_json: bool,
) -> None:
    """Examine an installation, and say of each finding what to do.

    Exits with 0 if all is fine, 1 if there is something to mend or to look at.
    """
    state = place.local(url)
    cloud = Cloud(
        place.gateway(url, username, password_file),
        stack.parse((ROOT / "stack.yml").read_bytes()).functions,
        payload=_keys(payload_secret_file, "payload-secret", state),
        webhook=_keys(webhook_secret_file, "github-webhook-secret", state),
        measure=measure,
    )
    console, found = out(), list[Finding]()
    for finding in examined(cloud, state):
        found.append(finding)
        if not as_json:
            show(finding, console)
    fine = are_fine(found)
    if as_json:
        click.echo(json.dumps({"fine": fine, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        click.echo(summary(found))
    if not fine:
        raise click.exceptions.Exit(1)


def examined(cloud: Cloud, state: State | None) -> Iterator[Finding]:
    if state:
        yield from machine.examine(state)
    yield from examination.examine(cloud)


def show(finding: Finding, console: Console) -> None:
    if not console.is_terminal:
        click.echo(finding.line)
        return
    line = Text(finding.line)
    line.stylize(STYLES[finding.level], 0, len(finding.level))
    console.print(line, soft_wrap=True)


def _keys(file: Path | None, name: str, state: State | None) -> Keys | None:
    """From the file; on the local cloud its own."""
    if file:
        return secrets.read(file.name, str(file.parent))
    return secrets.find(name, str(state.secrets_folder)) if state else None
