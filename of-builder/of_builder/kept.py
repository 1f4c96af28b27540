"""A build's log, kept beside its image in the registry as an OCI artifact: no further storage to run.

https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage
`oras pull` gets it too.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

import msgspec

from sdk.errors import Missing, Upstream
from sdk.kinds import studied
from sdk.registry import Manifest, Registry

ARTIFACT = "application/vnd.openfaas.cloud.build-log.v1"
MEDIA_TYPE = "text/plain"
LOG_TAG = "log-"
# The beginning, and four times as much of the end: that is where it failed.
HEAD_BYTES, TAIL_BYTES = 200 * 1024, 800 * 1024
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OCI_EMPTY = "application/vnd.oci.empty.v1+json"
_LONGEST_TAG = 128
_LEAST_SECRET = 4
# A build step prints what it likes: no spaces may be matched in more than one way, that takes for ever.
_LOGIN = re.compile(r"(://)[^/\s]+@")  # a token alone is one, too, and a password may have an @
_AUTHORIZATION = re.compile(r"(authorization:\s*(?:(?:basic|bearer|token)\s+)?)[^\s'\"]+", re.IGNORECASE)


@dataclass
class Log:
    """The lines of a build, as far as they are kept: the beginning and the end."""

    head: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=deque)
    left_out: int = 0
    _sizes: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, lines: Iterable[str]) -> None:
        for line in lines:
            size = len(line.encode(errors="replace")) + 1
            if not self.tail and self._sizes[0] + size <= HEAD_BYTES:
                self.head.append(line)
                self._sizes[0] += size
                continue
            self.tail.append(line)
            self._sizes[1] += size
            while self._sizes[1] > TAIL_BYTES:
                self._sizes[1] -= len(self.tail.popleft().encode(errors="replace")) + 1
                self.left_out += 1

    def lines(self) -> list[str]:
        cut = [f"… {self.left_out} lines are left out …"] if self.left_out else []
        return [*self.head, *cut, *self.tail]

    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines())


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without the secrets, line by line, and without logins in URLs and headers."""
    parts = {part.strip() for secret in secrets for part in (secret, *secret.split("\n"))}
    for part in sorted(parts, key=len, reverse=True):  # one may hold another: no rest of it must stay
        if len(part) >= _LEAST_SECRET:
            text = text.replace(part, "***")
    return _AUTHORIZATION.sub(r"\1***", _LOGIN.sub(r"\1***@", text))


def tag(of: str) -> str:
    """The tag of the log of what is built as the tag `of`."""
    whole = LOG_TAG + of
    return whole if len(whole) <= _LONGEST_TAG else LOG_TAG + hashlib.sha256(of.encode()).hexdigest()


def store(registry: Registry, path: str, tags: Sequence[str], text: str, outcome: str) -> None:
    """Keep `text` as the log of the images with these tags, in the repository `path`."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = text.encode(errors="replace")
    config = registry.put_blob(path, b"{}")
    layer = registry.put_blob(path, content)
    manifest = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": _OCI_MANIFEST,
            "artifactType": ARTIFACT,
            "config": {"mediaType": _OCI_EMPTY, "digest": config, "size": 2},
            "layers": [
                {
                    "mediaType": MEDIA_TYPE,
                    "digest": layer,
                    "size": len(content),
                    "annotations": {"org.opencontainers.image.title": "build.log"},
                }
            ],
            "annotations": {
                "org.opencontainers.image.created": now,
                "com.openfaas.cloud.outcome": outcome,
            },
        }
    )
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    for name in tags:
        registry.put_manifest(path, tag(name), Manifest(manifest, _OCI_MANIFEST, digest))


def load(registry: Registry, path: str, of: str) -> str:
    """The log of what was built as the tag `of`; `Missing` if none is kept."""
    found = registry.manifest(path, tag(of))
    if not found:
        raise Missing(f"no log of {path}:{of} is kept")
    try:
        [layer] = msgspec.convert(found.rows.get("layers"), studied(list[_Layer]))
    except (msgspec.MsgspecError, ValueError):
        raise Upstream(f"{path}:{tag(of)} is not a build's log") from None
    limit = 2 * (HEAD_BYTES + TAIL_BYTES)
    return registry.blob(path, layer.digest, limit=limit).decode(errors="replace")


class _Layer(msgspec.Struct):
    digest: str
