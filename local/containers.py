"""The platform's own containers: registry, of-builder, gateway, git server, and the play of GitHub."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import docker
from docker.models.containers import Container

from . import images
from .engine import FUNCTIONS_NETWORK, LABEL, SYSTEM_NETWORK
from .errors import CommandError
from .state import APP_KEY, BUILDER_SECRETS, State
from .steps import until

SOCKET = "/var/run/docker.sock"
CONFIG = f"{LABEL}.config"
_NETWORK_SECONDS = 15
_WAITED_SECONDS = 60
_NEXT = "-next"  # the name's end of one that is to replace another
SECRETS_PATH = "/var/openfaas/secrets"
# Where faas-cli and others may push, in the registry.
CLIENTS = "ci"


@dataclass(frozen=True)
class Service:
    """One container: `alias` is its name on the networks, `port` its own port, published on loopback.

    When it is replaced, it first goes on until no program named `waits_for` runs in it, and then has
    `stop_seconds` to end.
    """

    alias: str
    image: str
    port: int
    published: int
    networks: tuple[str, ...] = (SYSTEM_NETWORK,)
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    reads: Mapping[str, str] = field(default_factory=dict)  # volumes of others
    secrets: tuple[str, ...] = ()
    engine_socket: bool = False
    waits_for: str = ""
    stop_seconds: int = 10

    @property
    def name(self) -> str:
        return f"openfaas-cloud-{self.alias}"

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def services(state: State, tags: Mapping[str, str], cgroup_parent: str) -> tuple[Service, ...]:
    """All of them, in the order in which they start; `cgroup_parent` limits the build steps."""
    ports = state.ports
    played = (_github(state, tags),) if state.plays_github else ()
    return (
        Service(
            alias="registry",
            image=tags[images.REGISTRY.name],
            port=5000,
            published=ports.registry_port,
            environment={"gateway_url": "http://gateway:8080", "retention": "delete", "keep": "20"},
            volumes={"openfaas-cloud-registry": "/var/lib/registry"},
            secrets=("basic-auth-user", "basic-auth-password"),
            stop_seconds=40,  # over the draintimeout of registry/config.yml
        ),
        Service(
            alias="of-builder",
            image=tags[images.BUILDER.name],
            port=8080,
            published=ports.builder_port,
            environment={
                "registry_api_url": "http://registry:5000",
                "client_prefix": f"{state.registry}/{CLIENTS}/",
                "cgroup_parent": cgroup_parent,
            },
            secrets=("builder-secret", "builder-readers", *BUILDER_SECRETS),
            engine_socket=True,
        ),
        Service(
            alias="gateway",
            image=tags[images.GATEWAY.name],
            port=8080,
            published=ports.gateway_port,
            networks=(FUNCTIONS_NETWORK, SYSTEM_NETWORK),
            environment={"secret_mount_path": SECRETS_PATH},
            volumes={"openfaas-cloud-queue": "/var/lib/gateway"},
            secrets=("basic-auth-user", "basic-auth-password"),
            engine_socket=True,
        ),
        Service(
            alias="git-server",
            image=tags[images.GIT_SERVER.name],
            port=8081,
            published=ports.git_port,
            environment={
                "PUBLIC_URL": state.git_url,
                **({"CHECKS_URL": state.checks_url} if state.plays_github else {}),
            },
            volumes={"openfaas-cloud-git": "/srv/git"},
            secrets=("basic-auth-user", "basic-auth-password", "github-webhook-secret"),
            waits_for="receive-pack",  # a push, which git-tar fetches from here before it ends
        ),
        *played,
    )


def _github(state: State, tags: Mapping[str, str]) -> Service:
    """The play of GitHub's checks. What the git server has is what it knows."""
    return Service(
        alias="github",
        image=tags[images.GITHUB.name],
        port=8080,
        published=state.ports.github_port,
        volumes={"openfaas-cloud-github": "/var/lib/github"},
        reads={"openfaas-cloud-git": "/srv/git"},
        secrets=(APP_KEY,),
    )


