"""A stack of which a part is broken; and that deploying calls no author's code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping

import pytest

from . import test_pipeline
from .test_pipeline import HANDLER, Cloud, files, stack, stages

cloud = test_pipeline.cloud
NAMES = ("one", "two", "three", "four", "five")


def fails_to_build(cloud: Cloud, sha: str) -> Mapping[str, str]:
    cloud.builder.failing["three"] = [{"status": "failed", "error": "exit code: 2", "code": "failed"}]
    return {"outcome": "failed", "error": "exit code: 2"}


def fails_to_start(cloud: Cloud, sha: str) -> Mapping[str, str]:
    def crash(method: str, path: str, body: bytes) -> None:
        image = cloud.gateway.functions["alice-three"]["image"]
        if sha in image:
            cloud.gateway.failures[image] = "exit status 1"

    cloud.gateway.overrides.append(crash)
    return {"outcome": "failed", "error": "alice-three does not start: exit status 1"}


def is_refused_by_the_gateway(cloud: Cloud, sha: str) -> Mapping[str, str]:
    cloud.gateway.overrides.append(
        lambda method, path, body: (400, b"no") if method == "PUT" and b'"alice-three"' in body else None
    )
    return {"outcome": "failed", "error": "the gateway's /system/functions answered 400: no"}


def belongs_to_another(cloud: Cloud, sha: str) -> Mapping[str, str]:
    labels = cloud.gateway.functions["alice-three"]["labels"]
    for name in ("repo-id", "owner-id"):
        labels[f"com.openfaas.cloud.git-{name}"] = "999"
    return {"outcome": "refused", "error": "alice-three belongs to"}


@pytest.mark.parametrize(
    "breaks", [fails_to_build, fails_to_start, is_refused_by_the_gateway, belongs_to_another]
)
def test_of_five_with_one_broken_four_go_live_and_nothing_is_collected(
    breaks: Callable[[Cloud, str], Mapping[str, str]], cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.push(cloud.origin.commit(files(*NAMES, "leaves")))
    before = cloud.live
    shutil.rmtree(cloud.origin.work / "leaves")
    changed = {f"{name}/handler.py": f"{HANDLER}# 2\n" for name in NAMES}
    sha = cloud.origin.commit({"stack.yml": stack(*NAMES), **changed})
    capsys.readouterr()
    expected = breaks(cloud, sha)
    status, answer = cloud.push(sha)
    assert (status, answer["error"]["code"]) == (422, "failed")
    assert answer["error"]["message"] == (
        "1 of 5 functions failed: three; the others are live, nothing was removed"
    )
    results = {result["name"]: result for result in answer["error"]["report"]["results"]}
    assert {name for name, result in results.items() if result["outcome"] == "ok"} == {*NAMES} - {"three"}
    assert results["three"]["outcome"] == expected["outcome"]
    assert results["three"]["error"].startswith(expected["error"])
    live = cloud.live
    assert live["alice-three"] == before["alice-three"]
    assert live["alice-leaves"] == before["alice-leaves"]
    assert all(f":{sha}@" in live[f"alice-{name}"] for name in NAMES if name != "three")
    [*_, last] = stages(capsys)
    assert (last.stage, last.outcome, last.terminal) == ("push", "failed", True)
    assert last.log[0].startswith(f"three: {expected['error']}")
    assert not cloud.gateway.made("POST", "/function/garbage-collect")[1:]


def test_deploying_never_calls_a_users_handler(cloud: Cloud) -> None:
    """Also not when it changes, is put back or removed."""
    cloud.push(cloud.origin.commit(files("one", "two")))
    sha = cloud.origin.commit({"one/handler.py": "# 2\n"})
    is_broken = fails_to_build(cloud, sha)
    assert is_broken
    cloud.push(sha)
    cloud.push(cloud.origin.commit({"stack.yml": stack("one")}))
    called = {path for _, path, _, _ in cloud.gateway.calls if path.startswith(("/function", "/async"))}
    assert called == {"/function/buildshiprun", "/function/garbage-collect"}


def test_what_is_unchanged_but_not_ready_is_deployed_again(cloud: Cloud) -> None:
    """Equal annotations are not enough."""
    sha = cloud.origin.commit(files("one"))
    cloud.push(sha)
    image = cloud.live["alice-one"]
    before = json.dumps(cloud.gateway.functions["alice-one"]["annotations"])
    cloud.gateway.failures[image] = "exit status 1"

    def heal(method: str, path: str, body: bytes) -> None:
        if method == "PUT":
            cloud.gateway.failures.clear()

    cloud.gateway.overrides.append(heal)
    status, answer = cloud.push(sha)
    assert (status, answer["results"][0]["outcome"]) == (200, "ok")
    assert json.dumps(cloud.gateway.functions["alice-one"]["annotations"]) != before
    assert cloud.push(sha)[1]["results"][0]["outcome"] == "unchanged"
