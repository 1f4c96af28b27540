"""What strangers try: bad signatures, messages that are not for a function, and ways to the inside."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from sdk import messages, secrets, signature
from sdk.builder import Builder
from sdk.errors import CloudError
from sdk.messages import Collect, Owner, Push, Repository
from sdk.secrets import Keys

from .cloud import Cloud, execute, until
from .cloud import Repository as Author

Make = Callable[..., Author]
NOWHERE = Repository(1, "x", "m/x", "http://git-server:8080/m/x.git", "http://x", False, Owner("mallory", 2))
PUSH = Push("local", "d", "refs/heads/master", "0" * 40, "a" * 40, NOWHERE)
EVENT = {
    "ref": "refs/heads/master",
    "before": "0" * 40,
    "after": "a" * 40,
    "repository": {**vars(NOWHERE), "owner": vars(NOWHERE.owner)},
}


def keys(cloud: Cloud, name: str) -> Keys:
    return secrets.read(name, str(cloud.state.secrets_folder))


@pytest.fixture
def untouched(cloud: Cloud) -> Iterator[None]:
    """Nothing is built, deployed, deleted or queued."""
    before = [(function.name, function.annotations) for function in cloud.gateway.list()]
    yield
    time.sleep(0.5)
    assert [(function.name, function.annotations) for function in cloud.gateway.list()] == before


def event_headers(body: bytes, **signed: str) -> Mapping[str, str]:
    return {"X-GitHub-Event": "push", "X-GitHub-Delivery": "d", "Content-Type": "application/json", **signed}


@pytest.mark.parametrize("kind", ["missing", "wrong", "sha1 only", "sha1 in place of sha256", "other secret"])
def test_an_event_that_is_not_githubs_is_401(kind: str, cloud: Cloud, untouched: None) -> None:
    body, key = json.dumps(EVENT).encode(), keys(cloud, "github-webhook-secret").signing
    sha1 = f"sha1={hmac.new(key, body, hashlib.sha1).hexdigest()}"
    signed = {
        "missing": {},
        "wrong": {"X-Hub-Signature-256": "sha256=" + "0" * 64},
        "sha1 only": {"X-Hub-Signature": sha1},
        "sha1 in place of sha256": {"X-Hub-Signature-256": sha1},
        "other secret": {"X-Hub-Signature-256": signature.sign(body, keys(cloud, "payload-secret"))},
    }[kind]
    answer = requests.post(cloud.url("gh-push"), data=body, headers=event_headers(body, **signed), timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def test_a_body_that_was_changed_after_signing_is_401(cloud: Cloud, untouched: None) -> None:
    body = json.dumps(EVENT).encode()
    signed = {"X-Hub-Signature-256": signature.sign(body, keys(cloud, "github-webhook-secret"))}
    headers = event_headers(body, **signed)
    answer = requests.post(cloud.url("gh-push"), data=body + b" ", headers=headers, timeout=10)
    assert answer.status_code == 401


@pytest.mark.parametrize("name", ["git-tar", "buildshiprun", "garbage-collect", "reconcile", "github-status"])
@pytest.mark.parametrize("kind", ["unsigned", "wrong secret", "misdirected", "in another header"])
def test_an_inner_function_takes_only_what_is_signed_for_it(
    name: str, kind: str, cloud: Cloud, untouched: None
) -> None:
    payload = keys(cloud, "payload-secret")
    message = Collect("local", "d", "mallory", 2, "x", 1, ("nothing",), "a" * 40, "push")
    body = messages.seal("gh-push" if kind == "misdirected" else name, PUSH if name == "git-tar" else message)
    signed = {
        "unsigned": {},
        "wrong secret": {"X-Cloud-Signature": signature.sign(body, keys(cloud, "builder-secret"))},
        "misdirected": {"X-Cloud-Signature": signature.sign(body, payload)},
        "in another header": {"X-Hub-Signature-256": signature.sign(body, payload)},
    }[kind]
    answer = requests.post(cloud.url(name), data=body, headers=signed, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


def tar(dockerfile: str, image: str, **build_args: str) -> bytes:
    out = io.BytesIO()
    config = json.dumps({"image": image, "buildArgs": build_args}).encode()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in (
            ("context/Dockerfile", dockerfile.encode()),
            ("com.openfaas.docker.config", config),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["unsigned", "wrong secret", "changed"])
def test_of_builder_builds_only_what_is_signed_for_it(kind: str, cloud: Cloud, untouched: None) -> None:
    body = tar("FROM scratch\nCOPY Dockerfile /\n", f"{cloud.state.registry}/local/1/1/evil:1")
    signed = {
        "unsigned": {},
        "wrong secret": {"X-Build-Signature": signature.sign(body, keys(cloud, "payload-secret"))},
        "changed": {"X-Build-Signature": signature.sign(body, keys(cloud, "builder-secret"))},
    }[kind]
    sent = body + b"\0" if kind == "changed" else body
    answer = requests.post(f"{cloud.state.builder_url}/build", data=sent, headers=signed, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
    asked = requests.get(f"{cloud.state.builder_url}/image?image=a/b&tag=c&at={int(time.time())}", timeout=10)
    assert asked.status_code == 401


# What no function and no build step may reach, by name and by the ways around.
INSIDE = (
    "registry:5000 of-builder:8080 git-server:8080 git-server:8081 openfaas-cloud-registry:5000 "
    "openfaas-cloud-of-builder:8080 openfaas-cloud-git-server:8080 127.0.0.1:5000 127.0.0.1:8081 "
    "172.17.0.1:5000 172.17.0.1:8081 172.17.0.1:8082 172.18.0.1:5000 172.18.0.1:8081 172.18.0.1:8082 "
    "172.17.0.1:2375 172.17.0.1:2376 172.17.0.1:2377 172.18.0.1:2377 172.18.0.1:7946"
).split()

# Behind some networks any address takes a connection, so what counts is who answers.
PROBE = """
import socket

