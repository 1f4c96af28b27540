"""of-builder's own settings, in the same kind of table as the functions'."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

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
    secret_mount_path: str = setting("/var/openfaas/secrets", "folder that holds the secrets (below)")
    buildkit_url: str = setting(
        "", "BuildKit to drive, as tcp://of-buildkit:1234 or unix:///PATH; empty: the Docker engine's own"
    )
    registry_api_url: str = setting(
        "", "the registry's API as of-builder reaches it; empty: the host in the image's name"
    )
    insecure: bool = setting(False, "whether the registry is reached by plain http, also to push")
    registry_cache: bool = setting(
        False,
        "whether each function's build cache is kept in the registry too, for a BuildKit that loses its own",
    )
    client_prefix: str = setting(
        "", "where holders of the secret builder-clients may push, as registry:5000/ci/; empty: nowhere"
    )
    allowed_sources: tuple[str, ...] = setting(
        (
            "docker.io/*",
            "ghcr.io/*",
            "quay.io/*",
            "gcr.io/*",
            "mcr.microsoft.com/*",
            "public.ecr.aws/*",
        ),
        "what a Dockerfile may be made from: images as HOST/NAME:TAG, files to ADD as https://HOST/PATH; "
        "`*` at the end stands for all that begins so; comma list",
    )
    untrusted_builds: bool = setting(
        False,
        "whether strangers' code is built: then of-builder builds nothing while a protection is missing",
    )
    cgroup_parent: str = setting(
        "", "control group that limits the build steps' memory, CPU and processes; empty: no limits"
    )
    file_limit_mb: int = setting(4096, "largest file that a build step may write, in MiB")
    http_proxy: str = setting("", "proxy for build steps")
    https_proxy: str = setting("", "proxy for build steps")
    no_proxy: str = setting("", "hosts that build steps reach without the proxy")
    work_folder: str = setting("/tmp", "where contexts are unpacked")
    request_limit_mb: int = setting(200, "largest request body, in MiB")
    context_files_limit: int = setting(50_000, "most entries in one tar")
    build_timeout: Seconds = setting(Seconds(600), "longest build")
    parallel_builds: int = setting(2, "builds at once")
    queued_builds: int = setting(
        20,
        "builds that may wait, from their first byte on, at most half of them one owner's; "
        "further ones are told to come back",
    )
    cache_limit_gb: int = setting(10, "build cache that is kept, in GiB")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        if not port.isdigit():
            raise Misconfigured(f"setting listen: {self.listen!r} is not host:port")
        return host, int(port)

    @property
    def places(self) -> int:
        """Requests at once: those that build, and those that wait."""
        return self.parallel_builds + self.queued_builds


def buildx() -> str:
    """The buildx binary; `Misconfigured` says how to get it."""
    found = next((path for name in _PLUGINS if (path := shutil.which(name))), None)
    if not found:
        raise Misconfigured("buildx is not installed: install the package docker-buildx")
    return found
