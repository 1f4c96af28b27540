"""What a Dockerfile may be made from: the operator's list, and no way around it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from of_builder import sources
from of_builder.settings import Settings
from of_builder.sources import Allowed
from sdk.errors import CloudError, Failed, Misconfigured, Refused
from sdk.registry import Reference

OWN = Reference.parse("registry:5000/github/1/2/f:sha")
LIST = ("docker.io/library/*", "ghcr.io/openfaas/*", "quay.io/exact/name:1", "https://example.com/files/*")
ALLOWED = Allowed.of(LIST, OWN)
PLATFORM = ("linux/amd64",)


def bases(text: str, allowed: Allowed = ALLOWED, **build_args: str) -> set[str]:
    return sources.bases(text.encode(), build_args, PLATFORM, allowed)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM python:3.12-slim", {"python:3.12-slim"}),
        ("from python AS x\nFROM x\nCOPY --from=x / /", {"python"}),
        ("FROM scratch\nCOPY --from=0 / /", set()),
        ("FROM --platform=$BUILDPLATFORM ghcr.io/openfaas/of-watchdog:0.10.7 AS w\nFROM python", None),
        ("ARG V=3.12\nFROM python:${V}-slim", {"python:3.12-slim"}),
        ("ARG V\nFROM python:${V:-3.11}", {"python:3.11"}),
        ("ARG V=1\nFROM python${V:+:3}", {"python:3"}),
        ('ARG BASE="python:3"\nFROM $BASE', {"python:3"}),
        ("ARG A=python B=3\nFROM $A:$B", {"python:3"}),
        ("FROM build-${TARGETARCH}", {"build-amd64"}),
        ("# syntax=docker/dockerfile:1.7\nFROM python", {"python"}),
        ("# escape=`\nFROM `\n python", {"python"}),
        ("FROM python\nCOPY <<EOF /x\nFROM evil.example/x\nEOF\nRUN <<EOF\nfrom x import y\nEOF", {"python"}),
        ("FROM quay.io/exact/name:1", {"quay.io/exact/name:1"}),
        ("FROM python\nADD https://example.com/files/x.tar /", {"python"}),
        ("FROM python\nRUN --mount=type=cache,target=/c --network=none make", {"python"}),
        ("FROM python\nRUN --mount=type=secret,id=pip --mount=from=alpine,target=/a make", {"python"}),
    ],
)
def test_what_is_on_the_list_is_allowed(text: str, found: set[str] | None) -> None:
    assert found in (None, bases(text))


def test_a_build_arg_is_what_a_base_image_is_named_by() -> None:
    assert bases("ARG BASE=evil.example/x\nFROM ${BASE}", BASE="python:3") == {"python:3"}
    with pytest.raises(Refused, match="line 2"):
        bases("ARG BASE=python\nFROM ${BASE}", BASE="evil.example/x")


@pytest.mark.parametrize(
    "line",
    [
        "FROM registry:5000/github/1/2/f:sha",
        "FROM REGISTRY:5000/github/7/2/f:sha",
        "FROM localhost:5000/github/7/2/f:sha",
        "FROM 127.0.0.1:5000/github/7/2/f:sha",
        "FROM 2130706433:5000/x",
        "FROM [::1]:5000/x",
        "FROM docker.io/evil/x",
        "FROM evil/x",
        "FROM quay.io/exact/name:2",
        "FROM quay.io/exact/name:12",
        "FROM docker.io.evil.example/library/x",
        "FROM python AS registry\nFROM registry:5000/x",
        "FROM python\nCOPY --from=evil.example/x / /",
        "FROM python\nCOPY --from=${X} / /",
        "FROM python\nRUN --mount=from=evil.example/x,target=/x ls",
        "FROM python\nRUN --mount=type=bind,FROM=evil.example/x,target=/x ls",
        'FROM python\nRUN --mount=type=bind,"from=evil.example/x",target=/x ls',
        "FROM python\nRUN --mount=type=cache,target=/x,id=shared ls",
        "FROM python\nRUN --mount=target=/x,ID=shared,type=cache ls",
        "FROM python\nRUN --mount=type=$X,target=/x ls",
        "FROM python\nRUN --network=host ls",
        "FROM python\nRUN --security=insecure ls",
        "FROM python\nRUN --device=all ls",
        "FROM python\nADD http://169.254.169.254/latest /",
        "FROM python\nADD https://example.com/files/../secret /",
        "FROM python\nADD https://example.com.evil/files/x /",
        "FROM python\nADD https://github.com/a/b.git /",
        "FROM python\nonbuild RUN ls",
        "FROM ${X#a}",
        "FROM py'thon'",
        "FROM ${A:-${B}}",
        "FROM python\nRUN --mount=type=\"'cache'\",target=/x,id=shared ls",
        "FROM python\nRUN --mount=type=ca\\\\che,target=/x,id=shared ls",
        'FROM python\nRUN --mount=type=bind,\\"from=x ls',
        "FROM python\nONBU\u0130LD RUN ls",  # BuildKit's lower case of this letter is a plain i
        "ARG X=python\nARG X=evil.example/x\nFROM $X",
        "ARG TARGETOS=evil.example/x\nFROM $TARGETOS",
        "ARG X\nFROM ${X-evil.example/x}",
        "ARG X\nFROM ${X+evil.example/x}",
        "FROM ${X:-python}",
        "FROM ${TARGETSTAGE:+evil.example/x}",
        "ARG TARGETARCH\nFROM python:$TARGETARCH",
        "ARG SOURCE_DATE_EPOCH\nFROM python:a$SOURCE_DATE_EPOCH",
        "ARG BUILDKIT_CACHE_MOUNT_NS\nFROM python:a${BUILDKIT_CACHE_MOUNT_NS:-b}",
        "FROM python:$BUILDARCH",
    ],
)
def test_what_is_not_on_the_list_is_refused_with_its_line(line: str) -> None:
    last = len(line.splitlines())
    with pytest.raises(Refused, match=rf"Dockerfile line {last}: "):
        bases(line)


@pytest.mark.parametrize(
    "text",
    [
        "# syntax=evil/frontend\nFROM python",
        "#syntax = evil/frontend\nFROM python",
        "// syntax=evil/frontend\nFROM python",
        "#!/bin/x\n# SYNTAX=docker.io/evil/dockerfile:1\nFROM python",
        "\n\n# comment\n# syntax=docker/dockerfile-upstream:master\nFROM python",
        "\ufeff# syntax=evil/frontend\nFROM python",
        "# syntax=docker.io/docker/dockerfile.evil/x\nFROM python",
        '{"syntax": "evil/frontend"}\nFROM python',
        '\n\t{"syntax": "evil/frontend"}',
        '#!/bin/x\n{"syntax": "evil/frontend"}',
        "# check=skip=all\x0bx\n# syntax=evil/frontend\nFROM python",
        "# check=skip=all\rx\n# syntax=evil/frontend\nFROM python",
        "# check=skip=all\u2028x\n# syntax=evil/frontend\nFROM python",
        "# syntax=docker/dockerfile:1.0\nFROM python",
        f"# syntax=docker/dockerfile:1@sha256:{'0' * 64}\nFROM python",
    ],
)
def test_no_frontend_but_dockers_own_reads_a_dockerfile(text: str) -> None:
    with pytest.raises(Refused, match="line"):
        bases(text)


def test_nothing_is_hidden_behind_a_nul() -> None:
    with pytest.raises(Refused, match="NUL"):
        bases("FROM python\n# \0\nFROM evil.example/x")


def test_a_build_arg_that_is_not_declared_names_no_image() -> None:
    with pytest.raises(Refused, match="declare it"):
        bases("FROM ${X:-evil.example/x}", X="python")


def test_words_that_are_no_directive_are_none() -> None:
    assert bases("# about the syntax=x of this\nFROM python\n# syntax=evil/frontend\n") == {"python"}


@pytest.mark.parametrize("text", ["", "# only a comment", "FROM x\nRUN <<EOF\nnever ends"])
def test_what_is_no_dockerfile_has_failed(text: str) -> None:
    with pytest.raises(Failed):
        bases(text)
    with pytest.raises(Failed, match="UTF-8"):
        sources.bases(b"FROM python\n# \xff", {}, PLATFORM, ALLOWED)


@given(st.text())
@example("FROM\nFROM a\0b")
@example("\\")
@example('FROM x\nRUN --mount=type=cache,"id ls')
def test_any_dockerfile_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(CloudError):
        bases(text)
    with contextlib.suppress(CloudError):
        bases(f"FROM python\nRUN --mount={text}\nCOPY --from={text} a b\nADD {text} /")


@pytest.mark.parametrize(
    "entry",
    ["*", "python", "docker.io", "*.io/x", "docker.io/*/x", "HOST/x", "https://*", "ftp://a/b", "a b/c", ""],
)
def test_a_list_that_could_stand_for_the_own_registry_is_misconfigured(entry: str) -> None:
    with pytest.raises(Misconfigured, match="allowed_sources"):
        Allowed.of([entry], OWN)


def test_the_default_list_is_one() -> None:
    assert bases("FROM ghcr.io/openfaas/of-watchdog:1", Allowed.of(Settings().allowed_sources, OWN))


def test_ones_own_path_is_never_a_base_even_where_its_registry_is_on_the_list() -> None:
    allowed = Allowed.of(["registry:5000/*", "docker.io/*"], OWN)
    assert bases("FROM registry:5000/base/python", allowed) == {"registry:5000/base/python"}
    with pytest.raises(Refused):
        bases("FROM registry:5000/github/7/8/f:sha", allowed)
    with pytest.raises(Refused):
        bases("FROM acme/other", Allowed.of(["docker.io/*"], Reference.parse("acme/hello")))


def test_buildkit_gets_the_same_list_and_the_last_rule_that_fits_decides() -> None:
    rules = json.loads(ALLOWED.policy())["rules"]
    rows = [(rule["action"], rule["selector"]["identifier"]) for rule in rules]
    assert rows[:2] == [("DENY", "*"), ("ALLOW", "local://*")]
    assert ("ALLOW", "docker-image://docker.io/library/*") in rows
    assert ("ALLOW", "docker-image://quay.io/exact/name:1@*") in rows
    assert ("ALLOW", "https://example.com/files/*") in rows
    assert rows[-3:] == [("DENY", f"docker-image://registry:5000/github{end}") for end in ("/*", ":*", "@*")]
