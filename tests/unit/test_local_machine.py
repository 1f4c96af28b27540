"""What `up` and `down` do with the engine, its Swarm, containers and images; these are fakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest

from local import containers, engine, images
from local import up as machine
from local.engine import FUNCTIONS_NETWORK, SYSTEM_NETWORK
from local.errors import CommandError
from local.state import State

TAGS = {"registry": "r", "of-builder": "b", "gateway": "g", "git-server": "s"}
TAKEN = "driver failed: Bind for 127.0.0.1:8080 failed: port is already allocated"


class FakeContainer:
    """As docker-py has it: `attrs` are those of the last look."""

    def __init__(
        self, engine: FakeEngine, name: str, labels: Mapping[str, str], network: str, port: int
    ) -> None:
        self.engine, self.name, self.labels, self.port = engine, name, labels, port
        self.networks = {network}
        self.busy: list[str] = []
        self.state = "created"
        self.reload()

    def reload(self) -> None:
        self.status = self.state
        self.attrs = {"NetworkSettings": {"Networks": dict.fromkeys(self.networks)}}

    def start(self) -> None:
        if self.port in self.engine.taken_ports:
            raise docker.errors.APIError("500", explanation=TAKEN)
        self.state = "running"

    def top(self, ps_args: str) -> Mapping[str, Any]:
        return {"Processes": [["1", "lighttpd"], *([["2", self.busy.pop()]] if self.busy else [])]}

    def stop(self, timeout: int) -> None:
        assert not self.busy, "it was stopped in the middle"
        self.state = "exited"

    def rename(self, name: str) -> None:
        assert name not in self.engine.running
        self.engine.running[name] = self.engine.running.pop(self.name)
        self.name = name

    def remove(self, force: bool) -> None:
        del self.engine.running[self.name]


class FakeEngine:
    """Containers, overlay networks and images."""

    def __init__(self) -> None:
        self.running: dict[str, FakeContainer] = {}
        self.taken_ports: set[int] = set()
        self.interrupted = False
        self.fails_to_create = False
        self.image_tags: dict[str, set[str]] = {}
        self.used: set[str] = set()
        self.api = SimpleNamespace(create_endpoint_config=lambda aliases: {"Aliases": aliases})
        self.containers = SimpleNamespace(get=self.get, create=self.create)
        self.networks = SimpleNamespace(get=self.network)
        self.images = SimpleNamespace(list=self.list_images, remove=self.remove_image)

    def get(self, name: str) -> FakeContainer:
        if name not in self.running:
            raise docker.errors.NotFound(name)
        self.running[name].reload()
        return self.running[name]

    def create(self, image: str, name: str, labels: Mapping[str, str], **rest: Any) -> FakeContainer:
        [(_, port)] = rest["ports"].values()
        if self.fails_to_create:
            raise docker.errors.APIError("500", explanation="no space left on device")
        assert name not in self.running
        self.running[name] = FakeContainer(self, name, labels, rest["network"], port)
        return self.running[name]

    def network(self, name: str) -> SimpleNamespace:
        def connect(container: FakeContainer, aliases: list[str]) -> None:
            assert container.state == "running", "an overlay keeps the place of one that was never started"
            assert name not in container.networks, f"endpoint already exists in network {name}"
            if self.interrupted:
                raise KeyboardInterrupt
            container.networks.add(name)

        return SimpleNamespace(connect=connect)

    def list_images(self, name: str, filters: Mapping[str, str]) -> list[SimpleNamespace]:
        assert (name, filters) == ("openfaas-cloud/*", {"label": "openfaas-cloud.local=1"})
        return [SimpleNamespace(tags=sorted(tags)) for tags in self.image_tags.values()]

    def remove_image(self, tag: str) -> None:
        image = next(image for image, tags in self.image_tags.items() if tag in tags)
        if image in self.used and len(self.image_tags[image]) == 1:
            raise docker.errors.APIError("409", explanation="a container is using its referenced image")
        self.image_tags[image].remove(tag)


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State(tmp_path / "state")
    made.create()
    return made


def gateway(state: State) -> containers.Service:
    return next(
        service for service in containers.services(state, TAGS, "builds") if service.alias == "gateway"
    )


def ensure(fake: FakeEngine, state: State) -> FakeContainer:
    containers.ensure(fake, gateway(state), state)  # type: ignore[arg-type]
    return fake.running["openfaas-cloud-gateway"]


def is_complete(container: FakeContainer) -> bool:
    return container.state == "running" and container.networks == {FUNCTIONS_NETWORK, SYSTEM_NETWORK}


def test_a_container_that_runs_as_described_stays(state: State) -> None:
    fake = FakeEngine()
    container = ensure(fake, state)
    assert is_complete(container)
    assert ensure(fake, state) is container


def test_a_port_that_was_taken_is_freed_and_the_next_up_ends_what_the_first_began(state: State) -> None:
    fake = FakeEngine()
    fake.taken_ports = {8080}
    with pytest.raises(CommandError, match=r"port 8080 of 127.0.0.1 is taken.*gateway_port=9080 make up"):
        ensure(fake, state)
    fake.taken_ports.clear()
    assert is_complete(ensure(fake, state))


def test_a_port_that_is_taken_at_the_first_up_can_be_changed(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()
    fake.taken_ports = {8080}
    with pytest.raises(CommandError):
        ensure(fake, state)
    monkeypatch.setenv("gateway_port", "9080")
    container = ensure(fake, state)
    assert is_complete(container)
    assert container.port == 9080


def test_a_changed_one_replaces_the_one_that_runs_and_leaves_nothing(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()
    old = ensure(fake, state)
    monkeypatch.setitem(TAGS, "gateway", "g2")
    fake.create(
        "g2", "openfaas-cloud-gateway-next", {}, ports={"": ("", 1)}, network=""
    )  # of one that was killed
    new = ensure(fake, state)
    assert new is not old
    assert is_complete(new)
    assert set(fake.running) == {"openfaas-cloud-gateway"}


def test_one_that_others_wait_for_is_not_replaced_before(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()
    git_server = containers.services(state, TAGS, "builds")[-1]
    containers.ensure(fake, git_server, state)  # type: ignore[arg-type]
    fake.running[git_server.name].busy = 3 * ["git receive-pack --stateless-rpc ."]
    monkeypatch.setitem(TAGS, "git-server", "s2")
    containers.ensure(fake, containers.services(state, TAGS, "builds")[-1], state)  # type: ignore[arg-type]
    assert set(fake.running) == {git_server.name}


def test_what_runs_goes_on_if_its_successor_cant_be_made(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeEngine()
    old = ensure(fake, state)
    monkeypatch.setitem(TAGS, "gateway", "g2")
    fake.fails_to_create = True
    with pytest.raises(docker.errors.APIError):
        ensure(fake, state)
    assert is_complete(old)
    assert fake.running == {"openfaas-cloud-gateway": old}


def test_an_up_that_was_interrupted_before_the_second_network_is_ended_by_the_next(state: State) -> None:
    fake = FakeEngine()
    fake.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        ensure(fake, state)
    fake.interrupted = False
    assert is_complete(ensure(fake, state))


def test_images_of_an_earlier_checkout_go_but_what_is_used_or_not_ours_stays() -> None:
    fake = FakeEngine()
    fake.image_tags = {
        "now": {"openfaas-cloud/gateway:new", "openfaas-cloud/gateway:same-content-as-before"},
        "before": {"openfaas-cloud/gateway:old", "mine/copy:1"},
        "used": {"openfaas-cloud/registry:old"},
        "base": {"openfaas-cloud/python:trixie"},
    }
    fake.used = {"now", "used"}
    images.prune(fake, {"openfaas-cloud/gateway:new", "openfaas-cloud/python:trixie"})  # type: ignore[arg-type]
    assert fake.image_tags == {
        "now": {"openfaas-cloud/gateway:new"},
        "before": {"mine/copy:1"},
        "used": {"openfaas-cloud/registry:old"},
        "base": {"openfaas-cloud/python:trixie"},
    }


class FakeSwarm:
    """A client as far as Swarm goes; at `address`, or not yet made."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.swarm = SimpleNamespace(init=self.init)
        self.networks = SimpleNamespace(list=list, create=lambda *_, **__: None)

    def info(self) -> Mapping[str, Any]:
        if not self.address:
            return {"Swarm": {"LocalNodeState": "inactive", "NodeAddr": ""}}
        return {"Swarm": {"LocalNodeState": "active", "ControlAvailable": True, "NodeAddr": self.address}}

    def init(self, advertise_addr: str, listen_addr: str) -> None:
        assert listen_addr == f"{advertise_addr}:2377"
        self.address = advertise_addr


