"""The registry's HTTP API, as far as of-builder asks it.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from __future__ import annotations

import re

import aiohttp

from sdk.errors import Malformed, Unavailable

# Without all four, an OCI manifest answers 404.
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"[A-Za-z0-9.-]+(?::[0-9]+)?(?:/{_PART})+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SECONDS = aiohttp.ClientTimeout(total=15, connect=3)


async def digest(
    http: aiohttp.ClientSession, repository: str, tag: str, *, api_url: str, insecure: bool
) -> str | None:
    """The digest of `repository:tag`, None if the registry has no such image."""
    if not _REPOSITORY.fullmatch(repository) or not _TAG.fullmatch(tag):
        raise Malformed(f"{repository}:{tag} is no name of an image")
    host, _, path = repository.partition("/")
    base = api_url.rstrip("/") or f"{'http' if insecure else 'https'}://{host}"
    url = f"{base}/v2/{path}/manifests/{tag}"
    try:
        async with http.head(url, headers={"Accept": _ACCEPT}, timeout=_SECONDS) as response:
            if response.status == 404:
                return None
            found = response.headers.get("Docker-Content-Digest")
            if response.status != 200 or not found:
                raise Unavailable(f"the registry answered {response.status} for {repository}:{tag}")
            return found
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the registry does not answer: {type(error).__name__}") from None
