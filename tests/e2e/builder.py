"""What e2e tests do with of-builder alone: start one beside the cloud, with either BuildKit, and ask it."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import requests
from nacl.public import Box, PrivateKey, PublicKey

from local.state import State
from of_builder.sealed import ENTRY
from sdk import signature
from sdk.context import CONFIG_ENTRY, CONTEXT_FOLDER
from sdk.registry import Registry
from sdk.secrets import Keys
from tests.conftest import ROOT

from .cloud import until

CLOUD = Keys("builder-secret", (b"the cloud's secret",))
CLIENT = Keys("builder-clients", (b"the clients' secret",))
# All that these tests push is below this path of the cloud's registry, and deleted in the end.
PATH = f"e2e-{uuid.uuid4().hex[:8]}"
BRIDGE = "buildkit0"
BUILDKITD_CONFIG = """
[worker.oci]
  enabled = true
  binary = "runc"
  snapshotter = "overlayfs"
  networkMode = "bridge"
[worker.containerd]
  enabled = false
[cdi]
  disabled = true
"""
# No build step has business with a private address. The first rule of the first chain decides.
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")


@dataclass(frozen=True)
class Driver:
    """One of the two BuildKits, as settings; `base` is an image with python3 that it may build from."""

    name: str
    settings: Mapping[str, str]
    base: str
    other_registry: str
    buildkitd: str = ""

    @property
    def is_engine(self) -> bool:
        return not self.buildkitd

    def buildctl(self, *arguments: str) -> str:
        command = (f"{self.buildkitd.rpartition('/')[0]}/buildctl", f"--addr={self.settings['buildkit_url']}")
        done = subprocess.run((*command, *arguments), check=True, capture_output=True, text=True, timeout=60)
        return done.stdout


@dataclass(frozen=True)
class Answer:
    """What of-builder said to a request."""

    status: int
    lines: Sequence[dict[str, Any]]
    headers: Mapping[str, str]

    @property
    def last(self) -> dict[str, Any]:
        return self.lines[-1]

    @property
    def log(self) -> str:
        return "\n".join(line for row in self.lines for line in row.get("log", ()))

    @property
    def error(self) -> str:
        """What the author is told, wherever it stands."""
        said = self.last.get("error", "")
        return str(said["message"] if isinstance(said, dict) else said)

    @property
    def digest(self) -> str:
        assert self.last.get("status") == "success", f"{self.last}\n{self.log}"
        return str(self.last["digest"])

    def logged(self, mark: str) -> str:
        """What a step printed behind `mark`; not the mark in the step's own command, which is in quotes."""
        assert self.last.get("status") == "success", f"{self.last}\n{self.log}"
        [found] = [line.partition(mark)[2] for line in self.log.splitlines() if f" {mark}" in line]
        return found.strip()


@dataclass
class OfBuilder:
    """An of-builder that runs beside the cloud."""

    url: str
    driver: Driver
    work: Path
    output: Path
    process: subprocess.Popen[bytes]
    registry: str
    api: Registry = field(repr=False)

    def image(self, path: str = "", tag: str = "1") -> str:
        """The name of an image; without a path, of an owner of its own."""
        return f"{self.registry}/{PATH}/{path or unique()}:{tag}"

    def build(
        self, dockerfile: str | bytes, image: str = "", *, stream: bool = True, **request: Any
    ) -> Answer:
        return self.post(tar(dockerfile, image or self.image(), **request), stream=stream)

    def post(self, body: bytes, *, keys: Keys = CLOUD, stream: bool = True) -> Answer:
        with closing(self.open(body, keys=keys, stream=stream)) as answer:
            lines = [json.loads(line) for line in answer.iter_lines() if line]
            return Answer(answer.status_code, lines, answer.headers)

    def open(self, body: bytes, *, keys: Keys = CLOUD, stream: bool = True) -> requests.Response:
        headers = {signature.BUILDER_HEADER: signature.sign(body, keys)}
        headers |= {"Accept": "application/x-ndjson"} if stream else {}
        return requests.post(f"{self.url}/build", data=body, headers=headers, timeout=120, stream=True)

    def get(self, path: str, *, keys: Keys = CLOUD, **query: str) -> requests.Response:
        target = f"/{path}?" + "&".join(
            f"{key}={value}" for key, value in {**query, "at": str(int(time.time()))}.items()
        )
        headers = {signature.BUILDER_HEADER: signature.sign(target.encode(), keys)}
        return requests.get(self.url + target, headers=headers, timeout=30)

    def metric(self, name: str) -> float:
        """A metric's value, over all labels."""
        lines = requests.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def seal(self, **secrets: str) -> bytes:
        key = requests.get(f"{self.url}/publickey", timeout=10).json()["public_key"]
        return sealed(key, secrets)

    def repository(self, image: str) -> str:
        """The path of the image's repository in the registry."""
        return image.removeprefix(f"{self.registry}/").rpartition(":")[0]

    def buildx(self) -> list[int]:
        """The buildx programs that this of-builder, alive or not, has running."""
        return [
            int(folder.name)
            for folder in Path("/proc").glob("[0-9]*")
            if str(self.work).encode() in content(folder / "environ") + content(folder / "cmdline")
            and b"buildx" in content(folder / "cmdline")
        ]


