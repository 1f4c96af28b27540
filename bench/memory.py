"""How far the memory of each piece rises while a context of 50 MB goes through it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import requests

from git_tar.sdk import messages
from local.gitserver.repository import owner_id
from tests.contract.fakes import FakeBuilder, FakeGateway, running
from tests.e2e import builder as builders

from . import served
from .context import CONTEXT_BYTES, KEYS, PUSH, fill, packed
from .measure import Measure, Samples
from .repositories import committed, git
from .served import ROOT

_FILES = 10
# One request to a process: with a context of next to nothing, or with that of 50 MB.
Work = Callable[[bool], None]


@contextmanager
def _git_tar(work: Path) -> Iterator[tuple[int, Work]]:
    port, repositories = served.free_port(), work / "repositories"
    origin, tree = repositories / "repo.git", work / "tree"
    git("init", "--quiet", "--bare", "--initial-branch=master", origin)
    git(f"--git-dir={origin}", "config", "uploadpack.allowAnySHA1InWant", "true")
    fill(tree, _FILES)
    big = {str(file.relative_to(tree)): file.read_bytes() for file in tree.rglob("*") if file.is_file()}
    small = {
        "stack.yml": "provider: {name: openfaas}\nfunctions: {big: {lang: python3-http, handler: ./big}}\n",
        "big/handler.py": "",
    }
    host = f"http://127.0.0.1:{port}"
    settings = {"gateway_url": host, "allowed_git_hosts": host, "custom_templates": str(ROOT / "local")}
    command = ("-m", "bench.neighbour", str(port), str(repositories))
    with (
        served.program(command, port, {"TMPDIR": str(work)}),
        served.function(ROOT / "git-tar", work, **settings, git_scm="local") as function,
    ):

        def push(with_context: bool) -> None:
            committed(
                origin, [{f"big/{name}": data for name, data in big.items()} if with_context else small]
            )
            repository = replace(PUSH.repository, clone_url=f"{host}/git/repo.git")
            body = messages.seal("git-tar", replace(PUSH, repository=repository))
            _ok(requests.post(function.url, body, headers=messages.headers(body, KEYS), timeout=120))

        yield function.process.pid, push


@contextmanager
def _buildshiprun(work: Path) -> Iterator[tuple[int, Work]]:
    gateway, builder = FakeGateway(), FakeBuilder()
    with (
        running(gateway),
        running(builder),
        served.function(
            ROOT / "buildshiprun", work, gateway_url=gateway.url, builder_url=builder.url, git_scm="local"
        ) as function,
    ):

        def ship(with_context: bool) -> None:
            if with_context:
                fill(work / "tree" / "big", _FILES)
            else:
                (work / "tree" / "big").mkdir(parents=True)
            tar = packed(work, "sent.tar")
            headers = {"X-Cloud-Signature": tar.signature, "Content-Type": "application/x-tar"}
            with tar.path.open("rb") as body:
                _ok(requests.post(function.url, body, headers=headers, timeout=120))
            tar.path.unlink()
            gateway.calls.clear()
            builder.calls.clear()

        yield function.process.pid, ship


@contextmanager
def _of_builder(work: Path) -> Iterator[tuple[int, Work]]:
    """With the engine's BuildKit; nothing is pushed."""
    with builders.of_builder(builders.Driver("engine", {}, "", ""), work) as builder:

        def build(with_context: bool) -> None:
            size = CONTEXT_BYTES // _FILES if with_context else 1
            files = {f"{number}.bin": os.urandom(size) for number in range(_FILES)}
            image = f"{builder.registry}/bench/{owner_id('bench')}/1/big:1"
            body = builders.tar("FROM scratch\nCOPY . /\n", image, files, config={"skipPush": True})
            assert builder.post(body).last["status"] == "success"

        yield builder.process.pid, build


def _ok(answer: requests.Response) -> None:
    assert answer.ok, answer.text


def rise(start: Callable[[Path], AbstractContextManager[tuple[int, Work]]], repeat: int) -> Samples:
    """Of a process just started, and warmed up: the highest above what it had, in contexts."""
    found = []
    for _ in range(repeat):
        with (
            tempfile.TemporaryDirectory(prefix="bench-memory-") as folder,
            start(Path(folder)) as (pid, work),
        ):
            work(False)
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak is what it has now
            before = _memory(pid, "VmRSS")
            work(True)
            found.append((_memory(pid, "VmHWM") - before) / CONTEXT_BYTES)
    return Samples(tuple(found), (1.0,) * repeat)


def _memory(pid: int, row: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{row}:"))


_FLOOR = "one context in memory"
MEASURES = (
    Measure(
        "rss_git_tar", "peak rise of git-tar with 50 MB", _FLOOR, "contexts", 0.5, partial(rise, _git_tar)
    ),
    Measure(
        "rss_of_builder",
        "peak rise of of-builder with 50 MB",
        _FLOOR,
        "contexts",
        0.5,
        partial(rise, _of_builder),
    ),
    Measure(
        "rss_buildshiprun",
        "peak rise of buildshiprun with 50 MB",
        _FLOOR,
        "contexts",
        1.2,
        partial(rise, _buildshiprun),
    ),
)
