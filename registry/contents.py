"""What is in a repository: its manifests with their dates, sizes and tags, as `plan` needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from sdk.errors import Missing, Upstream
from sdk.registry import MANIFESTS, Manifest, Registry

from .plan import Found

CREATED = "org.opencontainers.image.created"
_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
# Reproducible builds say 1970 or 1980, cosign says 0001: no date of anything.
_FIRST_DATE = datetime.fromisoformat("2000-01-01T00:00:00+00:00").timestamp()
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    size: int
    media_type: str = ""


class _Manifest(msgspec.Struct):
    """An image, or an index; BuildKit's cache is an index of layers."""

    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    annotations: dict[str, str] | None = None


class _Settings(msgspec.Struct, rename={"labels": "Labels"}):
    labels: dict[str, str] | None = None


class _Config(msgspec.Struct):
    created: str | None = None
    config: _Settings | None = None


@dataclass(frozen=True)
class State:
    """What changes when something is pushed: where the tags point, and since when, by the storage."""

    tags: Mapping[str, str]
    pushed: Mapping[str, float] = field(default_factory=dict)


def state(registry: Registry, path: str, storage: Path | None) -> State:
    """Raises `Upstream` for a tag without a manifest."""
    tags = {}
    for tag in sorted(registry.tags(path)):
        digest = registry.digest(path, tag)
        if not digest:
            raise Upstream(f"tag {tag} has no manifest")
        tags[tag] = digest
    return State(tags, _pushed(storage, path) if storage else {})


def read(registry: Registry, path: str, now: State) -> tuple[Found, ...]:
    """All manifests: those with tags, their children, and those that only the storage knows.

    Raises `Upstream` or `Missing` for what can't be understood.
    """
    tagged = set(now.tags.values())
    found, pending = dict[str, Found](), [*tagged, *now.pushed]
    while pending:
        digest = pending.pop()
        if digest in found:
            continue
        manifest = registry.manifest(path, digest)
        if manifest:
            found[digest] = _found(registry, path, manifest, now)
            pending += found[digest].children
        elif digest in tagged:
            raise Missing(f"{digest} is gone")
    return tuple(_dated(found))


def _found(registry: Registry, path: str, manifest: Manifest, now: State) -> Found:
    if manifest.media_type not in MANIFESTS:
        raise Upstream(f"{manifest.digest} is a {manifest.media_type[:100]!r}")
    try:
        rows = msgspec.json.decode(manifest.content, type=_Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Upstream(f"{manifest.digest} can't be read") from None
    parts = [*([rows.config] if rows.config else []), *(rows.layers or ())]
    children = [one for one in rows.manifests or () if one.media_type in MANIFESTS]
    layers = [one for one in rows.manifests or () if one.media_type not in MANIFESTS]
    return Found(
        manifest.digest,
        created=_created(registry, path, rows),
        pushed=now.pushed.get(manifest.digest),
        tags=tuple(tag for tag, digest in now.tags.items() if digest == manifest.digest),
        children=tuple(one.digest for one in children),
        blobs={
            **{one.digest: one.size for one in (*parts, *layers)},
            manifest.digest: len(manifest.content),
        },
    )


def _created(registry: Registry, path: str, rows: _Manifest) -> float | None:
    """The label's word of an image, else its configuration's; of all else, the annotation's."""
    said = [(rows.annotations or {}).get(CREATED)]
    if rows.config and rows.config.media_type in _CONFIGS:
        try:
            config = msgspec.json.decode(registry.blob(path, rows.config.digest), type=_Config)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        labels = (config.config.labels if config.config else None) or {}
        said = [labels.get(CREATED), config.created, *said]
    return next((at for text in said if (at := _seconds(text)) is not None), None)


def _seconds(text: str | None) -> float | None:
    try:
        at = msgspec.convert(text, _Time).timestamp()
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None
    return at if at >= _FIRST_DATE else None


def _dated(found: Mapping[str, Found]) -> Iterator[Found]:
    """An index is as old as its first child, and a child without a date, an attestation, as its index."""
    dates = {digest: one.created for digest, one in found.items()}
    for digest, one in found.items():
        first = next((dates[child] for child in one.children if dates.get(child) is not None), None)
        if first is not None:
            dates[digest] = first
        for child in one.children:
            if child in found and dates[child] is None:
                dates[child] = first
    return (replace(one, created=dates[digest]) for digest, one in found.items())


def _pushed(storage: Path, path: str) -> Mapping[str, float]:
    """Since when each manifest is there: the registry writes its link anew at each push of it.

    https://github.com/distribution/distribution/blob/v2.8.3/registry/storage/paths.go
    """
    links = (storage / "docker/registry/v2/repositories" / path / "_manifests/revisions/sha256").glob(
        "*/link"
    )
    return {f"sha256:{link.parent.name}": link.stat().st_mtime for link in links}