def unique() -> str:
    return f"o{uuid.uuid4().hex[:8]}/1/f"


def content(file: Path) -> bytes:
    """The file's bytes; none if it is gone."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def tar(
    dockerfile: str | bytes,
    image: str,
    files: Mapping[str, str | bytes] | None = None,
    secrets: bytes = b"",
    rows: Sequence[tuple[tarfile.TarInfo, str | bytes]] = (),
    config: Mapping[str, object] | None = None,
    **known: object,
) -> bytes:
    """A request: the context with its Dockerfile, its config, and any other entries."""
    entries: dict[str, str | bytes] = {f"{CONTEXT_FOLDER}/Dockerfile": dockerfile}
    entries |= {f"{CONTEXT_FOLDER}/{name}": text for name, text in (files or {}).items()}
    entries |= {CONFIG_ENTRY: json.dumps({"image": image, **(config or {}), **known})}
    entries |= {ENTRY: secrets} if secrets else {}
    return tar_of(*((tarfile.TarInfo(name), text) for name, text in entries.items()), *rows)


def sealed(public_key: str, secrets: Mapping[str, str]) -> bytes:
    """The entry with build secrets, in the shape in which faas-cli seals them."""
    ours = PrivateKey.generate()
    box = Box(ours, PublicKey(base64.b64decode(public_key)))
    rows = [
        f"    {name}: {base64.b64encode(box.encrypt(text.encode())).decode()}"
        for name, text in secrets.items()
    ]
    head = f"version: v1\nalgorithm: nacl/box\nkey_id: {public_key[:8]}\n"
    own = base64.b64encode(bytes(ours.public_key)).decode()
    return "\n".join((f"{head}public_key: {own}\nsecrets:", *rows, "")).encode()


def tar_of(*rows: tuple[tarfile.TarInfo, str | bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, text in rows:
            data = text.encode() if isinstance(text, str) else text
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def of_builder(driver: Driver, folder: Path, **settings: object) -> Iterator[OfBuilder]:
    """Start an of-builder with these settings (and secrets, by `secret_NAME`), and stop it in the end."""
    state, port, work, output = State.here(), free_port(), folder / "work", folder / "output"
    secret_folder = folder / "secrets"
    for needed in (work, secret_folder):
        needed.mkdir(parents=True, exist_ok=True)
    secrets = {keys.name: keys.signing.decode() for keys in (CLOUD, CLIENT)}
    secrets |= {
        name.removeprefix("secret_").replace("_", "-"): str(settings.pop(name))
        for name in list(settings)
        if name.startswith("secret_")
    }
    for name, value in secrets.items():
        (secret_folder / name).write_text(value)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'of-builder'}",
        "listen": f"127.0.0.1:{port}",
        "secret_mount_path": str(secret_folder),
        "registry_api_url": f"http://{state.registry}",
        "client_prefix": f"{state.registry}/{PATH}/clients/",
        "work_folder": str(work),
        **driver.settings,
        **{name: str(value) for name, value in settings.items()},
    }
    command = (sys.executable, "-m", "of_builder")
    with output.open("ab") as said:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=said, stderr=said)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, output.read_text()
        try:
            return requests.get(f"{url}/healthz", timeout=5).ok
        except requests.ConnectionError:
            return False

    try:
        until(answers, 20, "of-builder's start")
        api = Registry(f"http://{state.registry}")
        yield OfBuilder(url, driver, work, output, process, state.registry, api)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def registry(engine: docker.DockerClient, users: str = "") -> Iterator[str]:
    """Another registry than the cloud's, as 127.0.0.1:PORT; `users` is an htpasswd file's content."""
    image = str(engine.containers.get("openfaas-cloud-registry").attrs["Image"])
    auth = {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "e2e"}
    auth |= {"REGISTRY_AUTH_HTPASSWD_PATH": "/users"}
    host = f"127.0.0.1:{free_port()}"
    ports: dict[str, int | list[int] | tuple[str, int] | None] = {"5000/tcp": ("127.0.0.1", int(host[10:]))}
    kept = docker.types.LogConfig(type="json-file", config={"max-size": "1m"})
    environment = auth if users else {}
    container = engine.containers.create(image, ports=ports, environment=environment, log_config=kept)
    try:
        container.put_archive("/", tar_of((tarfile.TarInfo("users"), users)))
        container.start()
        until(lambda: _answers(host), 20, "the registry's start")
        yield host
    finally:
        container.remove(force=True, v=True)


def _answers(host: str) -> bool:
    try:
        return requests.get(f"http://{host}/v2/", timeout=5).status_code in (200, 401)
    except requests.ConnectionError:
        return False


def push(engine: docker.DockerClient, image: str, target: str) -> str:
    """Give the engine's image the name `target`, and push it."""
    engine.images.get(image).tag(target)
    said = engine.images.push(target)
    assert '"error"' not in said, said
    return target


def find_buildkitd() -> str:
    """A buildkitd with its CNI helpers beside it: of $BUILDKITD, or on the PATH; empty if there is none."""
    return shutil.which(os.environ.get("BUILDKITD") or "buildkitd") or ""


