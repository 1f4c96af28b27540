"""Submodules: told of, and fetched where the operator wants it. https://git-scm.com/docs/gitmodules"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin

from .fetch import Client, Remote, check_url
from .mirrors import Checkout, Mirrors, check_size
from .sdk.errors import Failed, Unavailable
from .sdk.settings import Settings

_MOST = 20
_FILE = ".gitmodules"


@dataclass
class Submodules:
    """Fetches what a checkout's submodules hold, without credentials: they are other repositories.

    All of them together have the limits of one repository. `deadline`: by time.monotonic.
    """

    mirrors: Mirrors
    owner: str
    settings: Settings
    deadline: float
    _filled: list[Checkout] = field(default_factory=list)

    def fill(self, checkout: Checkout, client: Client) -> list[Checkout]:
        """Put each submodule, and its own, into the tree; returns theirs. `Failed` if one can't be had."""
        urls = _urls(checkout, client) if checkout.submodules else {}
        for path, sha in checkout.submodules.items():
            if path not in urls:
                raise Failed(f"submodule {path} has no URL in {_FILE}")
            if len(self._filled) >= _MOST:
                raise Failed(f"more than {_MOST} submodules, nested ones included")
            if time.monotonic() > self.deadline:
                raise Failed("fetching the submodules takes too long (setting push_timeout)")
            check_url(urls[path], self.settings.allowed_git_hosts)
            theirs = Client(Remote(urls[path]), client.seconds, client.limit_mb)
            folder = checkout.folder / path
            folder.rmdir()  # git leaves an empty one
            inner = self.mirrors.checkout(theirs, self.owner, sha, folder, self.settings)
            self._filled.append(inner)
            whole = [file for filled in (checkout, *self._filled) for file in filled.files]
            check_size(whole, f"{client.remote.url} with its submodules", self.settings)
            self.fill(inner, theirs)
        return self._filled


def _urls(checkout: Checkout, client: Client) -> Mapping[str, str]:
    """Path → URL; one that begins with ./ or ../ is relative to the repository's own."""
    file = checkout.folder / _FILE
    if not file.is_file() or file.is_symlink():
        return {}
    keys = r"^submodule\..*\.(path|url)$"
    try:
        listed = client.run("config", "--file", str(file), "-z", "--get-regexp", keys)
    except Unavailable as error:
        raise Failed(f"{_FILE} can't be read, or names no submodule: {error.message}") from None
    found: dict[str, dict[str, str]] = {}
    for row in listed.split("\0")[:-1]:
        key, _, value = row.partition("\n")
        name, _, what = key.partition(".")[2].rpartition(".")
        found.setdefault(name, {})[what] = value
    base = client.remote.url.rstrip("/") + "/"
    return {
        row["path"]: urljoin(base, row["url"]) if row["url"].startswith(("./", "../")) else row["url"]
        for row in found.values()
        if row.get("path") and row.get("url")
    }
