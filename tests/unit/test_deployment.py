"""buildshiprun's decisions: what is deployed, and whether it may be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from buildshiprun import deployment
from buildshiprun.sdk import specs
from buildshiprun.sdk.gateway import Status
from buildshiprun.sdk.messages import Owner, Repository, Shipment, Template
from buildshiprun.sdk.settings import Settings
from buildshiprun.sdk.specs import Spec
from buildshiprun.sdk.stack import Function, Resources
from tests.unit.test_naming import KUBERNETES_LABEL

SETTINGS = Settings()
REPOSITORY = Repository(
    id=7,
    name="Hello-World",
    full_name="Codertocat/Hello-World",
    clone_url="https://github.com/Codertocat/Hello-World.git",
    html_url="https://github.com/Codertocat/Hello-World",
    private=False,
    owner=Owner("Codertocat", 3),
)
FUNCTION = Function(
    "hello",
    lang="python3-http",
    fprocess="python index.py",
    environment={"A": "1"},
    secrets=("db",),
    labels={"team": "blue"},
    annotations={"topic": "t"},
)
SHIPMENT = Shipment(
    scm="github",
    delivery="d-1",
    repository=REPOSITORY,
    ref="refs/heads/feature/x",
    sha="a" * 40,
    function=FUNCTION,
    digest="d" * 64,
    template=Template("https://git.example/templates.git", "b" * 40),
)
CLOUD = "com.openfaas.cloud."


def spec_of(shipment: Shipment = SHIPMENT, settings: Settings = SETTINGS) -> Spec:
    return deployment.wanted(shipment, settings, now=1_000)


def deployed(shipment: Shipment = SHIPMENT, **change: Any) -> Status:
    """The function as the gateway shows it once `shipment` is live."""
    spec = deployment.complete(spec_of(shipment), "r/x@sha256:1", "nonce-1", None)
    status = Status(
        name=spec["service"],
        image=spec["image"],
        labels=spec["labels"],
        annotations=spec["annotations"],
        available_replicas=1,
    )
    return Status(**{name: change.get(name, getattr(status, name)) for name in Status.__struct_fields__})


def test_the_names_of_the_original_are_kept() -> None:
    spec = spec_of()
    assert spec["service"] == "codertocat-hello"
    assert spec["labels"] == {
        "team": "blue",
        "faas_function": "codertocat-hello",
        "app": "codertocat-hello",
        "com.openfaas.scale.min": "1",
        "com.openfaas.scale.max": "4",
        "com.openfaas.scale.factor": "20",
        "com.openfaas.scale.zero": "true",
        f"{CLOUD}git-cloud": "1",
        f"{CLOUD}git-scm": "github",
        f"{CLOUD}git-owner": "Codertocat",
        f"{CLOUD}git-owner-id": "3",
        f"{CLOUD}git-repo": "Hello-World",
        f"{CLOUD}git-repo-id": "7",
        f"{CLOUD}git-branch": "feature-x",
        f"{CLOUD}git-sha": "a" * 40,
        f"{CLOUD}git-private": "0",
        f"{CLOUD}git-deploytime": "1000",
    }
    assert spec["annotations"][f"{CLOUD}git-repo-url"] == REPOSITORY.html_url
    assert spec["annotations"][f"{CLOUD}git-clone-url"] == REPOSITORY.clone_url
    assert spec["annotations"][f"{CLOUD}git-ref"] == "refs/heads/feature/x"
    assert spec["annotations"]["topic"] == "t"
    assert spec["secrets"] == ["gh-3-db"]
    assert spec["envVars"] == {"A": "1"}
    assert spec["limits"] == {"memory": "128Mi", "cpu": "500m"}
    assert spec["requests"] == {"memory": "128Mi", "cpu": "100m"}
    assert spec["readOnlyRootFilesystem"] is True


@given(st.text(), st.text())
def test_every_label_is_one_that_kubernetes_takes(name: str, branch: str) -> None:
    """Whatever a git server allows. The owner is a part of the service's name, which allows less."""
    repository = replace(REPOSITORY, name=name)
    labels = spec_of(replace(SHIPMENT, repository=repository, ref=f"refs/heads/{branch}"))["labels"]
    assert all(len(value) <= 63 and KUBERNETES_LABEL.fullmatch(value) for value in labels.values())


def test_an_authors_limits_are_taken_over() -> None:
    function = replace(FUNCTION, limits=Resources("64Mi", "100m"), requests=Resources("32Mi", "50m"))
    spec = spec_of(replace(SHIPMENT, function=function))
    assert spec["limits"] == {"memory": "64Mi", "cpu": "100m"}
    assert spec["requests"] == {"memory": "32Mi", "cpu": "50m"}


def test_an_author_cannot_set_the_platforms_labels() -> None:
    function = replace(FUNCTION, labels={f"{CLOUD}git-owner-id": "666", "app": "gateway"})
    labels = spec_of(replace(SHIPMENT, function=function))["labels"]
    assert (labels[f"{CLOUD}git-owner-id"], labels["app"]) == ("3", "codertocat-hello")


