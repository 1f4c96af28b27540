"""Shrinkwrap: template + handler folder + extra paths become one build context, as faas-cli has it.

A `Context` is a plan: which file of the repository or the template stands at which path. It can be
written to a folder (here) or straight into a tar (context.py), so each byte is read once.

Unlike faas-cli it trusts nobody: every path is resolved and must stay inside the repository (or the
template), links included. What would leave it is refused before anything of it is read.
"""

from __future__ import annotations

import heapq
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .errors import Failed, Refused, TooLarge
from .problems import Problems
from .stack import Function
from .templates import Template, read_template

DOCKERFILE = "dockerfile"

# Children of a handler folder that faas-cli leaves out, by name: its own work folders.
SKIPPED = frozenset({"build", "template"})
_DEEPEST = 100
_SHOWN_FILES = 5


@dataclass(frozen=True)
class Limits:
    """What one build context may hold; links to folders count each time they are followed."""

    bytes: int = 100 * 1024 * 1024
    files: int = 20_000


class Entry(NamedTuple):
    """A file or folder of a context, and where its bytes are."""

    source: str
    mode: int
    size: int
    is_folder: bool


@dataclass
class Context:
    """The build context of one function: path in the context → entry, parents before children."""

    name: str
    limits: Limits = Limits()
    entries: dict[str, Entry] = field(default_factory=dict)
    bytes: int = 0

    def add(self, path: str, entry: Entry) -> None:
        """Put `entry` at `path`; a later file takes the place of an earlier one."""
        try:
            path.encode()
        except UnicodeEncodeError:
            raise Failed(f"{self.name}: {path!a}: the names of files must be UTF-8") from None
        there = self.entries.get(path)
        if there and there.is_folder != entry.is_folder:
            kinds = ("a folder", "a file") if entry.is_folder else ("a file", "a folder")
            raise Failed(f"{self.name}: {path} is {kinds[0]}, where the template has {kinds[1]}")
        self.bytes += entry.size - (there.size if there else 0)
        self.entries[path] = entry
        if self.bytes > self.limits.bytes or len(self.entries) > self.limits.files:
            raise TooLarge(self._too_large())

    def add_parents(self, path: PurePosixPath, source: Path) -> None:
        for parent in reversed(path.parents):
            there = self.entries.get(str(parent))
            if parent.name and not (there and there.is_folder):
                self.add(str(parent), Entry(str(source), 0o755, 0, is_folder=True))

    def _too_large(self) -> str:
        largest = heapq.nlargest(_SHOWN_FILES, self.entries.items(), key=lambda row: row[1].size)
        files = ", ".join(f"{path} ({_mib(entry.size)})" for path, entry in largest)
        return (
            f"{self.name}: the build context is too large: more than {_mib(self.limits.bytes)} or "
            f"{self.limits.files} files (settings context_limit_mb, context_files_limit); "
            f"so far {_mib(self.bytes)} in {len(self.entries)}, "
            f"the largest: {files}"
        )

    def write(self, out: Path) -> None:
        """Materialise the context as the new folder `out`."""
        out.mkdir(parents=True)
        for path, entry in self.entries.items():
            if entry.is_folder:
                (out / path).mkdir()
            else:
                shutil.copyfile(entry.source, out / path)
                (out / path).chmod(entry.mode)


def shrinkwrap(
    function: Function,
    repository: Path,
    templates: Mapping[str, Path],
    extra: Iterable[str] = (),
    limits: Limits = Limits(),
) -> Context:
    """Plan the build context of `function`.

    `repository` is the checked-out tree, `templates` maps a language to its folder, `extra` is
    stack.yml's `configuration.copy`. Raises `Refused` for what leaves the repository, `Failed` for
    what the author has to mend and `TooLarge` above `limits`, with all of it that is wrong.
    """
    if function.name in ("", ".", "..") or {"/", "\0"} & set(function.name):
        raise Refused(f"function name {function.name!r} is not a name of a folder")
    root = repository.resolve(strict=True)
    problems, target, context = Problems(), PurePosixPath(), Context(function.name, limits)
    with problems.noted():
        template = template_of(function, templates)
        if template:
            _add(context, template.folder, PurePosixPath(), template.folder.resolve(strict=True))
            target = _handler_folder(template)
            context.add_parents(target / "_", root)
    children: list[Path] = []
    with problems.noted():
        children = _handler(function, root)
    for child in children:
        with problems.noted():
            _add(context, child, target / child.name, root)
    for path in extra:
        with problems.noted():
            source = inside(root, path, "configuration.copy")
            if not source.exists():
                raise Failed(f"configuration.copy: {path!r} is not in the repository")
            to = target / os.path.normpath(path)
            context.add_parents(to, root)
            _add(context, source, to, root)
    problems.tell()
    return context


