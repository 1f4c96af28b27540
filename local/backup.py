"""`python -m local backup FILE`: all that the cloud has, in one file, while it runs."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import docker
import msgspec
from docker.models.containers import Container

from sdk import __version__

from . import archive, containers, engine
from .errors import CommandError
from .gateway import secrets
from .gateway.swarm import FUNCTION, GENERATION, LIVE, SPEC, STATE
from .state import BUILDER_SECRETS, SECRETS, State
from .steps import console, step, until

# Where each volume is, in which container.
_VOLUMES = {
    "queue": ("gateway", "/var/lib/gateway"),
    "git": ("git-server", "/srv/git"),
    "registry": ("registry", "/var/lib/registry"),
}
_READER = Path(__file__).with_name("volume_reader.py")
_SERVICE = "openfaas-cloud-backup"
_SERVICE_SECONDS = 60
_READ_SECONDS = 300
_PLATFORM = "openfaas-cloud"  # the label of what `up` deploys itself


def backup(file: Path, state: State) -> None:
    """Write the backup to `file`, which must not be there; a backup that fails leaves none."""
    client = engine.connect()
    if not client:
        raise CommandError("the Docker engine does not run: start the cloud with `make up`")
    try:
        out = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except FileExistsError:
        raise CommandError(f"{file} is there already: a backup overwrites nothing") from None
    except OSError as error:
        raise CommandError(f"{file} can't be written: {error.strerror}") from None
    try:
        with out:
            _write(out, client, state)
            out.flush()
            os.fsync(out.fileno())
    except BaseException as error:
        file.unlink()
        if isinstance(error, OSError):
            raise CommandError(f"{file} can't be written: {error.strerror}") from None
        raise
    size = file.stat().st_size / 1024**2
    console.print(
        f"{file}: {size:.0f} MiB, with every secret of the cloud in clear: keep it as safe", soft_wrap=True
    )


def _write(out: BinaryIO, client: docker.DockerClient, state: State) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    writer = archive.Writer(out, archive.Head(archive.FORMAT, __version__, now))
    with step("credentials and ports"):
        writer.add(archive.PORTS, msgspec.json.encode(state.ports))
        for name in (*SECRETS, *BUILDER_SECRETS):
            writer.add(f"{archive.CREDENTIALS}/{name}", state.secret_file(name).read_bytes())
    with step("authors' secrets"):
        for name, value in _cluster_secrets(client, state.platform_secrets):
            writer.add(f"{archive.SECRETS}/{name}", value)
    with step("functions"):
        for name, spec in _functions(client).items():
            writer.add(f"{archive.FUNCTIONS}/{name}.json", spec)
    for name, (service, folder) in _VOLUMES.items():
        with step(f"{name}: what is in {service}"):
            container = containers.find(client, f"openfaas-cloud-{service}")
            if not container:
                raise CommandError(f"{service} does not run: start it with `make up`")
            with _read(client, container, folder, name) as tar:
                writer.add_volume(name, tar)
    writer.close()


def _functions(client: docker.DockerClient) -> Mapping[str, bytes]:
    """What is deployed and no function of ours, by name: the newest version that is live, else the newest."""
    newest: dict[str, tuple[tuple[bool, int], bytes]] = {}
    for service in client.services.list(filters={"label": FUNCTION}):
        labels = service.attrs["Spec"]["Labels"]
        spec = labels[SPEC].encode()
        if (msgspec.json.decode(spec).get("labels") or {}).get(_PLATFORM):
            continue
        rank = (labels[STATE] == LIVE, int(labels[GENERATION]))
        if labels[FUNCTION] not in newest or newest[labels[FUNCTION]][0] < rank:
            newest[labels[FUNCTION]] = rank, spec
    return {name: spec for name, (_, spec) in sorted(newest.items())}


def _cluster_secrets(client: docker.DockerClient, platform: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Each secret but the `platform`'s own, with its newest value, which Swarm shows to a task alone."""
    newest: dict[str, Mapping[str, Any]] = {}
    rows = (secret.attrs for secret in client.secrets.list(filters={"label": secrets.NAME}))
    for row in sorted(rows, key=lambda row: str(row["Spec"]["Name"])):  # the name ends in the time
        name = row["Spec"]["Labels"][secrets.NAME]
        if name not in platform:
            newest[name] = row
    if newest:
        names = list(newest)
        with (
            _task(client, list(newest.values())) as container,
            _read(client, container, "/run/secrets", "plain") as tar,
        ):
            for member in tar:
                if source := tar.extractfile(member):
                    yield names[int(member.name)], source.read()