@pytest.mark.parametrize(("advertise", "address"), [(None, "127.0.0.1"), ("10.0.0.5", "10.0.0.5")])
def test_a_swarm_is_on_loopback_unless_others_shall_join(
    advertise: str | None, address: str, state: State
) -> None:
    fake = FakeSwarm()
    engine.ensure_swarm(fake, state, advertise)  # type: ignore[arg-type]
    assert fake.address == address
    assert state.swarm_marker.exists()
    for again in (advertise, None):
        engine.ensure_swarm(fake, state, again)  # type: ignore[arg-type]


def test_a_swarm_that_is_elsewhere_is_not_taken_for_the_one_that_was_asked_for(state: State) -> None:
    with pytest.raises(CommandError, match=r"at 127\.0\.0\.1 and can't move to 10\.0\.0\.5.*make down"):
        engine.ensure_swarm(FakeSwarm("127.0.0.1"), state, "10.0.0.5")  # type: ignore[arg-type]


def test_how_to_join_names_the_way_to_the_registry(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("registry_port", "5001")
    told = machine._how_to_join(state, "10.0.0.5")
    assert "ssh -N -L 5001:127.0.0.1:5001 10.0.0.5" in told
    assert "docker swarm join --token TOKEN 10.0.0.5:2377" in told


def failing(*_: object) -> None:
    raise CommandError("no")


def test_an_up_without_an_engine_leaves_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path / "state")
    monkeypatch.setattr(engine, "ensure", failing)
    with pytest.raises(CommandError):
        machine.up(state, None)
    assert not state.folder.exists()