def template_of(function: Function, templates: Mapping[str, Path]) -> Template | None:
    """The function's template, None for `lang: dockerfile`; `Failed` names the languages there are."""
    if function.lang.lower() == DOCKERFILE:
        return None
    if function.lang in templates:
        return read_template(templates[function.lang])
    there = ", ".join(sorted(templates)) or "none"
    said = f"lang {function.lang!r} is unknown" if function.lang else "lang is missing"
    raise Failed(f"{function.name}: {said}; the languages here are: {there}")


def _handler(function: Function, root: Path) -> list[Path]:
    """What of the handler's folder is taken."""
    handler = inside(root, function.handler, f"{function.name}: handler")
    if not handler.is_dir():
        raise Failed(f"{function.name}: handler {function.handler!r} is not a folder of the repository")
    return [child for child in sorted(handler.iterdir()) if child.name not in SKIPPED]


def _handler_folder(template: Template) -> PurePosixPath:
    path = os.path.normpath(template.handler_folder or "function")
    if _leaves(path):
        raise Refused(f"template {template.folder.name}: handler_folder leaves the build context")
    return PurePosixPath(path)


def inside(root: Path, path: str, what: str) -> Path:
    """`path` below `root`, links followed; `Refused` if it leaves `root`."""
    if not path:
        raise Failed(f"{what} is missing")
    clean = os.path.normpath(path)
    if _leaves(clean):
        raise Refused(f"{what} {path!r} leaves the repository")
    return _resolved(root / clean, root, f"{what} {path!r}")


def _leaves(clean: str) -> bool:
    return clean.startswith("/") or clean.split("/")[0] == ".." or "\0" in clean


def _resolved(path: Path, root: Path, what: str) -> Path:
    try:
        real = path.resolve()
    except (OSError, RuntimeError):
        raise Refused(f"{what} is a link that leads in a circle") from None
    if real != root and root not in real.parents:
        raise Refused(f"{what} leaves the repository")
    return real


def _add(context: Context, source: Path, target: PurePosixPath, root: Path) -> None:
    above = os.path.normpath(target)
    prefix = "" if above == "." else f"{above}/"
    for real, relative, status in _walk(source, root, context.name):
        path = prefix + relative if relative else above
        if path == ".":
            continue
        folder = stat.S_ISDIR(status.st_mode)
        size = 0 if folder else status.st_size
        context.add(path, Entry(real, stat.S_IMODE(status.st_mode), size, folder))


def _walk(source: Path, root: Path, name: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """What is at and below `source`: its real path, its path relative to `source`, and what it is.

    With strings: a Path for each of thousands of files takes longer than to pack them.
    """
    pending: list[tuple[str, str, tuple[str, ...]]] = [(str(source), "", ())]
    while pending:
        path, relative, above = pending.pop()
        shown = f"{name}: {relative or source.name!r}"
        real, status = path, os.lstat(path)
        if not above or stat.S_ISLNK(status.st_mode):  # the rest is where its folder is
            resolved = _resolved(Path(path), root, shown)
            if not resolved.exists():
                raise Refused(f"{shown} is a link to nothing")
            real, status = str(resolved), resolved.stat()
        if real in above or len(above) > _DEEPEST:
            raise Refused(f"{shown} is nested too deep, or a link to a folder that holds it")
        if stat.S_ISDIR(status.st_mode):
            yield real, relative, status
            prefix, within = f"{relative}/" if relative else "", (*above, real)
            children = sorted(os.listdir(real), reverse=True)  # noqa: PTH208
            pending += [(f"{real}/{child}", prefix + child, within) for child in children]
        elif stat.S_ISREG(status.st_mode):
            yield real, relative, status
        else:
            raise Refused(f"{shown} is no plain file")


def _mib(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"
