"""`python -m local restore FILE`: what a backup holds, onto a machine without a cloud; `up` does the rest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import docker
import msgspec

from sdk.errors import Malformed

from . import archive, base_image, engine
from .engine import LABEL
from .errors import CommandError
from .gateway.deployment import Deployment
from .gateway.swarm import FUNCTION
from .state import Ports, State
from .steps import step

VOLUMES = {name: f"openfaas-cloud-{name}" for name in archive.VOLUME_NAMES}


def restore(file: Path, state: State) -> None:
    """Nothing is changed before all of the file was read, and a restore that fails takes back what it did."""
    with step("read the whole backup"):
        checked = archive.check(file)
        files = {str(path): content for path, content in checked.files()}
        _check_contents(files)
    _must_be_free(state, engine.connect())
    client = engine.ensure(state)
    _must_be_free(state, client)
    try:
        with step("get a Python base image"):
            base = base_image.ensure(client)
        with step("repositories, images and queue"):
            _fill_volumes(client, base, checked)
        with step("credentials, functions and authors' secrets"):
            state.restore(files)
    except BaseException:
        _take_back(client, state)
        raise


def _check_contents(files: Mapping[str, bytes]) -> None:
    try:
        ports = msgspec.json.decode(files[archive.PORTS], type=Ports)
        if not all(0 < port < 65536 for port in vars(ports).values()):
            raise Malformed(f"the backup's {archive.PORTS} has a number that is no port")
        for name, content in files.items():
            if name.startswith(f"{archive.FUNCTIONS}/"):
                service = msgspec.json.decode(content, type=Deployment).service
                if name != f"{archive.FUNCTIONS}/{service}.json":
                    raise Malformed(f"the backup's {name} is of {service!r}")
    except KeyError as missing:
        raise Malformed(f"the backup has no {missing.args[0]}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the backup holds what is no function, or no ports: {error}") from None


def _must_be_free(state: State, client: docker.DockerClient | None) -> None:
    found = state.exists or state.secrets_folder.exists()
    if client and not found:
        volumes = {volume.name for volume in client.volumes.list()}
        swarm = client.info()["Swarm"]
        is_manager = swarm["LocalNodeState"] == "active" and swarm["ControlAvailable"]
        found = bool(volumes & set(VOLUMES.values())) or (
            is_manager and bool(client.services.list(filters={"label": FUNCTION}))
        )
    if found:
        raise CommandError(
            "there is a cloud on this machine, or what is left of one: `make down` removes it. "
            "Restore only onto a machine without"
        )


def _fill_volumes(client: docker.DockerClient, base: str, checked: archive.Checked) -> None:
    """Through a container that never runs: the engine unpacks, wherever it keeps its volumes."""
    for name in VOLUMES.values():
        client.volumes.create(name, labels={LABEL: "1"})
    mounts = [
        docker.types.Mount(f"/{archive.VOLUMES}/{name}", volume, type="volume")
        for name, volume in VOLUMES.items()
    ]
    container = client.containers.create(base, ["true"], mounts=mounts, labels={LABEL: "1"})
    try:
        container.put_archive("/", checked.volumes())
    finally:
        container.remove(force=True)


def _take_back(client: docker.DockerClient, state: State) -> None:
    for name in VOLUMES.values():
        try:
            client.volumes.get(name).remove()
        except docker.errors.NotFound:
            continue
    shutil.rmtree(state.secrets_folder, ignore_errors=True)
    shutil.rmtree(state.restored_folder, ignore_errors=True)
