"""The Docker engine: found, installed where it is missing, started, and made a Swarm of one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import docker

from . import debian
from .errors import CommandError
from .state import State
from .steps import run, step, until

FUNCTIONS_NETWORK = "func_functions"
SYSTEM_NETWORK = "func_system"
LABEL = "openfaas-cloud.local"

# 25.0: the first whose Swarm takes no-new-privileges, and that enforces BuildKit's source policies.
_OLDEST_API = (1, 44)
_PACKAGES = ("docker.io", "docker-cli", "containerd", "docker-buildx")
_CONFIG = Path("/etc/docker/daemon.json")
_LOG = "dockerd.log"
_LOG_LIMIT = 10 * 1024**2
_LOG_KEPT = 1024**2
_START_SECONDS = 60


def connect() -> docker.DockerClient | None:
    """A client of the engine that runs, None if none does."""
    if not _listens():
        return None
    try:
        client = docker.from_env(version="auto", timeout=120)
        client.ping()
        return client
    except (docker.errors.DockerException, OSError):
        return None


def _listens() -> bool:
    """Whether anybody is at the engine's socket. docker-py leaves its own open where nobody is."""
    scheme, _, path = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition("://")
    if scheme != "unix":
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def ensure(state: State) -> docker.DockerClient:
    """An engine that can do what the cloud needs; `CommandError` says what is missing."""
    if not connect() and not shutil.which("dockerd"):
        with step("install the Docker engine"):
            _install()
    client = started(state)
    _check(client)
    _cut_log(state.folder / _LOG)
    return client


def started(state: State) -> docker.DockerClient:
    """The engine that is there, started if it does not run."""
    client = connect()
    if not client:
        with step("start the Docker engine"):
            client = _start(state)
    return client


def ensure_swarm(client: docker.DockerClient, state: State, advertise: str | None) -> None:
    """A Swarm that this machine manages, with both networks; `advertise`: where other machines join."""
    swarm = client.info()["Swarm"]
    local = swarm["LocalNodeState"]
    if local == "inactive":
        address = advertise or "127.0.0.1"
        client.swarm.init(advertise_addr=address, listen_addr=f"{address}:2377")
        state.swarm_marker.touch()
    elif local != "active" or not swarm["ControlAvailable"]:
        raise CommandError(
            "this machine belongs to another Swarm that it does not manage "
            f"(state: {local}): run `docker swarm leave`, or `up` on a manager of that Swarm"
        )
    elif advertise not in (None, swarm["NodeAddr"]):
        raise CommandError(
            f"this machine's Swarm is at {swarm['NodeAddr']} and can't move to {advertise}: leave it first, "
            "with `make down`, or with `docker swarm leave --force` if `up` did not make it"
        )
    there = {network.name for network in client.networks.list()}
    for name in {FUNCTIONS_NETWORK, SYSTEM_NETWORK} - there:
        client.networks.create(name, driver="overlay", attachable=True, labels={LABEL: "1"})


def leave_swarm(client: docker.DockerClient, state: State) -> None:
    if state.swarm_marker.exists():
        with suppress(docker.errors.APIError):
            client.swarm.leave(force=True)
        state.swarm_marker.unlink()


def stop(state: State) -> None:
    """Stop the engine if `up` started it."""
    if not state.engine_marker.exists():
        return
    pid = int(state.engine_marker.read_text())
    if _is_dockerd(pid):
        os.kill(pid, 15)
        until(lambda: not _is_dockerd(pid), seconds=60, what="the end of dockerd")
    state.engine_marker.unlink()


def buildx() -> str:
    """The buildx binary on this machine."""
    places = ("/usr/libexec/docker", "/usr/lib/docker", "/usr/local/lib/docker", f"{Path.home()}/.docker")
    names = ["docker-buildx", *(f"{place}/cli-plugins/docker-buildx" for place in places)]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if not found:
        raise CommandError(
            "the engine is here, but buildx is not: install the package docker-buildx (Debian 13, "
            "Ubuntu) or docker-buildx-plugin (Docker's own repository)"
        )
    return found


def _check(client: docker.DockerClient) -> None:
    api = tuple(int(part) for part in client.version()["ApiVersion"].split("."))
    if api < _OLDEST_API:
        raise CommandError(
            f"the Docker engine {client.version()['Version']} is too old: 25.0 or newer is needed. "
            "On Debian 12, remove docker.io and start `up` again: it installs Debian 13's"
        )
    buildx()


def _install() -> None:
    system = debian.System.here()
    debian.must_be_installable(_PACKAGES)
    if not _CONFIG.exists():  # before the package starts the engine for the first time
        _CONFIG.parent.mkdir(parents=True, exist_ok=True)
        _CONFIG.write_text(json.dumps({"features": {"containerd-snapshotter": True}}) + "\n")
    if system.codename in debian.NEXT_SUITE:
        debian.install_from_suite(_PACKAGES, system.suite)
    else:
        debian.install(("docker.io", "docker-buildx"))


def _start(state: State) -> docker.DockerClient:
    if os.geteuid() or not shutil.which("dockerd"):
        raise CommandError("the Docker engine does not run, or you may not use it: start it as root")
    if Path("/run/systemd/system").is_dir():
        run(("systemctl", "start", "docker"), what="systemctl start docker")
    else:
        _start_daemon(state)
    until(lambda: connect() is not None, seconds=_START_SECONDS, what="the start of dockerd")
    client = connect()
    assert client
    return client


def _start_daemon(state: State) -> None:
    _clear_stale()
    state.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state.folder / _LOG).open("ab") as log:
        daemon = subprocess.Popen(
            ("dockerd",), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    state.engine_marker.write_text(str(daemon.pid))


def _cut_log(log: Path) -> None:
    """Keep the end of a log that has grown large. dockerd appends: it goes on after the cut."""
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        with log.open("r+b") as file:
            file.seek(-_LOG_KEPT, os.SEEK_END)
            kept = file.read()
            file.seek(0)
            file.truncate()
            file.write(kept)


def _clear_stale() -> None:
    """A killed dockerd leaves files behind that keep the next one from starting, and cables.

    The networks of its containers stay on the bridge for a minute, and answer for addresses that the
    next one gives to others.
    """
    for port in Path("/sys/class/net/docker_gwbridge/brif").glob("*"):
        with suppress(FileNotFoundError):
            subprocess.run(("ip", "link", "delete", port.name), capture_output=True, timeout=10)
    run_folder = Path("/var/run/docker/containerd")
    for pid_file in (Path("/var/run/docker.pid"), run_folder / "containerd.pid"):
        with suppress(FileNotFoundError, ValueError):
            if _command_line(int(pid_file.read_text())):
                continue
            pid_file.unlink()
            if pid_file.parent == run_folder:
                for left in run_folder.glob("*.sock*"):
                    left.unlink()


def _is_dockerd(pid: int) -> bool:
    return b"dockerd" in _command_line(pid)


def _command_line(pid: int) -> bytes:
    """Empty for a process that is gone, or dead and not yet reaped."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
