"""What a hostile Dockerfile, tar or client tries on of-builder, with each BuildKit that it can drive."""

from __future__ import annotations

import ast
import asyncio
import gzip
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from local.state import State
from of_builder.buildkit import POLICY, BuildKit
from of_builder.settings import Settings, buildx
from of_builder.sources import Allowed
from sdk.registry import Reference
from sdk.signature import BUILDER_HEADER

from . import builder as builders
from .builder import CLIENT, Driver, OfBuilder, buildkitd, of_builder, tar
from .cloud import Cloud
from .test_security import INSIDE, PROBE, container_addresses

# An image of another owner, in the registry that of-builder pushes to.
OWN = f"{State.here().registry}/openfaas-cloud/git-tar:latest"
CAPITAL_I_WITH_DOT = "\u0130"  # BuildKit's lower case of it is a plain i
GIBIBYTE = 1024**3


@pytest.mark.parametrize(
    "dockerfile",
    [
        f"FROM {OWN}",
        f"FROM {OWN.upper().replace('GIT-TAR:LATEST', 'git-tar:latest')}",
        f"FROM {OWN.replace('127.0.0.1', 'localhost')}",
        f"FROM {OWN.replace('127.0.0.1', '2130706433')}",
        f"FROM {OWN.replace('127.0.0.1', '[::1]')}",
        "FROM registry:5000/openfaas-cloud/git-tar",
        f"from --platform=linux/amd64 {OWN} as x",
        f"FROM \\\n# a comment\n{OWN}",
        f"# escape=`\nFROM `\n{OWN}",
        f"ARG X={OWN}\nFROM $X",
        f"ARG X=BASE\nARG X={OWN}\nFROM $X",
        f"ARG X\nFROM ${{X-{OWN}}}",
        f"ARG TARGETOS={OWN}\nFROM $TARGETOS",
        f"FROM ${{TARGETSTAGE:+{OWN}}}",
        f"FROM ${{GIVEN:-{OWN}}}",
        f"FROM BASE\nCOPY --from={OWN} / /stolen",
        f'FROM BASE\nCOPY --fr"om"={OWN} / /stolen',
        f"FROM BASE\nRUN --mount=from={OWN},target=/stolen ls",
        f'FROM BASE\nRUN --mount="FROM={OWN}",target=/stolen ls',
        f"FROM BASE\nRUN --mo\\\nunt=type=cache,from={OWN},target=/stolen <<EOF\nls\nEOF",
        f"FROM BASE\n# \0\nFROM {OWN}",
        f"\ufeffFROM {OWN}",
        f"FROM BASE AS git-tar\nFROM {OWN}",
    ],
)
def test_no_other_owners_image_is_a_base(dockerfile: str, builder: OfBuilder) -> None:
    text = dockerfile.replace("BASE", builder.driver.base) + "\n"
    answer = builder.build(text, buildArgs={"GIVEN": builder.driver.base})
    assert (answer.last["reason"], answer.last["code"]) == ("policy", "refused"), answer.last
    assert "#1 " not in answer.log, "BuildKit was not asked"


@pytest.mark.parametrize(
    "lines",
    [
        "RUN --network=host id",
        "RUN --security=insecure id",
        "RUN --device=all id",
        "RUN --mount=type=cache,id=x,target=/c id",
        "RUN --mount=type=cache,ID=x,target=/c id",
        "RUN --mount=type=\"'cache'\",id=x,target=/c id",
        "RUN --mount=type=ca\\\\che,id=x,target=/c id",
        "RUN --mount=type=$T,id=x,target=/c id",
        'RUN --mount=type=cache,target=/c,\\"id=x id',
        "# \0\nRUN --mount=type=cache,id=x,target=/c id",
        "ONBUILD RUN id",
        f"ONBU{CAPITAL_I_WITH_DOT}LD RUN id",
        "ADD http://127.0.0.1:5000/v2/ /x",
        "ADD https://example.com/x.git /x",
    ],
)
def test_no_line_asks_for_more_than_a_build_step_has(lines: str, builder: OfBuilder) -> None:
    answer = builder.build(f"FROM {builder.driver.base}\n{lines}\n")
    assert (answer.last["reason"], answer.last["code"]) == ("policy", "refused"), answer.last
    assert "#1 " not in answer.log, "BuildKit was not asked"


