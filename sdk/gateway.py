"""The OpenFaaS gateway's REST API, as far as the cloud uses it.

https://github.com/openfaas/faas/blob/master/api-docs/spec.openapi.yml
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import msgspec
import requests

from . import secrets
from .errors import CloudError, Misconfigured, Refused, Superseded, Unavailable, Upstream, answered, received
from .kinds import studied
from .sessions import CONNECT_SECONDS, persistently, reason, session
from .settings import Settings

# How long the queue may take to answer: it only writes the call down.
QUEUE_SECONDS = 2
_CHANGED = 412


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """A function as the gateway reports it (`FunctionStatus`).

    `available_replicas` counts the replicas that are ready. The local gateway's own are `failure`, why this
    version will not get ready, and `etag`, which names what was deployed; others leave them empty.
    """

    name: str
    image: str = ""
    namespace: str = ""
    env_process: str = ""
    env_vars: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    secrets: tuple[str, ...] | None = None
    replicas: float = 0
    available_replicas: float = 0
    invocation_count: float = 0
    created_at: str = ""
    failure: str = ""
    etag: str = ""


class Version(msgspec.Struct, frozen=True):
    release: str = ""


class Provider(msgspec.Struct, frozen=True):
    provider: str = ""
    orchestration: str = ""
    version: Version | None = None


class Info(msgspec.Struct, frozen=True):
    """What a gateway says of itself. `upstream_timeout`, in seconds, is the local gateway's own."""

    provider: Provider = Provider()
    version: Version | None = None
    upstream_timeout: float = 0


