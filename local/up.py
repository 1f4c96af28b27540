"""`up` and `down`: the whole cloud on this machine, from nothing to an answering function and back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import docker
import requests

from . import author, base_image, cgroup, checks, containers, engine, firewall, images, restored
from .engine import FUNCTIONS_NETWORK, LABEL, SYSTEM_NETWORK
from .errors import CommandError
from .gateway.secrets import NAME as SECRET
from .gateway.swarm import FUNCTION
from .publish import Publisher
from .state import State
from .steps import console, removed, run, step, until

EXAMPLE_OWNER = "alice"
EXAMPLE = images.ROOT / "examples" / "hello-python"
EXAMPLE_COPY = images.ROOT / ".cloud" / "hello-python"
EXAMPLE_FUNCTION = f"{EXAMPLE_OWNER}-hello"
_FIRST_SECONDS, _HEALTHY_SECONDS = 30, 60
_AT_ONCE = 64


def up(state: State, advertise: str | None, github: bool | None = None) -> None:
    """Bring everything up; what runs already stays.

    `github`: whether its checks are played; None: as before.
    """
    client = engine.ensure(state)
    state.create()  # not before there is an engine: `down` takes a state for a sign of one
    with step("make this machine a Swarm of its own"):
        engine.ensure_swarm(client, state, advertise)
    checks.choose(client, state, github)
    firewall.ensure(client)
    with step("get a Python base image"):
        base = base_image.ensure(client)
    with step("build the images of the platform"):
        wanted = (*images.ALL, images.GITHUB) if state.plays_github else images.ALL
        tags = images.ensure(client, base, wanted)
    with step("start registry, of-builder, gateway and git server"):
        for service in containers.services(state, tags, cgroup.ensure(client)):
            containers.ensure(client, service, state)
        state.keep_ports()
        _await_healthy(client, state)
    publisher = Publisher(state, base)
    with step("set the platform's secrets"):
        publisher.secrets()
    if restored.is_there(state):
        with step("deploy the restored functions"):
            restored.functions(state)
    with step("build and deploy the platform's functions"):
        publisher.functions()
    checks.remove_left(client, state)
    images.prune(client, {base, *tags.values()})
    if restored.is_there(state):
        restored.heads(client, state)
    else:
        _push_example(state)
    if advertise:
        console.print(_how_to_join(state, advertise), soft_wrap=True)


def down(state: State) -> None:
    """Remove all that `up` made. Packages that it installed stay.

    What is in an engine that stands still can neither be removed nor be forgotten: it is started.
    """
    client = engine.started(state) if state.folder.exists() else engine.connect()
    if client:
        _remove_all(client, state)
    with step("stop what was started, remove the cloud's state"):
        engine.stop(state)
        state.remove()


def _push_example(state: State) -> None:
    """The newcomer's first push, unless its function is live already."""
    url = f"{state.gateway_url}/function/{EXAMPLE_FUNCTION}"
    folder = author.example(EXAMPLE, EXAMPLE_COPY, EXAMPLE_OWNER, state)
    if not _answers(url):
        console.print(f"$ cd {folder.relative_to(images.ROOT)} && git push cloud")
        author.push(folder, None, state)
        until(lambda: _answers(url), seconds=30, what=f"an answer of {url}")
    console.print(_next_steps(url, folder, state), soft_wrap=True)


def _next_steps(url: str, folder: Path, state: State) -> str:
    shown = f"  {state.checks_url}/{EXAMPLE_OWNER}/{folder.name}    what GitHub would show of each commit\n"
    with suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return (
        f"\n[bold]Your function is live:[/] {url}\n\n"
        "What to try next:\n"
        f"  curl {url}\n"
        f"  cd {folder}, change hello/handler.py, then: git commit -am 'Say more' && git push cloud\n"
        "  .venv/bin/python -m local status    what runs here\n"
        f"  .venv/bin/python -m local link {EXAMPLE_OWNER}    a page with each push, for the browser\n"
        f"{shown if state.plays_github else ''}"
        "  make down                           remove it all"
    )