@contextmanager
def _task(client: docker.DockerClient, wanted: Sequence[Mapping[str, Any]]) -> Iterator[Container]:
    """A container on this machine with all `wanted` secrets, as files named by their numbers."""
    gateway = containers.find(client, "openfaas-cloud-gateway")
    if not gateway or not gateway.image:
        raise CommandError("gateway does not run: start it with `make up`")
    _remove_task(client)
    files = [
        {
            "SecretID": row["ID"],
            "SecretName": row["Spec"]["Name"],
            "File": {"Name": str(number), "UID": "0", "GID": "0", "Mode": 0o400},
        }
        for number, row in enumerate(wanted)
    ]
    template = {
        "ContainerSpec": {
            "Image": gateway.image.id,  # by id: one by name would be looked for on the internet
            "Command": ["sleep", str(_READ_SECONDS)],
            "Secrets": files,
            "CapabilityDrop": ["ALL"],
            "Init": True,
        },
        "RestartPolicy": {"Condition": "none"},
        "Placement": {"Constraints": [f"node.id=={client.info()['Swarm']['NodeID']}"]},
        "Networks": [],
    }
    try:
        client.api.create_service(template, name=_SERVICE, labels={engine.LABEL: "1"})
        until(lambda: bool(_running(client)), seconds=_SERVICE_SECONDS, what="the start of the secrets' task")
        yield _running(client)[0]
    finally:
        _remove_task(client)


def _running(client: docker.DockerClient) -> Sequence[Container]:
    return client.containers.list(filters={"label": f"com.docker.swarm.service.name={_SERVICE}"})


def _remove_task(client: docker.DockerClient) -> None:
    with suppress(docker.errors.NotFound):
        client.api.remove_service(_SERVICE)


@contextmanager
def _read(
    client: docker.DockerClient, container: Container, folder: str, kind: str
) -> Iterator[tarfile.TarFile]:
    """The folder in the container, as it comes; `CommandError` if not all of it came."""
    command = ["python3", "-c", _READER.read_text(), folder, kind]
    started = client.api.exec_create(container.id, command)["Id"]
    output = _Output(client.api.exec_start(started, stream=True, demux=True))
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", output), mode="r|") as tar:
            yield tar
        output.drain()
    except tarfile.TarError as error:
        output.drain()
        raise CommandError(f"{container.name}: {folder} can't be read: {output.said or error}") from None
    if client.api.exec_inspect(started)["ExitCode"] != 0:
        raise CommandError(f"{container.name}: {folder} can't be read: {output.said}")


class _Output(io.RawIOBase):
    """The standard output of a program in a container, as a file; `said` is the end of its stderr."""

    def __init__(self, pieces: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        self._pieces, self._left, self._errors = pieces, memoryview(b""), b""

    @property
    def said(self) -> str:
        return self._errors.decode(errors="replace").strip().rpartition("\n")[2]

    def read(self, size: int = -1) -> bytes:
        while not self._left:
            try:
                out, error = next(self._pieces)
            except StopIteration:
                return b""
            self._errors = (self._errors + (error or b""))[-4096:]
            self._left = memoryview(out or b"")
        piece, self._left = self._left[:size], self._left[size:]
        return bytes(piece)

    def drain(self) -> None:
        while self.read(1024**2):
            pass
