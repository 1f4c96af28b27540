"""What the BuildKit at hand enforces, found out rather than believed."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sdk.errors import Misconfigured, Unavailable

from .buildkit import POLICY, BuildKit

DENY_ALL = msgspec.json.encode({"version": 1, "rules": [{"action": "DENY", "selector": {"identifier": "*"}}]})
_DENIED = "denied by policy"
# An engine that is upgraded, or another one behind the same address, is looked at again.
_LASTS_SECONDS = 600

MEANINGS = {
    "source_policy": "BuildKit refuses sources that allowed_sources does not name",
    "network": "build steps have a network of their own, not BuildKit's",
    "processes": "build steps see no processes of other builds, and end with their own",
    "own_store": "no image of BuildKit's machine can be a base",
    "limits": "build steps have limits on memory, CPU and processes (setting cgroup_parent)",
}
# Without these, strangers' code is not built. A network of BuildKit's own may be fenced in: docs/builder.md.
NEEDED = ("source_policy", "processes")


@dataclass(frozen=True)
class Protections:
    """Each protection, and whether this driver has it."""

    enforced: Mapping[str, bool]
    worker: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        return {name: MEANINGS[name] for name, there in self.enforced.items() if not there}


@dataclass
class Watch:
    """Probes BuildKit when first asked, and again from time to time."""

    buildkit: BuildKit
    _found: Protections | None = None
    _at: float = 0
    _probing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def protections(self) -> Protections:
        """`Unavailable` while BuildKit does not answer."""
        async with self._probing:  # many builds may come at once: one of them asks
            if not self._found or time.monotonic() - self._at > _LASTS_SECONDS:
                self._found, self._at = await _probe(self.buildkit), time.monotonic()
            return self._found

    async def check(self) -> None:
        """Raise `Misconfigured` if strangers' code is built here, and what that needs is missing."""
        if not self.buildkit.settings.untrusted_builds:
            return
        missing = (await self.protections()).missing
        if told := "; ".join(f"{name}: {missing[name]}" for name in NEEDED if name in missing):
            raise Misconfigured(
                f"untrusted_builds is set, and this BuildKit does not enforce: {told} (see docs/builder.md)"
            )


async def _probe(buildkit: BuildKit) -> Protections:
    settings, worker = buildkit.settings, await buildkit.worker()
    standalone = bool(settings.buildkit_url)
    enforced = {
        "source_policy": await _refuses_all(buildkit),
        # The engine puts steps on its bridge, whatever its worker's label says.
        "network": not standalone or worker.get("network") in ("bridge", "cni"),
        "processes": worker.get("oci.process-mode", "sandbox") == "sandbox",
        "own_store": standalone,
        "limits": bool(settings.cgroup_parent),
    }
    return Protections(enforced, worker)


async def _refuses_all(buildkit: BuildKit) -> bool:
    """Whether a build that may use nothing at all is refused for that; an old engine just builds it."""
    with tempfile.TemporaryDirectory(dir=buildkit.folder) as folder:
        policy = Path(folder, "policy.json")
        policy.write_bytes(DENY_ALL)
        Path(folder, "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        code, said = await buildkit.run(
            "build",
            *buildkit.chosen,
            "--output=type=cacheonly",
            "--provenance=false",
            "--progress=plain",
            "--",
            folder,
            extra={POLICY: str(policy)},
        )
    if code and _DENIED not in said:
        raise Unavailable(f"BuildKit can't be probed: {said.strip()[-300:]}")
    return code != 0
