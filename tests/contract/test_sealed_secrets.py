"""A push with a secrets.yml, from git to the gateway: what is set, when, and what never is."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.public import PrivateKey

import buildshiprun.handler
from sdk import sealing, secrets_file
from sdk.sealing import Home, SealKeys

from . import test_pipeline
from .fakes import Event
from .test_pipeline import HANDLER, Cloud, files, stack, stages

cloud = test_pipeline.cloud
HOME = Home("github", 3, 7)  # of test_messages.PUSH
PAIR = PrivateKey.generate()
KEY = SealKeys((PAIR,)).public
CLOUD = "com.openfaas.cloud."


@pytest.fixture(autouse=True)
def seal_key(secret_folder: Path) -> Path:
    file = secret_folder / "seal-key"
    file.write_text(base64.b64encode(bytes(PAIR)).decode())
    return file


def sealed(home: Home = HOME, /, **values: str) -> dict[str, str]:
    return {name: sealing.seal(KEY, name, value, home) for name, value in values.items()}


def repository(texts: Mapping[str, str], *names: str, lists: tuple[str, ...] = ("db",)) -> dict[str, str]:
    """Functions that list secrets, and a secrets.yml."""
    text = json.loads(stack(*names))
    for name in names:
        text["functions"][name]["secrets"] = list(lists)
    return {**files(*names), "stack.yml": json.dumps(text), "secrets.yml": secrets_file.document(texts)}


def sets(cloud: Cloud) -> list[tuple[str, str]]:
    rows = [json.loads(call[3]) for call in cloud.gateway.made("PUT", "/system/secrets")]
    return [(row["name"], row["value"]) for row in rows]


def test_anybody_can_ask_for_the_public_key(cloud: Cloud) -> None:
    told = json.loads(buildshiprun.handler.handle(Event(method="GET"), None)["body"])
    assert told["seal_key"] == KEY


def test_without_a_key_there_is_none_to_tell(cloud: Cloud, seal_key: Path) -> None:
    seal_key.unlink()
    assert "seal_key" not in json.loads(buildshiprun.handler.handle(Event(method="GET"), None)["body"])


def test_a_sealed_secret_is_set_under_the_owners_id_before_the_function_is(cloud: Cloud) -> None:
    status, answer = cloud.push(cloud.origin.commit(repository(sealed(db="hunter2"), "one")))
    assert status == 200, answer
    assert cloud.gateway.values == {"gh-3-db": "hunter2"}
    assert cloud.gateway.functions["alice-one"]["secrets"] == ["gh-3-db"]
    order = [call[1] for call in cloud.gateway.calls if call[0] in ("PUT", "POST") and "/system/" in call[1]]
    assert order == ["/system/secrets", "/system/functions"]


def test_only_what_a_function_lists_is_set(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(repository(sealed(db="one", other="two"), "one")))
    assert cloud.gateway.values == {"gh-3-db": "one"}


def test_the_same_push_again_sets_and_deploys_nothing(cloud: Cloud) -> None:
    sha = cloud.origin.commit(repository(sealed(db="hunter2"), "one"))
    cloud.push(sha)
    cloud.gateway.calls.clear()
    assert cloud.push(sha)[1]["results"][0]["outcome"] == "unchanged"
    assert not sets(cloud)


def test_a_changed_function_with_the_same_secret_sets_it_not_again(cloud: Cloud) -> None:
    whole = repository(sealed(db="hunter2"), "one")
    cloud.push(cloud.origin.commit(whole))
    cloud.gateway.calls.clear()
    assert cloud.push(cloud.origin.commit({**whole, "one/handler.py": f"{HANDLER}#\n"}))[0] == 200
    assert not sets(cloud)
    assert cloud.gateway.made("PUT", "/system/functions")
    cloud.gateway.secrets.clear()  # removed by hand
    cloud.push(cloud.origin.commit({**whole, "one/handler.py": f"{HANDLER}##\n"}))
    assert sets(cloud) == [("gh-3-db", "hunter2")]


def test_a_new_value_is_a_new_version_of_the_function(cloud: Cloud) -> None:
    cloud.push(cloud.origin.commit(repository(sealed(db="old"), "one")))
    before = cloud.gateway.functions["alice-one"]["annotations"][f"{CLOUD}nonce"]
    status, answer = cloud.push(cloud.origin.commit(repository(sealed(db="new"), "one")))
    assert (status, answer["results"][0]["outcome"]) == (200, "ok")
    assert cloud.gateway.values == {"gh-3-db": "new"}
    assert cloud.gateway.functions["alice-one"]["annotations"][f"{CLOUD}nonce"] != before
    assert len(cloud.builder.built) == 1, "the image is the same"


def test_a_function_without_sealed_secrets_stays_the_version_that_it_was(cloud: Cloud) -> None:
    """An upgrade of the cloud deploys nothing anew."""
    cloud.push(cloud.origin.commit(files("one")))
    assert f"{CLOUD}sealed" not in cloud.gateway.functions["alice-one"]["annotations"]


STOLEN = sealed(db="planted-hunter2")["db"]


@pytest.mark.parametrize(
    ("texts", "lists", "said"),
    [
        (sealed(replace(HOME, repo_id=8), db="planted-hunter2"), ("db",), "sealed for another repository"),
        (sealed(replace(HOME, owner_id=4), db="planted-hunter2"), ("db",), "another owner"),
        (sealed(replace(HOME, scm="local"), db="planted-hunter2"), ("db",), "sealed for another repository"),
        ({"payload-secret": STOLEN}, ("payload-secret",), "sealed under another name"),
        ({"db": STOLEN[: len(STOLEN) // 2]}, ("db",), "damaged"),
        ({"db": "AAAA"}, ("db",), "this cloud's key"),
    ],
    ids=["repository", "owner", "scm", "name", "truncated", "nonsense"],
)
def test_what_is_not_this_repositorys_fails_and_sets_nothing(
    texts: dict[str, str],
    lists: tuple[str, ...],
    said: str,
    cloud: Cloud,
    capfd: pytest.CaptureFixture[str],
) -> None:
    status, answer = cloud.push(cloud.origin.commit(repository(texts, "one", lists=lists)))
    shown = capfd.readouterr()
    assert status == 422
    assert said in shown.out
    assert "planted-hunter2" not in shown.out + shown.err + str(answer)
    assert not sets(cloud)
    assert not cloud.live


def test_whatever_it_is_called_it_is_below_the_owners_id(cloud: Cloud) -> None:
    """No sealed secret can be a secret of the platform's, or of another owner's."""
    texts = sealed(**{"payload-secret": "x" * 8, "gh-4-db": "y" * 8})
    assert cloud.push(cloud.origin.commit(repository(texts, "one", lists=tuple(texts))))[0] == 200
    assert set(cloud.gateway.values) == {"gh-3-payload-secret", "gh-3-gh-4-db"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: &a [x]\nb: [*a, *a]", "alias"),
        ("sealed: v1\nsecrets: " + "[" * 5000, "too deep"),
        ("sealed: v1\nsecrets: {../x: y}", "no name of a secret"),
        ("sealed: v9\n", "only sealed: v1"),
        ("#" * 600_000, "524288 are allowed"),
    ],
)
def test_a_file_that_is_wrong_fails_the_push_and_says_why(content: str, said: str, cloud: Cloud) -> None:
    whole = {**repository({}, "one"), "secrets.yml": content}
    status, answer = cloud.push(cloud.origin.commit(whole))
    assert (status, said in str(answer)) == (422, True), answer
    assert not cloud.live


def test_a_secrets_yml_of_others_is_left_alone(cloud: Cloud) -> None:
    cloud.gateway.secrets.add("gh-3-db")
    whole = {**repository({}, "one"), "secrets.yml": "kind: SealedSecret\n"}
    assert cloud.push(cloud.origin.commit(whole))[0] == 200
    broken = {**files("two"), "secrets.yml": "a: ["}
    assert cloud.push(cloud.origin.commit(broken))[0] == 200, "no function has secrets"


def test_a_cloud_without_the_key_says_so(cloud: Cloud, seal_key: Path) -> None:
    seal_key.unlink()
    status, answer = cloud.push(cloud.origin.commit(repository(sealed(db="x"), "one")))
    assert (status, "opens no sealed secrets" in str(answer)) == (422, True)
    assert not cloud.live


def test_a_value_shows_nowhere_also_when_the_start_prints_it(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    value = 'planted-"hunter2"\nplanted-second'

    def crash(method: str, path: str, body: bytes) -> None:
        for rows in cloud.gateway.functions.values():
            cloud.gateway.failures[rows["image"]] = f"exit: {value}"

    cloud.gateway.overrides.append(crash)
    cloud.gateway.logs["alice-one"] = ["no such database: planted-second", json.dumps(value)]
    status, answer = cloud.push(cloud.origin.commit(repository(sealed(db=value), "one")))
    shown = capfd.readouterr()
    assert status == 422
    assert "no such database: ***" in shown.out
    assert "planted" not in shown.out + shown.err + str(answer)
    assert "planted" not in json.dumps([row["annotations"] for row in cloud.gateway.functions.values()])
    assert not any(
        b"planted" in body for _, path, _, body in cloud.gateway.calls if path != "/system/secrets"
    )


def test_a_gateway_that_repeats_the_secret_in_its_refusal_gives_it_not_away(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    def repeat(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (400, body) if (method, path) == ("PUT", "/system/secrets") else None

    cloud.gateway.overrides.append(repeat)
    status, answer = cloud.push(cloud.origin.commit(repository(sealed(db='planted-"hunter2"'), "one")))
    shown = capfd.readouterr()
    assert status == 422
    assert "planted" not in shown.out + shown.err + str(answer)
    assert not cloud.live


def test_on_kubernetes_a_secret_that_is_not_there_is_created(cloud: Cloud) -> None:
    made: list[str] = []

    def kubernetes(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        if path == "/system/secrets" and method in ("PUT", "POST"):
            made.append(method)
            return (404, b"secret not found") if method == "PUT" else None
        return None

    cloud.gateway.overrides.append(kubernetes)
    assert cloud.push(cloud.origin.commit(repository(sealed(db="hunter2"), "one")))[0] == 200
    assert made == ["PUT", "POST"]
    assert cloud.gateway.values == {"gh-3-db": "hunter2"}


def test_a_second_deploy_of_an_overtaken_push_sets_nothing(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """The look before the deploy comes before the secret is set, too."""
    cloud.push(cloud.origin.commit(repository(sealed(db="old"), "one")))
    overtaken: list[Any] = []

    def overtake(method: str, path: str, body: bytes) -> None:
        looks = [call for call in cloud.gateway.calls if call[1] == "/system/function/alice-one"]
        if path == "/system/function/alice-one" and len(looks) == 2 and not overtaken:
            overtaken.append(path)
            rows = cloud.gateway.functions["alice-one"]
            rows["annotations"] = {**rows["annotations"], f"{CLOUD}nonce": "somebody-else"}

    cloud.gateway.calls.clear()
    cloud.gateway.overrides.append(overtake)
    capsys.readouterr()
    cloud.push(cloud.origin.commit(repository(sealed(db="new"), "one")))
    [*_, first, last] = [record for record in stages(capsys) if record.stage == "deploy"]
    assert (first.outcome, last.outcome) == ("superseded", "ok"), "and then it is looked at again"
    assert sets(cloud) == [("gh-3-db", "new")]