def ensure(client: docker.DockerClient, service: Service, state: State) -> None:
    """Run `service` as it is described; a container that runs so already stays.

    An `up` may have ended after any of the steps, so each looks for itself whether it is done.
    """
    container = find(client, service.name)
    if left := find(client, service.name + _NEXT):
        left.remove(force=True)
    if not container:
        container = _create(client, service, state, service.name)
    elif container.labels.get(CONFIG) != service.digest():
        container = _replace(client, container, service, state)
    if container.status != "running":
        _start(container, service)
        container.reload()
    # Only now: an overlay network keeps the place of a container that was never started.
    for network in service.networks:
        if network not in container.attrs["NetworkSettings"]["Networks"]:
            client.networks.get(network).connect(container, aliases=[service.alias])


def find(client: docker.DockerClient, name: str) -> Container | None:
    try:
        return client.containers.get(name)
    except docker.errors.NotFound:
        return None


def _replace(client: docker.DockerClient, old: Container, service: Service, state: State) -> Container:
    """The new one is made before the old one is stopped: so nobody answers for as short as can be."""
    new = _create(client, service, state, service.name + _NEXT)
    if service.waits_for:
        with suppress(CommandError):  # others have come meanwhile
            until(lambda: not _runs(old, service.waits_for), seconds=_WAITED_SECONDS, what="its end")
    old.stop(timeout=service.stop_seconds)
    old.remove(force=True)
    new.rename(service.name)
    return new


def _runs(container: Container, program: str) -> bool:
    try:
        rows = container.top(ps_args="-eo pid,args")["Processes"] or ()
    except docker.errors.APIError:  # it does not run
        return False
    return any(program in " ".join(row) for row in rows)


def _create(client: docker.DockerClient, service: Service, state: State, name: str) -> Container:
    return client.containers.create(
        service.image,
        name=name,
        detach=True,
        init=True,
        labels={LABEL: "1", CONFIG: service.digest()},
        environment=dict(service.environment),
        ports={f"{service.port}/tcp": ("127.0.0.1", service.published)},
        mounts=_mounts(service, state),
        restart_policy={"Name": "always"},
        log_config=docker.types.LogConfig(type="json-file", config={"max-size": "10m", "max-file": "2"}),
        **_first_network(client, service),
    )


def _first_network(client: docker.DockerClient, service: Service) -> Mapping[str, Any]:
    network = service.networks[0]
    endpoint = client.api.create_endpoint_config(aliases=[service.alias])
    return {"network": network, "networking_config": {network: endpoint}}


def _mounts(service: Service, state: State) -> list[docker.types.Mount]:
    mounts = [
        docker.types.Mount(target, name, type="volume", labels={LABEL: "1"})
        for name, target in service.volumes.items()
    ]
    mounts += [
        docker.types.Mount(target, name, type="volume", read_only=True)
        for name, target in service.reads.items()
    ]
    for name in service.secrets:
        file = str(state.secret_file(name))
        mounts.append(docker.types.Mount(f"{SECRETS_PATH}/{name}", file, type="bind", read_only=True))
    if service.engine_socket:
        mounts.append(docker.types.Mount(SOCKET, SOCKET, type="bind"))
    return mounts


def _start(container: Container, service: Service) -> None:
    deadline = time.monotonic() + _NETWORK_SECONDS
    while True:
        try:
            container.start()
            return
        except docker.errors.APIError as error:
            said = str(error.explanation or error)
        if "network" not in said or "not found" not in said or time.monotonic() > deadline:
            raise refused(service, said)
        time.sleep(0.2)  # a network that was just made is not yet known everywhere


def refused(service: Service, said: str) -> CommandError:
    if "address already in use" in said or "port is already allocated" in said:
        up = "make up` (after `make down`, if the cloud was up before)"
        if service.alias == "github":
            up = ".venv/bin/python -m local up --github`"
        return CommandError(
            f"port {service.published} of 127.0.0.1 is taken, {service.alias} needs it: free it, or "
            f"choose another, as in `{_SETTING[service.alias]}={service.published + 1000} {up}"
        )
    return CommandError(f"{service.alias} does not start: {said}")


_SETTING = {
    "registry": "registry_port",
    "of-builder": "builder_port",
    "gateway": "gateway_port",
    "git-server": "git_port",
    "github": "github_port",
}
