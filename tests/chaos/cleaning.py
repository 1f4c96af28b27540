"""Takes away what runs have made: functions, and repositories on the git server."""

from __future__ import annotations

import docker

from local.gitserver.repository import ROOT
from local.state import State

from .authors import SERVER, execute

# What every owner of a run begins with.
PREFIX = "chaos-"


def clean(state: State, engine: docker.DockerClient) -> None:
    """The repositories first: nothing is deployed of what is not there."""
    server = engine.containers.get(SERVER)
    execute(server, "sh", "-c", f"rm -rf {ROOT}/{PREFIX}*")
    for function in state.gateway.list():
        if function.name.startswith(PREFIX):
            state.gateway.delete(function.name)
