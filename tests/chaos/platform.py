"""The platform for a run: its functions behind the proxy, and afterwards as they were."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
from docker.models.containers import Container

from local import containers
from local.engine import FUNCTIONS_NETWORK, LABEL, SYSTEM_NETWORK
from local.images import ROOT
from local.state import State
from tests.e2e.cloud import until

from . import proxy
from .authors import put
from .plants import PLANTS, planted

PROXY = "openfaas-cloud-chaos-proxy"
_ALIAS = "chaos-proxy"
_READY_SECONDS = 90
COUNTED = frozenset({"availableReplicas", "invocationCount", "replicas", "usage"})

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Api:
    """The gateway's REST API, with all that it says of a function."""

    state: State

    def status(self, name: str) -> Raw | None:
        answer = self._request("GET", f"/system/function/{name}")
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        found: Raw = answer.json()
        return found

    def deploy(self, deployment: Raw) -> None:
        answer = self._request("PUT", "/system/functions", deployment)
        if answer.status_code == 404:
            answer = self._request("POST", "/system/functions", deployment)
        answer.raise_for_status()

    def delete(self, name: str) -> None:
        self._request("DELETE", "/system/functions", {"functionName": name})

    def deploy_ready(self, deployment: Raw) -> None:
        self.deploy(deployment)
        name, replicas = deployment["service"], int(deployment["labels"].get("com.openfaas.scale.min", "1"))

        def ready() -> bool:
            status = self.status(name)
            return bool(status and status.get("availableReplicas", 0) >= replicas)

        until(ready, _READY_SECONDS, f"{name} ready")

    def _request(self, method: str, path: str, body: Raw | None = None) -> requests.Response:
        auth = self.state.gateway.auth
        return requests.request(method, self.state.gateway_url + path, json=body, auth=auth, timeout=30)


def deployment(status: Raw) -> dict[str, Any]:
    """The deploy request that leads to this status."""
    left_out = {*COUNTED, "name", "namespace", "createdAt", "failure"}
    return {"service": status["name"], **{key: row for key, row in status.items() if key not in left_out}}


def names(state: State) -> list[str]:
    """The platform's own functions."""
    return [found.name for found in state.gateway.list() if (found.labels or {}).get("openfaas-cloud")]


@dataclass(frozen=True)
class Control:
    """The proxy's control port."""

    url: str

    def set(self, kind: str, target: str, seconds: float, count: int) -> None:
        fault = {"kind": kind, "target": target, "seconds": seconds, "count": count}
        requests.post(self.url, json=fault, timeout=10).raise_for_status()

    def clear(self) -> None:
        requests.delete(self.url, timeout=60).raise_for_status()

    def done(self) -> list[str]:
        found: list[str] = requests.get(self.url, timeout=10).json()
        return found


@contextmanager
def prepared(state: State, engine: docker.DockerClient, replicas: int, plant: str) -> Iterator[Control]:
    """The platform's functions call each other by the proxy; afterwards they are as they were."""
    api = Api(state)
    before = [status for name in names(state) if (status := api.status(name))]
    control = _start_proxy(engine)
    try:
        if plant:
            publish_planted(plant)
        published = [status for name in names(state) if (status := api.status(name))]
        _all_ready(api, [_behind_proxy(status, replicas) for status in published])
        yield control
    finally:
        _all_ready(api, [deployment(status) for status in before])
        remove_proxy(engine)


def _all_ready(api: Api, deployments: Sequence[Raw]) -> None:
    with ThreadPoolExecutor(len(deployments)) as pool:
        list(pool.map(api.deploy_ready, deployments))


def _behind_proxy(status: Raw, replicas: int) -> dict[str, Any]:
    changed = deployment(status)
    changed["envVars"] = {
        **(changed.get("envVars") or {}),
        "gateway_url": f"http://{_ALIAS}:{proxy.GATEWAY_PORT}/",
        "builder_url": f"http://{_ALIAS}:{proxy.BUILDER_PORT}/",
    }
    if status["name"] == "reconcile":
        changed["annotations"] = {}  # no clock asks for passes: what is right before one is judged too
    if status["name"] in ("git-tar", "buildshiprun"):
        changed["labels"] = {**changed["labels"], "com.openfaas.scale.min": str(replicas)}
    return changed


def publish_planted(plant: str) -> None:
    """Build and deploy the platform's functions from a copy of the checkout that has the bug in it."""
    with tempfile.TemporaryDirectory(prefix="chaos-planted-") as folder:
        copy = Path(folder) / "checkout"
        ignored = shutil.ignore_patterns(".git", ".venv", ".cloud", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, copy, ignore=ignored)
        for path, text in planted(PLANTS[plant], copy).items():
            (copy / path).write_text(text)
        program = (
            "from local import base_image, engine; from local.publish import Publisher; "
            "from local.state import State; state = State.here(); "
            "Publisher(state, base_image.ensure(engine.ensure(state))).functions()"
        )
        subprocess.run([sys.executable, "-c", program], cwd=copy, check=True, timeout=600)


def _start_proxy(engine: docker.DockerClient) -> Control:
    remove_proxy(engine)
    gateway = engine.containers.get("openfaas-cloud-gateway")
    image = gateway.attrs["Config"]["Image"]
    created: Container = engine.containers.create(
        image,
        ["python", "/app/proxy.py"],
        name=PROXY,
        init=True,
        labels={LABEL: "1"},
        environment={"GATEWAY_URL": "http://gateway:8080", "BUILDER_URL": "http://of-builder:8080"},
        ports={f"{proxy.CONTROL_PORT}/tcp": ("127.0.0.1", 0)},
        network=SYSTEM_NETWORK,
        networking_config={SYSTEM_NETWORK: engine.api.create_endpoint_config(aliases=[_ALIAS])},
    )
    put(created, "/app", {"proxy.py": Path(proxy.__file__).read_bytes()})
    created.start()
    engine.networks.get(FUNCTIONS_NETWORK).connect(created, aliases=[_ALIAS])
    created.reload()
    port = created.attrs["NetworkSettings"]["Ports"][f"{proxy.CONTROL_PORT}/tcp"][0]["HostPort"]
    control = Control(f"http://127.0.0.1:{port}/")

    def answers() -> bool:
        try:
            return control.done() == []
        except requests.RequestException:
            return False

    until(answers, 30, "an answer of the proxy")
    return control


def remove_proxy(engine: docker.DockerClient) -> None:
    if found := containers.find(engine, PROXY):
        found.remove(force=True)