MARKS = (b"registry/2.0", b"POST /build", b"lighttpd", b"Server: Docker", b"\\x15\\x03")

def reachable(places):
    found = []
    for place in places:
        host, port = place.split(":")
        try:
            with socket.create_connection((host, int(port)), 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"GET /v2/ HTTP/1.0\\r\\n\\r\\n")
                answer = connection.recv(4096) + connection.recv(4096)
        except OSError:
            continue
        if any(mark in answer for mark in MARKS):
            found.append(place)
    return found
"""


def container_addresses(cloud: Cloud) -> list[str]:
    """Every address of the platform's containers, on every network they are in."""
    found = []
    for name, port in (("registry", 5000), ("of-builder", 8080), ("git-server", 8080), ("git-server", 8081)):
        networks = cloud.container(name).attrs["NetworkSettings"]["Networks"]
        found += [f"{network['IPAddress']}:{port}" for network in networks.values() if network["IPAddress"]]
    return found


def test_the_probe_finds_what_can_be_reached(cloud: Cloud) -> None:
    places = ["registry:5000", "of-builder:8080", "127.0.0.1:8080", "gateway:8080"]
    program = f"{PROBE}\nprint(reachable({places!r}))"
    found = execute(cloud.container("git-server"), "python3", "-c", program)
    assert found.strip() == "['registry:5000', 'of-builder:8080', '127.0.0.1:8080']"


def test_a_function_reaches_nothing_of_the_platform(cloud: Cloud, repository: Make) -> None:
    repo = repository()
    places = [*INSIDE, *container_addresses(cloud)]
    code = f"{PROBE}\ndef handle(event, context):\n    return {{'body': reachable({places!r})}}\n"
    repo.functions(probe="x")
    repo.commit({"probe/handler.py": code})
    pushed, told = repo.push()
    assert pushed == 0, told
    answer = requests.get(cloud.url(repo.service("probe")), timeout=60)
    assert (answer.status_code, answer.json()) == (200, [])


def test_a_build_step_reaches_nothing_of_the_platform(cloud: Cloud) -> None:
    places = [*INSIDE, *container_addresses(cloud)]
    probe = f"{PROBE}\nprint('REACHED', reachable({places!r}))\n"
    dockerfile = f"FROM {base_image(cloud)}\nCOPY <<'EOF' /probe.py\n{probe}EOF\nRUN python3 /probe.py\n"
    builder = Builder(cloud.state.builder_url, keys(cloud, "builder-secret"))
    body = tar(dockerfile, f"{cloud.state.registry}/local/1/1/probe:{time.time_ns()}")
    built = builder.build(body, signature.sign(body, builder.keys), 120)
    [line] = [line for line in built.log if "REACHED [" in line]
    assert line.endswith("REACHED []"), line