def _how_to_join(state: State, address: str) -> str:
    """Every node pulls from 127.0.0.1, as this one does, so a joined one needs a tunnel to the registry."""
    port = state.ports.registry_port
    return (
        "\n[bold]To add a machine,[/] run there, and keep the first one running (docs/install-swarm.md):\n"
        f"  ssh -N -L {port}:127.0.0.1:{port} {address}\n"
        f"  docker swarm join --token TOKEN {address}:2377\n"
        "TOKEN is what `docker swarm join-token -q worker` prints here"
    )


def _await_healthy(client: docker.DockerClient, state: State) -> None:
    """Wait until all answer; one that runs and does not is restarted, once.

    An engine that was killed now and then brings a container back that cannot be reached.
    """
    urls = {
        "registry": f"http://{state.registry}/v2/",
        "of-builder": f"{state.builder_url}/healthz",
        "gateway": f"{state.gateway_url}/healthz",
        "git-server": f"{state.git_url}/openfaas-cloud/templates.git/info/refs?service=git-upload-pack",
    }
    if state.plays_github:
        urls["github"] = f"{state.checks_url}/healthz"
    for alias, url in urls.items():
        try:
            until(partial(_answers, url), seconds=_FIRST_SECONDS, what=f"an answer of {alias}")
        except CommandError:
            client.containers.get(f"openfaas-cloud-{alias}").restart(timeout=5)
            until(partial(_answers, url), seconds=_HEALTHY_SECONDS, what=f"an answer of {alias}")


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _remove_all(client: docker.DockerClient, state: State) -> None:
    with step("remove functions and secrets"):
        if client.info()["Swarm"]["LocalNodeState"] == "active":
            _remove_functions(client)
    with step("remove containers, networks and volumes"):
        _remove_containers(client, state)
    with step("remove images and the build cache"):
        _remove_images(client, state)


def _remove_containers(client: docker.DockerClient, state: State) -> None:
    ours = f"{LABEL}=1"
    # Others may end meanwhile, of themselves, and the engine may be removing one just now.
    for container in client.containers.list(all=True, filters={"label": ours}, ignore_removed=True):
        removed(partial(container.remove, force=True, v=True))
    engine.leave_swarm(client, state)  # its networks go with it
    firewall.remove()
    for name in (FUNCTIONS_NETWORK, SYSTEM_NETWORK):
        for network in client.networks.list(names=[name], filters={"label": ours}):
            removed(network.remove)
    for volume in client.volumes.list(filters={"label": ours}):
        removed(volume.remove)  # not by force: that forgets a busy volume and leaves its files
    cgroup.remove()


def _remove_images(client: docker.DockerClient, state: State) -> None:
    if state.engine_marker.exists():
        run((engine.buildx(), "prune", "--all", "--force"))  # nobody else built with this engine
    labels = (f"{LABEL}=1", "com.openfaas.cloud.built=1")
    found = {str(image.id) for label in labels for image in client.images.list(filters={"label": label})}

    def remove(image: str) -> None:
        with suppress(docker.errors.APIError):
            client.images.remove(image, force=True)

    # The engine looks for what is garbage now after each removal, or once after several at a time.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(remove, found))


def _remove_functions(client: docker.DockerClient) -> None:
    for service in client.services.list(filters={"label": FUNCTION}):
        service.remove()
    until(
        lambda: not client.api.containers(filters={"label": FUNCTION}),
        seconds=60,
        what="the end of the functions' containers",
    )
    # What Swarm has forgotten when the engine was killed, or is just removing itself.
    for container in client.containers.list(all=True, filters={"label": FUNCTION}, ignore_removed=True):
        with suppress(docker.errors.APIError):
            container.remove(force=True, v=True)
    for secret in client.secrets.list(filters={"label": SECRET}):
        client.api.remove_secret(str(secret.id))
