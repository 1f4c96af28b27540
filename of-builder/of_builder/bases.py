"""Base images: which of two that have one name is taken, and that it holds no ONBUILD instructions.

Those would run in a build that does not show them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import NoReturn

import cachetools
import docker
import msgspec

from sdk.errors import Refused, Unavailable
from sdk.registry import Reference

from .buildkit import BuildKit

_SECONDS = 10
_KEPT_SECONDS, _MISSED_SECONDS = 600, 60
# On images that were made on this machine, as by `python -m local up`: no registry has them.
MADE_HERE = "openfaas-cloud.local"
# Official images are for some ten, each with an attestation.
PLATFORMS = 60
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Bases:
    """Looks at base images, and remembers for a while what it saw."""

    def __init__(self, buildkit: BuildKit) -> None:
        self._buildkit = buildkit
        self._seen: cachetools.TTLCache[tuple[str, bool], list[str]] = cachetools.TTLCache(
            1000, _KEPT_SECONDS
        )
        self._missed: cachetools.TTLCache[str, bool] = cachetools.TTLCache(1000, _MISSED_SECONDS)

    async def are_pulled(self, images: Sequence[str], epoch: str) -> bool:
        """Whether a build has to take them as the registries have them now, whatever is in a store.

        In an epoch it has, so that one that has moved is noticed, unless one of them was made here.
        """
        if not epoch or self._buildkit.settings.buildkit_url:
            return bool(epoch)
        found = [await asyncio.to_thread(_in_engine, image) for image in images]
        return not any(MADE_HERE in _labels(image) for image in found)

    async def check(self, images: Sequence[str], environment: Mapping[str, str], *, pulled: bool) -> None:
        """Raise `Refused` for an image with ONBUILD.

        One that can't be looked at is BuildKit's to complain of, unless strangers' code is built: it may be
        BuildKit alone that gets at it.
        """
        for image in images:
            if image in self._missed:
                continue  # each build would wait for it again
            try:
                found = await self._onbuild(image, environment, pulled=pulled)
            except Unavailable:
                if self._buildkit.settings.untrusted_builds:
                    raise
                self._missed[image] = True
                continue
            if found:
                raise Refused(
                    f"the base image {image} has ONBUILD instructions ({found[0][:80]}): use another"
                )

    async def _onbuild(self, image: str, environment: Mapping[str, str], *, pulled: bool) -> list[str]:
        found = self._seen.get((image, pulled))  # once: a moment later it may be forgotten
        if found is None:
            config = None
            if not (pulled or self._buildkit.settings.buildkit_url):
                # The engine's own BuildKit prefers what is in the engine's store.
                config = await asyncio.to_thread(_in_engine, image)
            found = _instructions(config or await self._in_registry(image, environment))
            self._seen[(image, pulled)] = found
        return found

    async def _in_registry(self, image: str, environment: Mapping[str, str]) -> object:
        """The image's configuration, or those of its platforms.

        By its digest, the registry gives the configuration as it is: what buildx makes of it has no ONBUILD.
        """
        repository = Reference.parse(image.partition("@")[0]).repository
        manifest = await self._raw(image, environment)
        listed = [_digest(row) for row in _rows(manifest.get("manifests"))]
        if len(listed) > PLATFORMS:
            raise Refused(f"the base image {image} is for more than {PLATFORMS} platforms")
        manifests = await self._all(repository, listed, environment) if listed else [manifest]
        configs = [_digest(row) for manifest in manifests for row in _rows([manifest.get("config")])]
        return await self._all(repository, configs, environment)

    async def _all(
        self, repository: str, digests: Sequence[str], environment: Mapping[str, str]
    ) -> list[dict[str, object]]:
        return await asyncio.gather(*(self._raw(f"{repository}@{one}", environment) for one in digests))

    async def _raw(self, name: str, environment: Mapping[str, str]) -> dict[str, object]:
        code, said = await self._buildkit.run("imagetools", "inspect", "--raw", "--", name, extra=environment)
        try:
            return (
                msgspec.json.decode(said, type=dict[str, object]) if code == 0 else _unavailable(name, said)
            )
        except (msgspec.MsgspecError, RecursionError):
            return _unavailable(name, said)


def _in_engine(image: str) -> object | None:
    try:
        with closing(docker.from_env(timeout=_SECONDS, version="auto")) as client:
            return dict(client.api.inspect_image(image))
    except (docker.errors.DockerException, OSError):
        return None


def _labels(image: object) -> Mapping[str, object]:
    config = image.get("Config") if isinstance(image, Mapping) else None
    return (config.get("Labels") or {}) if isinstance(config, Mapping) else {}


def _instructions(config: object) -> list[str]:
    """All ONBUILD instructions, wherever the configuration of an image, or of one per platform, has them."""
    if isinstance(config, list):
        return [line for part in config for line in _instructions(part)]
    if isinstance(config, Mapping):
        own = config.get("OnBuild") or []
        return [str(line) for line in own] + [
            line for part in config.values() for line in _instructions(part)
        ]
    return []


def _rows(value: object) -> list[dict[str, object]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _digest(row: Mapping[str, object]) -> str:
    digest = str(row.get("digest"))
    return digest if _DIGEST.fullmatch(digest) else _unavailable(digest, "no digest")


def _unavailable(image: str, said: str) -> NoReturn:
    raise Unavailable(f"the base image {image} can't be looked at: {said.strip()[-300:]}")
