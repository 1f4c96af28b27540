"""What only this machine can see of its own cloud: the engine and the containers beside the gateway."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

import docker
import requests

from .. import engine
from ..state import State
from .findings import Finding, fail, ok, unseen, warn

SERVICES = ("registry", "of-builder", "gateway", "git-server")
PLAYED = "github"  # with `up --github`
SECONDS = 25
LEAST_FREE = 2 * 1024**3


def examine(state: State) -> Iterator[Finding]:
    client = engine.connect()
    if not client:
        yield fail("engine", "the Docker engine does not answer", "make up")
        return
    try:
        yield from _engine(client, (*SERVICES, PLAYED) if state.plays_github else SERVICES)
    except docker.errors.DockerException as error:
        yield fail("engine", f"the Docker engine refuses: {error}", "make up")
    finally:
        client.close()
    yield from services(state)


def _engine(client: docker.DockerClient, names: Sequence[str]) -> Iterator[Finding]:
    info = client.info()
    if info["Swarm"]["LocalNodeState"] != "active":
        yield fail("engine", "this machine is no Swarm", "make up")
    for name in names:
        found = client.containers.list(all=True, filters={"name": f"^openfaas-cloud-{name}$"})
        status = found[0].status if found else "missing"
        if status != "running":
            yield fail("engine", f"the container openfaas-cloud-{name} is {status}", "make up")
    yield from disk(info.get("DockerRootDir", ""))


def disk(folder: str) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        yield unseen("engine", f"how full the disk of {folder} is", "look there")
        return
    if free < LEAST_FREE:
        yield warn("engine", f"{free / 1024**3:.1f} GiB are free below {folder}", "make room: builds need it")
    else:
        yield ok("engine", f"answers, {free / 1024**3:.0f} GiB are free")


def services(state: State) -> Iterator[Finding]:
    """What is beside the gateway, asked directly."""
    log = "docker logs openfaas-cloud-"
    played = ((PLAYED, f"{state.checks_url}/healthz"),) if state.plays_github else ()
    for about, url in (
        ("of-builder", f"{state.builder_url}/readyz"),
        ("registry", f"http://{state.registry}/v2/"),
        ("git-server", f"{state.git_url}/openfaas-cloud/templates.git/info/refs?service=git-upload-pack"),
        *played,
    ):
        try:
            answer = requests.get(url, timeout=SECONDS)
        except requests.RequestException as error:
            yield fail(about, f"does not answer at {url}: {type(error).__name__}", f"make up; {log}{about}")
            continue
        if answer.ok:
            yield ok(about, f"answers at {url.partition('?')[0]}")
        else:
            yield fail(about, f"answers {answer.status_code}: {answer.text[:300].strip()}", f"{log}{about}")
