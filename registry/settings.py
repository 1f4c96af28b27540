"""The settings of retention and of the registry's care, in the same kind of table as the functions'."""

from __future__ import annotations

from dataclasses import dataclass

from sdk.settings import Seconds, setting


@dataclass(frozen=True)
class Settings:
    registry_api_url: str = setting("http://127.0.0.1:5000", "the registry's API, as retention reaches it")
    gateway_url: str = setting("", "the gateway that knows what runs; without one, nothing is deleted")
    basic_auth: bool = setting(True, "whether the gateway asks for basic-auth-user and -password")
    secret_mount_path: str = setting("/var/openfaas/secrets", "folder that holds the secret files")
    namespaces: tuple[str, ...] = setting(
        (), "namespaces of functions, where the gateway can't list them; comma list"
    )
    retention: str = setting("dry-run", "what retention does: delete, dry-run, or off (serve.py only)")
    keep: int = setting(10, "the newest images, and the newest logs, that stay in each repository")
    min_age: Seconds = setting(Seconds(3600), "nothing younger is deleted: it may be about to be deployed")
    storage: str = setting("", "folder of the registry's storage, if it is here: finds what has no tag")
    interval: Seconds = setting(Seconds(24 * 3600), "serve.py runs retention and garbage collection so often")
