"""What a push would say of a repository before anything is built: the same checks, on this machine.

With the default settings, or those that the environment has, and our own templates or those of a folder. What
only the cloud knows is not seen: its operator's settings, secrets, names that are taken, other templates.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from sdk import policy, templates, tree
from sdk.errors import CloudError, Failed
from sdk.plan import Plan, plan
from sdk.settings import Settings
from sdk.shrinkwrap import DOCKERFILE, template_of
from sdk.stack import Function, Stack

from .author import OWNER, REMOTE
from .images import ROOT

_REMOTE_OWNER = re.compile(r"https?://[^/]+/([^/]+)/[^/]+")


def read(folder: Path) -> Stack:
    """The repository's stack file; raises what is wrong with it, also with secrets.yml."""
    found = tree.read_stack(folder, Settings.read().functions_limit)
    tree.read_sealed(folder, found)
    return found


def problems(found: Stack, folder: Path | None, source: Path | None) -> Iterator[str]:
    """A line for each function that a push would not build; without a folder only by what the file says."""
    for function in found.functions:
        try:
            if folder:
                _plan(function, found, folder, source)
            else:
                policy.apply(function, Settings.read())
        except CloudError as error:
            yield _line(function, error)


def shrinkwrap(found: Stack, folder: Path, out: Path, source: Path | None) -> Iterator[str]:
    """Write each function's build context to `out`; a line for each that failed."""
    for function in found.functions:
        try:
            planned = _plan(function, found, folder, source)
            if _is_fetched(function, found, _languages(source)):
                raise Failed(f"its template {function.lang} is fetched by a push alone: give --templates")
            planned.context.write(out / function.name)
        except CloudError as error:
            yield _line(function, error)
        except FileExistsError:
            yield f"{out / function.name} is there already: remove it, or choose another --out"
        except OSError as error:
            yield f"{function.name}: {error}"


def _plan(function: Function, found: Stack, folder: Path, source: Path | None) -> Plan:
    settings, languages = Settings.read(), _languages(source)
    if _is_fetched(function, found, languages):  # all but its template is looked at
        function = replace(function, lang=DOCKERFILE, build_options=())
        settings = replace(settings, enable_dockerfile_lang=True)

    def language(function: Function) -> Path | None:
        template = template_of(function, languages)
        return template.folder if template else None

    return plan(function, _owner(folder), folder, found.configuration.copy, settings, language)


def _languages(source: Path | None) -> Mapping[str, Path]:
    return templates.languages(source or ROOT / "local") or templates.below(source or ROOT)


def _is_fetched(function: Function, found: Stack, languages: Mapping[str, Path]) -> bool:
    """Whether stack.yml says where the template is, and it is none of those here."""
    pinned = any(row.name == function.lang and row.source for row in found.configuration.templates)
    return function.lang not in languages and (pinned or "@" in function.lang)


def _owner(folder: Path) -> str:
    ask = ("git", "-C", str(folder), "remote", "get-url", REMOTE)
    match = _REMOTE_OWNER.match(subprocess.run(ask, capture_output=True, text=True).stdout)
    return match[1] if match else OWNER


def _line(function: Function, error: CloudError) -> str:
    start = f"{function.name}: "
    return start + error.message.removeprefix(start)
