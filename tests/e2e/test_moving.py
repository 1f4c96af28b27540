"""A backup of the running cloud, restored on another machine, which then gets a second one beside it.

The machines are made here (machines.py): root alone can, and no other reason skips this.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

import docker
import pytest

from local import archive, images
from local.calls import Queue
from local.state import Ports

from . import machines
from .cloud import Cloud, Repository, handler, stack, until
from .machines import Machine

SECRET = 'a "value"\nof two lines'
OWNER = "mover"
ABSENT = "mover-is-not-there"
PORTS = vars(Ports())
REGISTRY, GATEWAY = PORTS["registry_port"], PORTS["gateway_port"]

pytestmark = [
    pytest.mark.skipif(bool(machines.unable()), reason=machines.unable()),
    pytest.mark.timeout(600),
]


@dataclass
class Moved:
    """What was on the old machine, and where it is now."""

    file: Path
    repository: Repository
    first: Machine
    second: Machine
    stranger: Machine

    def call(self, function: str) -> tuple[int, str]:
        """A call of `first`'s gateway at the address that the old machine's has."""
        return ask(self.first, f"http://127.0.0.1:{GATEWAY}/function/{function}")


def ask(machine: Machine, url: str) -> tuple[int, str]:
    program = (
        "import json, sys, requests\n"
        "try:\n"
        "    answer = requests.get(sys.argv[1], timeout=30)\n"
        "    print(json.dumps([answer.status_code, answer.text]))\n"
        "except requests.RequestException as error:\n"
        "    print(json.dumps([0, repr(error)]))"
    )
    status, text = json.loads(machine.run(sys.executable, "-c", program, url))
    return int(status), str(text)


CALL_AT_ONCE = """
from concurrent.futures import ThreadPoolExecutor
import requests

def call(_):
    answer = requests.get(f"{state.gateway_url}/function/spread/host", timeout=30)
    return answer.text if answer.status_code == 200 else ""

with ThreadPoolExecutor(8) as pool:
    print(json.dumps(sorted(set(pool.map(call, range(24))) - {""})))
"""


def script(machine: Machine, program: str) -> str:
    """What a program prints there that has the gateway and the queue of that machine's cloud."""
    header = (
        "import json\nfrom local.calls import Queue\nfrom local.state import State\n"
        "state = State.here()\ngateway, queue = state.gateway, Queue.at(state.gateway)\n"
    )
    return machine.run(sys.executable, "-c", header + program)


@pytest.fixture(scope="module")
def before(
    cloud: Cloud, engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Repository]]:
    """The running cloud, with all that it can have, and its backup in the middle of a push."""
    folder = tmp_path_factory.mktemp("moving")
    cloud.cli("secret", "set", OWNER, "word", stdin=SECRET)
    repo = Repository(cloud, folder / "repository", OWNER, "repo")
    tells = (
        "import glob\n\ndef handle(event, context):\n"
        "    [file] = glob.glob('/var/openfaas/secrets/*-word')\n    return open(file).read()\n"
    )
    repo.commit(
        {
            "stack.yml": stack("tells", secrets="[word]"),
            "tells/handler.py": tells,
            "tells/requirements.txt": "",
        }
    )
    late = Repository(cloud, folder / "late", OWNER, "late")
    late.commit(
        {
            "stack.yml": stack("late"),
            "late/handler.py": handler("at last") + f"# {uuid.uuid4()}: no run before has built it\n",
            "late/requirements.txt": "",
        }
    )
    cloud.gateway.queue(ABSENT, b"body", {"X-GitHub-Delivery": "kept"}, 5)
    assert repo.push()[0] == 0
    builder = engine.containers.get("openfaas-cloud-of-builder")
    builder.pause()  # what is being built is not built before the backup ends
    try:
        pushing = late.start_push()
        assert pushing.stderr
        for line in pushing.stderr:
            if "fetched in" in line:
                break
        done = cloud.cli("backup", str(folder / "backup"))
    finally:
        builder.unpause()
    assert done.returncode == 0, done.stdout + done.stderr
    pushing.communicate(timeout=300)
    assert pushing.returncode == 0, "a push was kept from its end by the backup"
    try:
        yield folder / "backup", repo
    finally:
        for name in [name for name in cloud.names() if name.startswith(f"{OWNER}-")]:
            cloud.gateway.delete(name)
        for repository in (repo, late):
            repository.delete_branch()
        for call in Queue.at(cloud.gateway).calls():
            if call.function == ABSENT:
                Queue.at(cloud.gateway).drop(call.id)


@pytest.fixture(scope="module")
def moved(before: tuple[Path, Repository], engine: docker.DockerClient) -> Iterator[Moved]:
    """The backup on another machine, where `up` has been run; a second machine and a stranger see it."""
    file, repository = before
    with machines.machines("first", "second", "stranger") as (first, second, stranger):
        load_images(engine, first)
        first.local("restore", str(file))
        first.local("up", "--advertise", first.address)
        yield Moved(file, repository, first, second, stranger)


def start_engine(machine: Machine) -> None:
    start = "from local import engine, state\nengine.started(state.State.here())"
    machine.run(sys.executable, "-c", start)


def load_images(engine: docker.DockerClient, machine: Machine) -> None:
    """The base image and the platform's, as this machine has them: making them again takes minutes."""
    start_engine(machine)
    names = [name for image in engine.images.list(f"{images.PREFIX}/*") for name in image.tags]
    with subprocess.Popen(("docker", "save", *names), stdout=subprocess.PIPE) as saving:
        subprocess.run(machine.command("docker", "load", "-q"), stdin=saving.stdout, check=True, timeout=300)
    assert saving.returncode == 0


