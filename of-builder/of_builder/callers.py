"""Who may ask of-builder, by the secret that signs: the cloud, clients as faas-cli, readers of logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdk import secrets
from sdk.errors import Refused, Unauthorized
from sdk.registry import Reference
from sdk.secrets import Keys
from sdk.signature import Running

from .settings import Settings

CLOUD_SECRET = "builder-secret"  # noqa: S105 - its name
CLIENTS_SECRET = "builder-clients"  # noqa: S105
READERS_SECRET = "builder-readers"  # noqa: S105


@dataclass(frozen=True)
class Caller:
    """Holders of one secret; `prefix` is what the images that they push begin with, None for any."""

    keys: Keys = field(repr=False)
    prefix: str | None = None

    def check(self, image: Reference) -> None:
        """Raise `Refused` for an image that is not below the prefix."""
        if self.prefix is None:
            return
        if not self.prefix:
            raise Refused(f"holders of {CLIENTS_SECRET} may push nowhere: the setting client_prefix is empty")
        if not f"{image.repository}/".startswith(self.prefix) or f"{image.repository}/" == self.prefix:
            raise Refused(f"{image}: holders of {CLIENTS_SECRET} may use images below {self.prefix} only")


def known(settings: Settings) -> list[Caller]:
    """The cloud; and clients, where the operator has made them a secret."""
    cloud = Caller(secrets.read(CLOUD_SECRET, settings.secret_mount_path))
    clients = secrets.find(CLIENTS_SECRET, settings.secret_mount_path)
    prefix = f"{settings.client_prefix.rstrip('/')}/" if settings.client_prefix else ""
    return [cloud, Caller(clients, prefix)] if clients else [cloud]


def readers(settings: Settings) -> list[Caller]:
    """Who may read logs: also who may do nothing else, such as list-functions."""
    found = secrets.find(READERS_SECRET, settings.secret_mount_path)
    return [*known(settings), Caller(found)] if found else known(settings)


def signed_by(callers: Mapping[Caller, Running], header: str | None) -> Caller:
    """Whose signature `header` is of what the `Running`s have seen; `Unauthorized` for nobody's."""
    found = None
    for caller, signature in callers.items():  # all of them: how long it takes tells nothing
        try:
            signature.verify(header)
            found = found or caller
        except Unauthorized as error:
            refusal = error
    if not found:
        raise refusal
    return found
