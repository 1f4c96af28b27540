"""`python -m local`: the cloud on this machine, for operators and authors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO, NoReturn

import click
import docker
from rich.console import Console
from rich.table import Table

from sdk import __version__, naming, secrets, signature, stack
from sdk.errors import CloudError, Malformed

from . import (
    author,
    backup,
    garbage,
    links,
    metrics,
    place,
    planning,
    queue,
    reconciling,
    restore,
    seal,
    trace,
)
from . import up as machine
from .doctor import command as doctor
from .errors import CommandError
from .githubapp import command as github_app
from .state import State
from .steps import console

_SECRET_OF_HEADER = {
    signature.CLOUD_HEADER: "payload-secret",
    signature.GITHUB_HEADER: "github-webhook-secret",
    signature.BUILDER_HEADER: "builder-secret",
}


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class Group(click.Group):
    """A command that fails says what to do next, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (CommandError, CloudError, docker.errors.DockerException) as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """OpenFaaS Cloud on this machine: git push, and seconds later the function is live."""


@main.command()
@click.option("--advertise", metavar="ADDR", help="This machine's address, for more machines to join.")
@click.option(
    "--github/--no-github",
    default=None,
    help="Show what GitHub would show on commits, by a play of its checks; until --no-github or down.",
)
def up(advertise: str | None, github: bool | None) -> None:
    """Start the whole cloud, and push the example if it isn't live."""
    machine.up(State.here(), advertise, github)


@main.command()
def down() -> None:
    """Remove the cloud with all its functions, repositories and images."""
    machine.down(State.here())


@main.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
def make_backup(file: Path) -> None:
    """Write all that the cloud has to FILE, its secrets too. The cloud goes on meanwhile."""
    backup.backup(file, _running())


@main.command("restore")
@click.argument("file", type=_FILE)
def restore_backup(file: Path) -> None:
    """Put what the backup FILE holds onto this machine, which has no cloud; then `up` starts it."""
    restore.restore(file, State.here())
    console.print("restored: now `make up`")


@main.command()
def status() -> None:
    """List the functions: what runs, of which commit, and where it answers."""
    state = _running()
    table = Table(box=None)
    for column in ("FUNCTION", "OWNER/REPO", "COMMIT", "REPLICAS", "URL"):
        table.add_column(column, no_wrap=True, overflow="ignore")
    failures = []
    for function in state.gateway.list():
        labels = function.labels or {}
        cloud = f"{naming.CLOUD}git-"
        repo = f"{labels.get(f'{cloud}owner', '')}/{labels.get(f'{cloud}repo', '')}".strip("/")
        replicas = f"{function.available_replicas:.0f}/{function.replicas:.0f}"
        told = "[red]failed[/]" if function.failure else replicas
        if function.failure:
            failures.append(f"{function.name}: {function.failure}")
        url = f"{state.gateway_url}/function/{function.name}"
        table.add_row(function.name, repo or "platform", labels.get(f"{cloud}sha", "")[:10], told, url)
    # Wide enough for every row: a cut URL helps nobody.
    Console(width=max(console.width, 200) if not sys.stdout.isatty() else None).print(table)
    for failure in failures:
        click.echo(failure)


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--owner", help="Whose functions they are; as in the remote `cloud`, or alice.")
def push(folder: Path, owner: str | None) -> None:
    """Push the repository DIR to this cloud, by its remote `cloud`, and follow it until it is live."""
    author.push(folder, owner, _running())


@main.command()
@click.argument("sha", required=False)
@click.option("-C", "folder", type=_FOLDER, default=".", help="The repository's folder; this one without it.")
def retry(sha: str | None, folder: Path) -> None:
    """Deploy the last push of a repository again."""
    _running()
    author.retry(folder, sha)


