"""Every setting of the functions in one table: name, default, meaning.

The names are the original's where it had them. `Settings.read()` reads the environment at call
time, so a test or an operator changes a setting without a restart of the interpreter. The table in
docs/settings.md is checked against this one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from .errors import Misconfigured

T = TypeVar("T")

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


class Seconds(float):
    """A duration: `90`, `90s`, `1m30s` or `15m` in the environment, seconds in the code."""


class LogFormat(str):
    """`json` or `text`."""


def setting(default: Any, meaning: str) -> Any:
    """A row of the table."""
    if isinstance(default, dict):
        return field(default_factory=lambda: MappingProxyType(default), metadata={"meaning": meaning})
    return field(default=default, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Logging:
    """How a function says what it does."""

    log_format: LogFormat = setting(
        LogFormat("json"),
        "how a function logs on stderr: json, or text, then with a line for people beside each stage record",
    )
    audit_url: str = setting(
        "", "every stage record is sent there too, by POST; what is not taken is dropped"
    )


@dataclass(frozen=True)
class Settings(Logging):
    """The settings of the platform's functions."""

    gateway_url: str = setting("http://gateway:8080/", "the OpenFaaS gateway, as functions reach it")
    gateway_public_url: str = setting(
        "", "the gateway as the world reaches it, for the URLs that are shown; gateway_url if empty"
    )
    gateway_pretty_url: str = setting(
        "", "pattern of a function's URL: `user` becomes the owner, `function` the function"
    )
    builder_url: str = setting("http://of-builder:8080/", "of-builder, as buildshiprun reaches it")
    push_repository_url: str = setting("registry:5000", "registry that of-builder pushes to")
    repository_url: str = setting("127.0.0.1:5000", "the same registry, as the cluster pulls from it")
    secret_mount_path: str = setting("/var/openfaas/secrets", "folder that holds the secret files")
    basic_auth: bool = setting(True, "whether the gateway asks for basic-auth-user and -password")
    git_scm: str = setting("github", "where pushes come from: github, gitlab or local")
    build_branch: str = setting("master", "the branch that is live; other branches are ignored")
    custom_templates: tuple[str, ...] = setting(
        (
            "https://github.com/openfaas/templates.git",
            "https://github.com/openfaas/python-flask-template.git",
        ),
        "template sources: git URLs with an optional `#ref`, or folders; comma list, the first wins",
    )
    template_max_age: Seconds = setting(Seconds(600), "a template source is fetched again after this")
    allowed_git_hosts: tuple[str, ...] = setting(
        ("https://github.com",), "clone URLs must start with one of these origins; comma list"
    )
    allowed_template_sources: tuple[str, ...] = setting(
        (),
        "git URLs that a stack.yml's `configuration.templates` may name, besides those of custom_templates; "
        "`/*` at the end stands for all below; comma list",
    )
    fetch_timeout: Seconds = setting(Seconds(60), "longest time for one call of git")
    fetch_submodules: bool = setting(False, "whether submodules at allowed_git_hosts are fetched")
    fetch_lfs: bool = setting(False, "whether files in Git LFS are fetched")
    repo_limit_mb: int = setting(500, "largest repository, packed or checked out, in MiB")
    repo_files_limit: int = setting(100_000, "most files in a repository")
    mirrors_limit: int = setting(100, "most repositories that git-tar keeps a shallow mirror of")
    mirrors_limit_mb: int = setting(2048, "most that these mirrors take, in MiB")
    github_app_id: str = setting("", "the GitHub App whose secret `private-key` reads private repositories")
    report_status: bool = setting(
        True, "whether commits on GitHub show what became of them, where there is a `github_app_id`"
    )
    github_api_url: str = setting(
        "https://api.github.com", "GitHub's REST API; of GitHub Enterprise `https://HOST/api/v3`"
    )
    validate_customers: bool = setting(False, "whether only owners on the list of customers may deploy")
    customers_path: str = setting(
        "", "file with that list, a login per line; if empty, the secret `customers`, if it is there"
    )
    customers_url: str = setting("", "the same list by HTTP, where there is no file; kept for 5 minutes")
    adopt_legacy: bool = setting(
        False,
        "whether a repository takes over functions with the labels of OpenFaaS Cloud of 2018 that name its "
        "owner and itself",
    )
    delete_limit: int = setting(10, "more functions are not deleted at once without the operator's word")
    build_args: Mapping[str, str] = setting({}, "build args added to every build, `NAME=value` comma list")
    build_epoch: str = setting(
        "",
        "any text, say a date; once it is another, every function is built anew, with the templates, base "
        "images and packages of that time",
    )
    allowed_build_args: tuple[str, ...] = setting(
        ("*",), "build args that an author may set; `*` for any text"
    )
    allowed_labels: tuple[str, ...] = setting(("*",), "labels that an author may set; `*` for any text")
    allowed_annotations: tuple[str, ...] = setting(
        (
            "topic",
            "schedule",
            "com.openfaas.health.http.path",
            "com.openfaas.health.http.initialDelay",
        ),
        "annotations that an author may set; `*` for any text",
    )
    allowed_namespaces: tuple[str, ...] = setting((), "namespaces that an author may deploy to")
    enable_dockerfile_lang: bool = setting(False, "whether `lang: dockerfile` is allowed")
    functions_limit: int = setting(50, "most functions in one stack.yml")
    context_limit_mb: int = setting(100, "largest build context of one function, in MiB")
    context_files_limit: int = setting(20_000, "most files in one function's build context")
    parallel_functions: int = setting(3, "functions of one push that are shipped at once")
    parallel_long_calls: int = setting(
        3,
        "long calls that one replica works on at once, and contexts that git-tar sends at once; one less "
        "than the template's threads",
    )
    converge_rounds: int = setting(5, "how often a push follows a moving branch before it is queued again")
    push_timeout: Seconds = setting(
        Seconds(780), "git-tar works on one push this long at a stretch, then it is queued again"
    )
    push_patience: Seconds = setting(
        Seconds(600), "how long a push is tried again while something is unavailable, then it has failed"
    )
    retry_pause: Seconds = setting(
        Seconds(300), "a head that failed is tried again after this, then after twice as long, and so on"
    )
    retry_pause_limit: Seconds = setting(Seconds(24 * 3600), "longest of these pauses")
    reconcile_repositories: int = setting(
        30, "most repositories that reconcile has looked at in one go; the others come next"
    )
    pushes_limit: int = setting(20, "pushes on one page of list-functions; older ones are behind a link")
    pushes_age: Seconds = setting(
        Seconds(14 * 86400), "list-functions shows pushes that are younger than this"
    )
    pushes_lines: int = setting(
        5_000, "the newest lines of each function's log, of which list-functions shows the pushes"
    )
    build_timeout: Seconds = setting(Seconds(210), "longest build that buildshiprun waits for")
    deploy_timeout: Seconds = setting(Seconds(60), "a new version must be ready within this")
    message_max_age: Seconds = setting(
        Seconds(1800), "buildshiprun and garbage-collect refuse signed messages older than this"
    )
    function_memory_limit_mb: int = setting(128, "memory limit of a user's function, in MiB; also the most")
    function_cpu_limit_milli: int = setting(500, "CPU limit of a user's function, in 1/1000; also the most")
    function_cpu_requests_milli: int = setting(100, "CPU request of a user's function, in 1/1000")
    readonly_root_filesystem: bool = setting(True, "whether a user's function has a read-only root")
    scaling_min_limit: int = setting(1, "label com.openfaas.scale.min of a user's function")
    scaling_max_limit: int = setting(4, "label com.openfaas.scale.max of a user's function")
    scaling_factor: int = setting(20, "label com.openfaas.scale.factor of a user's function")

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Cast the environment; `Misconfigured` names the setting that can't be."""
        return read(cls, environ)

    def public_url(self) -> str:
        return (self.gateway_public_url or self.gateway_url).rstrip("/")

    def function_url(self, owner: str, function: str, service: str) -> str:
        """Where it answers: gateway_pretty_url with its words replaced, or the gateway's path."""
        if self.gateway_pretty_url:
            words = {"user": owner.lower(), "function": function}
            return re.sub("user|function", lambda found: words[found[0]], self.gateway_pretty_url)
        return f"{self.public_url()}/function/{service}"


