"""Deletes from the registry what nobody needs any more: `python -m registry.retention --help`.

The gateway must tell in full what it runs, or may go back to: that stays, in whatever repository. Nothing is
deleted before all could be read, and the gateway is asked again before each repository. The space comes back
with the registry's own garbage collection (README.md).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

import click

from sdk import secrets
from sdk.errors import CloudError, Misconfigured, Missing, Unavailable, Upstream
from sdk.gateway import Gateway, Status
from sdk.registry import Credentials, Reference, Registry
from sdk.settings import Settings as GatewaySettings
from sdk.settings import read
from sdk.specs import LAST_READY, SPEC, unpack

from . import contents
from .plan import CACHE, Found, plan
from .settings import Settings

MODES = ("delete", "dry-run", "off")
_SHOWN = 16  # of a commit or digest


@dataclass(frozen=True)
class Running:
    """What a cluster runs or may go back to: digests, and (path, tag) where it names no digest."""

    digests: frozenset[str] = frozenset()
    tags: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, functions: Iterable[Status]) -> Running:
        """Raises `Upstream` for an image, or a kept deployment, that can't be read."""
        digests, tags = set[str](), set[tuple[str, str]]()
        for image in (image for function in functions for image in _images(function)):
            name, _, digest = image.partition("@")
            if digest:
                digests.add(digest)
            else:
                try:
                    reference = Reference.parse(name)
                except CloudError as error:
                    raise Upstream(f"the gateway runs what is no image: {error}") from None
                tags.add((reference.path, reference.tag))
        return cls(frozenset(digests), frozenset(tags))

    def __or__(self, other: Running) -> Running:
        return Running(self.digests | other.digests, self.tags | other.tags)

    def within(self, path: str, tags: Mapping[str, str]) -> frozenset[str]:
        """The digests that stay in a repository.

        The cluster may pull by another host, or through one that adds a path: what matters is the end.
        """
        names = {tag for running, tag in self.tags if f"/{running}".endswith(f"/{path}")}
        return self.digests | {digest for tag, digest in tags.items() if tag in names}


def _images(function: Status) -> Iterator[str]:
    """The image of a function, and those that a rollback would take."""
    yield function.image
    for name in (SPEC, LAST_READY):
        if packed := (function.annotations or {}).get(name):
            image = (unpack(packed) or {}).get("image")
            if not isinstance(image, str):
                raise Upstream(f"{function.name}: the annotation {name} can't be read; deploy it again")
            yield image


def running(gateway: Gateway, namespaces: Collection[str]) -> Running:
    """Of all namespaces. Raises rather than to miss one, or to believe that nothing runs at all."""
    try:
        names = namespaces or gateway.namespaces() or ("",)
    except (Upstream, Unavailable) as error:
        raise type(error)(f"{error.message}; if it has no list of namespaces, set `namespaces`") from None
    functions = [function for name in names for function in replace(gateway, namespace=name).list()]
    if not functions:
        raise Upstream("the gateway lists not one function: is it the right one?")
    return Running.of(functions)


@dataclass(frozen=True)
class Repository:
    """One that was read; `found` is all of it."""

    path: str
    state: contents.State
    found: tuple[Found, ...]


