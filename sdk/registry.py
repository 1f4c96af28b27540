"""The registry's HTTP API, as far as of-builder and the clean-up use it.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md and, for the way to log in,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import cachetools
import msgspec
import requests
import urllib3

from .errors import CloudError, Malformed, Misconfigured, Missing, Unavailable, Upstream
from .kinds import studied
from .sessions import CONNECT_SECONDS, reason, session

# Without all four, an OCI manifest answers 404.
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
DOCKER_HUB = "docker.io"
# What a manifest or an image's configuration may have; distribution takes 4 MiB at most.
LARGEST = 4 * 1024**2
PAGE = 1000
_T = TypeVar("_T")
_READ_SECONDS = 15
_TOKEN_SECONDS = 50  # a token is good for at least 60 s
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_NAME = re.compile(rf"(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>.+))?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'([A-Za-z_]+)="([^"]*)"')


@dataclass(frozen=True)
class Reference:
    """`host/path:tag`, as Docker reads it: no host means Docker Hub, no tag `latest`."""

    host: str
    path: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Raises `Malformed` for what is no name of an image, or names one by digest."""
        host, name = _split_host(text)
        found = _NAME.fullmatch(name)
        if len(text) > 1024 or not found or (host and not _HOST.fullmatch(host)):
            raise Malformed(f"{text[:200]!r} is no name of an image, as registry:5000/owner/name:tag")
        tag = found["tag"] or "latest"
        if not _TAG.fullmatch(tag):
            raise Malformed(
                f"{text[:200]!r} is no name of an image: a tag has at most 128 letters, digits or ._-"
            )
        if not host:
            prefix = "" if "/" in found["path"] else "library/"
            return cls(DOCKER_HUB, prefix + found["path"], tag)
        return cls(host, found["path"], tag)

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def api_host(self) -> str:
        """Where the registry's API is: Docker Hub's name is not the host that has it."""
        return "registry-1.docker.io" if self.host == DOCKER_HUB else self.host

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Manifest:
    """A manifest's bytes as the registry has them, their media type and digest."""

    content: bytes = field(repr=False)
    media_type: str
    digest: str

    @property
    def rows(self) -> dict[str, object]:
        return _decode(self.content, dict[str, object])


@dataclass(frozen=True)
class Credentials:
    """What a Docker `config.json` says of registries: `auths`, and no helper programs.

    https://docs.docker.com/reference/cli/docker/login/#credential-stores
    """

    logins: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, config: bytes) -> Credentials:
        """Raises `Misconfigured` for what is no such file."""
        try:
            rows = msgspec.json.decode(config, type=studied(_DockerConfig)).auths
            logins = {_host_of(name): row.login() for name, row in rows.items()}
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise Misconfigured('secret registry-secret is no Docker config.json: {"auths": {…}}') from None
        return cls(logins)

    def login(self, host: str) -> tuple[str, str] | None:
        return self.logins.get("index.docker.io" if host == DOCKER_HUB else host)


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""

    def login(self) -> tuple[str, str]:
        user, _, password = base64.b64decode(self.auth, validate=True).decode().partition(":")
        return (self.username or user, self.password or password)


class _DockerConfig(msgspec.Struct):
    auths: dict[str, _Auth] = {}


