"""The command: a form for the browser, GitHub's answer into files, and what to do with them."""

from __future__ import annotations

import os
import queue
from pathlib import Path

import click

from sdk.settings import Settings

from ..errors import CommandError
from . import form
from .manifest import NAME_LENGTH, App, check_gateway, convert, form_url, manifest, website

# Named as the secrets that they become, and as the setting.
KEY, WEBHOOK, ID = "private-key", "github-webhook-secret", "github_app_id"
# GitHub forgets its code after that.
WAIT_SECONDS = 3600


@click.command("github-app")
@click.option("--gateway", required=True, metavar="URL", help="The cloud's gateway, as GitHub reaches it.")
@click.option("--org", default="", metavar="ORG", help="The organization that owns the App; else you do.")
@click.option("--name", default="", help="The App's name; GitHub asks for it anyway.")
@click.option("--public", is_flag=True, help="Other accounts may install it, and so deploy.")
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="secrets",
    show_default=True,
    help="Folder for the App's private key and webhook secret.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The page's port; else a free one.")
@click.option(
    "--github-api",
    metavar="URL",
    help="GitHub's REST API, of Enterprise https://HOST/api/v3; else github_api_url.",
)
def command(
    gateway: str, org: str, name: str, public: bool, folder: Path, port: int, github_api: str | None
) -> None:
    """Register the GitHub App of a cloud: shows a page with one button, whose form GitHub has filled in.

    Writes the App's private key and webhook secret to files that only you can read, and says what to do with
    them. Waits for an hour at most.
    """
    api = (github_api or Settings.read().github_api_url).rstrip("/")
    check_gateway(gateway)
    if len(name) > NAME_LENGTH:
        raise CommandError(f"--name: GitHub takes {NAME_LENGTH} characters")
    _make_room(folder)
    app = convert(api, _asked(api, gateway, org, name, public, port))
    try:
        _write(folder / KEY, app.pem)
        _write(folder / WEBHOOK, app.webhook_secret)
        _write(folder / ID, f"{app.id}\n")
    except OSError as error:
        raise CommandError(
            f"{folder}: {error.strerror}. App {app.id} is registered: make a new key and webhook secret in "
            "its settings"
        ) from None
    click.echo(_next_steps(app, folder, api))


def _asked(api: str, gateway: str, org: str, name: str, public: bool, port: int) -> str:
    """The code that GitHub's redirect brings, once somebody has been there."""
    try:
        with form.serving(port) as served:
            filled = manifest(gateway, name, served.url + form.CREATED, public=public)
            served.fill(form_url(api, org, served.state), filled)
            click.echo(f"Open {served.url} in a browser on this machine, and go on at {website(api)}.")
            here = served.server_port
            click.echo(f"From another machine: ssh -L {here}:127.0.0.1:{here} HOST, first.")
            return served.codes.get(timeout=WAIT_SECONDS)
    except queue.Empty:
        raise CommandError("nobody came back from GitHub within an hour: run this again") from None
    except OSError as error:
        raise CommandError(f"port {port}: {error.strerror}; choose another --port") from None


def _make_room(folder: Path) -> None:
    """Before GitHub is asked: it gives the key once."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}") from None
    there = [str(folder / name) for name in (KEY, WEBHOOK, ID) if (folder / name).exists()]
    if there:
        raise CommandError(f"{', '.join(there)}: there is an App's already; move it, or give another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{folder} can't be written to: give another --out")


def _write(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def _next_steps(app: App, folder: Path, api: str) -> str:
    enterprise = website(api) != "https://github.com"
    settings = f'github_app_id: "{app.id}"'
    steps = [
        f"\nGitHub App {app.id} is registered; {folder} has its {KEY} and {WEBHOOK}.\n",
        "1. Create both secrets (faas-cli finds the gateway by OPENFAAS_URL):",
        *(f"     faas-cli secret create {name} --from-file={folder / name}" for name in (WEBHOOK, KEY)),
        "2. Let git-tar, reconcile and github-status have the key, and tell them whose it is:",
        f"     sed -i 's/# - {KEY}/- {KEY}/' stack.yml",
        f"     sed -i 's/# {ID}: .*/{settings}/' gateway_config.yml",
        *(
            [
                f"     and in gateway_config.yml: github_api_url: {api}",
                f"       allowed_git_hosts: {website(api)}",
            ]
            if enterprise
            else []
        ),
        "3. Deploy: faas-cli up",
        f"4. Install the App on repositories: {app.html_url}/installations/new",
    ]
    return "\n".join(steps)