@pytest.mark.parametrize(
    "first",
    [
        "# syntax=evil/frontend",
        "// syntax=evil/frontend",
        "#!/bin/x\n# syntax=evil/frontend",
        "\ufeff# SYNTAX = evil/frontend",
        '\n {"syntax": "evil/frontend"}',
        '#!/bin/x\n{"syntax": "evil/frontend"}',
        "# check=skip=all\x0bx\n# syntax=evil/frontend",
        "# check=skip=all\u2028x\n# syntax=evil/frontend",
        "# check=skip=all\rx\n# syntax=evil/frontend",
        "# syntax=docker/dockerfile:1.0",
        f"# syntax=docker/dockerfile:1@sha256:{'0' * 64}",
    ],
)
def test_no_other_program_reads_a_dockerfile(first: str, builder: OfBuilder) -> None:
    rest = "" if "{" in first else f"\nFROM {builder.driver.base}\n"
    answer = builder.build(first + rest)
    assert (answer.last["reason"], answer.last["code"]) == ("policy", "refused"), answer.last
    assert "#1 " not in answer.log, "BuildKit was not asked"


@pytest.mark.parametrize(
    "dockerfile",
    [
        "FROM scratch\nARG U=http://127.0.0.1:8080/healthz\nADD $U /x",
        "FROM scratch\nARG U=https://127.0.0.1/a/b.git\nADD ${U} /x",
        "FROM scratch\nARG A=git B=github.com:a/b.git\nADD $A@$B /x",
    ],
)
def test_buildkit_fetches_nothing_for_an_add_with_variables(dockerfile: str, builder: OfBuilder) -> None:
    answer = builder.build(dockerfile)
    assert (answer.last["status"], answer.last["reason"]) == ("failed", "policy"), answer.last


@pytest.mark.parametrize(
    "dockerfile",
    [
        f"FROM {OWN}",
        f"FROM scratch\nCOPY --from={OWN} / /",
        f"FROM BASE\nRUN --mount=from={OWN},target=/x ls",
        f"# syntax={OWN}\nFROM scratch",
        "FROM BASE\nADD http://127.0.0.1:8080/healthz /x",
        "FROM BASE\nADD https://example.com/x.git /x",
        "FROM quay.io/x/y",
    ],
)
def test_buildkit_itself_refuses_what_no_reading_finds(
    dockerfile: str, driver: Driver, tmp_path: Path
) -> None:
    """The source policy, without of-builder's own reading in front of it."""
    settings = Settings(buildkit_url=driver.settings.get("buildkit_url", ""))
    allowed = Allowed.of(driver.settings["allowed_sources"].split(","), Reference.parse("x:5000/a/1/1/f"))
    (tmp_path / "policy").write_bytes(allowed.policy())
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile.replace("BASE", driver.base))

    async def said() -> tuple[int, str]:
        buildkit = BuildKit(settings, tmp_path)
        await buildkit.create()
        words = ("build", *buildkit.chosen, "--output=type=cacheonly", "--progress=plain", str(context))
        return await buildkit.run(*words, extra={POLICY: str(tmp_path / "policy")})

    code, told = asyncio.run(said())
    assert (code, "denied by policy" in told) == (1, True), told


@pytest.fixture
def onbuild(driver: Driver, engine: docker.DockerClient) -> Iterator[str]:
    """An image with an instruction that its Dockerfile does not show."""
    name = f"e2e-onbuild/{uuid.uuid4().hex[:8]}"
    container = engine.containers.create(builders.python_image(engine), "true")
    try:
        container.commit(name, "1", changes="ONBUILD RUN --mount=type=cache,id=shared,target=/c id")
    finally:
        container.remove()
    image = f"{name}:1"
    try:
        if driver.is_engine:
            yield image
        else:
            yield builders.push(engine, image, f"{driver.other_registry}/{image}")
    finally:
        engine.images.remove(image)


def test_an_image_with_onbuild_is_no_base(builder: OfBuilder, onbuild: str) -> None:
    for dockerfile in (f"FROM {onbuild}", f"ARG X={onbuild}\nFROM scratch AS a\nFROM $X"):
        answer = builder.build(f"{dockerfile}\n")
        assert "has ONBUILD instructions (RUN --mount" in answer.error, answer.last
        assert answer.last["code"] == "refused"


