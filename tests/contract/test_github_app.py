"""`python -m local github-app`, against GitHub's manifest flow with a browser's part in it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml
from click.testing import CliRunner

from local.cli import main
from local.githubapp.command import _next_steps
from local.githubapp.manifest import EVENTS, PERMISSIONS, App, form_url, website
from sdk import github_app
from sdk.settings import Settings
from tests.conftest import ROOT
from tests.repositories import Origin

from .fakes import running
from .github import APP
from .registration import WEBHOOK_SECRET, FakeRegistration, register

GATEWAY = "https://cloud.example.com"


@pytest.fixture
def github(tmp_path: Path) -> Iterator[FakeRegistration]:
    fake = FakeRegistration(Origin(tmp_path / "origin"))
    with running(fake):
        yield fake


@contextmanager
def asking(
    github: FakeRegistration, folder: Path, *more: str
) -> Iterator[tuple[str, Callable[[], tuple[int, str]]]]:
    """The command as a process: where its page is, and how it ended."""
    process = subprocess.Popen(
        (
            *(sys.executable, "-m", "local", "github-app", "--gateway", GATEWAY, "--out", str(folder)),
            *("--github-api", github.api, *more),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    assert process.stdout
    try:
        first = process.stdout.readline()
        page = re.match(r"Open (http://127\.0\.0\.1:\d+) ", first)
        assert page, first + process.stdout.read()

        def ended() -> tuple[int, str]:
            assert process.stdout
            text = process.stdout.read()
            return process.wait(), text

        yield page[1], ended
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def test_one_press_of_a_button_registers_an_app_whose_key_works(
    github: FakeRegistration, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    with asking(github, folder) as (page, ended):
        answer = register(page)
        assert (answer.status_code, "terminal" in answer.text) == (200, True)
        code, text = ended()
    assert code == 0, text
    ((org, manifest),) = github.manifests
    assert (org, manifest["public"]) == ("", False)
    assert manifest["hook_attributes"] == {"url": f"{GATEWAY}/function/gh-push", "active": True}
    settings = Settings(github_app_id=APP, github_api_url=github.api, secret_mount_path=str(folder))
    assert b'"cloud"' in github_app.call("GET", "/app", github_app.app_token(settings), settings)
    assert (folder / "github-webhook-secret").read_text() == WEBHOOK_SECRET


def test_the_secrets_are_for_their_owner_alone_and_are_never_printed(
    github: FakeRegistration, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    with asking(github, folder) as (page, ended):
        register(page)
        text = ended()[1]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {
        "private-key": "0o600",
        "github-webhook-secret": "0o600",
        "github_app_id": "0o600",
    }
    assert folder.stat().st_mode & 0o077 == 0
    for secret in (WEBHOOK_SECRET, "PRIVATE KEY", github.key.splitlines()[1], "hunter5"):
        assert secret not in text


def test_what_is_left_to_do_is_told_and_does_what_it_says(github: FakeRegistration, tmp_path: Path) -> None:
    with asking(github, tmp_path / "secrets") as (page, ended):
        register(page)
        text = ended()[1]
    for name in ("stack.yml", "gateway_config.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for line in re.findall(r"^ +(sed .+)$", text, re.MULTILINE):
        subprocess.run(("bash", "-ec", line), cwd=tmp_path, check=True)
    functions = yaml.safe_load((tmp_path / "stack.yml").read_text())["functions"]
    holders = {name for name, row in functions.items() if "private-key" in row["secrets"]}
    assert holders == {"git-tar", "reconcile", "github-status"}
    given = yaml.safe_load((tmp_path / "gateway_config.yml").read_text())["environment"]
    assert given["github_app_id"] == APP
    for name in ("github-webhook-secret", "private-key"):
        assert f"faas-cli secret create {name} --from-file={tmp_path / 'secrets' / name}" in text
    assert f"github_api_url: {github.api}" in text
    assert f"{github.url}/github-apps/cloud/installations/new" in text


def test_an_organizations_app_that_others_may_install(github: FakeRegistration, tmp_path: Path) -> None:
    with asking(github, tmp_path / "s", "--org", "acme", "--public", "--name", "acme cloud") as (page, ended):
        register(page)
        assert ended()[0] == 0
    ((org, manifest),) = github.manifests
    assert (org, manifest["public"], manifest["name"]) == ("acme", True, "acme cloud")


def test_a_redirect_that_does_not_know_the_state_is_not_heeded(
    github: FakeRegistration, tmp_path: Path
) -> None:
    with asking(github, tmp_path / "secrets") as (page, ended):
        for query in ("?code=stolen", "?code=stolen&state=guessed", "?state=%F0%9F%92%A9&code=a", ""):
            assert requests.get(f"{page}/created{query}", timeout=5).status_code == 403
        assert not (tmp_path / "secrets" / "private-key").exists()
        assert register(page).status_code == 200
        assert ended()[0] == 0
    assert [path for method, path, _, _ in github.calls if "conversions" in path and "stolen" in path] == []


def test_the_page_is_for_this_machine_under_its_own_name(github: FakeRegistration, tmp_path: Path) -> None:
    """A name that an attacker's DNS points here would show the state to that page."""
    with asking(github, tmp_path / "secrets") as (page, _):
        told = requests.get(page, headers={"Host": "attacker.example"}, timeout=5)
        assert (told.status_code, told.text) == (403, "")
        seen = requests.get(page, timeout=5)
        assert seen.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "no-store" in seen.headers["Cache-Control"]
        assert requests.get(f"{page}/else", timeout=5).status_code == 404


