"""The Python base image: the official one, or one made from Debian's packages.

Where no container registry can be reached, a root file system is made by mmdebstrap from the mirrors
that this machine's apt uses, and imported under a name of our own.
"""

from __future__ import annotations

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from pathlib import Path

import docker

from . import debian
from .engine import LABEL
from .errors import CommandError
from .steps import run

OFFICIAL = "python:3.12-slim"
OWN = "openfaas-cloud/python"
_PULL_SECONDS = 120
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_RECIPE = (
    "--variant=minbase",
    "--include=ca-certificates,git,python3,python3-venv",
    *(f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT),
    # As in the official image: `python`, and a pip that apt knows nothing of, so that it never meets a
    # package that apt has installed.
    """--customize-hook=chroot "$1" sh -euc '
        ln -s python3 /usr/bin/python
        rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
        wheel=$(ls /usr/share/python-wheels/pip-*.whl)
        python "$wheel/pip" install --quiet --no-index "$wheel"'""",
    # This machine's certificates, or pip finds nothing behind a proxy that has its own.
    f'--customize-hook=cp -L {_CERTIFICATES} "$1{_CERTIFICATES}"',
)


def ensure(client: docker.DockerClient) -> str:
    """The name of a base image that is in the engine."""
    recipe = hashlib.sha256("\n".join(_RECIPE).encode()).hexdigest()[:8]
    own = f"{OWN}:{debian.System.here().suite or 'stable'}-{recipe}"
    for name in (OFFICIAL, own):
        if _is_there(client, name):
            return name
    if _pulled(client):
        return OFFICIAL
    _make(own)
    return own


def _is_there(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _pulled(client: docker.DockerClient) -> bool:
    pool = ThreadPoolExecutor(1)
    try:
        pool.submit(client.images.pull, OFFICIAL).result(_PULL_SECONDS)
    except (docker.errors.DockerException, OSError, Late):
        return False
    finally:
        pool.shutdown(wait=False)
    return True


def _make(name: str) -> None:
    system = debian.System.here()
    if not system.has_apt:
        raise CommandError(
            f"{OFFICIAL} can't be pulled and this is neither Debian nor Ubuntu: load it into the engine"
        )
    debian.install(("mmdebstrap",))
    with tempfile.TemporaryDirectory() as folder:
        sources, archive = Path(folder) / "sources.list", Path(folder) / "root.tar"
        sources.write_text(debian.sources(system.suite))
        command = ("mmdebstrap", *_RECIPE, system.suite, str(archive), str(sources))
        run(command, what="mmdebstrap")
        _import(archive, name)


def _import(archive: Path, name: str) -> None:
    """`docker import`, by the API that every client has."""
    client = docker.APIClient(version="auto", timeout=300)
    repository, _, tag = name.partition(":")
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    client.import_image_from_file(
        str(archive), repository=repository, tag=tag, changes=[f"ENV {path}", f"LABEL {LABEL}=1"]
    )
