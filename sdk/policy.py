"""What an author may set in stack.yml, and what only the operator decides. Pure.

docs/settings.md shows this as a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from .errors import Refused
from .naming import ANNOTATION_BYTES, CLOUD, is_secret
from .settings import Settings
from .shrinkwrap import DOCKERFILE
from .stack import Function, Resources

HEALTH_PATH = "com.openfaas.health.http.path"
_PLATFORM_LABELS = frozenset({"openfaas-cloud", "role", "faas_function", "app"})
_PLATFORM_PREFIXES = ("com.openfaas.", "Git-")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_KEY = re.compile(
    r"(?:[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
_PATH = re.compile(r"/[!-~]*")
_MEMORY = re.compile(r"([0-9]{1,12})([kmgKMG]?)i?[bB]?")
_CPU = re.compile(r"([0-9]{1,6})m|([0-9]{1,4}(?:\.[0-9]{1,6})?)")
_LEAST_MEMORY = 4 * 1024**2  # no container engine starts one with less
_TEXT_BYTES = 64 * 1024  # Linux takes 128 KiB for one argument or variable, name included
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def apply(function: Function, settings: Settings) -> Function:
    """The function as it may be deployed; `Refused` names all of it that is not allowed.

    Annotations, labels and constraints that only concern the cluster are left out, as in the
    original: a stack.yml that works elsewhere works here.
    """
    problems = list(_problems(function, settings))
    if problems:
        raise Refused("; ".join(f"{function.name}: {problem}" for problem in problems))
    return replace(
        function,
        annotations=_annotations(function, settings),
        labels={
            key: text
            for key, text in function.labels.items()
            if _matches(key, settings.allowed_labels) and not _is_platform_label(key)
        },
        constraints=(),
    )


def _annotations(function: Function, settings: Settings) -> dict[str, str]:
    """Those that are deployed."""
    return {
        key: text
        for key, text in function.annotations.items()
        if _matches(key, settings.allowed_annotations) and not key.startswith(CLOUD)
    }


def is_path(text: str) -> bool:
    """Whether it is a path of a URL, and nothing that could lead to another host."""
    return bool(_PATH.fullmatch(text))


def memory_bytes(text: str) -> int | None:
    """`128Mi`, `128m`, `128M` or `134217728` in bytes; None if it is no amount of memory."""
    match = _MEMORY.fullmatch(text)
    return int(match[1]) * _BYTES[match[2].lower()] if match else None


def cpu_milli(text: str) -> int | None:
    """`500m` or `0.5` in thousandths of a CPU; None if it is no amount of CPU."""
    match = _CPU.fullmatch(text)
    if not match:
        return None
    return int(match[1]) if match[1] else round(float(match[2]) * 1000)


def _problems(function: Function, settings: Settings) -> Iterator[str]:
    if function.namespace and function.namespace not in settings.allowed_namespaces:
        there = ", ".join(settings.allowed_namespaces) or "none"
        said = f"namespace {function.namespace!r} is not allowed here; allowed: {there}"
        yield f"{said} (setting allowed_namespaces)"
    if function.skip_build:
        yield "skip_build: only what is built from the repository is deployed"
    if function.build_secrets:
        yield "build_secrets are not available here"
    if function.lang.lower() == DOCKERFILE and not settings.enable_dockerfile_lang:
        yield "lang: dockerfile is not enabled here (setting enable_dockerfile_lang)"
    for name in function.build_args:
        allowed = _matches(name, settings.allowed_build_args) and not _is_platform_argument(name, settings)
        if not (_NAME.fullmatch(name) and allowed):
            yield f"build arg {name} is not yours to set"
    for name in function.environment:
        if not _NAME.fullmatch(name):
            yield f"environment: {name!r} is no name of a variable"
    for name in function.secrets:
        if not is_secret(name):
            yield f"secret {name!r} is no name of a secret"
    for key, text in function.labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(text):
            yield f"label {key}: {text!r} is not a label that Kubernetes takes"
    for key, text in _annotations(function, settings).items():
        if not _LABEL_KEY.fullmatch(key) or len(f"{key}{text}".encode()) > ANNOTATION_BYTES:
            yield f"annotation {key}: it has no name that Kubernetes takes, or over {ANNOTATION_BYTES} bytes"
    texts = {
        "fprocess": {"": function.fprocess},
        "environment": function.environment,
        "build_args": function.build_args,
        "annotations": function.annotations,
    }
    for field, rows in texts.items():
        for name, text in rows.items():
            if "\0" in text or len(text.encode()) > _TEXT_BYTES:
                yield f"{field} {name}: more than {_TEXT_BYTES} bytes, or a NUL: nothing can be run with that"
    path = function.annotations.get(HEALTH_PATH, "/")
    if not is_path(path):
        yield f"annotation {HEALTH_PATH}: {path!r} is not a path such as /healthz"
    yield from _excess("limits", function.limits, settings)
    yield from _excess("requests", function.requests, settings)
    for what, amount in (("memory", memory_bytes), ("cpu", cpu_milli)):
        wanted, most = (amount(getattr(row, what)) for row in (function.requests, function.limits))
        if wanted and most and wanted > most:
            yield f"requests.{what} is more than limits.{what}"


def _excess(what: str, wanted: Resources, settings: Settings) -> Iterator[str]:
    if wanted.memory:
        most, given = settings.function_memory_limit_mb * 1024**2, memory_bytes(wanted.memory)
        if not given or not _LEAST_MEMORY <= given <= most:
            yield (
                f"{what}.memory {wanted.memory!r}: from 4Mi to {settings.function_memory_limit_mb}Mi "
                "(setting function_memory_limit_mb)"
            )
    if wanted.cpu:
        milli = cpu_milli(wanted.cpu)
        if not milli or milli > settings.function_cpu_limit_milli:
            top = settings.function_cpu_limit_milli
            said = f"{what}.cpu {wanted.cpu!r}: at most {top}m, in 1/1000 of a CPU"
            yield f"{said} (setting function_cpu_limit_milli)"


def _is_platform_argument(name: str, settings: Settings) -> bool:
    upper = name.upper()
    return (
        upper.endswith("_PROXY")
        or upper.startswith("BUILDKIT_")
        or upper == "SOURCE_DATE_EPOCH"
        or upper in {key.upper() for key in settings.build_args}
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_platform_label(key: str) -> bool:
    return key in _PLATFORM_LABELS or key.startswith(_PLATFORM_PREFIXES)