@dataclass(frozen=True)
class Gateway:
    """A client for one namespace, the gateway's default without a name.

    Every call has a timeout; what the gateway can't do now is `Unavailable`.
    """

    url: str
    auth: tuple[str, str] | None = None
    read_seconds: float = 30
    namespace: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Gateway:
        """With the credentials of the secrets basic-auth-user and basic-auth-password."""
        if not settings.basic_auth:
            return cls(settings.gateway_url)
        user, password = (
            secrets.read(name, settings.secret_mount_path).signing.decode()
            for name in ("basic-auth-user", "basic-auth-password")
        )
        return cls(settings.gateway_url, (user, password))

    def ping(self) -> None:
        """Whether it answers at all; needs no credentials."""
        self._call("GET", "/healthz", retries=0)

    def info(self) -> Info:
        return _decoded(self._call("GET", "/system/info"), Info)  # type: ignore[no-any-return]

    def list(self) -> list[Status]:
        """All functions of the namespace.

        `Unavailable` and `Upstream` rather than an empty list: absence would delete.
        """
        found: list[Status] = _decoded(
            self._call("GET", "/system/functions", params=self._query), list[Status]
        )
        return found

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces that functions may be in; none of a provider that has no such thing (404)."""
        response = self._call("GET", "/system/namespaces", missing=True)
        found: tuple[str, ...] = () if response.status_code == 404 else _decoded(response, tuple[str, ...])
        return found

    def get(self, name: str, wait: float = 0) -> Status | None:
        """The function `name`, None if there is none.

        Of a version that is starting, the local gateway tells once that has ended, after `wait` seconds at
        most (less than `read_seconds`); others tell at once (https://www.rfc-editor.org/rfc/rfc7240#section-4.3).
        """
        headers = {"Prefer": f"wait={int(wait)}"} if wait >= 1 else {}
        path = f"/system/function/{name}"
        response = self._call("GET", path, params=self._query, headers=headers, missing=True)
        if response.status_code == 404:
            return None
        found: Status = _decoded(response, Status)
        return found

    def deploy(self, spec: Mapping[str, Any], over: Status | None = None) -> None:
        """Update, or create where there is nothing to update, as faas-cli does.

        `over` is what was there when it was decided: a gateway with ETags writes over nothing else, and it is
        `Superseded` then. https://www.rfc-editor.org/rfc/rfc9110#name-if-match
        """
        whole, headers = {**spec, **self._query}, _if_still(over)
        updated = self._call("PUT", "/system/functions", json=whole, headers=headers, missing=True, retries=0)
        if updated.status_code == 404:
            self._call("POST", "/system/functions", json=whole, retries=0)

    def create(self, spec: Mapping[str, Any]) -> None:
        """Create; `Superseded` if there is one of that name: faasd answers 400 then, Kubernetes 500."""
        try:
            self._call("POST", "/system/functions", json={**spec, **self._query}, retries=0)
        except CloudError as error:
            raise Superseded(error.message) if "already exists" in error.message else error from None

    def delete(self, name: str, over: Status | None = None) -> None:
        """Delete `name`; that it was gone already is fine. `over`: as of `deploy`."""
        whole, headers = {"functionName": name, **self._query}, _if_still(over)
        self._call("DELETE", "/system/functions", json=whole, headers=headers, missing=True)

    def secret_names(self) -> set[str]:
        rows = _decoded(self._call("GET", "/system/secrets", params=self._query), list[dict[str, Any]])
        return {str(row.get("name")) for row in rows}

    def set_secret(self, name: str, value: str | bytes) -> None:
        """Update, or create where there is nothing to update: for faasd that is one, for Kubernetes two."""
        field = {"value": value}
        if isinstance(value, bytes):  # no text, perhaps
            field = {"rawValue": base64.b64encode(value).decode()}
        whole = {"name": name, **field, **self._query}
        if self._call("PUT", "/system/secrets", json=whole, missing=True).status_code == 404:
            self._call("POST", "/system/secrets", json=whole)

    def invoke(
        self, name: str, body: bytes | IO[bytes], headers: Mapping[str, str], read_seconds: float
    ) -> bytes:
        """POST to one of our functions and wait for its answer; an error is raised as what it stands for."""
        path = f"/function/{name}"
        response = self._send("POST", path, read_seconds, retries=0, data=body, headers=headers)
        if not response.ok:
            raise answered(f"the gateway's {path}", response.status_code, response.content)
        return response.content

    def queue(self, name: str, body: bytes, headers: Mapping[str, str], seconds: float) -> None:
        """Hand a call to the gateway's queue, trying for `seconds`; it is the gateway's once this returns."""
        path = f"/async-function/{name}"

        def hand_over() -> None:
            response = self._send("POST", path, QUEUE_SECONDS, retries=0, data=body, headers=headers)
            if response.status_code == 404:
                raise Misconfigured("the gateway has no queue: deploy OpenFaaS's queue-worker")
            _check(response, path)

        persistently(hand_over, seconds)

    def logs(
        self, name: str, since: str, *, follow: bool, read_seconds: float, tail: int = 0
    ) -> Iterator[str]:
        """The log lines of a function (`text` of each entry), from RFC 3339 time `since`; the last `tail`."""
        query = {"name": name, "since": since, "follow": "true" if follow else "false", **self._query}
        if tail:
            query["tail"] = str(tail)
        path = "/system/logs"
        with self._send("GET", path, read_seconds, params=query, stream=True) as response:
            _check(response, path)
            try:
                for line in response.iter_lines():
                    yield _text(line)
            except requests.RequestException as error:
                raise Unavailable(f"the log of {name} broke off: {reason(error)}") from None

    @property
    def _query(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _call(
        self, method: str, path: str, *, missing: bool = False, retries: int = 3, **rest: Any
    ) -> requests.Response:
        response = self._send(method, path, self.read_seconds, retries=retries, **rest)
        if missing and response.status_code == 404:
            return response
        if response.status_code == _CHANGED:
            raise Superseded("what is deployed was changed meanwhile: nothing is written over it")
        if response.status_code == Refused.status:  # what its user may do is the operator's business
            error = received(f"the gateway's {path}", response.status_code, response.content)
            raise Misconfigured(
                f"{error.message}; the user of the secret basic-auth-user may not {method} it"
            )
        # Nothing was done, or it may be done twice: also a 500 may work later.
        if not response.ok and (method == "GET" or path == "/system/secrets"):
            raise answered(f"the gateway's {path}", response.status_code, response.content)
        return _check(response, path)

    def _send(
        self, method: str, path: str, read_seconds: float, *, retries: int = 3, **rest: Any
    ) -> requests.Response:
        timeout = (min(CONNECT_SECONDS, read_seconds), read_seconds)
        url = self.url.rstrip("/") + path
        try:
            return session(retries).request(method, url, auth=self.auth, timeout=timeout, **rest)
        except requests.RequestException as error:
            raise Unavailable(f"the gateway does not answer {method} {path}: {reason(error)}") from None


def _if_still(status: Status | None) -> Mapping[str, str]:
    return {"If-Match": f'"{status.etag}"'} if status and status.etag else {}


def _check(response: requests.Response, path: str) -> requests.Response:
    if not response.ok:
        raise received(f"the gateway's {path}", response.status_code, response.content)
    return response


def _decoded(response: requests.Response, kind: Any) -> Any:
    try:
        return msgspec.json.decode(response.content, type=studied(kind))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Upstream(f"the gateway's answer can't be read: {error}") from None


def _text(line: bytes) -> str:
    try:
        return str(msgspec.json.decode(line).get("text", ""))
    except (msgspec.MsgspecError, AttributeError):
        return ""