@main.command()
@click.argument("repository", metavar="OWNER/REPO")
@click.option("--keep", default="", metavar="A,B", help="Functions that stay, as stack.yml names them.")
@click.option("--uninstall", is_flag=True, help="Keep none: the repository has left.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--limit", type=click.IntRange(0), help="Delete so many at most, instead of delete_limit.")
def collect(repository: str, keep: str, uninstall: bool, dry_run: bool, limit: int | None) -> None:
    """Delete the functions of OWNER/REPO that are not among those to keep."""
    names = tuple(name.strip() for name in keep.split(",") if name.strip())
    if bool(names) == uninstall:
        raise click.UsageError("name the functions that stay, with --keep, or say --uninstall")
    for line in garbage.collect(repository, names, _running(), dry_run=dry_run, limit=limit):
        click.echo(line)


@main.command()
@click.option("--repo", default="", metavar="OWNER/NAME", help="This repository alone.")
def reconcile(repo: str) -> None:
    """Bring every installed repository to its branch's head, also one that failed a moment ago.

    The cloud does so by itself every five minutes.
    """
    for line in reconciling.reconcile(repo, _running()):
        click.echo(line)


@main.command()
@click.argument("owner", required=False)
@click.option("--all", "everybody", is_flag=True, help="For the operator: shows everybody's.")
@click.option("--days", type=click.IntRange(1, 366), default=7, show_default=True, help="Works so long.")
@click.option("--gateway", metavar="URL", help="Of another cloud: its gateway, as browsers reach it,")
@click.option("--secret", "file", type=_FILE, help="the file with its link-secret,")
@click.option("--id", "path", metavar="SCM/ID", help="and the owner by id, such as github/583231.")
def link(
    owner: str | None, everybody: bool, days: int, gateway: str | None, file: Path | None, path: str | None
) -> None:
    """Print a link to OWNER's page: what is live, the pushes, the builds' logs. Who has it sees them."""
    if bool(owner) == everybody:
        raise click.UsageError("name an owner, or say --all")
    if not gateway:
        if file or path:
            raise click.UsageError("--secret and --id are for another cloud: name its --gateway")
        click.echo(links.local(owner or "", days, _running()))
        return
    if not file or not (everybody or re.fullmatch(r"(github|gitlab|local)/[0-9]{1,18}", path or "")):
        raise click.UsageError("--gateway needs --secret FILE and --id SCM/ID, such as github/583231")
    click.echo(links.made(owner or "", path or "", days, gateway, file))


@main.group()
def secret() -> None:
    """Secrets of function authors."""


@secret.command("set")
@click.argument("owner")
@click.argument("name")
def secret_set(owner: str, name: str) -> None:
    """Set OWNER's secret NAME to what comes on standard input; stack.yml names it NAME."""
    full = author.set_secret(owner, name, _given_value("secret set OWNER NAME"), _running().gateway)
    said = f"set; a function of {owner} that lists it reads /var/openfaas/secrets/{full}"
    console.print(said, soft_wrap=True)


@main.command("seal")
@click.argument("name")
@click.option("-C", "folder", type=_FOLDER, default=".", help="The repository's folder; this one without it.")
@click.option(
    "--repo", default="", metavar="OWNER/NAME", help="The repository at GitHub; else as the remotes tell."
)
@click.option(
    "--id", "ids", default="", metavar="SCM/OWNER/REPO", help="The same by ids: github/583231/1296269."
)
@click.option(
    "--gateway", default="", metavar="URL", help="Of the cloud that may open it; else this machine's."
)
@click.option("--key", default="", help="Its public key, as `seal_key` of GET /function/buildshiprun.")
def seal_secret(name: str, folder: Path, repo: str, ids: str, gateway: str, key: str) -> None:
    """Seal what comes on standard input as the secret NAME, in secrets.yml of the repository.

    Only the cloud can open it, and only for this repository: the file may be public. Needs no password.
    """
    value = _given_value("seal NAME")
    home = seal.home_of(folder, repo, ids)
    file = seal.seal(name, value, folder, home, seal.key_of(key, gateway, State.here()))
    click.echo(
        f"{name} is in {file}: name it under `secrets` of a function in stack.yml, commit both and push"
    )