@pytest.mark.parametrize(
    "name", ["HTTP_PROXY", "https_proxy", "No_Proxy", "BUILDKIT_SYNTAX", "BUILDKIT_CACHE_MOUNT_NS"]
)
def test_no_build_arg_changes_a_build_unseen(name: str, builder: OfBuilder) -> None:
    answer = builder.build("FROM scratch\n", buildArgs={name: "x"}, stream=False)
    assert (answer.status, "is not yours to set" in answer.error) == (400, True)
    given = builder.build("FROM scratch\n", buildArgs={"SOURCE_DATE_EPOCH": "1"}, stream=False)
    assert given.status == 400


def test_no_owner_finds_anything_in_anothers_cache_mount(builder: OfBuilder) -> None:
    dockerfile = (
        f"FROM {builder.driver.base}\nARG RUN\nCOPY who /\n"
        'RUN --mount=type=cache,target=/c echo "FOUND $RUN:" $(cat /c/who); cp /who /c/\n'
    )

    def found(owner: str, run: str) -> str:
        image = builder.image(f"{owner}/1/f", tag=run)
        answer = builder.build(dockerfile, image, files={"who": owner}, buildArgs={"RUN": run}, skipPush=True)
        return answer.logged(f"FOUND {run}:")

    alice, mallory = (f"o{uuid.uuid4().hex[:8]}" for _ in range(2))
    assert found(mallory, "1") == ""
    assert found(mallory, "2") == mallory, "the mount is one, for its owner"
    assert found(alice, "3") == ""


def test_no_step_is_answered_from_what_another_owner_built(builder: OfBuilder) -> None:
    """What a secret holds is in no cache key: an owner could make others' identical steps of it."""
    dockerfile = (
        f"FROM {builder.driver.base}\n"
        "RUN --mount=type=secret,id=pip test ! -e /run/secrets/pip; echo $? $(date +%s%N) > /got\n"
        "COPY again /\n"
        'RUN echo "GOT:" $(cat /got)\n'
    )

    def got(owner: str, again: str, secrets: bytes) -> str:
        image, files = builder.image(f"{owner}/1/f"), {"again": again}
        return builder.build(dockerfile, image, files=files, secrets=secrets, skipPush=True).logged("GOT:")

    alice, mallory = (f"o{uuid.uuid4().hex[:8]}" for _ in range(2))
    evil = got(mallory, "1", builder.seal(pip="evil"))
    assert evil.startswith("1 ")
    assert got(mallory, "2", builder.seal(pip="other")) == evil, "the step is in the cache, for its owner"
    assert got(alice, "3", b"").startswith("0 ")


def test_a_build_step_reaches_nothing_of_the_platform(
    builder: OfBuilder, engine: docker.DockerClient
) -> None:
    cloud = Cloud(State.here(), engine)
    ports = (cloud.state.ports.gateway_port, cloud.state.ports.builder_port, cloud.state.ports.git_port)
    around = ("127.0.0.1", "172.17.0.1", "172.18.0.1", "10.10.0.1", "host.docker.internal")
    own = builder.url.rpartition(":")[2]
    # The engine's build steps are on its default bridge, beside containers that ask for no network.
    bridges = ["docker_gwbridge"] if builder.driver.is_engine else ["docker_gwbridge", "bridge"]
    places = {
        *INSIDE,
        *container_addresses(cloud),
        *(f"{host}:{port}" for host in builders.addresses(engine, *bridges) for port in (5000, 8080, 8081)),
        *(f"{host}:{port}" for host in around for port in (own, cloud.state.ports.registry_port, *ports)),
        builder.driver.other_registry,
    }
    program = f"{PROBE}\nplaces = {sorted(places)!r}\n" + (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(len(places)) as pool:\n"
        "    found = [place for at in pool.map(lambda place: reachable([place]), places) for place in at]\n"
        "print('REACHED', found)\n"
    )
    run = f"RES_OPTIONS=timeout:1 python3 /probe.py; echo {uuid.uuid4()}"
    dockerfile = f"FROM {builder.driver.base}\nCOPY probe.py /\nRUN {run}\n"
    assert builder.build(dockerfile, files={"probe.py": program}, skipPush=True).logged("REACHED") == "[]"
    host = subprocess.run(("python3", "-c", program), capture_output=True, text=True, timeout=60).stdout
    reached = set(ast.literal_eval(host.partition("REACHED")[2].strip()))
    assert {f"127.0.0.1:{own}", f"127.0.0.1:{cloud.state.ports.registry_port}"} <= reached
    assert any(place.startswith("172.") and place.endswith(":5000") for place in reached)