def test_an_up_whose_containers_do_not_start_decides_no_ports(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "ensure", lambda state: FakeSwarm())
    monkeypatch.setattr("local.base_image.ensure", lambda client: "base")
    monkeypatch.setattr(images, "ensure", lambda client, base, wanted: TAGS)
    monkeypatch.setattr(containers, "ensure", failing)
    monkeypatch.setattr("local.cgroup.ensure", lambda client: "")
    monkeypatch.setattr("local.firewall.ensure", lambda client: None)
    with pytest.raises(CommandError):
        machine.up(state, None)
    assert not state.exists


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The engines that `down` has emptied."""
    emptied: list[object] = []
    monkeypatch.setattr(machine, "_remove_all", lambda client, state: emptied.append(client))
    monkeypatch.setattr(engine, "connect", lambda: None)
    return emptied


def test_down_starts_an_engine_that_stands_still_to_remove_what_is_in_it(
    state: State, removed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_start", lambda state: "the engine")
    machine.down(state)
    assert removed == ["the engine"]
    assert not state.folder.exists()


@pytest.mark.parametrize(("user", "dockerd"), [(0, None), (1000, "/usr/sbin/dockerd")])
def test_down_forgets_nothing_while_the_engine_cannot_be_started(
    user: int,
    dockerd: str | None,
    state: State,
    removed: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr("shutil.which", lambda name: dockerd)
    with pytest.raises(CommandError, match="start it as root"):
        machine.down(state)
    assert not removed
    assert state.secret_file("payload-secret").exists()


def test_down_without_a_cloud_starts_no_engine(tmp_path: Path, removed: list[object]) -> None:
    machine.down(State(tmp_path / "nothing"))
    assert not removed


def test_the_engines_log_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "dockerd.log"
    engine._cut_log(log)
    with log.open("ab") as writer:  # as dockerd holds it
        writer.write(b"first\n" + b"x" * (11 * 1024**2) + b"last\n")
        writer.flush()
        engine._cut_log(log)
        writer.write(b"next\n")
    content = log.read_bytes()
    assert len(content) == 1024**2 + 5
    assert content.endswith(b"xlast\nnext\n")
    engine._cut_log(log)
    assert log.read_bytes() == content
