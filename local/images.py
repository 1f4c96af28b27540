"""The images of the platform's own containers, built from this checkout by the engine's BuildKit."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import docker

from .engine import LABEL, buildx
from .steps import run

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "openfaas-cloud"


@dataclass(frozen=True)
class Image:
    """`paths`, relative to the checkout, are all that the Dockerfile copies."""

    name: str
    dockerfile: str
    paths: tuple[str, ...]

    def tag(self, base: str) -> str:
        """`openfaas-cloud/NAME:<digest of what it is made of>`."""
        digest = hashlib.sha256(base.encode())
        for file in self._files():
            digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_mode:o}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return f"{PREFIX}/{self.name}:{digest.hexdigest()[:16]}"

    def _files(self) -> Iterator[Path]:
        for path in (self.dockerfile, *self.paths):
            place = ROOT / path
            found = sorted(place.rglob("*")) if place.is_dir() else [place]
            yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)


REGISTRY = Image(
    "registry",
    "registry/Dockerfile",
    (
        "sdk",
        *(f"registry/{name}.py" for name in ("contents", "plan", "retention", "serve", "settings")),
        *(f"registry/{name}" for name in ("config.yml", "config-cluster.yml", "requirements.txt")),
    ),
)
BUILDER = Image(
    "of-builder",
    "of-builder/Dockerfile",
    ("sdk", "of-builder/of_builder", "of-builder/requirements.txt"),
)
GATEWAY = Image("gateway", "local/gateway/Dockerfile", ("sdk", "local/__init__.py", "local/gateway"))
GIT_SERVER = Image(
    "git-server",
    "local/gitserver/Dockerfile",
    (
        "sdk",
        *(f"local/{name}.py" for name in ("__init__", "timeline", "following", "calls")),
        "local/gitserver",
        "local/template",
    ),
)
# With `up --github` alone.
GITHUB = Image(
    "github",
    "local/github/Dockerfile",
    (
        "local/__init__.py",
        *(f"local/gitserver/{name}.py" for name in ("__init__", "repository")),
        "local/github",
    ),
)
ALL = (REGISTRY, BUILDER, GATEWAY, GIT_SERVER)


def ensure(client: docker.DockerClient, base: str, wanted: Sequence[Image] = ALL) -> dict[str, str]:
    """Build what is not there; the tag of each image by its name."""
    tags = {image.name: image.tag(base) for image in wanted}
    missing = [image for image in wanted if not client.images.list(tags[image.name])]
    with ThreadPoolExecutor(len(ALL)) as pool:
        list(pool.map(lambda image: _build(image, tags[image.name], base), missing))
    return tags


def prune(client: docker.DockerClient, kept: Collection[str]) -> None:
    """Remove the platform's images that are not `kept`: each change of the checkout leaves some."""
    for image in client.images.list(f"{PREFIX}/*", filters={"label": f"{LABEL}=1"}):
        for tag in image.tags:
            if tag.startswith(f"{PREFIX}/") and tag not in kept:
                with suppress(docker.errors.APIError):  # a container uses it
                    client.images.remove(tag)


def _build(image: Image, tag: str, base: str) -> None:
    command = (
        buildx(),
        "build",
        "--load",
        "--provenance=false",
        "--progress=plain",
        f"--build-arg=PYTHON_IMAGE={base}",
        f"--label={LABEL}=1",
        f"--file={ROOT / image.dockerfile}",
        f"--tag={tag}",
        str(ROOT),
    )
    run(command, what=f"the build of {image.name}")
