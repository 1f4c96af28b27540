"""The platform under what operators do to it, and what happens to machines."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from local.gateway.app import IMAGE_LABEL
from local.gateway.settings import Settings
from local.gateway.swarm import FUNCTION, LIVE, STATE, Swarm
from local.state import State
from sdk import naming, secrets, signature
from sdk.builder import Builder

from .cloud import Caller, Cloud, Repository, execute, handler, stack, until
from .test_security import base_image, tar

Make = Callable[..., Repository]


def containers(cloud: Cloud) -> set[str]:
    """What runs, without what Swarm is still stopping: functions that other tests have deleted."""
    services = {service.name for service in cloud.engine.services.list()}
    return {
        container.id or ""
        for container in cloud.engine.containers.list()
        if container.labels.get("com.docker.swarm.service.name") in {None, *services}
    }


def test_up_again_is_quick_and_breaks_nothing(cloud: Cloud) -> None:
    before = containers(cloud)
    caller = Caller(cloud.url("alice-hello"))
    started = time.monotonic()
    with caller.calling(1):
        done = cloud.cli("up")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 30
    assert "Your function is live" in done.stderr
    assert containers(cloud) == before
    assert {status for status, _ in caller.answers} == {200}


def test_images_that_nothing_has_are_removed_and_no_others(cloud: Cloud, repository: Make) -> None:
    """Also the image of a function that sleeps stays: nothing has it but its service."""
    repo = repository()
    images = []
    for text in ("one", "two"):
        repo.functions(hello=text, idle="idle")
        assert repo.push()[0] == 0
        images.append(image_of(cloud, repo.service("hello")))
    scale(cloud, repo.service("idle"), 0)
    until(lambda: len(containers_of(cloud, repo.service("hello"))) == 1, what="the end of the old version")
    until(lambda: not containers_of(cloud, repo.service("idle")), what="its sleep")
    deployed = {image_of(cloud, name) for name in (*cloud.names(), *naming.PIPELINE)}
    before = here(cloud)
    asyncio.run(Swarm(Settings()).prune_images(IMAGE_LABEL))
    assert images[0] not in here(cloud)
    assert {images[1], image_of(cloud, repo.service("idle"))} <= before & deployed <= here(cloud)
    assert repo.call("idle") == (200, "idle")


def image_of(cloud: Cloud, service: str) -> str:
    """The digest of what is deployed."""
    status = cloud.gateway.get(service)
    assert status
    return status.image.rpartition("@")[2]


def here(cloud: Cloud) -> set[str]:
    """The digests of the images that the engine has."""
    names = [name for image in cloud.engine.images.list() for name in image.attrs["RepoDigests"]]
    return {name.rpartition("@")[2] for name in names}


def containers_of(cloud: Cloud, service: str) -> list[object]:
    return list(cloud.engine.containers.list(all=True, filters={"label": f"{FUNCTION}={service}"}))


def test_the_gateway_forgets_nothing_when_it_is_killed(cloud: Cloud, repository: Make) -> None:
    repo = repository()
    repo.functions(hello="one")
    assert repo.push()[0] == 0
    before = cloud.names()
    cloud.container("gateway").kill("SIGKILL")
    cloud.container("gateway").start()
    until(lambda: up(cloud))
    assert cloud.names() == before
    assert repo.call("hello") == (200, "one")
    repo.functions(hello="two")
    assert repo.push()[0] == 0
    assert repo.call("hello") == (200, "two")


def test_what_is_scaled_to_zero_runs_nothing_until_it_is_called(cloud: Cloud, repository: Make) -> None:
    repo = repository()
    repo.functions(hello="one")
    assert repo.push()[0] == 0
    name = repo.service("hello")
    scale(cloud, name, 0)
    until(lambda: not running(cloud, name))
    cloud.container("gateway").kill("SIGKILL")
    cloud.container("gateway").start()
    until(lambda: up(cloud))
    asleep = cloud.gateway.get(name)
    assert asleep
    assert (asleep.replicas, asleep.available_replicas, running(cloud, name)) == (0, 0, 0)
    assert repo.call("hello") == (200, "one")
    scale(cloud, name, 2)
    until(lambda: running(cloud, name) == 2)
    assert repo.call("hello") == (200, "one")


def scale(cloud: Cloud, name: str, replicas: int) -> None:
    url = f"{cloud.state.gateway_url}/system/scale-function/{name}"
    sent = {"serviceName": name, "replicas": replicas}
    answer = requests.post(url, json=sent, auth=cloud.gateway.auth, timeout=60)
    assert answer.status_code == 200, answer.text


def running(cloud: Cloud, name: str) -> int:
    return len(cloud.engine.containers.list(filters={"label": f"com.openfaas.function={name}"}))


def up(cloud: Cloud) -> bool:
    try:
        return requests.get(f"{cloud.state.gateway_url}/healthz", timeout=5).ok
    except requests.RequestException:
        return False


def test_a_push_is_not_lost_when_the_gateway_is_killed_in_the_middle(cloud: Cloud, repository: Make) -> None:
    repo = repository()
    repo.commit(
        {
            "stack.yml": stack("hello", build_args="{ADDITIONAL_PACKAGE: file}"),
            "hello/handler.py": handler("in the end"),
            "hello/requirements.txt": "",
        }
    )
    pushing = repo.start_push()
    assert pushing.stderr
    while "packed" not in pushing.stderr.readline():
        pass
    cloud.container("gateway").kill("SIGKILL")
    cloud.container("gateway").start()
    _, told = pushing.communicate(timeout=300)
    until(lambda: up(cloud) and repo.call("hello") == (200, "in the end"), what="the function being live")
    assert pushing.returncode == 0, told


@pytest.mark.parametrize("name", ["of-builder", "registry"])
def test_a_push_waits_for_a_neighbour_that_is_away(name: str, cloud: Cloud, repository: Make) -> None:
    repo = repository()
    repo.functions(hello=name)
    cloud.container(name).stop(timeout=1)
    pushing = repo.start_push()
    time.sleep(3)
    cloud.container(name).start()
    _, told = pushing.communicate(timeout=300)
    assert pushing.returncode == 0, told
    assert repo.call("hello") == (200, name)


def test_a_client_that_goes_away_cancels_its_build(cloud: Cloud) -> None:
    """Flaw 20: with the real BuildKit; the step would take a minute."""
    builder = Builder(
        cloud.state.builder_url, secrets.read("builder-secret", str(cloud.state.secrets_folder))
    )
    dockerfile = f"FROM {base_image(cloud)}\nRUN echo be''gun && sleep 61.0{time.time_ns() % 1000}\n"
    body = tar(dockerfile, f"{cloud.state.registry}/local/1/1/slow:{time.time_ns()}")
    headers = {"X-Build-Signature": signature.sign(body, builder.keys), "Accept": "application/x-ndjson"}
    answer = requests.post(
        f"{cloud.state.builder_url}/build", data=body, headers=headers, stream=True, timeout=60
    )
    assert any(b"begun" in line for line in answer.iter_lines())
    assert sleeping()
    answer.close()
    started = time.monotonic()
    until(lambda: not sleeping(), seconds=5, what="the end of the build step")
    assert time.monotonic() - started < 3
    until(lambda: not work_folders(cloud), seconds=5, what="an empty work folder")


def sleeping() -> bool:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if b"sleep\x0061.0" in (process / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False


def work_folders(cloud: Cloud) -> list[str]:
    return execute(
        cloud.container("of-builder"), "sh", "-c", "ls -d /tmp/of-builder-*/build-* 2> /dev/null"
    ).split()


def test_work_folders_and_logs_do_not_pile_up(cloud: Cloud) -> None:
    assert not work_folders(cloud)
    for container in cloud.engine.containers.list():
        if any(label.startswith(("openfaas-cloud.", "com.openfaas.")) for label in container.labels):
            log = container.attrs["HostConfig"]["LogConfig"]
            assert log["Config"].get("max-size"), container.name
    for container in cloud.engine.containers.list(filters={"label": "com.openfaas.function=git-tar"}):
        found = execute(container, "sh", "-c", "ls -d /tmp/git-tar-* 2> /dev/null").split()
        assert set(found) <= {"/tmp/git-tar-mirrors", "/tmp/git-tar-templates"}


def test_a_port_that_is_taken_is_named_with_what_helps(cloud: Cloud) -> None:
    container = cloud.container("git-server")
    container.stop(timeout=1)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", cloud.state.ports.git_port))
        taken.listen()
        done = cloud.cli("up")
    assert done.returncode == 1
    assert f"port {cloud.state.ports.git_port} of 127.0.0.1 is taken" in done.stderr
    assert "git_port=" in done.stderr
    assert cloud.cli("up").returncode == 0


def test_the_log_is_of_all_containers_however_often_it_is_read(cloud: Cloud, repository: Make) -> None:
    repo = repository()
    repo.commit(
        {
            "stack.yml": stack("hello"),
            "hello/handler.py": f"import os\nprint('began', os.urandom(4).hex())\n{handler('x')}",
            "hello/requirements.txt": "",
        }
    )
    assert repo.push()[0] == 0
    service = repo.service("hello")
    since = "2020-01-01T00:00:00Z"

    def begun() -> set[str]:
        lines = cloud.gateway.logs(service, since, follow=False, read_seconds=30)
        return {line.strip() for line in lines if "began" in line}

    def is_proven() -> bool:
        (found,) = cloud.engine.services.list(filters={"label": f"{FUNCTION}={service}"})
        return bool(found.attrs["Spec"]["Labels"][STATE] == LIVE)

    until(is_proven, what="the end of its probation")  # until then, a death is its last
    for deaths in (1, 2):
        for container in cloud.engine.containers.list(filters={"label": f"{FUNCTION}={service}"}):
            container.kill("SIGKILL")
        until(lambda deaths=deaths: len(begun()) == deaths + 1, what="the log of the next container")  # type: ignore[misc]
    assert [len(begun()) for _ in range(20)] == [3] * 20


def test_a_killed_engine_comes_back_with_everything_deployed(cloud: Cloud, repository: Make) -> None:
    state = State.here()
    if not state.engine_marker.exists():
        pytest.skip("the engine of this machine was not started by `up`: it is not ours to kill")
    repo = repository()
    repo.functions(hello="still here")
    assert repo.push()[0] == 0
    before = cloud.names()
    os.kill(int(state.engine_marker.read_text()), signal.SIGKILL)
    done = cloud.cli("up")
    assert done.returncode == 0, done.stderr
    assert cloud.names() == before
    until(lambda: repo.call("hello") == (200, "still here"), what="the function's answer")
    repo.functions(hello="and changing")
    code, told = repo.push()
    assert code == 0, told
    assert repo.call("hello") == (200, "and changing")