@dataclass(frozen=True)
class Retention:
    """One run. `tell` gets each line for the operator."""

    registry: Registry
    running: Callable[[], Running]
    keep: int
    since: float
    storage: Path | None = None
    tell: Callable[[str], None] = print

    def run(self, *, delete: bool) -> None:
        """Raises before anything is deleted if something can't be read.

        While it deletes, the same raises, and the rest stays.
        """
        before = self.running()
        repositories = list(self._read())
        going = [(one, found) for one in repositories if (found := self._plan(one, before))]
        gone = list[Found]()
        for repository, found in going:
            for one in self._delete(repository, before) if delete else found:
                self.tell(f"{repository.path}  {_line(one)}")
                gone.append(one)
        self._sum_up(repositories, gone, delete=delete)

    def _read(self) -> Iterator[Repository]:
        for path in sorted(self.registry.repositories()):
            try:
                state = contents.state(self.registry, path, self.storage)
                yield Repository(path, state, contents.read(self.registry, path, state))
            except (Missing, Upstream) as error:
                self.tell(f"{path}: is not understood, so all of it stays: {error.message}")

    def _plan(self, repository: Repository, running: Running) -> tuple[Found, ...]:
        stays = running.within(repository.path, repository.state.tags)
        return plan(repository.found, running=stays, keep=self.keep, since=self.since)

    def _delete(self, repository: Repository, before: Running) -> Iterator[Found]:
        """Delete what may go by now: since it was read, images were pushed and deployed.

        What is deployed in the moment between this look at the gateway and the deletion is not seen. Its
        push fails if no node has the image, and builds it when it is tried again.
        """
        path = repository.path
        if contents.state(self.registry, path, self.storage) != repository.state:
            self.tell(f"{path}: something is being pushed, so it is left for the next time")
            return
        going = self._plan(repository, before | self.running())
        for one in going:
            self.registry.delete(path, one.digest)
            yield one

    def _sum_up(self, repositories: Iterable[Repository], gone: Collection[Found], *, delete: bool) -> None:
        everything = [one for repository in repositories for one in repository.found]
        going = {id(one) for one in gone}
        staying = {blob for one in everything if id(one) not in going for blob in one.blobs}
        freed = {blob: size for one in gone for blob, size in one.blobs.items() if blob not in staying}
        undated = sum(one.date is None and CACHE not in one.tags for one in everything)
        what = f"{len(gone)} of {len(everything)} manifests, {_size(sum(freed.values()))} of space"
        self.tell(f"deleted: {what}" if delete else f"dry run, --delete would delete: {what}")
        if undated:
            self.tell(f"{undated} stay because nothing tells their age")


def _line(one: Found) -> str:
    at = datetime.fromtimestamp(one.date or 0, timezone.utc)
    tags = ", ".join(tag if len(tag) <= _SHOWN else f"{tag[:_SHOWN]}…" for tag in one.tags) or "(no tag)"
    return f"{one.digest[:19]}  {at:%Y-%m-%d %H:%M}  {_size(one.size):>9}  {tags}"


def _size(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number >= 1e5 else f"{number / 1e3:.1f} kB"


def _gateway(settings: Settings) -> Gateway:
    if not settings.gateway_url:
        raise Misconfigured("setting gateway_url is missing: what runs must be known (--gateway URL)")
    return Gateway.of(
        GatewaySettings(
            gateway_url=settings.gateway_url,
            basic_auth=settings.basic_auth,
            secret_mount_path=settings.secret_mount_path,
        )
    )


def _registry(settings: Settings) -> Registry:
    """With the login for the URL's host from registry-secret, if there is that secret."""
    file = Path(settings.secret_mount_path) / "registry-secret"
    credentials = Credentials()
    if file.exists():
        credentials = Credentials.read(b"\n".join(secrets.read(file.name, str(file.parent)).lines))
    return Registry(settings.registry_api_url, credentials.login(urlsplit(settings.registry_api_url).netloc))


def _retention(settings: Settings) -> Retention:
    if settings.retention not in MODES:
        raise Misconfigured(f"setting retention: {settings.retention!r} is none of {', '.join(MODES)}")
    gateway = _gateway(settings)
    return Retention(
        _registry(settings),
        lambda: running(gateway, settings.namespaces),
        settings.keep,
        time.time() - settings.min_age,
        Path(settings.storage) if settings.storage else None,
        lambda line: click.echo(line),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--registry", "registry_api_url", metavar="URL", help="The registry's API.")
@click.option("--gateway", "gateway_url", metavar="URL", help="The gateway that knows what runs.")
@click.option("--namespaces", metavar="A,B", help="Of functions, if the gateway can't list them.")
@click.option(
    "--keep", metavar="N", help=f"Newest images, and logs, that stay in each repository; {Settings.keep}."
)
@click.option("--min-age", metavar="DURATION", help="Nothing younger is deleted; 1h.")
@click.option("--storage", metavar="PATH", help="The registry's storage: also finds what has no tag.")
@click.option("--delete", "retention", flag_value="delete", help="Delete; without it, only show.")
@click.option("--dry-run", "retention", flag_value="dry-run", help="Only show, also with retention=delete.")
def main(**options: str | None) -> None:
    """Delete old images from the registry: all but what the gateway runs, and the newest.

    Each option is also a setting, an environment variable (docs/settings.md), as are the secrets' folder and
    whether the gateway asks for a login. The login at the registry is the secret registry-secret.
    """
    given = {name: text for name, text in options.items() if text is not None}
    try:
        settings = read(Settings, {**os.environ, **given})
        _retention(settings).run(delete=settings.retention == "delete")
    except CloudError as error:
        click.echo(f"retention: nothing (more) is deleted: {error.message}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
