"""Images for registries in tests: small, with real digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from registry.contents import CREATED
from sdk.registry import Manifest, Registry

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")


def manifest(rows: Mapping[str, Any]) -> Manifest:
    content = json.dumps({"schemaVersion": 2, **rows}).encode()
    return Manifest(content, rows["mediaType"], f"sha256:{hashlib.sha256(content).hexdigest()}")


def part(registry: Registry, path: str, content: bytes, media_type: str) -> dict[str, Any]:
    digest = registry.put_blob(path, content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def put(registry: Registry, path: str, made: Manifest, *tags: str) -> str:
    for tag in tags or (made.digest,):
        registry.put_manifest(path, tag, made)
    return made.digest


def image(
    registry: Registry,
    path: str,
    *tags: str,
    created: str | None = None,
    label: str | None = None,
    layer: bytes = b"layer",
) -> str:
    """Push an image; its digest. Without tags, by digest alone."""
    config = {"created": created, "config": {"Labels": {CREATED: label} if label else None}}
    rows = {
        "mediaType": IMAGE,
        "config": part(registry, path, json.dumps(config).encode(), CONFIG),
        "layers": [part(registry, path, layer, LAYER)],
    }
    return put(registry, path, manifest(rows), *tags)


def index(registry: Registry, path: str, children: Mapping[str, str], *tags: str) -> str:
    """Push an index of images that are there, by architecture."""
    found = {name: registry.manifest(path, digest) for name, digest in children.items()}
    rows = {
        "mediaType": INDEX,
        "manifests": [
            {
                "mediaType": IMAGE,
                "digest": child.digest,
                "size": len(child.content),
                "platform": {"os": "linux", "architecture": name},
            }
            for name, child in found.items()
            if child
        ],
    }
    return put(registry, path, manifest(rows), *tags)


def log(registry: Registry, path: str, *tags: str, created: str, text: bytes = b"#1 done\n") -> str:
    """Push a build's log, as an artifact."""
    rows = {
        "mediaType": IMAGE,
        "artifactType": "application/vnd.openfaas-cloud.log",
        "config": part(registry, path, b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [part(registry, path, text, "text/plain")],
        "annotations": {CREATED: created},
    }
    return put(registry, path, manifest(rows), *tags)


def cache(registry: Registry, path: str, *tags: str, layer: bytes = b"cached") -> str:
    """Push a cache, as BuildKit's older form: an index of layers."""
    config = part(registry, path, b'{"layers": []}', "application/vnd.buildkit.cacheconfig.v0")
    rows = {"mediaType": INDEX, "manifests": [part(registry, path, layer, LAYER), config]}
    return put(registry, path, manifest(rows), *tags)