def read(table: type[T], environ: Mapping[str, str] | None = None) -> T:
    """Build the dataclass `table` from `environ`; an absent or empty variable is the default."""
    environ = os.environ if environ is None else environ
    rows = _rows(table)  # type: ignore[arg-type]  # mypy takes not every class for hashable
    # By what is set, not by what may be: each look into os.environ encodes the name.
    given = {name: text for name in environ if name in rows and (text := environ[name].strip())}
    return table(**{name: _cast(rows[name], text) for name, text in given.items()})


@cache
def _rows(table: type[Any]) -> Mapping[str, Field[Any]]:
    return {row.name: row for row in fields(table)}


def _cast(row: Field[Any], text: str) -> Any:
    try:
        return _CASTS[str(row.type)](text)
    except ValueError as error:
        shown = "its value" if row.type == "Mapping[str, str]" else repr(text)  # pairs may hold tokens
        raise Misconfigured(f"setting {row.name}: {shown} is not {error}") from None


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("true or false")


def _number(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError("a whole number") from None
    if value < 0:
        raise ValueError("zero or more")
    return value


def seconds(text: str) -> Seconds:
    """A duration as Go and this project write it; `ValueError` for what is none."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return Seconds(text)
    match = _DURATION.fullmatch(text)
    if not match or not text:
        raise ValueError("a duration such as 90s or 1m30s")
    hours, minutes, whole, millis = (float(part or 0) for part in match.groups())
    return Seconds(hours * 3600 + minutes * 60 + whole + millis / 1000)


def _log_format(text: str) -> LogFormat:
    if text.lower() not in ("json", "text"):
        raise ValueError("json or text")
    return LogFormat(text.lower())


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _pairs(text: str) -> Mapping[str, str]:
    parts = _list(text)
    if any("=" not in part or part.startswith("=") for part in parts):
        raise ValueError("a comma list of NAME=value")
    return MappingProxyType(dict(part.split("=", 1) for part in parts))


_CASTS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "bool": _boolean,
    "int": _number,
    "Seconds": seconds,
    "LogFormat": _log_format,
    "tuple[str, ...]": _list,
    "Mapping[str, str]": _pairs,
}
