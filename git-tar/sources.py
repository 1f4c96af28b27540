"""Which template a function is built with: the operator's, or what its stack.yml names and may name."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .fetch import check_url
from .sdk import templates
from .sdk.errors import Failed, Misconfigured, Missing, Refused
from .sdk.masking import masked
from .sdk.messages import Template
from .sdk.settings import Settings
from .sdk.shrinkwrap import DOCKERFILE
from .sdk.stack import Configuration, Function
from .template_cache import TemplateCache

# Sources, each ref counted, that one stack may name beside the operator's.
_NAMED = 5


@dataclass(frozen=True)
class Language:
    """A language that can be built: its template's folder, and where that came from."""

    folder: Path
    origin: Template


@dataclass
class Sources:
    """The templates of one push, which stay until it has ended."""

    cache: TemplateCache
    configuration: Configuration
    settings: Settings
    _held: dict[str, tuple[Path, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def language(self, function: Function) -> Language | None:
        """The function's language, None for `lang: dockerfile`; `Failed` says which ones there are.

        Of one name, what stack.yml names wins over custom_templates, and there the first.
        """
        lang = function.lang
        if lang.lower() == DOCKERFILE:
            return None
        rows = self.configuration.templates
        named = next((row.source for row in rows if row.name == lang and row.source), "")
        refused = named and not is_allowed(named, self.settings)
        if named and not refused:
            return self._named(function, named)
        found = self._operators()
        if lang not in found and "@" in lang:
            return self._at_ref(function)
        if lang in found:
            return found[lang]
        there = ", ".join(sorted(found)) or "none"
        said = f"lang {lang!r} is unknown" if lang else "lang is missing"
        why = f" (its source {named} is not allowed: setting allowed_template_sources)" if refused else ""
        raise Failed(f"{function.name}: {said}{why}; the languages here are: {there}")

    def _named(self, function: Function, source: str) -> Language:
        name = function.lang.partition("@")[0]
        try:
            found = self._languages(source, limited=True)
        except (Missing, Refused) as error:
            raise Failed(f"{function.name}: template source {source}: {error.message}") from None
        if name not in found:
            there = ", ".join(sorted(found)) or "none"
            raise Failed(f"{function.name}: {source} has no template {name}; it has: {there}")
        return found[name]

    def _operators(self) -> Mapping[str, Language]:
        found: dict[str, Language] = {}
        for source in self.settings.custom_templates:
            try:
                for known, language in self._languages(source).items():
                    found.setdefault(known, language)
            except (Missing, Refused) as error:
                raise Misconfigured(f"setting custom_templates: {source}: {error.message}") from None
        return found

    def _at_ref(self, function: Function) -> Language:
        """`NAME@REF` is NAME at that branch, tag or pin of one of the operator's sources."""
        name, _, ref = function.lang.partition("@")
        sources = [_url(source) for source in self.settings.custom_templates if not _is_folder(source)]
        for url in sources:
            try:
                found = self._languages(f"{url}#{ref}", limited=True)
            except Missing:
                continue
            if name in found:
                return found[name]
        raise Failed(
            f"{function.name}: there is no template {name} at {ref} in {', '.join(sources) or 'any source'}"
        )

    def _languages(self, source: str, *, limited: bool = False) -> Mapping[str, Language]:
        folder, commit = (Path(source), "") if _is_folder(source) else self._folder(source, limited)
        return {
            name: Language(path, Template(source=masked(source), commit=commit))
            for name, path in templates.languages(folder).items()
        }

    def _folder(self, source: str, limited: bool) -> tuple[Path, str]:
        with self._lock:  # functions are packed side by side
            if source not in self._held:
                more = len(self._held) - len(self.settings.custom_templates)
                if limited and more >= _NAMED:
                    raise Refused(f"one stack may name {_NAMED} sources of templates, each ref counted")
                fetched = self.cache.hold(source, self.settings)
                self._held[source] = fetched.folder, fetched.commit
            return self._held[source]

    def release(self) -> None:
        self.cache.release(folder for folder, _ in self._held.values())


@contextmanager
def held(cache: TemplateCache, configuration: Configuration, settings: Settings) -> Iterator[Sources]:
    """The sources of one push; what it takes of the cache stays there until the block ends."""
    sources = Sources(cache, configuration, settings)
    try:
        yield sources
    finally:
        sources.release()


def is_allowed(source: str, settings: Settings) -> bool:
    """Whether a stack.yml may name `source`: one of custom_templates, at any ref, or one that is allowed."""
    url = _url(source)
    if _is_folder(source):
        return False
    for known in (*settings.custom_templates, *settings.allowed_template_sources):
        if known.endswith("/*"):
            try:
                check_url(url, (known.removesuffix("/*"),))
            except Refused:
                continue
            return True
        if url.removesuffix(".git") == _url(known).removesuffix(".git"):
            return True
    return False


def _is_folder(source: str) -> bool:
    return source.startswith("/")


def _url(source: str) -> str:
    return source.partition("#")[0]
