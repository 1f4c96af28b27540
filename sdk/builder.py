"""of-builder's HTTP API, from the side of whoever has something to build.

The protocol is that of OpenFaaS's builder (https://docs.openfaas.com/openfaas-pro/builder/): a signed
tar in, newline-delimited JSON out. faas-cli takes a stream that just ends for a success; this client
does not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO
from urllib.parse import urlencode

import msgspec
import requests

from . import signature
from .errors import (
    Busy,
    CloudError,
    Failed,
    Misconfigured,
    Refused,
    Superseded,
    Unavailable,
    Upstream,
    answered,
)
from .kinds import studied
from .secrets import Keys
from .sessions import CONNECT_SECONDS, reason, session

# of-builder says something at least this often, even while a build waits or is silent: a client looks at its
# clock with each line, and takes of-builder for gone when it has read nothing for READ_SECONDS.
BEAT_SECONDS = 5
READ_SECONDS = 30
LOG_SECONDS = 8


@dataclass(frozen=True)
class Step:
    """One step of a build, as BuildKit names it."""

    name: str
    seconds: float
    cached: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the answer; the last one has status success or failed.

    `digest` is the image's, `context` the digest of the build context, `code` says whose failure it
    is: `failed` or `refused` the user's, `unavailable` ours, `superseded` nobody's; `busy` is no failure,
    but a build that has not begun. `reason` is a word for the kind of failure, such as `syntax`, `step` or
    `registry`.
    """

    log: list[str] = field(default_factory=list)
    image: str = ""
    status: str = ""
    error: str = ""
    code: str = ""
    digest: str = ""
    context: str = ""
    reason: str = ""
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Built:
    """An image that is in the registry, by digest, and the build's log."""

    image: str
    digest: str
    context: str
    log: list[str] = field(repr=False)


@dataclass(frozen=True)
class Log:
    """A build's log; not whole while it builds."""

    text: str = field(repr=False)
    is_whole: bool = True


@dataclass(frozen=True)
class Builder:
    url: str
    keys: Keys

    def build(self, tar: bytes | IO[bytes], signed: str, seconds: float) -> Built:
        """Build and push; `signed` is the `X-Build-Signature` of the tar.

        Raises `Failed` (with the log's last lines) when the build fails or takes longer than `seconds`,
        `Unavailable` when it may work later: also when it was `Busy` with others all that time, and
        `Superseded` when somebody said that nobody needs it any more.
        """
        headers = {
            signature.BUILDER_HEADER: signed,
            "Content-Type": "application/octet-stream",
            "Accept": "application/x-ndjson",
        }
        deadline, log, begun = time.monotonic() + seconds, list[str](), False
        for line in self._stream(tar, headers, seconds):
            log += line.log
            begun = begun or (bool(line.log) and line.code != Busy.code)
            if line.status == "success":
                return Built(line.image, line.digest, line.context, log)
            if line.status == "failed":
                raise _failure(line, log)
            if time.monotonic() > deadline:
                if not begun:
                    raise Busy(f"the build has waited {seconds:.0f} s for its turn")
                raise Failed(f"the build takes longer than {seconds:.0f} s", details={"log": log[-50:]})
        raise Unavailable("of-builder's answer ended before the build did")

    def ready(self) -> None:
        """Ask of-builder whether BuildKit and the registry answer it; `Unavailable` says which does not."""
        try:
            response = session(retries=0).get(self.url.rstrip("/") + "/readyz", timeout=(CONNECT_SECONDS, 20))
        except requests.RequestException as error:
            raise Unavailable(f"of-builder does not answer: {reason(error)}") from None
        if not response.ok:
            raise Unavailable(f"of-builder is not ready: {response.text[:1000].strip()}")

    def digest(self, repository: str, *, context: str = "", tag: str = "") -> str | None:
        """The digest of the image of that context digest or tag, None if the registry has none."""
        response = self._ask("GET", "/image", repository, context=context, tag=tag)
        if response.status_code == 404:
            return None
        _check(response)
        return msgspec.json.decode(response.content, type=studied(Line)).digest

    def log(self, repository: str, *, context: str = "", tag: str = "") -> Log | None:
        """What that image's build has said, as far as it is kept; None if nothing is."""
        response = self._ask(
            "GET", "/log", repository, context=context, tag=tag, seconds=LOG_SECONDS, retries=0
        )
        if response.status_code == 404:
            return None
        _check(response)
        return Log(response.text, is_whole=response.headers.get("X-Build-Status") != "in_progress")

    def overtaken(self, repository: str, tag: str) -> None:
        """Nobody needs images with that tag, in or below `repository`, any more: whoever waits is let go."""
        _check(self._ask("DELETE", "/build", repository, tag=tag))

    def _ask(
        self,
        method: str,
        path: str,
        repository: str,
        *,
        context: str = "",
        tag: str = "",
        seconds: float = 20,
        retries: int = 3,
    ) -> requests.Response:
        """A signed query about the image of that context digest or tag."""
        wanted = {"context": context} if context else {"tag": tag}
        target = f"{path}?" + urlencode({"image": repository, **wanted, "at": int(time.time())})
        headers = {signature.BUILDER_HEADER: signature.sign(target.encode(), self.keys)}
        url, timeout = self.url.rstrip("/") + target, (CONNECT_SECONDS, seconds)
        try:
            return session(retries).request(method, url, headers=headers, timeout=timeout)
        except requests.RequestException as error:
            raise Unavailable(f"of-builder does not answer: {reason(error)}") from None

    def _stream(self, tar: bytes | IO[bytes], headers: dict[str, str], seconds: float) -> Iterator[Line]:
        url = self.url.rstrip("/") + "/build"
        timeout = (CONNECT_SECONDS, min(READ_SECONDS, seconds))
        try:
            # Sent again, it would wait behind all others again, and beyond the deadline.
            with session(retries=0).post(
                url, data=tar, headers=headers, timeout=timeout, stream=True
            ) as response:
                _check(response)
                for line in response.iter_lines():
                    if line:
                        yield msgspec.json.decode(line, type=studied(Line))
        except msgspec.MsgspecError as error:
            raise Upstream(f"of-builder's answer can't be read: {error}") from None
        except requests.RequestException as error:
            raise Unavailable(f"of-builder does not answer: {reason(error)}") from None


def _failure(line: Line, log: list[str]) -> CloudError:
    kinds = {kind.code: kind for kind in (Unavailable, Refused, Misconfigured, Superseded)}
    return kinds.get(line.code, Failed)(line.error or "the build failed", details={"log": log[-50:]})


def _check(response: requests.Response) -> None:
    if not response.ok:
        raise answered("of-builder", response.status_code, response.content)