@main.command()
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option(
    "--since",
    type=click.IntRange(1, 60 * 24 * 366),
    default=60,
    show_default=True,
    metavar="MINUTES",
    help="How far to look back.",
)
@place.options
def logs(
    name: str, follow: bool, since: int, url: str | None, username: str, password_file: Path | None
) -> None:
    """Print the log of a function, such as git-tar or alice-hello."""
    start = (datetime.now(timezone.utc) - timedelta(minutes=since)).isoformat()
    gateway = place.known(url, username, password_file)
    if not gateway.get(name):
        raise CommandError(place.unknown(name, gateway))
    for line in gateway.logs(name, start, follow=follow, read_seconds=24 * 3600):
        click.echo(line)


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--header",
    type=click.Choice(list(_SECRET_OF_HEADER)),
    default=signature.CLOUD_HEADER,
    show_default=True,
    help="The header decides which secret signs.",
)
def sign(file: BinaryIO, header: str) -> None:
    """Print the header that signs FILE (- is standard input), for a curl by hand."""
    keys = secrets.read(_SECRET_OF_HEADER[header], str(_running().secrets_folder))
    click.echo(f"{header}: {signature.sign(file.read(), keys)}")


@main.command("stack")
@click.argument("file", type=click.File("rb"))
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="What ${NAME} stands for.")
@click.option("--templates", "source", type=_FOLDER, help="Folder of templates; ours without it.")
def show_stack(file: BinaryIO, variables: tuple[str, ...], source: Path | None) -> None:
    """Print what the cloud understands of the stack.yml FILE, as JSON, and what a push would refuse.

    Checked with the default settings, or those in the environment, and with the files beside FILE; without
    these if it is standard input (-). A push sees no variables: leave --env out to see what the cloud sees.
    """
    if any("=" not in variable for variable in variables):
        raise click.UsageError("--env takes NAME=VALUE")
    try:
        found = stack.parse(file.read(), dict(variable.split("=", 1) for variable in variables))
    except Malformed as error:
        _fail([error.message])
    _warn(found)
    click.echo(json.dumps(stack.document(found), indent=2, ensure_ascii=False))
    folder = None if file.name == "<stdin>" else Path(file.name).resolve().parent
    if problems := list(planning.problems(found, folder, source)):
        _fail(problems)


@main.command("shrinkwrap")
@click.argument("repo", type=_FOLDER)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--templates", "source", type=_FOLDER, help="Folder of templates; ours without it.")
def shrinkwrap_folder(repo: Path, out: Path, source: Path | None) -> None:
    """Write the build context of every function in REPO's stack.yml to OUT/FUNCTION, or its problems.

    Checked as by a push, with the default settings, or those in the environment.
    """
    try:
        found = planning.read(repo)
    except CloudError as error:
        _fail([error.message])
    _warn(found)
    if problems := list(planning.shrinkwrap(found, repo, out, source)):
        _fail(problems)


main.add_command(queue.command)
main.add_command(trace.command)
main.add_command(doctor.command)
main.add_command(github_app.command)
main.add_command(metrics.command)


def _given_value(command: str) -> str:
    """The secret on standard input, without the end of its line."""
    try:
        value = sys.stdin.buffer.read().decode().rstrip("\n")
    except UnicodeDecodeError:
        raise CommandError("the secret is not UTF-8 text: encode it, for example with base64") from None
    if not value:
        raise CommandError(f"standard input is empty: echo VALUE | python -m local {command}")
    return value


def _warn(found: stack.Stack) -> None:
    for line in found.ignored:
        click.echo(f"warning: {line}", err=True)


def _fail(problems: Iterable[str]) -> NoReturn:
    for problem in problems:
        click.echo(problem, err=True)
    raise click.exceptions.Exit(1)


def _running() -> State:
    state = State.here()
    if not state.exists:
        raise CommandError("there is no cloud on this machine: start it with `make up`")
    return state
