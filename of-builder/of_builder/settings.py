"""of-builder's own settings, in the same kind of table as the functions'."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sdk.errors import Misconfigured
from sdk.settings import Seconds, setting

# Where the distributions put the plugin; it also runs by itself.
_PLUGINS = (
    "docker-buildx",
    "/usr/libexec/docker/cli-plugins/docker-buildx",
    "/usr/lib/docker/cli-plugins/docker-buildx",
    "/usr/local/lib/docker/cli-plugins/docker-buildx",
)


@dataclass(frozen=True)
class Settings:
    listen: str = setting("0.0.0.0:8080", "address and port to serve at")
    secret_mount_path: str = setting("/var/openfaas/secrets", "folder that holds builder-secret")
    buildkit_url: str = setting(
        "", "BuildKit to drive, as tcp://of-buildkit:1234 or unix:///PATH; empty: the Docker engine's own"
    )
    registry_api_url: str = setting(
        "", "the registry's API as of-builder reaches it; empty: the host in the image's name"
    )
    insecure: bool = setting(False, "whether the registry is reached by plain http, also to push")
    work_folder: str = setting("/tmp", "where contexts are unpacked")
    request_limit_mb: int = setting(200, "largest request body, in MiB")
    context_files_limit: int = setting(50_000, "most entries in one tar")
    build_timeout: Seconds = setting(Seconds(600), "longest build")
    parallel_builds: int = setting(2, "builds at once")
    queued_builds: int = setting(
        20, "builds that may wait, from their first byte on; further ones are told to come back"
    )
    cache_limit_gb: int = setting(10, "build cache that is kept, in GiB")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        if not port.isdigit():
            raise Misconfigured(f"setting listen: {self.listen!r} is not host:port")
        return host, int(port)

    @property
    def buildx_folder(self) -> Path:
        """Where buildx keeps what it knows of builders: the same for every call of it."""
        return Path(self.work_folder) / "of-builder-buildx"


def buildx() -> str:
    """The buildx binary; `Misconfigured` says how to get it."""
    found = next((path for name in _PLUGINS if (path := shutil.which(name))), None)
    if not found:
        raise Misconfigured("buildx is not installed: install the package docker-buildx")
    return found