def base_image(cloud: Cloud) -> str:
    function = cloud.engine.services.list(filters={"label": "com.openfaas.function=git-tar"})[0]
    environment = function.attrs["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]
    return next(
        str(row).partition("PYTHON_IMAGE=")[2] for row in environment if row.startswith("build_args=")
    )


def test_a_function_runs_without_privileges(cloud: Cloud, repository: Make) -> None:
    repo = repository()
    code = """
import os

def attempt(what):
    try:
        what()
        return True
    except OSError:
        return False

def handle(event, context):
    lines = open("/proc/self/status").read().splitlines()
    status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
    mounted = "/var/openfaas/secrets"
    return {"body": {
        "capabilities": status["CapEff"].strip(),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "uid": os.getuid(),
        "root": attempt(lambda: open("/home/app/x", "w")),
        "tmp": attempt(lambda: open("/tmp/x", "w")),
        "secrets": sorted(os.listdir(mounted)) if os.path.isdir(mounted) else [],
        "environment": sorted(name for name in os.environ if "secret" in name.lower()),
    }}
"""
    repo.functions(probe="x")
    repo.commit({"probe/handler.py": code})
    assert repo.push()[0] == 0
    assert requests.get(cloud.url(repo.service("probe")), timeout=30).json() == {
        "capabilities": "0" * 16,
        "no_new_privileges": "1",
        "uid": 1000,
        "root": False,
        "tmp": True,
        "secrets": [],
        "environment": [],
    }
    [service] = cloud.engine.services.list(
        filters={"label": f"com.openfaas.function={repo.service('probe')}"}
    )
    limits = service.attrs["Spec"]["TaskTemplate"]["Resources"]["Limits"]
    assert limits == {"NanoCPUs": 500_000_000, "MemoryBytes": 128 * 1024**2, "Pids": 256}


@pytest.mark.parametrize(
    "link", ["/var/openfaas/secrets", "../../../../../../var/openfaas/secrets/payload-secret"]
)
def test_a_link_to_the_platforms_secrets_ships_nothing(link: str, repository: Make) -> None:
    """Flaw 1: `fn/leak -> /var/openfaas/secrets` shipped the platform's keys in the user's image."""
    repo = repository()
    repo.functions(hello="x")
    (repo.folder / "hello" / "leak").symlink_to(link)
    repo.commit({})
    code, told = repo.push()
    assert code != 0
    assert "leak' leaves the repository" in told
    assert repo.service("hello") not in repo.cloud.names()


def test_the_platforms_functions_cannot_be_overwritten_by_a_name(repository: Make, owner: str) -> None:
    """Flaw 3: owner `git` with function `tar` was git-tar."""
    repo = repository(f"repo-{owner}", "git")
    before = repo.cloud.deployed("git-tar")
    repo.functions(tar="evil")
    code, told = repo.push()
    assert code != 0
    assert "'git-tar' is the name of a part of the platform" in told
    assert repo.cloud.deployed("git-tar") == before


def test_pushes_come_in_by_the_authors_port_only(cloud: Cloud) -> None:
    url = "http://localhost:8080/alice/hello-python.git/info/refs?service=git-"
    program = (
        "import sys, requests; print(*(requests.get(sys.argv[1] + name, timeout=10).status_code "
        "for name in sys.argv[2:]))"
    )
    names = ("upload-pack", "receive-pack")
    found = execute(cloud.container("git-server"), "python3", "-c", program, url, *names)
    assert found.split() == ["200", "403"]


@pytest.mark.parametrize(
    "path", ["/Alice/x.git", "/x.git", "/a/b/c.git", "/openfaas-cloud/templates.git", "/a/..%2fb.git"]
)
def test_no_odd_repository_is_made(path: str, cloud: Cloud) -> None:
    answer = requests.get(f"{cloud.state.git_url}{path}/info/refs?service=git-receive-pack", timeout=10)
    assert answer.status_code in (403, 404)


def test_everything_listens_on_loopback_only(cloud: Cloud) -> None:
    ours = {cloud.state.ports.gateway_port, cloud.state.ports.builder_port, cloud.state.ports.git_port}
    ours |= {cloud.state.ports.registry_port, 2377, 7946}
    listening = [
        line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:] if " 0A " in line
    ]
    addresses = {
        (int(port, 16), bytes.fromhex(host)[::-1]) for host, port in (row.split(":") for row in listening)
    }
    assert {port for port, _ in addresses} >= ours
    for port, host in addresses:
        if port in ours:
            assert host[0] == 127, f"port {port} listens on {host!r}"


