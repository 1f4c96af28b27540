"""Does the faults: kills main processes, fills disks, and tells the proxy what to do to calls."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import docker
import requests

from local.gateway.swarm import FUNCTION
from local.state import State
from tests.e2e.cloud import until

from . import full
from .plan import Fault
from .platform import Api, Control

_CONTAINERS = frozenset({"registry", "of-builder", "gateway"})
_BACK_SECONDS = 60


@dataclass
class Nemesis:
    """`away`: when the gateway itself was down, as pairs of times; `done` counts what was done."""

    state: State
    engine: docker.DockerClient
    control: Control
    away: list[list[float]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    _full: set[int] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def do(self, fault: Fault) -> None:
        if fault.kind == "kill":
            self._kill(fault.target, fault.count)
        elif fault.kind == "disk":
            self._fill(fault.target, fault.seconds)
        else:
            self.control.set(fault.kind, fault.target, fault.seconds, fault.count)

    def calm(self) -> None:
        """No more faults, and all pieces are back."""
        self.control.clear()
        for pid in list(self._full):
            self._free(pid)
        for alias, url in {
            "registry": f"http://{self.state.registry}/v2/",
            "of-builder": f"{self.state.builder_url}/healthz",
            "gateway": f"{self.state.gateway_url}/healthz",
        }.items():
            until(partial(_answers, url), _BACK_SECONDS, f"an answer of {alias}")
        for name in self._functions():
            until(partial(self._serves, name), _BACK_SECONDS, f"{name} ready")

    def met(self) -> Counter[str]:
        """The faults that something has met, by kind and target."""
        return self.done + Counter(self.control.done())

    def excused(self, begun: float, ended: float) -> bool:
        """Whether the gateway was away in some part of this time."""
        return any(begun <= back and ended >= gone for gone, back in self.away)

    def _kill(self, target: str, count: int) -> None:
        """SIGKILL from outside, of so many replicas: to the engine, the program has died by itself."""
        pids = list(self._pids(target))[:count]
        if target == "gateway":
            threading.Thread(target=self._watch_gateway, args=([time.time(), float("inf")],)).start()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.done[f"kill {target}"] += bool(pids)

    def _watch_gateway(self, window: list[float]) -> None:
        self.away.append(window)
        time.sleep(0.3)  # so that the one that is just dying isn't asked
        while not _answers(f"{self.state.gateway_url}/healthz"):
            time.sleep(0.05)
        window[1] = time.time()

    def _fill(self, target: str, seconds: float) -> None:
        """Lay a full disk over the work folder."""
        full_ones = [pid for pid in self._pids(target) if pid not in self._full and _laid(pid, "mount")]
        self._full.update(full_ones)
        self.done[f"disk {target}"] += bool(full_ones)
        time.sleep(seconds)
        for pid in full_ones:
            self._free(pid)

    def _free(self, pid: int) -> None:
        with self._lock:
            if pid in self._full:
                self._full.discard(pid)
                _laid(pid, "umount")

    def _pids(self, target: str) -> Iterator[int]:
        """The main processes of a piece, as the host sees them."""
        if target in _CONTAINERS:
            found = [f"openfaas-cloud-{target}"]
        else:
            filters = {"label": f"{FUNCTION}={target}", "status": "running"}
            found = [row["Id"] for row in self.engine.api.containers(filters=filters)]
        for name in found:
            with suppress(docker.errors.NotFound):
                pid = int(self.engine.api.inspect_container(name)["State"]["Pid"])
                if pid:
                    yield pid

    def _functions(self) -> list[str]:
        return [row.name for row in self.state.gateway.list() if (row.labels or {}).get("openfaas-cloud")]

    def _serves(self, name: str) -> bool:
        try:
            status = Api(self.state).status(name)
        except requests.RequestException:
            return False
        url = f"{self.state.gateway_url}/function/{name}"
        return bool(status and status.get("availableReplicas", 0) >= status["replicas"] and _answers(url))


def _laid(pid: int, verb: str) -> bool:
    """Whether the full disk came, or went; not so if the process has gone meanwhile."""
    command = (sys.executable, full.__file__, str(pid), verb)
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
