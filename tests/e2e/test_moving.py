"""A backup of the running cloud, restored on another machine, which then gets a second one beside it.

The machines are made here (machines.py): root alone can, and no other reason skips this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from local import images
from local.calls import Queue

from . import machines
from .cloud import Cloud, Repository, handler, stack, until
from .machines import Machine

SECRET = 'a "value"\nof two lines'
OWNER = "mover"
ABSENT = "mover-is-not-there"
REGISTRY, GATEWAY, BUILDER, GIT = 5000, 8080, 8081, 8082

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


def script(machine: Machine, program: str) -> str:
    """What a program prints there that has the gateway and the queue of that machine's cloud."""
    header = (
        "import json\nfrom local.calls import Queue\nfrom local.state import State\n"
        "state = State.here()\ngateway, queue = state.gateway, Queue.at(state.gateway)\n"
    )
    return machine.run(sys.executable, "-c", header + program)


@pytest.fixture(scope="module")
def before(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Repository]]:
    """The running cloud, with all that it can have, and its backup in the middle of a push."""
    folder = tmp_path_factory.mktemp("moving")
    cloud.cli("secret", "set", OWNER, "word", stdin=SECRET)
    repo = Repository(cloud, folder / "repository", OWNER, "repo")
    tells = (
        "import glob, socket\n\ndef handle(event, context):\n"
        "    if event.path == '/host':\n        return socket.gethostname()\n"
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
            "stack.yml": stack("late", build_args="{ADDITIONAL_PACKAGE: file less}"),
            "late/handler.py": handler("at last"),
            "late/requirements.txt": "",
        }
    )
    cloud.gateway.queue(ABSENT, b"body", {"X-GitHub-Delivery": "kept"}, 5)
    assert repo.push()[0] == 0
    pushing = late.start_push()
    assert pushing.stderr
    for line in pushing.stderr:
        if "fetched in" in line:  # now it is being built
            break
    done = cloud.cli("backup", str(folder / "backup"))
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


def load_images(engine: docker.DockerClient, machine: Machine) -> None:
    """The base image and the platform's, as this machine has them: making them again takes minutes."""
    start = "from local import engine, state\nengine.started(state.State.here())"
    machine.run(sys.executable, "-c", start)
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
    until(lambda: moved.call("mover-late") == (200, "at last"), seconds=120, what="the late function")


def test_credentials_are_the_same(moved: Moved, cloud: Cloud) -> None:
    user, password = cloud.gateway.auth or ("", "")
    assert json.loads(script(moved.first, "print(json.dumps(gateway.auth))")) == [user, password]


def test_the_queue_is_kept(moved: Moved) -> None:
    calls = script(moved.first, "for call in queue.calls(): print(call.function, call.bytes, call.delivery)")
    assert f"{ABSENT} 4 kept" in calls.splitlines()


def test_the_author_pushes_on_to_the_same_address(moved: Moved) -> None:
    moved.repository.commit({"tells/handler.py": handler("moved")})
    told = moved.first.run("git", "push", "cloud", cwd=moved.repository.folder)
    assert "done: everything is live" in told
    assert moved.call("mover-tells") == (200, "moved")