@contextmanager
def buildkitd(program: str, folder: Path, *http_registries: str, network: str = "bridge") -> Iterator[str]:
    """Start a standalone buildkitd; its address. What it leaves on this machine is removed again."""
    config = folder / "buildkitd.toml"
    hosts = "".join(f'[registry."{host}"]\n  http = true\n' for host in http_registries)
    config.write_text(BUILDKITD_CONFIG.replace('"bridge"', f'"{network}"') + hosts)
    url = f"unix://{folder}/buildkitd.sock"
    command = (program, f"--config={config}", f"--addr={url}", f"--root={folder}/root")
    helpers = f"{Path(program).parent}:{os.environ['PATH']}"
    with machine_as_it_was(), (folder / "buildkitd.log").open("ab") as said:
        if network == "bridge":
            keep_from_private_addresses()
        process = subprocess.Popen(
            (*command, f"--otel-socket-path={folder}/otel.sock"),
            env={"PATH": helpers},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            until(lambda: _is_listening(process, folder), 20, "buildkitd's start")
            yield url
        finally:
            end(process)
            shutil.rmtree(folder / "root", ignore_errors=True)


def _is_listening(process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "buildkitd.log").read_text()
    with closing(socket.socket(socket.AF_UNIX)) as probe, suppress(OSError):
        probe.connect(f"{folder}/buildkitd.sock")
        return True
    return False


def keep_from_private_addresses() -> None:
    """What docs/builder.md recommends: without it, a RUN step reaches every container by its address.

    The CNI plugins let through what comes from their bridge before Docker's own rules are asked; the chain
    CNI-ADMIN is where they let an administrator come first.
    """
    iptables("-N", "CNI-ADMIN")
    for network in PRIVATE:
        iptables("-A", "CNI-ADMIN", "-i", BRIDGE, "-d", network, "-j", "REJECT")
    # What listens on an address of this machine is asked by INPUT, not by FORWARD.
    iptables("-I", "INPUT", "-i", BRIDGE, "-j", "REJECT")


def iptables(*arguments: str) -> list[str]:
    done = subprocess.run(("iptables", "-w", *arguments), capture_output=True, text=True, timeout=20)
    return done.stdout.splitlines()


@contextmanager
def machine_as_it_was() -> Iterator[None]:
    """Take away the firewall's rules and chains, the bridge and the leases that a buildkitd left."""
    tables, leases = ("filter", "nat"), Path("/var/lib/cni")
    before = {table: iptables("-t", table, "-S") for table in tables}
    bridges, had_leases = Path("/sys/class/net", BRIDGE), leases.exists()
    had_bridge = bridges.exists()
    try:
        yield
    finally:
        for table in tables:
            _remove_rules(table, before[table])
        if bridges.exists() and not had_bridge:
            subprocess.run(("ip", "link", "delete", BRIDGE), timeout=20)
        if not had_leases:
            shutil.rmtree(leases, ignore_errors=True)


def _remove_rules(table: str, before: Sequence[str]) -> None:
    """Only what CNI or this bridge made: others' containers come and go meanwhile."""
    new = [line for line in iptables("-t", table, "-S") if line not in before]
    ours = [line for line in new if "CNI-" in line or BRIDGE in line]
    for line in ours:
        if line.startswith("-A "):
            iptables("-t", table, "-D", *shlex.split(line)[1:])
    for line in ours:
        if line.startswith("-N "):
            iptables("-t", table, "-F", line.split()[1])
            iptables("-t", table, "-X", line.split()[1])


def remove_pushed(engine: docker.DockerClient, state: State) -> None:
    """What these tests pushed to the cloud's registry, and what the engine kept of it."""
    api = Registry(f"http://{state.registry}")
    for path in [path for path in api.repositories() if path.startswith(f"{PATH}/")]:
        for tag in list(api.tags(path)):
            if digest := api.digest(path, tag):
                api.delete(path, digest)
    remove_images(engine, f"{state.registry}/{PATH}/")


def remove_images(engine: docker.DockerClient, prefix: str) -> None:
    for row in engine.api.images():
        names = row["RepoTags"] or ()
        ours = [name for name in names if name.startswith(prefix)]
        for name in ours[:1] if len(ours) == len(names) else ours:
            with suppress(docker.errors.APIError):  # removed meanwhile
                engine.images.remove(row["Id"] if len(ours) == len(names) else name, force=True)


def image_names(engine: docker.DockerClient) -> list[str]:
    return [name for row in engine.api.images() for name in row["RepoTags"] or ()]


def python_image(engine: docker.DockerClient) -> str:
    """The base image that the cloud has made for its functions."""
    return next(name for name in image_names(engine) if name.startswith("openfaas-cloud/python:"))


def addresses(engine: docker.DockerClient, *bridges: str) -> list[str]:
    """The addresses that containers have on this machine's bridges."""
    networks = [engine.networks.get(name).attrs for name in bridges]
    rows = [row for network in networks for row in (network["Containers"] or {}).values()]
    return [row["IPv4Address"].partition("/")[0] for row in rows]