def test_the_backup_is_for_its_owner_alone(moved: Moved) -> None:
    assert moved.file.stat().st_mode & 0o777 == 0o600


def test_another_backup_overwrites_none(moved: Moved, cloud: Cloud) -> None:
    done = cloud.cli("backup", str(moved.file))
    assert done.returncode == 1
    assert "is there already" in done.stderr


def test_nothing_is_restored_where_a_cloud_is(moved: Moved) -> None:
    done = moved.first.tried(sys.executable, "-m", "local", "restore", str(moved.file))
    assert done.returncode == 1
    assert "there is a cloud on this machine" in done.stdout


def test_functions_answer_as_before_and_know_their_secrets(moved: Moved) -> None:
    assert moved.call("mover-tells") == (200, SECRET)
    assert moved.call("alice-hello")[0] == 200


def test_the_push_that_the_backup_fell_into_ends_live(moved: Moved) -> None:
    held = {str(path) for path, _ in archive.check(moved.file).files()}
    assert "functions/mover-tells.json" in held
    assert "functions/mover-late.json" not in held, "it was live already"
    until(lambda: moved.call("mover-late") == (200, "at last"), seconds=120, what="the late function")


def test_credentials_are_the_same(moved: Moved, cloud: Cloud) -> None:
    user, password = cloud.gateway.auth or ("", "")
    assert json.loads(script(moved.first, "print(json.dumps(gateway.auth))")) == [user, password]


def test_the_queue_is_kept(moved: Moved) -> None:
    calls = script(moved.first, "for call in queue.calls(): print(call.function, call.bytes, call.delivery)")
    assert f"{ABSENT} 4 kept" in calls.splitlines()


def test_the_author_pushes_on_to_the_same_address(moved: Moved) -> None:
    reads = "import socket\n\n\ndef handle(event, context):\n"
    reads += "    return socket.gethostname() if event.path == '/host' else 'moved'\n"
    moved.repository.commit({"tells/handler.py": reads})
    told = moved.first.run("git", "push", "cloud", cwd=moved.repository.folder)
    assert "done: everything is live" in told
    assert moved.call("mover-tells") == (200, "moved")


@pytest.fixture(scope="module")
def joined(moved: Moved, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    """`second` is a worker of `first`'s Swarm, by the commands of docs/local-cloud.md."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    first, second = moved.first, moved.second
    start_engine(second)
    with machines.ssh_server(first, key), machines.tunnel(second, first, REGISTRY, key):
        token = first.run("docker", "swarm", "join-token", "-q", "worker").strip()
        second.run("docker", "swarm", "join", "--token", token, f"{first.address}:2377")
        yield moved


def test_a_function_runs_on_the_second_machine_and_answers_through_the_first(joined: Moved) -> None:
    """Two tasks: Swarm gives each machine one. Each is named by the id of its container."""
    deploy = (
        "tells = gateway.get('mover-tells')\n"
        "gateway.deploy({'service': 'spread', 'image': tells.image, 'secrets': tells.secrets,\n"
        "    'envProcess': tells.env_process, 'labels': {'com.openfaas.scale.min': '2'}})"
    )
    script(joined.first, deploy)
    hosts: list[str] = []

    def both_answer() -> bool:
        """Called at once: a connection that is free is used again, and leads to one task."""
        hosts[:] = json.loads(script(joined.first, CALL_AT_ONCE))
        return len(hosts) == 2

    until(both_answer, seconds=120, what="an answer of both tasks")
    for machine in (joined.first, joined.second):
        containers = machine.run(
            "docker", "ps", "-q", "--filter", "label=com.openfaas.function=spread"
        ).split()
        assert sum(host in containers for host in hosts) == 1


def test_a_push_goes_live_where_there_are_two_machines(joined: Moved) -> None:
    joined.repository.commit({"tells/handler.py": handler("of two")})
    told = joined.first.run("git", "push", "cloud", cwd=joined.repository.folder)
    assert "done: everything is live" in told
    assert joined.call("mover-tells") == (200, "of two")


def test_no_other_machine_reaches_what_is_on_the_loopback_address(joined: Moved) -> None:
    """Neither at an address of its own, nor by a route to where its container is."""
    first, second, stranger = joined.first, joined.second, joined.stranger
    for name, port in PORTS.items():
        assert reaches(first, "127.0.0.1", port) == (name != "github_port"), "the play of GitHub is not on"
        assert not reaches(second, first.address, port)
        assert not reaches(stranger, first.address, port)
    assert reaches(second, "127.0.0.1", REGISTRY), "its tunnel"
    assert not reaches(stranger, second.address, REGISTRY)
    template = "{{(index .IPAM.Config 0).Subnet}}"
    subnet = ip_network(
        first.run("docker", "network", "inspect", "docker_gwbridge", "--format", template).strip()
    )
    stranger.run("ip", "route", "replace", str(subnet), "via", first.address)
    for service, port in (("registry", 5000), ("of-builder", 8080), ("gateway", 8080), ("git-server", 8081)):
        listed = first.run("docker", "exec", f"openfaas-cloud-{service}", "hostname", "-I").split()
        [address] = [address for address in listed if ip_address(address) in subnet]
        assert reaches(first, address, port)
        assert not reaches(stranger, address, port), f"{service} is reached by a route"


def reaches(machine: Machine, address: str, port: int) -> bool:
    program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
    return machine.tried(sys.executable, "-c", program, address, str(port)).returncode == 0
