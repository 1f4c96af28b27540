from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk import policy
from sdk.errors import Refused
from sdk.settings import Settings
from sdk.stack import Function, Resources

SETTINGS = Settings(build_args={"PYTHON_IMAGE": "openfaas-cloud/python:trixie"})
FUNCTION = Function("f", lang="python3-http", handler="./f")


def test_what_an_author_may_set_stays_as_it_is() -> None:
    function = replace(
        FUNCTION,
        labels={"team": "blue"},
        annotations={"topic": "t", "schedule": "* * * * *"},
        environment={"A": "1"},
        secrets=("db-password",),
        build_args={"GO111MODULE": "on"},
        limits=Resources("64Mi", "100m"),
    )
    assert policy.apply(function, SETTINGS) == function


def test_what_only_concerns_a_cluster_is_left_out() -> None:
    function = replace(
        FUNCTION,
        labels={"com.openfaas.scale.min": "20", "role": "openfaas-system", "Git-Owner": "bob", "a": "b"},
        annotations={"com.openfaas.cloud.nonce": "x", "prometheus.io/scrape": "true"},
        constraints=("node.role == manager",),
    )
    assert policy.apply(function, SETTINGS) == replace(FUNCTION, labels={"a": "b"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"namespace": "kube-system"}, "namespace"),
        ({"skip_build": True}, "skip_build"),
        ({"build_secrets": {"a": "b"}}, "build_secrets"),
        ({"lang": "Dockerfile"}, "enable_dockerfile_lang"),
        ({"build_args": {"HTTP_PROXY": "http://evil"}}, "HTTP_PROXY"),
        ({"build_args": {"no_proxy": "x"}}, "no_proxy"),
        ({"build_args": {"BUILDKIT_SYNTAX": "evil/frontend"}}, "BUILDKIT_SYNTAX"),
        ({"build_args": {"buildkit_cache_mount_ns": "bob"}}, "buildkit_cache_mount_ns"),
        ({"build_args": {"SOURCE_DATE_EPOCH": "1"}}, "SOURCE_DATE_EPOCH"),
        ({"build_args": {"python_image": "evil"}}, "python_image"),
        ({"build_args": {"--push": "x"}}, "--push"),
        ({"environment": {"A=B": "x"}}, "A=B"),
        ({"secrets": ("../payload-secret",)}, "payload-secret"),
        ({"labels": {"a b": "c"}}, "a b"),
        ({"labels": {"a": "x" * 64}}, "label a"),
        ({"limits": Resources("1Gi")}, "limits.memory"),
        ({"limits": Resources("lots")}, "limits.memory"),
        ({"requests": Resources("", "2")}, "requests.cpu"),
    ],
)
def test_what_only_the_operator_decides_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(Refused, match=said):
        policy.apply(replace(FUNCTION, **change), SETTINGS)  # type: ignore[arg-type]


def test_all_problems_are_told_together() -> None:
    with pytest.raises(Refused, match=r"namespace.*skip_build.*lots"):
        policy.apply(replace(FUNCTION, namespace="x", skip_build=True, limits=Resources("lots")), SETTINGS)


def test_an_operator_may_enable_dockerfiles() -> None:
    function = replace(FUNCTION, lang="dockerfile")
    assert policy.apply(function, Settings(enable_dockerfile_lang=True)) == function


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128Mi", 128 * 1024**2),
        ("128m", 128 * 1024**2),
        ("1G", 1024**3),
        ("512", 512),
        ("x", None),
        ("", None),
    ],
)
def test_memory_is_read_as_docker_and_kubernetes_write_it(text: str, expected: int | None) -> None:
    assert policy.memory_bytes(text) == expected


@given(st.text())
def test_any_text_is_a_quantity_or_none(text: str) -> None:
    assert policy.memory_bytes(text) is None or policy.memory_bytes(text) >= 0  # type: ignore[operator]
    assert policy.cpu_milli(text) is None or policy.cpu_milli(text) >= 0  # type: ignore[operator]