def test_the_request_is_a_function_deployment_of_the_openapi_description(shared: Path) -> None:
    description = yaml.safe_load((shared / "openfaas" / "spec.openapi.yml").read_text())
    text = json.dumps(description["components"]["schemas"]).replace("#/components/schemas/", "#/definitions/")
    schemas = json.loads(text)
    schema = {**schemas["FunctionDeployment"], "additionalProperties": False, "definitions": schemas}
    sent = deployment.complete(spec_of(), "r/x:t@sha256:1", "n", spec_of())
    Draft7Validator(schema).validate(sent)


def test_a_version_that_sleeps_is_not_woken_by_a_look_but_by_a_push() -> None:
    spec, asleep = spec_of(), deployed(replicas=0, available_replicas=0)
    assert not deployment.is_unchanged(asleep, spec)
    assert deployment.sleeps_unchanged(asleep, spec)
    others = [
        deployed(replicas=0, available_replicas=0, failure="it crashed"),
        deployed(replicas=1, available_replicas=0),
    ]
    for other in (None, deployed(replicas=1), *others):
        assert not deployment.sleeps_unchanged(other, spec)
    assert not deployment.sleeps_unchanged(asleep, spec_of(settings=Settings(scaling_max_limit=2)))


def test_the_same_shipment_again_is_unchanged() -> None:
    template = Template("https://git.example/templates.git", "c" * 40)  # its files are in the digest
    again = replace(SHIPMENT, sha="c" * 40, delivery="d-2", template=template)
    assert deployment.is_unchanged(deployed(), deployment.wanted(again, SETTINGS, now=2_000))


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "e" * 64},
        {"ref": "refs/heads/main"},
        {"function": replace(FUNCTION, environment={"A": "2"})},
        {"function": replace(FUNCTION, secrets=())},
        {"function": replace(FUNCTION, fprocess="other")},
        {"function": replace(FUNCTION, labels={})},
        {"function": replace(FUNCTION, annotations={})},
        {"function": replace(FUNCTION, limits=Resources("64Mi"))},
        {"repository": replace(REPOSITORY, private=True)},
    ],
)
def test_whatever_is_deployed_differently_is_a_change(change: dict[str, Any]) -> None:
    assert not deployment.is_unchanged(deployed(), spec_of(replace(SHIPMENT, **change)))


def test_an_operators_setting_is_a_change() -> None:
    assert not deployment.is_unchanged(deployed(), spec_of(settings=Settings(scaling_max_limit=2)))


@pytest.mark.parametrize(
    "change", [{"available_replicas": 0}, {"failure": "exit status 1"}, {"annotations": None}]
)
def test_a_function_that_is_not_ready_is_deployed_again(change: dict[str, Any]) -> None:
    """Skipping needs the function to be ready, not only its annotations to be equal."""
    assert not deployment.is_unchanged(deployed(**change), spec_of())


def test_no_more_is_requested_than_is_allowed() -> None:
    """Kubernetes refuses a request above its limit."""
    small = replace(SHIPMENT, function=replace(FUNCTION, limits=Resources("", "50m")))
    assert (spec_of(small)["limits"]["cpu"], spec_of(small)["requests"]["cpu"]) == ("50m", "50m")


def test_a_ready_version_can_be_put_back_whole() -> None:
    newer = spec_of(replace(SHIPMENT, digest="e" * 64))
    previous = deployment.last_ready(deployed(), newer)
    assert previous == {**spec_of(), "image": "r/x@sha256:1"}
    failing = deployment.complete(spec_of(), "r/x@sha256:2", "nonce-2", previous)
    for change in ({"replicas": 1, "available_replicas": 0}, {"replicas": 1, "failure": "exit status 1"}):
        broken = deployed(annotations=failing["annotations"], **change)
        assert deployment.last_ready(broken, newer) == previous
    asleep = deployed(annotations=failing["annotations"], replicas=0, available_replicas=0)
    back = deployment.last_ready(asleep, newer) or {}
    assert back["image"] == "r/x@sha256:2", "scaled to zero is not broken"
    assert deployment.last_ready(asleep, spec_of()) == previous, "going back to the same would be none"


def test_what_is_too_large_for_an_annotation_is_left_out() -> None:
    import secrets

    big = replace(FUNCTION, environment={f"K{n}": secrets.token_hex(50) for n in range(100)})
    sent = deployment.complete(spec_of(replace(SHIPMENT, function=big)), "i", "n", None)
    assert specs.SPEC not in sent["annotations"]
    assert all(len(key) + len(value) <= 4_096 for key, value in sent["annotations"].items())


@pytest.mark.parametrize("text", ["", "x", "####", "eJw=", "e30="])
def test_a_damaged_annotation_is_no_version(text: str) -> None:
    assert specs.unpack(text) is None
