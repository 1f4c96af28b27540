"""Takes away what runs have made: functions, repositories on the git server, and calls in the queue."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress

import docker

from local.calls import FAILED, Queue
from local.gitserver.repository import ROOT
from local.state import State
from sdk.errors import CloudError

from .authors import SERVER, execute

# What every owner of a run begins with.
PREFIX = "chaos-"
_QUEUE_SECONDS = 120


def failed(state: State) -> frozenset[int]:
    """The calls that the gateway keeps because they failed."""
    return frozenset(call.id for call in Queue.at(state.gateway).calls() if call.state == FAILED)


def clean(state: State, engine: docker.DockerClient, kept: Collection[int]) -> None:
    """The repositories first: nothing is deployed of what is not there. Of failed calls only `kept` stay."""
    server = engine.containers.get(SERVER)
    execute(server, "sh", "-c", f"rm -rf {ROOT}/{PREFIX}*")
    _end_calls(Queue.at(state.gateway))
    for function in state.gateway.list():
        if function.name.startswith(PREFIX):
            state.gateway.delete(function.name)
    for number in failed(state).difference(kept):
        Queue.at(state.gateway).drop(number)


def _end_calls(queue: Queue) -> None:
    """What an earlier run has left would be taken for this one's: the repositories have the same names."""
    deadline = time.monotonic() + _QUEUE_SECONDS
    while waiting := [call for call in queue.calls() if call.state != FAILED]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the queue is not empty after {_QUEUE_SECONDS} s: {waiting}")
        for call in waiting:
            with suppress(CloudError):  # it is being made, or has just ended
                queue.retry(call.id)
        time.sleep(1)
