"""What of a function can be known before anything is built: its plan, or all that is wrong with it.

git-tar ships the plan; `python -m local stack` and `shrinkwrap` show authors the same before a push.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from . import naming, policy, stack, templates
from .errors import Failed, Malformed
from .problems import Problems
from .settings import Settings
from .shrinkwrap import DOCKERFILE, Context, Limits, inside, shrinkwrap, template_of
from .stack import Function
from .templates import Template


@dataclass(frozen=True)
class Plan:
    """`function` has its environment files merged and the operator's policy applied."""

    function: Function
    context: Context
    template: Template | None
    build_args: Mapping[str, str]


def plan(
    function: Function,
    owner: str,
    folder: Path,
    copy: Iterable[str],
    settings: Settings,
    language: Callable[[Function], Path | None],
) -> Plan:
    """Plan `function` of the repository in `folder`, whose stack.yml has `copy`.

    `language` gives its template's folder, None for `lang: dockerfile`. Raises all that the author has to
    mend as one error: `Refused`, `Failed` or `TooLarge`, as the first of them is.
    """
    problems = Problems()
    template, packed = None, replace(function, lang=DOCKERFILE)
    args: Mapping[str, str] = {}
    with problems.noted():
        naming.service_name(owner, function.name)
    with problems.noted():
        function = replace(function, environment=environment(function, folder))
    with problems.noted():
        function = policy.apply(function, settings)
    folders = {}
    with problems.noted():
        found = language(function)
        folders = {function.lang: found} if found else {}
        template = template_of(function, folders)
        packed = function
        args = build_args(function, template, settings)
    limits = Limits(settings.context_limit_mb * 1024**2, settings.context_files_limit)
    context = Context(function.name)
    with problems.noted():  # without its template, the author's own files are looked at
        context = shrinkwrap(packed, folder, folders, copy, limits)
    problems.tell()
    return Plan(function, context, template, args)


def build_args(function: Function, template: Template | None, settings: Settings) -> Mapping[str, str]:
    """The author's, the build options' packages, and last the operator's."""
    packages = templates.additional_packages(function, template)
    options = {"ADDITIONAL_PACKAGE": packages} if packages else {}
    return {**function.build_args, **options, **settings.build_args}


def environment(function: Function, folder: Path) -> Mapping[str, str]:
    """The function's variables: each `environment_file`, in order, over `environment`, as faas-cli."""
    merged = dict(function.environment)
    for name in function.environment_file:
        file = inside(folder.resolve(), name, f"{function.name}: environment_file")
        if not file.is_file() or file.stat().st_size > stack.SIZE_LIMIT:
            raise Failed(
                f"{function.name}: environment_file {name!r} is no file of the repository, or has more than "
                f"{stack.SIZE_LIMIT} bytes"
            )
        try:
            merged.update(stack.parse_environment_file(file.read_bytes()))
        except Malformed as error:
            raise Failed(f"{function.name}: {name}: {error.message}") from None
    return merged
