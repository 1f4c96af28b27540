"""Who may deploy, where the operator keeps a list: the original's CUSTOMERS.

One login per line; blanks around it, blank lines and the case of letters don't count. The list comes from
the operator's file or URL alone, is kept for five minutes, and outlives a fetch that fails.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests

from . import secrets
from .errors import CloudError, Malformed, Misconfigured, Refused, Unavailable
from .settings import Settings

SIZE_LIMIT = 1024**2
FRESH_SECONDS = 300
# A fetch that failed is tried again after this; sooner while there is no list at all.
AGAIN_SECONDS, SOON_SECONDS = 30, 5

_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


def parse(content: bytes) -> frozenset[str]:
    """The logins in lower case; `Malformed` for what is no such list, as a page of HTML, or an empty one."""
    if len(content) > SIZE_LIMIT:
        raise Malformed(f"it has more than {SIZE_LIMIT} bytes")
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise Malformed("it is no UTF-8 text") from None
    for number, line in enumerate(lines, 1):
        if line and not _LOGIN.fullmatch(line):
            raise Malformed(f"line {number} is no login")
    found = frozenset(line.lower() for line in lines if line)
    if not found:
        raise Malformed("it names nobody")
    return found


@dataclass(frozen=True)
class _Kept:
    """What the last look brought, good until `due`; without `logins`, why there are none."""

    source: object
    due: float
    logins: frozenset[str] | None = None
    error: CloudError | None = None


@dataclass
class Customers:
    """The list, as it was last read. One thread reads it; the others do with what there is."""

    _kept: _Kept | None = field(default=None, repr=False)  # a URL may hold a token
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _fetcher: _Fetcher | None = None

    def check(self, login: str, settings: Settings, seconds: float) -> None:
        """Raise `Refused` for who is not on the list; look at it for `seconds` at most."""
        if settings.validate_customers and login.lower() not in self._logins(settings, seconds):
            raise Refused(f"{login} is not on the list of customers: nothing is deployed")

    def _logins(self, settings: Settings, seconds: float) -> frozenset[str]:
        source = (settings.secret_mount_path, settings.customers_path, settings.customers_url)
        kept = self._kept if self._kept and self._kept.source == source else None
        if not (kept and time.monotonic() < kept.due):
            if self._reading.acquire(timeout=0 if kept and kept.logins else seconds):
                try:
                    kept = self._read(source, settings, seconds)
                finally:
                    self._reading.release()
            elif not kept:
                raise Unavailable("the list of customers is being read: try again")
        if kept.logins is None:
            error = kept.error or Misconfigured("there is no list of customers")
            raise type(error)(error.message)
        return kept.logins

    def _read(self, source: object, settings: Settings, seconds: float) -> _Kept:
        before = self._kept if self._kept and self._kept.source == source else None
        if before and time.monotonic() < before.due:
            return before  # another thread was faster
        try:
            logins = self._load(settings, seconds)
            self._kept = _Kept(source, time.monotonic() + FRESH_SECONDS, logins)
        except CloudError as error:
            print(f"customers: {error.message}", file=sys.stderr, flush=True)
            again = AGAIN_SECONDS if before and before.logins else SOON_SECONDS
            known = before.logins if before else None
            self._kept = _Kept(source, time.monotonic() + again, known, error)
        return self._kept

    def _load(self, settings: Settings, seconds: float) -> frozenset[str]:
        where, content = self._content(settings, seconds)
        try:
            return parse(content)
        except Malformed as error:
            raise Misconfigured(f"the list of customers ({where}) is none: {error.message}") from None

    def _content(self, settings: Settings, seconds: float) -> tuple[str, bytes]:
        path, url = settings.customers_path, settings.customers_url
        secret = Path(settings.secret_mount_path) / "customers"
        if path or secrets.content(secret.name, settings.secret_mount_path) is not None:
            return "customers_path" if path else "secret customers", _file(Path(path) if path else secret)
        if not url:
            raise Misconfigured(
                "validate_customers is on, but there is no list: set customers_path or customers_url, or "
                "create the secret customers"
            )
        if self._fetcher and self._fetcher.is_alive():
            raise Unavailable("the list of customers (customers_url) still has not come")
        self._fetcher = _Fetcher(url, seconds)
        return "customers_url", self._fetcher.wait()


class _Fetcher(threading.Thread):
    """One fetch; a server that takes its time costs this thread, and not who waits for it."""

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(daemon=True)
        self._url, self._seconds = url, seconds
        self._content = b""
        self._error: CloudError = Unavailable(self._says(f"did not come within {seconds:g} s"))
        self._done = False

    def wait(self) -> bytes:
        self.start()
        self.join(self._seconds)
        if not self._done:
            raise self._error
        return self._content

    def run(self) -> None:
        try:
            content = _fetched(self._url, self._seconds, self._says)
        except CloudError as error:
            self._error = error
        else:
            self._content, self._done = content, True

    def _says(self, what: str) -> str:
        # The host alone: the rest of the URL may hold a token.
        try:
            host = urlsplit(self._url).hostname
        except ValueError:
            host = None
        return f"the list of customers (customers_url) at {host or '?'} {what}"


def _fetched(url: str, seconds: float, says: Callable[[str], str]) -> bytes:
    deadline, content = time.monotonic() + seconds, bytearray()
    verify: bool | str = os.environ.get("SSL_CERT_FILE") or True
    try:
        # A redirect is not followed: what it leads to, the operator has not named.
        with requests.get(url, timeout=seconds, stream=True, allow_redirects=False, verify=verify) as answer:
            if answer.status_code != 200:
                kind = (
                    Unavailable if answer.status_code >= 500 or answer.status_code == 429 else Misconfigured
                )
                raise kind(says(f"was answered with {answer.status_code}"))
            for piece in answer.iter_content(16 * 1024):
                content += piece
                if len(content) > SIZE_LIMIT:
                    raise Misconfigured(says(f"has more than {SIZE_LIMIT} bytes"))
                if time.monotonic() > deadline:
                    raise Unavailable(says(f"did not come within {seconds:g} s"))
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
    ):
        raise Misconfigured(says("is no URL by http or https")) from None
    except (OSError, ValueError) as error:  # requests' own are OSErrors
        raise Unavailable(says(f"can't be fetched: {type(error).__name__}")) from None
    return bytes(content)


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise Misconfigured(f"the list of customers, {path}, can't be read: {said}") from None