def test_a_step_writes_no_file_beyond_the_limit(driver: Driver, tmp_path: Path) -> None:
    with of_builder(driver, tmp_path, file_limit_mb=1) as builder:
        answer = builder.build(f"FROM {driver.base}\nRUN head -c 3000000 /dev/zero > /x\n")
    assert (answer.last["reason"], answer.last["code"]) == ("file_size", "failed"), answer.last


@pytest.fixture
def group() -> Iterator[str]:
    """A control group of this test's own: 128 MiB, and 64 processes."""
    root, name = Path("/sys/fs/cgroup"), f"e2e-{uuid.uuid4().hex[:8]}"
    if (root / "cgroup.controllers").exists():
        limits = {root / name / "memory.max": 128 * 1024**2, root / name / "pids.max": 64}
        limits[root / name / "memory.swap.max"] = 0
    else:
        limits = {root / "memory" / name / "memory.limit_in_bytes": 128 * 1024**2}
        limits[root / "pids" / name / "pids.max"] = 64
    try:
        for file, limit in limits.items():
            file.parent.mkdir(exist_ok=True)
            file.write_text(str(limit))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield name
    for folder in (*root.glob(f"*/{name}/"), root / name):
        for each in (*folder.glob("*/"), folder):
            with suppress(OSError):
                each.rmdir()


def test_a_step_that_takes_memory_without_end_is_killed_and_told_so(
    driver: Driver, group: str, tmp_path: Path
) -> None:
    eat = "python3 -c 'x = bytearray(); [x.extend(bytes(2 ** 20)) for _ in range(2000)]'"
    with of_builder(driver, tmp_path, cgroup_parent=group) as builder:
        answer = builder.build(f"FROM {driver.base}\nRUN {eat}\n", stream=False)
        ready = requests.get(f"{builder.url}/readyz", timeout=30).json()
    assert (answer.last["reason"], answer.last["code"]) == ("memory", "failed"), answer.last
    assert (answer.status, "for want of memory" in answer.error) == (422, True)
    assert ready["protections"]["limits"] is True


def test_a_step_that_forks_without_end_gets_no_further_than_the_limit(
    driver: Driver, group: str, tmp_path: Path
) -> None:
    program = """
import os, signal
forked = 0
try:
    while forked < 1000:
        if not os.fork():
            signal.pause()
        forked += 1
except OSError as error:
    print("FORKED", forked, error.strerror)
"""
    with of_builder(driver, tmp_path, cgroup_parent=group) as builder:
        dockerfile = f"FROM {driver.base}\nCOPY x.py /\nRUN python3 /x.py\n"
        answer = builder.build(dockerfile, files={"x.py": program}, skipPush=True)
    count = answer.logged("FORKED").split()[0]
    assert 0 < int(count) < 64