@pytest.mark.parametrize(
    "answered",
    [
        (404, b"{}"),
        (500, b"oops"),
        (201, b"not JSON, with hunter2hunter2"),
        (201, b'{"id": 1, "html_url": "u", "pem": "hunter2hunter2", "webhook_secret": null}'),
        (201, b'{"id": 1, "html_url": "u", "pem": "", "webhook_secret": "hunter2hunter2"}'),
    ],
    ids=["used", "broken", "no JSON", "no webhook secret", "no key"],
)
def test_an_answer_without_the_secrets_is_a_clear_error(
    github: FakeRegistration, tmp_path: Path, answered: tuple[int, bytes]
) -> None:
    github.answered = answered
    with asking(github, tmp_path / "secrets") as (page, ended):
        register(page)
        code, text = ended()
    assert code == 1
    assert "Error: GitHub" in text
    assert "run this again" in text
    assert "hunter2" not in text
    assert list((tmp_path / "secrets").iterdir()) == []


def test_who_gives_up_leaves_nothing_behind(github: FakeRegistration, tmp_path: Path) -> None:
    process = subprocess.Popen(
        (sys.executable, "-m", "local", "github-app", "--gateway", GATEWAY, "--out", str(tmp_path / "s")),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
    assert list((tmp_path / "s").iterdir()) == []


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ("github-app", *arguments))
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "gateway",
    [
        "http://cloud.example.com",
        "https://127.0.0.1:8080",
        "https://localhost",
        "cloud",
        "https://[",
        "https://a?b",
        "https://user:hunter2@cloud.example.com",
    ],
)
def test_a_gateway_that_github_cannot_use_is_refused(gateway: str, tmp_path: Path) -> None:
    code, text = run("--gateway", gateway, "--out", str(tmp_path / "s"))
    assert code == 1
    assert "--gateway" in text
    assert not (tmp_path / "s").exists()


def test_an_app_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "private-key").write_text("mine")
    code, text = run("--gateway", GATEWAY, "--out", str(tmp_path))
    assert (code, "private-key" in text) == (1, True)
    assert (tmp_path / "private-key").read_text() == "mine"


def test_a_port_that_is_taken_is_told(github: FakeRegistration, tmp_path: Path) -> None:
    port = github.url.rpartition(":")[2]
    code, text = run("--gateway", GATEWAY, "--out", str(tmp_path / "s"), "--port", port)
    assert (code, f"port {port}" in text) == (1, True)


@pytest.mark.parametrize(
    ("api", "people"),
    [
        ("https://api.github.com", "https://github.com"),
        ("https://api.acme.ghe.com/", "https://acme.ghe.com"),
        ("https://git.acme.example/api/v3/", "https://git.acme.example"),
    ],
)
def test_whichever_github_it_is_people_go_to_its_website(api: str, people: str) -> None:
    assert website(api) == people
    assert form_url(api, "", "s&1") == f"{people}/settings/apps/new?state=s%261"
    assert form_url(api, "a/b", "s") == f"{people}/organizations/a%2Fb/settings/apps/new?state=s"


@pytest.mark.parametrize("api", ["https://git.acme.example", "ftp://api.github.com", "http://api.github.com"])
def test_what_is_no_api_of_githubs_is_refused(api: str, tmp_path: Path) -> None:
    code, text = run("--gateway", GATEWAY, "--github-api", api, "--out", str(tmp_path / "s"))
    assert (code, "REST API" in text) == (1, True)


def test_the_app_may_do_what_the_functions_ask_tokens_for_and_no_more() -> None:
    """`Tokens.token` names the permission; whoever asks for none reads names."""
    asked = {"metadata: read"}
    for file in ("git-tar/github.py", "reconcile/github.py", "github-status/boards.py", "sdk/github_app.py"):
        asked |= set(re.findall(r'"(\w+: (?:read|write))"', (ROOT / file).read_text()))
    granted = {f"{name}: {level}" for name, level in PERMISSIONS.items()}
    # Commit statuses are for an App without checks.
    assert asked - granted == {"statuses: write"}
    assert granted <= asked


def test_the_app_hears_what_gh_push_knows() -> None:
    known = set()
    for file in ("push.py", "again.py", "leaving.py"):
        text = (ROOT / "gh-push" / file).read_text()
        known |= set(re.findall(r'"(push|repository|check_run|check_suite|installation\w*)"', text))
    assert known == {*EVENTS, "installation", "installation_repositories"}
    docs = (ROOT / "docs" / "github-app.md").read_text()
    assert all(f"`{event}`" in docs for event in EVENTS)
    shown = dict(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", docs, re.DOTALL)[0]))
    assert shown == PERMISSIONS


def test_the_docs_show_what_it_prints() -> None:
    app = App(123456, "https://github.com/apps/cloud-cloud-example-com", "key", "webhook")
    told = _next_steps(app, Path("secrets"), "https://api.github.com")
    assert told in (ROOT / "docs" / "github-app.md").read_text()
