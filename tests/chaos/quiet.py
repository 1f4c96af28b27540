"""Whether it is quiet: nothing in the queue, and passes of reconcile that change nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import docker
import requests

from local import cli
from local.calls import FAILED, Queue
from local.gateway import swarm
from local.gateway.swarm import FUNCTION, LIVE, STATE
from local.state import State
from tests.e2e.cloud import Cloud

from .authors import Author

CAP = 120


def waiting(state: State) -> list[str]:
    """The calls in the gateway's queue that have not ended."""
    calls = Queue.at(state.gateway).calls()
    return [f"{row.function} {row.state}, {row.attempts} attempts" for row in calls if row.state != FAILED]


def until_empty(state: State, deadline: float) -> bool:
    """Whether the queue was found empty before the deadline (by time.monotonic)."""
    while time.monotonic() < deadline:
        if not waiting(state):
            return True
        time.sleep(0.2)
    return False


def until_quiet(state: State, engine: docker.DockerClient, authors: Sequence[Author], deadline: float) -> int:
    """Passes of reconcile until two of them change nothing; how many it took, 0 when the time was up."""
    idle, passes = 0, 0
    while time.monotonic() < deadline:
        before = serving(engine)
        if not reconcile(state, authors):
            time.sleep(1)
            continue
        passes += 1
        if not until_empty(state, deadline):
            return 0
        idle = idle + 1 if serving(engine) == before else 0
        if idle == 2:
            return passes
    return 0


def reconcile(state: State, authors: Sequence[Author]) -> bool:
    """One pass, as the operator asks for it; whether there was one."""
    if "reconcile" not in cli.main.commands:  # until there is one: each head's event again
        with ThreadPoolExecutor(len(authors)) as pool:
            return all(pool.map(lambda author: author.deliver(author.moves[-1]), authors))
    done = Cloud(state).cli("reconcile")
    if done.returncode:
        print(f"     reconcile: {done.stdout}{done.stderr}".rstrip(), flush=True)
    return done.returncode == 0


def serving(engine: docker.DockerClient) -> Mapping[str, str]:
    """The live services, each with its function: what is broken is tried and put back each time."""
    labels = {row["ID"]: row["Spec"]["Labels"] for row in engine.api.services(filters={"label": FUNCTION})}
    return {key: label[FUNCTION] for key, label in labels.items() if label[STATE] == LIVE}


def generations(engine: docker.DockerClient, *names: str) -> Mapping[str, Mapping[str, int]]:
    """Of each function its services and their versions in Swarm: each write changes one."""
    found: dict[str, dict[str, int]] = {}
    for row in engine.api.services(filters={"label": FUNCTION}):
        name = row["Spec"]["Labels"][FUNCTION]
        if not names or name in names:
            found.setdefault(name, {})[row["ID"]] = row["Version"]["Index"]
    return found


def until_settled(engine: docker.DockerClient, deadline: float, name: str = "") -> bool:
    """Whether each service was live, or given up, before the deadline: no candidate, nothing that drains."""
    while unsettled(engine, name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def unsettled(engine: docker.DockerClient, name: str = "") -> list[str]:
    """The services that are none of these, of all functions or of one.

    Of two live ones of a function the older is about to be retired: the gateway marks the newer first.
    """
    labels = [row["Spec"]["Labels"] for row in engine.api.services(filters={"label": FUNCTION})]
    mine = [label for label in labels if name in ("", label[FUNCTION])]
    live = Counter(label[FUNCTION] for label in mine if label[STATE] == LIVE)
    return [
        *(f"{label[FUNCTION]} {label[STATE]}" for label in mine if label[STATE] not in (LIVE, swarm.FAILED)),
        *(f"{function} live {times} times" for function, times in live.items() if times > 1),
    ]


def answer(state: State, name: str) -> str | None:
    """What a function answers now; None if it does not."""
    try:
        found = requests.get(f"{state.gateway_url}/function/{name}", timeout=10)
    except requests.RequestException:
        return None
    return found.text if found.status_code == 200 else None
