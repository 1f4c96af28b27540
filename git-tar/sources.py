"""The template sources of `custom_templates`: fetched once, kept by commit, refreshed by age."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import fetch
from .sdk import templates
from .sdk.errors import CloudError, Misconfigured
from .sdk.messages import Template
from .sdk.settings import Settings


@dataclass(frozen=True)
class Language:
    """A language that can be built: its template's folder, and where that came from."""

    folder: Path
    origin: Template


@dataclass
class _Fetched:
    folder: Path
    commit: str
    at: float


@dataclass
class Sources:
    """What was fetched, by source; one fetch at a time."""

    root: Path
    _fetched: dict[str, _Fetched] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def languages(self, settings: Settings) -> Mapping[str, Language]:
        """Every language of every source; of two of one name, the first source's."""
        found: dict[str, Language] = {}
        for source in settings.custom_templates:
            folder, commit = self._folder(source, settings)
            for name, path in templates.languages(folder).items():
                found.setdefault(name, Language(path, Template(source=source, commit=commit)))
        return found

    def _folder(self, source: str, settings: Settings) -> tuple[Path, str]:
        if source.startswith("/"):
            return Path(source), ""
        with self._lock:
            kept = self._fetched.get(source)
            if not kept or time.monotonic() - kept.at > settings.template_max_age:
                kept = self._refreshed(source, kept, settings)
                self._fetched[source] = kept
        return kept.folder, kept.commit

    def _refreshed(self, source: str, kept: _Fetched | None, settings: Settings) -> _Fetched:
        url, _, ref = source.partition("#")
        try:
            commit = _commit(url, ref, settings.fetch_timeout)
            folder = self.root / hashlib.sha256(url.encode()).hexdigest()[:16] / commit
            if not folder.exists():
                self._fetch(url, commit, folder, settings.fetch_timeout)
        except CloudError as error:
            if not kept:
                raise
            print(f"git-tar: template source {source} is kept as it was: {error}", file=sys.stderr)
            return _Fetched(kept.folder, kept.commit, time.monotonic())
        return _Fetched(folder, commit, time.monotonic())

    def _fetch(self, url: str, commit: str, folder: Path, seconds: float) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetch-") as work:
            tree = fetch.checkout(url, commit, Path(work), seconds=seconds)
            tree.replace(folder)
        # A push that still reads the commit before keeps it; older ones go.
        versions = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in versions[:-2]:
            shutil.rmtree(old, ignore_errors=True)


def _commit(url: str, ref: str, seconds: float) -> str:
    if ref.startswith("sha-"):
        return ref.removeprefix("sha-")
    names = (f"refs/heads/{ref}", f"refs/tags/{ref}") if ref else ("HEAD",)
    for name in names:
        commit = fetch.head(url, name, seconds=seconds)
        if commit:
            return commit
    raise Misconfigured(f"setting custom_templates: {url} has no {ref or 'HEAD'}")
