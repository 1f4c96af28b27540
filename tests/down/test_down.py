"""Nothing of ours is left after `make down`. Run by .ci/run; it expects that no cloud is up."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import docker
import pytest

from local import engine
from local.state import Ports, State

LABELS = ("openfaas-cloud.local", "com.openfaas.function", "com.openfaas.cloud.built")


@pytest.fixture(scope="module")
def client() -> docker.DockerClient | None:
    return engine.connect()


def test_no_state_is_left() -> None:
    assert not State.here().folder.exists()


def test_no_process_of_ours_runs() -> None:
    running = subprocess.run(("ps", "-eo", "stat,args"), capture_output=True, text=True, check=True).stdout
    alive = [line for line in running.splitlines() if not line.startswith("Z")]
    for name in ("local.gateway", "of_builder", "lighttpd", "docker-registry"):
        assert not [line for line in alive if name in line], name


@pytest.mark.parametrize("port", sorted(vars(Ports()).values()))
def test_no_port_of_ours_is_taken(port: int) -> None:
    with socket.socket() as connection:
        assert connection.connect_ex(("127.0.0.1", port)) != 0


def test_the_engine_that_was_started_is_stopped_or_holds_nothing_of_ours(
    client: docker.DockerClient | None,
) -> None:
    if client is None:
        assert not Path("/var/run/docker.pid").exists()
        return
    for label in LABELS:
        assert not client.api.containers(all=True, filters={"label": label})
        assert not client.api.images(filters={"label": label})
        assert not client.volumes.list(filters={"label": label})
        assert not client.networks.list(filters={"label": label})
    if client.info()["Swarm"]["LocalNodeState"] == "active":
        assert not client.services.list(filters={"label": "com.openfaas.function"})
        assert not client.secrets.list(filters={"label": "com.openfaas.secret"})


def test_no_rule_of_ours_is_left_in_the_packet_filter() -> None:
    listed = subprocess.run(("iptables", "-S", "DOCKER-USER"), capture_output=True, text=True).stdout
    assert "127.0.0.0/8" not in listed


def test_no_volume_is_left_on_disk() -> None:
    volumes = Path("/var/lib/docker/volumes")
    if volumes.is_dir():
        assert not [path for path in volumes.iterdir() if path.name.startswith("openfaas-cloud")]
