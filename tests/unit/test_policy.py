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


def test_the_operator_chooses_what_is_allowed() -> None:
    settings = replace(
        SETTINGS,
        allowed_build_args=("GO*",),
        allowed_labels=("team", "app.*"),
        allowed_annotations=("prometheus.io/*", "com.openfaas.*"),
        allowed_namespaces=("staging",),
    )
    function = replace(
        FUNCTION,
        namespace="staging",
        build_args={"GO111MODULE": "on"},
        labels={"team": "blue", "app.tier": "1", "other": "x"},
        annotations={"prometheus.io/scrape": "true", "topic": "t", "com.openfaas.cloud.nonce": "x"},
    )
    assert policy.apply(function, settings) == replace(
        function,
        labels={"team": "blue", "app.tier": "1"},
        annotations={"prometheus.io/scrape": "true"},
    )
    with pytest.raises(Refused, match="build arg PIP is not yours to set"):
        policy.apply(replace(FUNCTION, build_args={"PIP": "x"}), settings)
    with pytest.raises(Refused, match="annotation a b: it has no name that Kubernetes takes"):
        policy.apply(
            replace(FUNCTION, annotations={"a b": "x"}), replace(SETTINGS, allowed_annotations=("*",))
        )
    with pytest.raises(Refused, match="namespace 'kube-system' is not allowed here; allowed: staging"):
        policy.apply(replace(FUNCTION, namespace="kube-system"), settings)


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
        ({"build_args": {"A": "x\0"}}, "build_args A"),
        ({"build_args": {"A": "x" * 70_000}}, "build_args A"),
        ({"environment": {"A": "x\0"}}, "environment A"),
        ({"fprocess": "a\0b"}, "fprocess"),
        ({"annotations": {"com.openfaas.health.http.path": "@registry:5000/v2/"}}, "not a path"),
        ({"annotations": {"com.openfaas.health.http.path": "//registry:5000/ x"}}, "not a path"),
        ({"limits": Resources("32Mi"), "requests": Resources("64Mi")}, "requests.memory is more"),
        (
            {"limits": Resources("", "50m"), "requests": Resources("", "0.1")},
            "requests.cpu is more than limits",
        ),
        ({"limits": Resources("1")}, "limits.memory '1': from 4Mi to 128Mi"),
        ({"environment": {"A=B": "x"}}, "A=B"),
        ({"secrets": ("../payload-secret",)}, "payload-secret"),
        ({"labels": {"a b": "c"}}, "a b"),
        ({"labels": {"a": "x" * 64}}, "label a"),
        ({"annotations": {"topic": "x" * 4_000}}, "annotation topic: .* over 4000 bytes"),
        (
            {"limits": Resources("1Gi")},
            r"limits.memory '1Gi': from 4Mi to 128Mi \(setting function_memory_limit_mb",
        ),
        ({"limits": Resources("lots")}, "limits.memory"),
        (
            {"requests": Resources("", "2")},
            r"requests.cpu .*500m, in 1/1000 of a CPU \(setting function_cpu_limit",
        ),
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
