"""The floor of what the cloud does: git, buildx and the engine, as somebody would use them without a cloud.

What is deployed is the same to the last option: the service is a copy of the one that the cloud made.
"""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import requests
from docker.models.containers import Container

from local.engine import FUNCTIONS_NETWORK, LABEL, SYSTEM_NETWORK
from local.gateway.swarm import FUNCTION, LIVE, STATE
from tests.chaos.authors import put

from .cloud import Author, Cloud, until, until_answers
from .repositories import git
from .served import ROOT

_LABEL = "bench.by-hand"
_TEMPLATE = ROOT / "local" / "template" / "python3-http"

Spec = dict[str, Any]


@dataclass
class ByHand:
    """One who knows the tools; `services` are those that are live, by name."""

    cloud: Cloud
    router: str
    services: dict[str, str] = field(default_factory=dict)
    retired: list[str] = field(default_factory=list)

    def fetch(self, author: Author) -> Path:
        """The head's tree, by a shallow mirror that stays."""
        mirror = self.cloud.folder / f"by-hand-{author.name}.git"
        if not mirror.exists():
            git("init", "--quiet", "--bare", mirror)
        where, tree = f"--git-dir={mirror}", self.cloud.folder / f"tree-{uuid.uuid4().hex}"
        git(
            where, "fetch", "--quiet", "--depth=1", "--no-tags", author.url, f"+{author.head}:refs/heads/last"
        )
        tree.mkdir()
        (mirror / "index").unlink(missing_ok=True)
        git(where, f"--work-tree={tree}", "read-tree", "--reset", "-u", author.head)
        return tree

    def build(self, tree: Path, name: str) -> str:
        """Build and push a function of a tree; its image by digest."""
        context = tree.with_name(f"context-{uuid.uuid4().hex}")
        shutil.copytree(_TEMPLATE, context)
        shutil.copytree(tree / name, context / "function", dirs_exist_ok=True)
        metadata, image = context.with_suffix(".json"), f"{self.cloud.state.registry}/bench/by-hand/{name}"
        options = (f"--metadata-file={metadata}", f"--tag={image}:latest", "--provenance=false")
        build_args = [f"--build-arg={row}" for row in self._build_args()]
        command = ("docker", "buildx", "build", "--quiet", "--output=type=registry", *options, *build_args)
        subprocess.run((*command, str(context)), check=True, capture_output=True, timeout=300)
        return f"{image}@{json.loads(metadata.read_text())['containerimage.digest']}"

    def deploy(self, service: str, task: Spec) -> None:
        """Start a new version beside the one that is live; the route switches once it is ready."""
        api = self.cloud.engine.api
        created = api.create_service(
            task,
            name=f"by-hand-{uuid.uuid4().hex[:12]}",
            labels={_LABEL: service},
            mode={"Replicated": {"Replicas": 1}},
            endpoint_spec={"Mode": "dnsrr"},
        )["ID"]
        found: list[str] = []

        def has_address() -> bool:
            found[:] = _addresses(api.tasks(filters={"service": created}))
            return bool(found)

        until(has_address, "an address of the task")
        requests.put(f"{self.router}/{service}", found[0], timeout=300).raise_for_status()
        if service in self.services:
            self.retired.append(self.services[service])
        self.services[service] = created

    def push(self, author: Author, text: str, parallel: int = 1) -> None:
        """From nothing but the news of a push until every function of it answers `text`."""
        tree = self.fetch(author)

        def ship(name: str) -> None:
            service = f"{self.cloud.owner}-{name}"
            self.deploy(service, self.task(service, self.build(tree, name)))
            until_answers(self.url(service), text)

        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(ship, author.functions))

    def task(self, service: str, image: str = "", value: str = "") -> Spec:
        """The task of the cloud's own service, or of any function, with another image or VALUE."""
        live = self.cloud.engine.api.services(filters={"label": FUNCTION})
        mine = [row for row in live if row["Spec"]["Labels"][STATE] == LIVE and _is_users(row)]
        same = [row for row in mine if row["Spec"]["Labels"][FUNCTION] == service]
        task: Spec = copy.deepcopy((same or mine)[0]["Spec"]["TaskTemplate"])
        container = task["ContainerSpec"]
        container["Image"] = image or container["Image"]
        container["Labels"] = {_LABEL: service}
        others = [row for row in container.get("Env") or () if not row.startswith("VALUE=")]
        container["Env"] = [*others, *([f"VALUE={value}"] if value else [])]
        return task

    def url(self, service: str) -> str:
        return f"{self.router}/{service}"

    def retire(self) -> None:
        """Remove what is no longer routed to; nobody waits for it."""
        while self.retired:
            with suppress(docker.errors.NotFound, IndexError):  # another thread may have taken the last
                self.cloud.engine.api.remove_service(self.retired.pop())

    def tidy(self) -> None:
        """Remove what is no longer routed to, and the files."""
        self.retire()
        for path in (*self.cloud.folder.glob("tree-*"), *self.cloud.folder.glob("context-*")):
            path.unlink() if path.is_file() else shutil.rmtree(path)

    def remove(self) -> None:
        """All that was deployed by hand."""
        for row in self.cloud.engine.api.services(filters={"label": _LABEL}):
            self.cloud.engine.api.remove_service(row["ID"])
        self.services.clear()
        self.retired.clear()

    def _build_args(self) -> list[str]:
        """The operator's, as git-tar has them."""
        git_tar = self.cloud.state.gateway.get("git-tar")
        assert git_tar
        return (git_tar.env_vars or {})["build_args"].split(",")


@contextmanager
def by_hand(cloud: Cloud) -> Iterator[ByHand]:
    container = _start_router(cloud.engine)
    try:
        container.reload()
        port = container.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"]
        found = ByHand(cloud, f"http://127.0.0.1:{port}")
        until(lambda: _listens(found.router), "the router's start")
        yield found
    finally:
        container.remove(force=True)
        ByHand(cloud, "").remove()


def _start_router(engine: docker.DockerClient) -> Container:
    image = engine.containers.get("openfaas-cloud-gateway").attrs["Config"]["Image"]
    created = engine.containers.create(
        image,
        ["python", "/app/router.py"],
        init=True,
        labels={LABEL: "1"},
        ports={"8080/tcp": ("127.0.0.1", 0)},
        network=SYSTEM_NETWORK,
    )
    put(created, "/app", {"router.py": (ROOT / "bench" / "router.py").read_bytes()})
    created.start()
    engine.networks.get(FUNCTIONS_NETWORK).connect(created)
    return created


def _listens(url: str) -> bool:
    try:
        return requests.get(f"{url}/nothing", timeout=5).status_code == 404
    except requests.ConnectionError:
        return False


def _is_users(row: Spec) -> bool:
    """A function of an author's, not one of the platform's with its networks and limits."""
    return len(row["Spec"]["TaskTemplate"]["Networks"]) == 1


def _addresses(tasks: list[Spec]) -> list[str]:
    return [
        address.split("/")[0]
        for task in tasks
        for attachment in task.get("NetworksAttachments") or ()
        for address in attachment.get("Addresses") or ()
    ]
