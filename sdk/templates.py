"""Language templates: what a `template/<lang>` folder with its template.yml says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from .errors import Failed
from .kinds import studied
from .stack import Function


@dataclass(frozen=True)
class BuildOption:
    name: str
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Template:
    """A template's folder and its template.yml (https://docs.openfaas.com/cli/templates/)."""

    folder: Path
    language: str = ""
    fprocess: str = ""
    handler_folder: str = ""
    build_options: tuple[BuildOption, ...] = ()


def read_template(folder: Path) -> Template:
    """Read `folder/template.yml`; `Failed` if it isn't there or isn't one."""
    try:
        data = yaml.safe_load((folder / "template.yml").read_bytes()) or {}
        rows = {key: value for key, value in dict(data).items() if value is not None}
        return msgspec.convert({**rows, "folder": folder}, studied(Template), strict=False)
    except (OSError, yaml.YAMLError, msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise Failed(f"template {folder.name}: template.yml can't be read: {error}") from None


def languages(folder: Path) -> Mapping[str, Path]:
    """The languages of a template source: each folder below `folder/template`."""
    return below(folder / "template")


def below(folder: Path) -> Mapping[str, Path]:
    """The templates that are `folder`'s own children."""
    found = sorted(folder.iterdir()) if folder.is_dir() else ()
    return {path.name: path for path in found if path.is_dir() and not path.is_symlink()}


def additional_packages(function: Function, template: Template | None) -> str:
    """The build arg `ADDITIONAL_PACKAGE`: the user's own and those of the build options, sorted."""
    wanted = set(function.build_args.get("ADDITIONAL_PACKAGE", "").split())
    known = {option.name: option.packages for option in (template.build_options if template else ())}
    for name in function.build_options:
        if name not in known:
            there = ", ".join(sorted(known)) or "none"
            raise Failed(f"{function.name}: build option {name!r} is unknown; the template has: {there}")
        wanted.update(known[name])
    return " ".join(sorted(wanted))