def test_credentials_are_private_files(cloud: Cloud) -> None:
    for file in cloud.state.secrets_folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_no_secret_is_in_the_logs_or_the_images(cloud: Cloud) -> None:
    values = [
        file.read_bytes() for file in cloud.state.secrets_folder.iterdir() if file.name != "basic-auth-user"
    ]
    for name in ("registry", "of-builder", "gateway", "git-server"):
        logged = cloud.container(name).logs()
        assert not any(value in logged for value in values), name
    for function in ("gh-push", "git-tar", "buildshiprun", "garbage-collect", "reconcile", "github-status"):
        logged = cloud.cli("logs", function, "--since", "600").stdout.encode()
        assert not any(value in logged for value in values), function


def test_the_gateway_keeps_strangers_out_of_its_system(cloud: Cloud) -> None:
    for method, path in (
        ("GET", "/system/functions"),
        ("POST", "/system/functions"),
        ("DELETE", "/system/functions"),
        ("GET", "/system/secrets"),
        ("GET", "/system/logs?name=git-tar"),
        ("GET", "/system/function/git-tar"),
        ("GET", "//system/functions"),
        ("GET", "/system/../system/functions"),
    ):
        answer = requests.request(method, cloud.state.gateway_url + path, timeout=10)
        assert answer.status_code in (401, 404), path


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
def test_no_page_in_a_browser_uses_the_gateways_system(site: str, cloud: Cloud, untouched: None) -> None:
    auth = cloud.gateway.auth
    url = f"{cloud.state.gateway_url}/system/functions"
    body = {"functionName": "git-tar"}
    pages: tuple[dict[str, str], ...] = ({"Sec-Fetch-Site": site}, {"Origin": cloud.state.gateway_url})
    for headers in pages:
        assert requests.delete(url, json=body, auth=auth, headers=headers, timeout=10).status_code == 403
        assert requests.get(url, auth=auth, headers=headers, timeout=10).status_code == 403
    assert requests.get(url, auth=auth, timeout=10).status_code == 200


def test_what_git_tar_refuses_is_in_the_queues_list_without_its_body(cloud: Cloud, untouched: None) -> None:
    delivery = f"e2e-{time.time_ns()}"
    url = f"{cloud.state.gateway_url}/async-function/git-tar"
    headers = {"X-GitHub-Delivery": delivery}
    assert requests.post(url, data=b"hunter2", headers=headers, timeout=10).status_code == 202

    def ended() -> list[Any]:
        listed = cloud.cli("queue", "--json").stdout
        assert "hunter2" not in listed
        found = [call for call in json.loads(listed) if call["delivery"] == delivery]
        return [call for call in found if call["state"] == "failed"]

    until(lambda: bool(ended()), what="the call has ended")
    [call] = ended()
    assert (call["function"], call["status"], call["canBeRetried"]) == ("git-tar", 401, False)
    assert cloud.cli("queue", "retry", str(call["id"])).returncode == 1
    assert cloud.cli("queue", "drop", str(call["id"])).returncode == 0
    assert not ended()


def test_a_failing_build_says_whose_fault_it_is(cloud: Cloud) -> None:
    builder = Builder(cloud.state.builder_url, keys(cloud, "builder-secret"))
    image = f"{cloud.state.registry}/local/1/1/broken"

    def failure(dockerfile: str, **build_args: str) -> CloudError:
        body = tar(dockerfile, f"{image}:{time.time_ns()}", **build_args)
        with pytest.raises(CloudError) as raised:
            builder.build(body, signature.sign(body, builder.keys), 120)
        return raised.value

    base = base_image(cloud)
    for dockerfile, said in (
        ("FRM scratch\n", "unknown instruction: FRM"),
        (f"FROM {base}\nRUN echo to be seen && exit 7\n", "exit code: 7"),
        ("FROM scratch\nCOPY nothing /\n", "/nothing"),
        ("FROM no-such-image-of-this-name:1\n", "no-such-image-of-this-name"),
    ):
        error = failure(dockerfile)
        assert (error.status, said in error.message) == (422, True), error.message
    seen: Any = failure(f"FROM {base}\nRUN echo to be seen && exit 7\n").details["log"]
    assert any("to be seen" in line for line in seen)