class _Page(msgspec.Struct):
    """One page of a list; the registry says `null` for an empty one."""

    repositories: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Registry:
    """One registry, at `url`. Every call raises `Unavailable` when it does not answer."""

    url: str
    login: tuple[str, str] | None = field(default=None, repr=False)
    seconds: float = _READ_SECONDS
    retries: int = 3

    def ping(self) -> None:
        """Whether it is there, and lets us in."""
        self._call("GET", "/v2/")

    def digest(self, path: str, tag: str) -> str | None:
        """The digest of the manifest of that tag (or digest), None if there is none."""
        try:
            return _digest_in(self._call("HEAD", f"/v2/{path}/manifests/{tag}"))
        except Missing:
            return None

    def manifest(self, path: str, tag: str) -> Manifest | None:
        try:
            answer = self._call("GET", f"/v2/{path}/manifests/{tag}")
        except Missing:
            return None
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        return Manifest(answer.content, kind, _digest_in(answer))

    def put_manifest(self, path: str, tag: str, manifest: Manifest) -> None:
        """Give the manifest one more tag, or bring a new one."""
        headers = {"Content-Type": manifest.media_type}
        self._call("PUT", f"/v2/{path}/manifests/{tag}", data=manifest.content, headers=headers)

    def blob(self, path: str, digest: str, *, limit: int = LARGEST) -> bytes:
        """A blob of at most `limit` bytes; `Upstream` if it is larger, or not what its name says.

        `Missing` if there is none.
        """
        if not _DIGEST.fullmatch(digest):
            raise Upstream(f"the registry's {path} names a blob {digest[:100]!r}")
        answer = self._call("GET", f"/v2/{path}/blobs/{digest}", stream=True)
        try:
            with answer:
                content = bytes(answer.raw.read(limit + 1, decode_content=True))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the registry stopped within an answer: {type(error).__name__}") from None
        if len(content) > limit or f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise Upstream(f"the registry's blob {path}@{digest} is damaged, or larger than {limit} bytes")
        return content

    def put_blob(self, path: str, content: bytes) -> str:
        """Upload a blob in one piece, unless it is there; its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        with suppress(Missing):
            self._call("HEAD", f"/v2/{path}/blobs/{digest}")
            return digest
        begun = self._call("POST", f"/v2/{path}/blobs/uploads/")
        place = urljoin(begun.url, begun.headers.get("Location", ""))
        # Behind a proxy, the registry may name itself otherwise: what counts is its path.
        target = urlsplit(place)
        query = f"{target.query}&" if target.query else ""
        headers = {"Content-Type": "application/octet-stream"}
        self._call("PUT", f"{target.path}?{query}digest={digest}", data=content, headers=headers)
        return digest

    def delete(self, path: str, digest: str) -> None:
        """Delete a manifest with all its tags; one that is gone is as good."""
        with suppress(Missing):
            self._call("DELETE", f"/v2/{path}/manifests/{digest}")

    def repositories(self) -> Iterator[str]:
        for page in self._pages(f"/v2/_catalog?n={PAGE}"):
            yield from page.repositories or ()

    def tags(self, path: str) -> Iterator[str]:
        """All tags; of a repository that is not there, none."""
        with suppress(Missing):
            for page in self._pages(f"/v2/{path}/tags/list?n={PAGE}"):
                yield from page.tags or ()

    def _pages(self, first: str) -> Iterator[_Page]:
        target: str = first
        seen = set[str]()
        while target:
            if target in seen:
                raise Upstream("the registry's list has no end")
            seen.add(target)
            answer = self._call("GET", target)
            yield _decode(answer.content, _Page)
            following = urlsplit(urljoin(answer.url, answer.links.get("next", {}).get("url", "")))
            target = f"{following.path}?{following.query}" if "next" in answer.links else ""

    def _call(
        self,
        method: str,
        target: str,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        scope = _scope(target)
        answer = self._send(method, target, _tokens.get((self.url, self.login, scope)), data, headers, stream)
        if answer.status_code == 401:
            given = self._authorization(answer.headers.get("WWW-Authenticate", ""), scope)
            answer = self._send(method, target, given, data, headers, stream)
        if not answer.ok:
            raise self._error(method, target, answer)
        return answer

    def _send(
        self,
        method: str,
        target: str,
        authorization: str | None,
        data: bytes | None,
        headers: Mapping[str, str] | None,
        stream: bool,
    ) -> requests.Response:
        sent = {"Accept": ", ".join(MANIFESTS), **(headers or {})}
        if authorization:
            sent["Authorization"] = authorization
        try:
            return session(self.retries).request(
                method,
                self.url.rstrip("/") + target,
                data=data,
                headers=sent,
                stream=stream,
                timeout=(CONNECT_SECONDS, self.seconds),
            )
        except requests.RequestException as error:
            raise Unavailable(f"the registry does not answer: {reason(error)}") from None

    def _authorization(self, challenge: str, scope: str) -> str:
        """What the registry asks for: our login itself, or a token that it gets us."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self.login:
            given = base64.b64encode(":".join(self.login).encode()).decode()
            return self._keep(scope, f"Basic {given}")
        asked = dict(_CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in asked:
            raise Misconfigured(
                "the registry wants a login: put a Docker config.json with it in the secret registry-secret"
            )
        parameters = {name: asked[name] for name in ("service", "scope") if name in asked}
        try:
            answer = session().get(
                asked["realm"],
                params=parameters,
                auth=self.login,
                timeout=(CONNECT_SECONDS, _READ_SECONDS),
            )
            told = _decode(answer.content, dict[str, object]) if answer.ok else {}
        except requests.RequestException as error:
            raise Unavailable(f"the registry's login does not answer: {reason(error)}") from None
        if not (token := told.get("token") or told.get("access_token")):
            raise Misconfigured(f"the registry's login answered {answer.status_code}: see registry-secret")
        return self._keep(scope, f"Bearer {token}")

    def _keep(self, scope: str, authorization: str) -> str:
        _tokens[(self.url, self.login, scope)] = authorization
        return authorization

    def _error(self, method: str, target: str, answer: requests.Response) -> CloudError:
        said = f"the registry answered {answer.status_code} to {method} {target}"
        if answer.status_code in (401, 403):
            return Misconfigured(f"{said}: the login in registry-secret may not do that")
        if answer.status_code == 404:
            return Missing(said)
        if answer.status_code in (400, 405):
            return Upstream(f"{said}: {answer.text[:200]}")
        return Unavailable(said)


class _Tokens:
    """Tokens of all threads, for as long as they surely are good."""

    def __init__(self) -> None:
        self._kept: cachetools.TTLCache[object, str] = cachetools.TTLCache(1000, _TOKEN_SECONDS)
        self._lock = threading.Lock()

    def get(self, key: object) -> str | None:
        with self._lock:
            return self._kept.get(key)

    def __setitem__(self, key: object, token: str) -> None:
        with self._lock:
            self._kept[key] = token


_tokens = _Tokens()


def _scope(target: str) -> str:
    """What a token is for: one repository, or the registry as a whole."""
    found = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", target)
    return found[1] if found else ""


def _split_host(text: str) -> tuple[str, str]:
    """Docker's rule: the first part is a host if it has a dot or a port, or is `localhost`."""
    first, slash, rest = text.partition("/")
    if slash and (re.search(r"[.:\[]", first) or first == "localhost" or first != first.lower()):
        return first, rest
    return "", text


def _host_of(name: str) -> str:
    """`https://index.docker.io/v1/` or `registry:5000`: the host of a key of `auths`."""
    return urlsplit(name if "//" in name else f"//{name}").netloc


def _digest_in(answer: requests.Response) -> str:
    found = answer.headers.get("Docker-Content-Digest", "")
    if not _DIGEST.fullmatch(found):
        raise Upstream("the registry's answer has no Docker-Content-Digest")
    return found


def _decode(content: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=studied(kind))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Upstream("the registry's answer is not the JSON that it should be") from None
