"""buildshiprun: builds a function's image, deploys it by digest, and waits until it is ready."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from . import ship
from .neighbours import neighbours
from .sdk import messages, naming, records, secrets, signature, status
from .sdk.builder import Builder
from .sdk.context import CLOUD_ENTRY, read_entry
from .sdk.edge import Answer, Event, answer, function
from .sdk.errors import Malformed, Upstream
from .sdk.gateway import Gateway
from .sdk.messages import Closing, Collect, Overtaken, Shipment
from .sdk.sealing import SealKeys
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.slots import Slots

records.listeners.append(status.tell)

SLOTS = Slots()
COLLECT_SECONDS = 30


@function(
    "buildshiprun",
    takes="POST of git-tar's tar, its description alone, an overtaken commit, or the closing message; "
    "signed in X-Cloud-Signature",
    tells=lambda: public_key(Settings.read()),
    neighbours=neighbours,
)
def handle(event: Event, context: Any) -> Answer:
    settings = Settings.read()
    keys = secrets.read("payload-secret", settings.secret_mount_path)
    body = messages.verified(event.body, event.headers, keys)
    if not body.startswith(b"{"):
        return deploy(body, settings)
    if messages.carries(body, "function"):
        return compare(body, settings)
    if messages.carries(body, "overtaken"):
        return overtake(body, settings)
    return finish(body, settings, keys)


def public_key(settings: Settings) -> Mapping[str, str]:
    """What authors seal their secrets for."""
    keys = SealKeys.find(settings.secret_mount_path)
    return {"seal_key": keys.public} if keys else {}


def compare(body: bytes, settings: Settings) -> Answer:
    """Whether what the shipment `body` describes is live already; nothing is changed."""
    shipment = messages.unseal(body, "buildshiprun", Shipment, max_age=settings.message_max_age)
    builder = builder_of(settings)
    gateway = replace(Gateway.of(settings), namespace=shipment.function.namespace)
    is_live = ship.Ship(gateway, builder, settings).is_live(shipment)
    return answer(200, {"outcome": "unchanged" if is_live else "changed"})


def deploy(body: bytes, settings: Settings) -> Answer:
    """Ship the function in the tar `body`."""
    shipment = messages.unseal(described(body), "buildshiprun", Shipment, max_age=settings.message_max_age)
    owner, repo = shipment.repository.owner, shipment.repository
    service = naming.service_name(owner.login, shipment.function.name)
    repository = naming.image_repository(
        settings.push_repository_url, shipment.scm, owner.id, repo.id, shipment.function.name
    )
    builder = builder_of(settings)

    def build() -> str:
        built = builder.build(body, signature.sign(body, builder.keys), settings.build_timeout)
        if not built.image.startswith(f"{repository}:") or built.context != shipment.digest:
            raise Upstream(f"of-builder built {built.image}, which is not what was sent")
        return built.digest

    with SLOTS.taken(settings.parallel_long_calls, service, busy=f"{service} is being deployed"):
        gateway = replace(Gateway.of(settings), namespace=shipment.function.namespace)
        keys = SealKeys.find(settings.secret_mount_path)
        done = ship.Ship(gateway, builder, settings, keys).ship(shipment, build, repository)
    return answer(200, {**asdict(done), "url": ship.url(settings, service, shipment)})


def overtake(body: bytes, settings: Settings) -> Answer:
    """End the builds of a commit that the branch has left; whatever replica waits for them, it is told."""
    told = messages.unseal(body, "buildshiprun", Overtaken, max_age=settings.message_max_age)
    repository = naming.repository_path(told.scm, told.owner_id, told.repo_id)
    images = naming.images_of(settings.push_repository_url, repository)
    builder_of(settings).overtaken(images, told.overtaken)
    return answer(200, {"delivery": told.delivery, "overtaken": told.overtaken})


def finish(body: bytes, settings: Settings, keys: Keys) -> Answer:
    """The whole stack is live: let garbage-collect remove what left it."""
    closing = messages.unseal(body, "buildshiprun", Closing, max_age=settings.message_max_age).finish
    collect = Collect(
        scm=closing.scm,
        delivery=closing.delivery,
        owner=closing.owner,
        owner_id=closing.owner_id,
        repo=closing.repo,
        repo_id=closing.repo_id,
        functions=closing.keep,
        sha=closing.sha,
        reason="push",
    )
    sealed = messages.seal("garbage-collect", collect)
    gateway = Gateway(settings.gateway_url)
    told = gateway.invoke("garbage-collect", sealed, messages.headers(sealed, keys), COLLECT_SECONDS)
    return answer(200, messages.decode(told, dict[str, Any]))


def builder_of(settings: Settings) -> Builder:
    return Builder(settings.builder_url, secrets.read("builder-secret", settings.secret_mount_path))


def described(body: bytes) -> bytes:
    """The content of the tar's `com.openfaas.cloud.json`."""
    try:
        found = read_entry(io.BytesIO(body), CLOUD_ENTRY)
    except tarfile.TarError as error:
        raise Malformed(f"the body is no tar: {error}") from None
    if found is None:
        raise Malformed(f"the tar has no {CLOUD_ENTRY}")
    return found
