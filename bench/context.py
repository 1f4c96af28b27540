"""A build context of 50 MB on its way to buildshiprun: the time it takes, and the memory of whom it meets."""

from __future__ import annotations

import random
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from git_tar import contexts
from git_tar.contexts import Tree
from git_tar.mirrors import Mirrors
from git_tar.sdk.context import SignedTar
from git_tar.sdk.gateway import Gateway
from git_tar.sdk.messages import Owner, Push, Repository
from git_tar.sdk.secrets import Keys
from git_tar.sdk.settings import Settings
from git_tar.sdk.signature import CLOUD_HEADER
from git_tar.sdk.stack import Configuration, Function
from git_tar.sources import Sources
from git_tar.template_cache import TemplateCache

from . import served
from .measure import QUICK_REPEAT, Measure, Samples, interleaved, seconds
from .served import ROOT

CONTEXT_BYTES = 50 * 1000**2
KEYS = Keys("payload-secret", (b"payload",))
_REPOSITORY = Repository(
    id=7,
    name="repo",
    full_name="alice/repo",
    clone_url="http://127.0.0.1/alice/repo.git",
    html_url="",
    private=False,
    owner=Owner("alice", 1),
)
PUSH = Push("local", "bench", "refs/heads/master", "", "", _REPOSITORY)
FUNCTION = Function("big", lang="python3-http", handler="./big")


def fill(folder: Path, files: int) -> None:
    """50 MB in so many files, in folders of 100."""
    noise = random.Random(files)  # noqa: S311
    for number in range(files):
        path = folder / f"{number // 100}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise.randbytes(CONTEXT_BYTES // files))
    (folder / "handler.py").write_text("def handle(event, context):\n    return {}\n")


def packed(work: Path, name: str) -> SignedTar:
    """The tar of the tree in `work`, as git-tar packs and signs it."""
    settings = replace(Settings(), custom_templates=(str(ROOT / "local"),))
    cache = TemplateCache(work / "templates", Mirrors(work / "mirrors"))
    sources = Sources(cache, Configuration(), settings)
    tree = Tree(PUSH, 40 * "0", work / "tree", Configuration(), sources)
    return contexts.pack(FUNCTION, tree, work / name, settings, KEYS)


@dataclass(frozen=True)
class Sending:
    """The context of one function, and where it is sent to."""

    work: Path
    url: str

    def ours(self) -> None:
        """As git-tar does it: what is packed is signed on the way, and its digest is taken."""
        tar = packed(self.work, "ours.tar")
        headers = {CLOUD_HEADER: tar.signature, "Content-Type": "application/x-tar"}
        with tar.path.open("rb") as body:
            Gateway(self.url).invoke("buildshiprun", body, headers, 60)
        tar.path.unlink()

    def by_hand(self) -> None:
        """tar, which openssl signs on its way to the disk, then curl."""
        template, tree, tar = (
            shlex.quote(str(path))
            for path in (ROOT / "local/template/python3-http", self.work / "tree", self.work / "floor.tar")
        )
        # The handler's files go to function/, as the template has it.
        rename = "--transform=s,^big,function,"
        command = (
            "set -e -o pipefail; signature=$("
            f"tar --create --sort=name {rename} -C {template} . -C {tree} big"
            f" | tee {tar} | openssl dgst -sha256 -hmac payload | cut -d' ' -f2); "
            f'curl --silent --fail --upload-file {tar} --request POST --header "Expect:" '
            f'--header "X-Cloud-Signature: sha256=$signature" {self.url}/function/buildshiprun; rm {tar}'
        )
        subprocess.run(("bash", "-c", command), check=True, capture_output=True, timeout=60)


@contextmanager
def sending(files: int) -> Iterator[Sending]:
    with tempfile.TemporaryDirectory(prefix="bench-context-") as folder:
        fill(Path(folder) / "tree" / "big", files)
        port = served.free_port()
        with served.program(("-m", "bench.neighbour", str(port), folder), port, {"TMPDIR": folder}) as sink:
            yield Sending(Path(folder), sink.url)


def _send(files: int, repeat: int) -> Samples:
    with sending(files) as both:
        return interleaved(repeat, lambda: seconds(both.ours), lambda: seconds(both.by_hand))


_FLOOR = "tar, sha256 and tee in one pipe, then curl"
MEASURES = (
    Measure(
        "context_50mb",
        "a context of 10 files: packed, signed, sent",
        _FLOOR,
        "s",
        1.2,
        partial(_send, 10),
        repeat=QUICK_REPEAT,
    ),
    Measure(
        "context_50mb_files",
        "the same of 5,000 files",
        _FLOOR,
        "s",
        1.2,
        partial(_send, 5000),
        repeat=QUICK_REPEAT,
    ),
)
