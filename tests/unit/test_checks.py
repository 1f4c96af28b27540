"""What the play of GitHub's checks needs is there from `up --github` to `up --no-github`, and not else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from local import checks, containers, images
from local import up as machine
from local.cli import main
from local.doctor import machine as doctor
from local.errors import CommandError
from local.publish import Publisher
from local.state import SECRETS, State
from sdk import stack
from sdk.gateway import Gateway
from tests.conftest import ROOT

TAGS = {"registry": "r", "of-builder": "b", "gateway": "g", "git-server": "s", "github": "h"}
FUNCTIONS = {function.name: function for function in stack.parse((ROOT / "stack.yml").read_bytes()).functions}


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.create()
    made.keep_ports()
    return made


class FakeEngine:
    """A secret, a container and a volume; the secret is in use for one try."""

    def __init__(self, *there: str) -> None:
        self.there = list(there)
        self.tries = 0
        secret, container = SimpleNamespace(id="s1"), SimpleNamespace(remove=self.take("container"))
        self.secrets = SimpleNamespace(list=lambda filters: [secret] if "secret" in self.there else [])
        self.api = SimpleNamespace(remove_secret=self.remove_secret)
        self.containers = SimpleNamespace(get=lambda name: self.found("container", container))
        volume = SimpleNamespace(remove=self.take("volume"))
        self.volumes = SimpleNamespace(get=lambda name: self.found("volume", volume))

    def take(self, what: str) -> Any:
        return lambda **how: self.there.remove(what)

    def found(self, what: str, found: SimpleNamespace) -> SimpleNamespace:
        if what not in self.there:
            raise docker.errors.NotFound(what)
        return found

    def remove_secret(self, number: str) -> None:
        self.tries += 1
        if self.tries == 1:
            raise docker.errors.APIError("secret is in use")
        self.there.remove("secret")


def choose(state: State, wanted: bool | None, *there: str) -> None:
    checks.choose(FakeEngine(*there), state, wanted)  # type: ignore[arg-type]


def services(state: State) -> Mapping[str, containers.Service]:
    return {service.alias: service for service in containers.services(state, TAGS, "builds")}


def specs(state: State) -> Mapping[str, Mapping[str, Any]]:
    publisher = Publisher(state, "base")
    return {name: publisher._spec(function, "image") for name, function in FUNCTIONS.items()}


def test_nothing_of_it_is_there_unless_it_is_turned_on_and_all_is_as_before_when_it_is_off(
    state: State,
) -> None:
    before = specs(state), services(state)
    assert set(before[1]) == {"registry", "of-builder", "gateway", "git-server"}
    assert "'private-key'" not in str(before)
    assert "github_app_id" not in str(before)
    choose(state, None)
    assert (specs(state), services(state)) == before
    choose(state, True)
    assert (specs(state), services(state)) != before
    choose(state, False)
    assert (specs(state), services(state)) == before


def test_a_choice_holds_until_another_one(state: State) -> None:
    for wanted, is_on in (
        (None, False),
        (True, True),
        (None, True),
        (True, True),
        (False, False),
        (None, False),
    ):
        choose(state, wanted)
        assert state.plays_github == is_on
    choose(state, True)
    state.remove()
    assert not state.plays_github, "down forgets it"


def test_it_is_one_more_container_that_only_reads_the_repositories(state: State) -> None:
    choose(state, True)
    service = services(state)["github"]
    assert (service.published, service.networks) == (8083, ("func_system",))
    mounts = {mount["Target"]: mount for mount in containers._mounts(service, state)}
    assert mounts["/srv/git"]["ReadOnly"] is True
    assert mounts["/srv/git"]["Source"] == "openfaas-cloud-git"
    assert mounts["/var/lib/github"]["VolumeOptions"]["Labels"] == {"openfaas-cloud.local": "1"}
    key = mounts["/var/openfaas/secrets/private-key"]
    assert (key["Source"], key["ReadOnly"]) == (str(state.secret_file("private-key")), True)
    assert state.secret_file("private-key").stat().st_mode & 0o077 == 0
    assert isinstance(
        load_pem_private_key(state.secret_file("private-key").read_bytes(), None), RSAPrivateKey
    )
    assert services(state)["git-server"].environment["CHECKS_URL"] == "http://127.0.0.1:8083"


def test_those_who_tell_know_of_it_and_github_status_alone_has_the_key(state: State) -> None:
    choose(state, True)
    found = specs(state)
    telling = {name for name, spec in found.items() if "github_app_id" in spec["envVars"]}
    assert telling == {"gh-push", "git-tar", "buildshiprun", "github-status"}
    assert found["git-tar"]["envVars"]["github_api_url"] == "http://github:8080"
    assert [name for name, spec in found.items() if "private-key" in spec["secrets"]] == ["github-status"]


def test_the_key_is_told_to_the_cluster_once_and_no_other_secret_for_its_sake(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster: dict[str, str] = {}
    monkeypatch.setattr(Gateway, "secret_names", lambda self: set(cluster))
    monkeypatch.setattr(Gateway, "set_secret", lambda self, name, value: cluster.update({name: value}))
    Publisher(state, "base").secrets()
    assert set(cluster) == set(SECRETS)
    before = dict(cluster)
    cluster.update(dict.fromkeys(SECRETS, "not told again"))
    choose(state, True)
    for _ in range(2):
        Publisher(state, "base").secrets()
        assert cluster == {
            **dict.fromkeys(before, "not told again"),
            "private-key": state.secret_file("private-key").read_text(),
        }


def test_a_cloud_with_an_app_of_its_own_plays_none(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "stack.yml").read_text().replace("# - private-key", "- private-key")
    (tmp_path / "stack.yml").write_text(text)
    choose(state, True)
    monkeypatch.setattr(images, "ROOT", tmp_path)
    for wanted in (True, None):
        with pytest.raises(CommandError, match="private-key of a GitHub App"):
            choose(state, wanted)
    choose(state, False)
    choose(state, None)


def test_a_key_that_somebody_else_put_into_the_cluster_is_never_replaced_or_removed(state: State) -> None:
    with pytest.raises(CommandError, match="has a secret private-key"):
        choose(state, True, "secret")
    assert not state.plays_github
    choose(state, False, "secret")
    fake: Any = FakeEngine("secret")
    checks.remove_left(fake, state)
    assert fake.there == ["secret"]
    choose(state, True)
    choose(state, True, "secret")  # its own by now


def test_its_port_can_be_chosen_while_the_cloud_runs(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("github_port", "9083")
    monkeypatch.setenv("gateway_port", "9080")
    choose(state, True)
    monkeypatch.delenv("github_port")
    for wanted in (True, None):
        choose(state, wanted)
        assert state.checks_url == "http://127.0.0.1:9083"
        assert state.gateway_url == "http://127.0.0.1:8080", "the others stay where they run"


def test_the_ports_of_an_older_cloud_are_known(state: State) -> None:
    file = state.folder / "ports.json"
    file.write_text('{"gateway_port":8080,"builder_port":8081,"git_port":8082,"registry_port":5001}')
    assert (state.registry, state.checks_url) == ("127.0.0.1:5001", "http://127.0.0.1:8083")


def test_a_taken_port_says_how_to_choose_another(state: State) -> None:
    choose(state, True)
    said = str(containers.refused(services(state)["github"], "bind: address already in use"))
    assert "`github_port=9083 .venv/bin/python -m local up --github`" in said


def test_once_it_is_off_nothing_is_left_and_nobody_looks_again(state: State) -> None:
    fake: Any = FakeEngine("secret", "container", "volume")
    choose(state, True)
    checks.remove_left(fake, state)
    assert fake.there == ["secret", "container", "volume"]
    choose(state, False)
    assert "private-key" in state.platform_secrets, "a backup takes it for nobody's"
    checks.remove_left(fake, state)
    assert (fake.there, fake.tries) == ([], 2)
    assert not state.secret_file("private-key").exists()
    assert state.platform_secrets == SECRETS
    checks.remove_left(None, state)  # type: ignore[arg-type]


def test_what_an_interrupted_up_has_left_goes_at_the_next(state: State) -> None:
    fake: Any = FakeEngine("volume")
    choose(state, True)
    choose(state, False)
    checks.remove_left(fake, state)
    assert (fake.there, state.secret_file("private-key").exists()) == ([], False)


def test_doctor_asks_it_while_it_is_on(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(url: str, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(ok="8083" not in url, status_code=500, text="broken")

    monkeypatch.setattr("requests.get", get)
    assert {finding.level for finding in doctor.services(state)} == {"ok"}
    choose(state, True)
    [found] = [finding for finding in doctor.services(state) if finding.level == "fail"]
    assert "github" in found.line
    assert "docker logs openfaas-cloud-github" in found.line


@pytest.mark.parametrize(
    ("arguments", "chosen"), [((), None), (("--github",), True), (("--no-github",), False)]
)
def test_up_passes_the_choice_on(
    arguments: tuple[str, ...], chosen: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[bool | None] = []
    monkeypatch.setattr(machine, "up", lambda state, advertise, github: given.append(github))
    assert CliRunner().invoke(main, ("up", *arguments)).exit_code == 0
    assert given == [chosen]


def test_the_last_words_of_up_name_the_page_while_there_is_one(state: State) -> None:
    folder = Path("/x/hello-python")
    assert "8083" not in machine._next_steps("http://x", folder, state)
    choose(state, True)
    told = machine._next_steps("http://x", folder, state)
    assert "  http://127.0.0.1:8083/alice/hello-python    what GitHub would show of each commit\n" in told
