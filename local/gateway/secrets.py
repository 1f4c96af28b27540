"""Secrets: Swarm's cannot be changed, so each value is a new version behind one name."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping, Sequence

import msgspec

from .deployment import check_namespace, decode
from .errors import GatewayError
from .swarm import Swarm

NAME = "com.openfaas.secret"
_MOST_BYTES = 500 * 1024
_NAME = re.compile(r"[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?")


class Secret(msgspec.Struct, rename="camel"):
    """What /system/secrets takes; `raw_value` is base64."""

    name: str = ""
    namespace: str = ""
    value: str = ""
    raw_value: str = ""

    def __repr__(self) -> str:
        return f"<secret {self.name}>"

    def content(self) -> bytes:
        if not self.raw_value:
            return self.value.encode()
        try:
            return base64.b64decode(self.raw_value, validate=True)
        except ValueError:
            raise GatewayError(400, "rawValue is not base64") from None


def parse(body: bytes) -> Secret:
    secret = decode(body, Secret, status=500)
    check_namespace(secret.namespace)
    if not secret.name:
        raise GatewayError(400, "non-empty name is required")
    if "/" in secret.name or ".." in secret.name:
        raise GatewayError(400, "directory traversal found in name")
    if not _NAME.fullmatch(secret.name):
        raise GatewayError(400, "name must be lower case letters, digits, dashes and dots")
    return secret


def check_content(content: bytes) -> bytes:
    """Swarm's bounds."""
    if not 0 < len(content) <= _MOST_BYTES:
        raise GatewayError(400, f"a secret has 1 to {_MOST_BYTES} bytes, not {len(content)}")
    return content


class Secrets:
    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm

    async def names(self) -> list[str]:
        return sorted(await self._versions())

    async def set(self, secret: Secret) -> None:
        """Add a version; the ones before stay while a function uses them."""
        version = f"{secret.name[:40].rstrip('.-')}.{time.time_ns():x}"
        await self._swarm.create_secret(version, check_content(secret.content()), {NAME: secret.name})

    async def delete(self, name: str) -> None:
        versions = await self._versions()
        if name not in versions:
            raise GatewayError(500, f"remove {name}: no such secret")
        for secret_id, _ in versions[name]:
            if not await self._swarm.remove_secret(secret_id):
                raise GatewayError(500, f"secret {name} is in use")

    async def prune(self, name: str) -> None:
        """Remove the versions of `name` that no service uses, but the newest."""
        for secret_id, _ in (await self._versions()).get(name, [])[:-1]:
            await self._swarm.remove_secret(secret_id)

    async def resolve(self, names: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """The newest version of each name: the id and name of its Swarm secret."""
        versions = await self._versions()
        missing = [name for name in names if name not in versions]
        if missing:
            raise GatewayError(400, f"unable to find secret: {missing[0]}")
        return {name: versions[name][-1] for name in names}

    async def _versions(self) -> Mapping[str, list[tuple[str, str]]]:
        """Oldest first."""
        rows = await self._swarm.secrets(NAME)
        found: dict[str, list[tuple[str, str]]] = {}
        for row in sorted(rows, key=lambda row: str(row["Spec"]["Name"])):  # the name ends in the time
            spec = row["Spec"]
            found.setdefault(spec["Labels"][NAME], []).append((row["ID"], spec["Name"]))
        return found