def special(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tuple[tarfile.TarInfo, str]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, ""


def with_size(kind: bytes, size: int, content: bytes = b"") -> bytes:
    info, _ = special("context/x", kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + content


UP = ("context/a/b/c/up", tarfile.SYMTYPE, "../../..")
LARGE = 2 * 1024**2


@pytest.mark.parametrize(
    ("rows", "before", "status"),
    [
        ([special("context/../../x")], b"", 400),
        ([special("/context/x")], b"", 400),
        ([special("context/x", tarfile.SYMTYPE, "/etc/passwd")], b"", 400),
        ([special("context/x", tarfile.SYMTYPE, "../../x")], b"", 400),
        ([special(*UP), special("context/x", tarfile.SYMTYPE, "a/b/c/up/../..")], b"", 400),
        ([special(*UP), special("context/a/b/c/up/x", tarfile.SYMTYPE, "../../../y")], b"", 400),
        ([special("context/x", tarfile.LNKTYPE, "/etc/passwd")], b"", 400),
        ([special("context/x", tarfile.CHRTYPE)], b"", 400),
        ([special("context/x", tarfile.FIFOTYPE)], b"", 400),
        ([special("context/x"), special("context/x")], b"", 400),
        ([special("context/x"), special("context/./x")], b"", 400),
        ([special(f"context/{'x' * 2000}")], b"", 400),
        ([special("com.openfaas.secrets")], b"", 400),
        ([(tarfile.TarInfo("com.openfaas.secrets"), "a: &a [x]\nb: [*a, *a]")], b"", 400),
        ([(tarfile.TarInfo("com.openfaas.secrets"), b"\xff\0")], b"", 400),
        ([special(f"context/{at}{'/a' * 100}") for at in range(10)], b"", 413),
        ([special(f"context/{at}") for at in range(1001)], b"", 413),
        ([], with_size(tarfile.REGTYPE, -512), 400),
        ([], with_size(tarfile.REGTYPE, 2**40), 413),
        ([], with_size(tarfile.XHDTYPE, LARGE, bytes(LARGE)), 400),
        ([], with_size(tarfile.XGLTYPE, LARGE, bytes(LARGE)), 400),
        ([], with_size(tarfile.GNUTYPE_LONGNAME, LARGE, b"a" * LARGE), 400),
        ([], with_size(tarfile.GNUTYPE_LONGNAME, 512, b"a" * 512) * 2000, 400),
        ([], with_size(tarfile.GNUTYPE_SPARSE, 2**40), 400),
    ],
)
def test_no_tar_escapes_or_grows(
    rows: list[tuple[tarfile.TarInfo, str | bytes]], before: bytes, status: int, strict: OfBuilder
) -> None:
    body = before + tar("FROM scratch\n", strict.image(), rows=rows)
    answer = strict.post(body, stream=False)
    assert answer.status == status, answer.last
    assert not list(strict.work.glob("of-builder-*/build-*"))


@pytest.fixture(scope="module")
def strict(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfBuilder]:
    """An of-builder that takes only small tars; what it says of them is the same for each BuildKit."""
    allowed = {"allowed_sources": "docker.io/*"}
    driver = Driver("engine", allowed, builders.python_image(engine), "")
    folder = tmp_path_factory.mktemp("strict")
    with of_builder(driver, folder, context_files_limit=1000) as running:
        yield running


def test_a_git_folder_in_the_context_runs_nothing(strict: OfBuilder, tmp_path: Path) -> None:
    """buildx asks git about the context; a repository's own configuration names programs that git runs."""
    proof = tmp_path / "ran"
    config = (
        "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = origin\n"
        '[remote "origin"]\n\turl = ./.git\n\tpromisor = true\n\tuploadpack = ./evil.sh\n'
    )
    script = tarfile.TarInfo("context/evil.sh")
    script.mode = 0o755
    files: dict[str, str | bytes] = {
        ".git/config": config,
        ".git/HEAD": "ref: refs/heads/master\n",
        ".git/refs/heads/master": "1" * 40 + "\n",
        ".git/objects/x": "",
    }
    rows = [(script, f"#!/bin/sh\ntouch {proof}\n")]
    body = tar("FROM scratch\nCOPY evil.sh /\n", strict.image(), files=files, rows=rows)
    assert strict.post(body).digest
    assert not proof.exists()


@pytest.mark.parametrize(
    "config",
    [
        {"output": ["type=local,dest=PLACE"], "outputs": ["type=local,dest=PLACE"], "dest": "PLACE"},
        {"dockerfile": "/etc/passwd", "file": "/etc/passwd", "context": "/etc", "target": "x"},
        {"frontend": "gateway.v0", "syntax": "evil/frontend", "entitlements": ["network.host"]},
        {"secrets": ["id=x,src=/etc/shadow"], "secret": "id=x,src=/etc/shadow", "ssh": "default"},
        {"cacheFrom": ["type=local,src=/"], "cacheTo": ["type=local,dest=PLACE"], "network": "host"},
    ],
)
def test_no_key_of_the_config_chooses_more_than_what_is_built(
    config: dict[str, Any], strict: OfBuilder, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    given = json.loads(json.dumps(config).replace("PLACE", str(place)))
    body = tar("FROM scratch\nCOPY Dockerfile /\n", strict.image(), config=given)
    assert strict.post(body).digest
    assert not place.exists()


@pytest.mark.parametrize(
    "image",
    [
        "x,dest=/tmp/x",
        "--output=x",
        "x:5000/a b/c",
        "x:5000/../y",
        "x:5000/a@sha256:" + "0" * 64,
        "x\n--y",
        "",
    ],
)
def test_no_name_of_an_image_is_an_option(image: str, strict: OfBuilder) -> None:
    answer = strict.post(tar("FROM scratch\n", image), stream=False)
    assert answer.status == 400, answer.last


def test_clients_stay_below_their_prefix(strict: OfBuilder) -> None:
    below, others = strict.image("clients/f"), strict.image()
    text = "FROM scratch\nCOPY Dockerfile /\n"
    assert strict.post(tar(text, others)).digest
    assert strict.post(tar(text, below), keys=CLIENT).digest
    beside = strict.image("clients-too/f"), strict.image("clients"), strict.image("clients/f").upper()
    for image in (others, *beside, OWN, "docker.io/x/y:1"):
        refused = strict.post(tar(text, image), keys=CLIENT, stream=False)
        assert refused.status in (400, 403), (image, refused.last)
    for path in ("image", "log"):
        name = others.rpartition(":")[0]
        assert strict.get(path, image=name, tag="1").status_code == 200
        assert strict.get(path, image=name, tag="1", keys=CLIENT).status_code == 403
        assert strict.get(path, image=below.rpartition(":")[0], tag="1", keys=CLIENT).status_code == 200


def test_a_buildkit_that_ignores_source_policies_builds_nothing_for_strangers(
    driver: Driver, tmp_path: Path
) -> None:
    """As Debian 12's engine does: the policy is taken away on its way there."""
    program = tmp_path / "bin" / "docker-buildx"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nunset {POLICY}\nexec {buildx()} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    with of_builder(driver, tmp_path, PATH=path, untrusted_builds="true") as builder:
        answer = builder.build("FROM scratch\nCOPY Dockerfile /\n")
        ready = requests.get(f"{builder.url}/readyz", timeout=30)
    assert (answer.last["status"], answer.last["code"]) == ("failed", "misconfigured")
    assert "source_policy" in answer.error
    assert (ready.status_code, "source_policy" in ready.text) == (503, True)


def test_what_a_buildkit_does_not_enforce_is_named(engine: docker.DockerClient, tmp_path: Path) -> None:
    program = builders.find_buildkitd()
    if not program or os.geteuid() != 0:
        pytest.skip("needs root and a buildkitd, on the PATH or named by BUILDKITD")
    with buildkitd(program, tmp_path, network="host") as url:
        driver = Driver("standalone", {"buildkit_url": url}, "", "", program)
        with of_builder(driver, tmp_path / "of-builder") as builder:
            ready = requests.get(f"{builder.url}/readyz", timeout=30).json()
    assert ready["protections"]["source_policy"] is True
    assert ready["protections"]["network"] is False
    assert "network" in ready["not_enforced"]


def test_nothing_small_becomes_large_before_its_signature_is_known(strict: OfBuilder) -> None:
    headers = {BUILDER_HEADER: f"sha256={'0' * 64}", "Content-Encoding": "gzip"}
    body = gzip.compress(bytes(10 * 1024**2))
    answer = requests.post(f"{strict.url}/build", data=body, headers=headers, timeout=30)
    assert (answer.status_code, "Content-Encoding" in answer.text) == (400, True)


def test_many_attacks_at_once_leave_an_of_builder_that_builds(strict: OfBuilder) -> None:
    bodies = [
        tar("FROM scratch\n# \0", strict.image()),
        tar(f"FROM {OWN}\n", strict.image()),
        with_size(tarfile.REGTYPE, -512) + tar("FROM scratch\n", strict.image()),
        b"\0" * 10_000,
        tar('FROM scratch\nRUN --mount=\\"x ls\n', strict.image()),
    ]
    with ThreadPoolExecutor(8) as pool:
        statuses = [
            answer.status for answer in pool.map(lambda body: strict.post(body, stream=False), bodies * 8)
        ]
    assert set(statuses) <= {400, 403, 503}
    assert strict.build("FROM scratch\nCOPY Dockerfile /\n").digest
    assert not list(strict.work.glob("of-builder-*/build-*"))
