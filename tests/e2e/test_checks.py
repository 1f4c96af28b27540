"""`up --github` on the running cloud: what GitHub would show of a push, until `--no-github`."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import docker
import pytest
import requests

from local.gateway.swarm import FUNCTION, GENERATION, SPEC
from sdk import github_app
from sdk.github_app import Tokens
from sdk.settings import Settings
from sdk.whereabouts import covering

from .cloud import Cloud, Repository, execute, until

Make = Callable[..., Repository]

TOLD_SECONDS = 30
SERVICE = "openfaas-cloud-github"


def up(cloud: Cloud, *arguments: str) -> str:
    done = cloud.cli("up", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def deployed(cloud: Cloud) -> Mapping[str, Any]:
    """Each of the platform's functions as it was deployed last."""
    newest: dict[str, tuple[int, Any]] = {}
    for service in cloud.engine.services.list(filters={"label": FUNCTION}):
        labels = service.attrs["Spec"]["Labels"]
        spec = json.loads(labels[SPEC])
        if (spec.get("labels") or {}).get("role") == "openfaas-system":
            found = int(labels[GENERATION]), spec
            newest[labels[FUNCTION]] = max(newest.get(labels[FUNCTION], found), found, key=lambda row: row[0])
    return {name: spec for name, (_, spec) in newest.items()}


@pytest.fixture(scope="module")
def before(cloud: Cloud) -> Mapping[str, Any]:
    """What is deployed without it."""
    if cloud.state.plays_github:
        up(cloud, "--no-github")
    return deployed(cloud)


@pytest.fixture(scope="module")
def github(cloud: Cloud, before: Mapping[str, Any]) -> Iterator[str]:
    """It is on; where its pages are."""
    assert "what GitHub would show of each commit" in up(cloud, "--github")
    yield cloud.state.checks_url
    up(cloud, "--no-github")


def page(url: str) -> str:
    answer = requests.get(url, timeout=10)
    return html.unescape(answer.text) if answer.ok else ""


def runs(cloud: Cloud, repo: Repository, sha: str) -> Mapping[str, Mapping[str, Any]]:
    """By the API, as the App asks it."""
    folder = f"--git-dir=/srv/git/{repo.owner}/repo.git"
    number = int(execute(cloud.container("git-server"), "git", folder, "config", "cloud.id"))
    settings = Settings(
        github_app_id="1",
        github_api_url=cloud.state.checks_url,
        secret_mount_path=str(cloud.state.secrets_folder),
    )
    token = Tokens().token(covering(number, settings), number, settings, "checks: read")
    path = f"/repos/{repo.owner}/repo/commits/{sha}/check-runs"
    found = json.loads(github_app.call("GET", path, token, settings))
    return {run["name"]: run for run in found["check_runs"]}


def test_a_push_that_goes_well_shows_where_its_function_answers(
    cloud: Cloud, github: str, repository: Make
) -> None:
    repo = repository()
    sha = repo.functions(hello="one")
    code, told = repo.push()
    assert code == 0, told
    url = f"{github}/{repo.owner}/repo/commit/{sha}"
    assert f"its checks: {url}" in told
    until(lambda: page(url).count('<section class="success">') == 2, TOLD_SECONDS, "success of both checks")
    assert f'href="{cloud.url(repo.service("hello"))}"' in page(url)
    found = runs(cloud, repo, sha)
    assert {name: run["conclusion"] for name, run in found.items()} == {
        "stack-deploy": "success",
        "hello": "success",
    }
    assert found["hello"]["details_url"] == cloud.url(repo.service("hello"))
    for listing in (github, f"{github}/{repo.owner}/repo"):
        assert f"/{repo.owner}/repo/commit/{sha}" in page(listing)


def test_a_build_that_fails_shows_the_end_of_its_log(cloud: Cloud, github: str, repository: Make) -> None:
    repo = repository()
    repo.functions(hello="one")
    sha = repo.commit({"hello/requirements.txt": "no-such-package-of-this-name==1.0\n"})
    assert repo.push()[0] != 0
    url = f"{github}/{repo.owner}/repo/commit/{sha[:10]}"
    until(lambda: page(url).count('<section class="failure">') == 2, TOLD_SECONDS, "failure of both checks")
    assert "No matching distribution found for no-such-package-of-this-name" in page(url)
    found = runs(cloud, repo, sha)["hello"]
    assert found["conclusion"] == "failure"
    assert "No matching distribution found" in found["output"]["text"]


def test_a_plain_up_keeps_it_and_changes_nothing(cloud: Cloud, github: str) -> None:
    number, specs = cloud.container("github").id, deployed(cloud)
    up(cloud)
    assert (cloud.container("github").id, deployed(cloud)) == (number, specs)


def test_authors_functions_do_not_reach_it(cloud: Cloud, github: str) -> None:
    networks = cloud.container("github").attrs["NetworkSettings"]["Networks"]
    assert "func_functions" not in networks
    published = cloud.container("github").attrs["HostConfig"]["PortBindings"]["8080/tcp"]
    assert published == [{"HostIp": "127.0.0.1", "HostPort": str(cloud.state.ports.github_port)}]
    tried = execute(cloud.container("github"), "touch", "/srv/git/x")
    assert "Read-only file system" in tried


def test_without_it_nothing_is_left_and_the_functions_are_as_before(
    cloud: Cloud, github: str, before: Mapping[str, Any]
) -> None:
    assert deployed(cloud) != before
    told = up(cloud, "--no-github")
    assert "what GitHub would show" not in told
    with pytest.raises(docker.errors.NotFound):
        cloud.engine.containers.get(SERVICE)
    assert SERVICE not in {volume.name for volume in cloud.engine.volumes.list()}
    assert "private-key" not in cloud.gateway.secret_names()
    assert not cloud.state.secret_file("private-key").exists()
    assert "CHECKS_URL=" in cloud.container("git-server").attrs["Config"]["Env"]
    assert deployed(cloud) == before
