"""Trees of template sources: fetched once, kept by commit, and asked again by age or in a new epoch.

A source is `URL`, `URL#branch-or-tag` or `URL#sha-<7 to 40 hex>`; a pin must be a commit of the source's own
branches and tags, because servers also hand out commits of its forks.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from .fetch import Client, Remote
from .mirrors import Mirrors
from .sdk.errors import CloudError, Missing, Unavailable
from .sdk.masking import masked
from .sdk.settings import Settings

_TREES = 50
_SOURCES = 500
_PIN = re.compile(r"sha-([0-9a-f]{7,40})")


@dataclass(frozen=True)
class Fetched:
    """A source's tree as it was at `at` (time.monotonic) in that epoch, or why there was none."""

    at: float
    epoch: str
    folder: Path = Path()
    commit: str = ""
    missing: str = ""


@dataclass
class TemplateCache:
    """What was fetched, by source. A tree that is held stays until it is released."""

    root: Path
    mirrors: Mirrors
    _fetched: dict[str, Fetched] = field(default_factory=dict)
    _held: Counter[Path] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, source: str, settings: Settings) -> Fetched:
        """The source's tree, held. Raises `Missing` for what the source doesn't have."""
        kept = self._fetched.get(source)
        if kept and kept.epoch != settings.build_epoch:
            kept = None
        if not kept or time.monotonic() - kept.at > settings.template_max_age:
            kept = self._refreshed(source, kept, settings)
        if kept.missing:
            raise Missing(kept.missing)
        with self._lock:
            self._held[kept.folder] += 1
            is_there = kept.folder.is_dir()
            if is_there:
                os.utime(kept.folder)
        if not is_there:  # it went since it was looked up
            self.release([kept.folder])
            self._fetched.pop(source, None)
            raise Unavailable(f"the templates of {source} are being fetched anew")
        return kept

    def release(self, folders: Iterable[Path]) -> None:
        with self._lock:
            self._held.subtract(folders)
            self._held += Counter()  # drops those that nobody holds

    def _refreshed(self, source: str, kept: Fetched | None, settings: Settings) -> Fetched:
        url, _, ref = source.partition("#")
        client = Client(Remote(url), settings.fetch_timeout, settings.context_limit_mb)
        pinned = bool(kept and kept.commit and _PIN.fullmatch(ref))
        try:
            commit = kept.commit if kept and pinned else _commit(client, ref)
            folder = self.root / hashlib.sha256(url.encode()).hexdigest()[:16] / commit
            if not folder.exists():
                self._fetch(client, commit, folder, settings)
            found = Fetched(time.monotonic(), settings.build_epoch, folder, commit)
        except Missing as error:  # remembered too: nobody makes us look for it with every push
            found = Fetched(time.monotonic(), settings.build_epoch, missing=error.message)
        except CloudError as error:
            if not kept or kept.missing:
                raise
            print(f"git-tar: template source {masked(source)} is kept as it was: {error!r}", file=sys.stderr)
            found = replace(kept, at=time.monotonic())
        with self._lock:
            if len(self._fetched) >= _SOURCES:
                self._fetched.clear()
            self._fetched[source] = found
        return found

    def _fetch(self, client: Client, commit: str, folder: Path, settings: Settings) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        small = replace(settings, repo_limit_mb=settings.context_limit_mb)
        with tempfile.TemporaryDirectory(dir=self.root, prefix="fetch-") as work:
            checkout = self.mirrors.checkout(client, "templates", commit, Path(work) / "tree", small)
            with self._lock:
                self._make_room()
                if not folder.exists():
                    checkout.folder.rename(folder)

    def _make_room(self) -> None:
        """Delete the trees that were held longest ago, so that there is room for one more."""
        trees = [path for path in self.root.glob("*/*") if not path.parent.name.startswith("fetch-")]
        for tree in sorted(trees, key=lambda path: path.stat().st_mtime)[: max(0, len(trees) + 1 - _TREES)]:
            if not self._held[tree]:
                self._fetched = {name: row for name, row in self._fetched.items() if row.folder != tree}
                shutil.rmtree(tree, ignore_errors=True)


def _commit(client: Client, ref: str) -> str:
    """The commit that `ref` names on the server."""
    if pin := _PIN.fullmatch(ref):
        return _whole(client, pin[1])
    # `^{}` is the commit of an annotated tag.
    names = (f"refs/heads/{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}") if ref else ("HEAD",)
    for name in names:
        commit = client.head(name)
        if commit:
            return commit
    raise Missing(f"there is no {ref or 'HEAD'}")


def _whole(client: Client, start: str) -> str:
    """The one commit of the source's branches and tags whose id begins with `start`."""
    with tempfile.TemporaryDirectory(prefix="history-") as work:
        client.run("clone", "--quiet", "--bare", "--filter=blob:none", "--", client.remote.url, work)
        history = client.run(f"--git-dir={work}", "rev-list", "--all").splitlines()
    found = [commit for commit in history if commit.startswith(start)]
    if len(found) != 1:
        raise Missing(f"{len(found)} commits of its branches and tags begin with {start}")
    return found[0]
