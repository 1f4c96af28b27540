"""The manifests of of-builder, of-buildkit and the registry: valid, consistent, and as closed as they say."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import tomli
import yaml

from of_builder.settings import Settings
from sdk.settings import read
from tests.conftest import ROOT

BUILDER = ROOT / "of-builder" / "kubernetes.yml"
REGISTRY = ROOT / "registry" / "kubernetes.yml"
SWARM = ROOT / "of-builder" / "swarm.yml"
BUILDKIT = ROOT / "of-builder" / "of-buildkit.yml"
TOML = ROOT / "of-builder" / "buildkitd.toml"
DOCS = ROOT / "docs" / "deploy-builder.md"
DOCKERFILE = ROOT / "of-builder" / "Dockerfile"

# The oldest Kubernetes that has what they use by default, and a recent one.
VERSIONS = ("1.33", "1.37")
# What rootless BuildKit needs to make user namespaces; its comment in kubernetes.yml says why.
ROOTLESS = {"buildkitd"}
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")
# What OpenFaaS's own chart and our functions bring along.
OTHERS = (
    {"app": "gateway"},
    {"app": "prometheus"},
    {"faas_function": "buildshiprun"},
    {"faas_function": "github-status"},
    {"k8s-app": "kube-dns"},
)
# Not settings of ours.
ENVIRONMENT = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}

Table = Mapping[str, Any]

DOCUMENTS: list[Table] = [row for file in (REGISTRY, BUILDER) for row in yaml.safe_load_all(file.read_text())]


def _of_kind(*kinds: str) -> list[Table]:
    return [row for row in DOCUMENTS if row["kind"] in kinds]


def _named(kind: str, name: str) -> Table:
    return next(row for row in _of_kind(kind) if row["metadata"]["name"] == name)


def _templates() -> Iterator[Table]:
    for row in _of_kind("Deployment", "CronJob"):
        spec = row["spec"]["jobTemplate"]["spec"] if row["kind"] == "CronJob" else row["spec"]
        yield spec["template"]


def _containers() -> Iterator[tuple[Table, Table]]:
    """Each with its pod's spec."""
    for template in _templates():
        spec = template["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            yield spec, container


def _pods_labels() -> list[Table]:
    return [template["metadata"]["labels"] for template in _templates()]


def _selects(selector: Table, labels: Table) -> bool:
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for row in selector.get("matchExpressions", ()):
        assert row["operator"] == "In"
        if labels.get(row["key"]) not in row["values"]:
            return False
    return True


def _services(*files: Path) -> dict[str, Table]:
    return {
        name: service
        for file in files
        for name, service in yaml.safe_load(file.read_text())["services"].items()
    }


IDS = [f"{row['kind']}-{row['metadata']['name']}" for row in DOCUMENTS]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", DOCUMENTS, ids=IDS)
def test_kubernetes_knows_every_field(document: Table, version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_all_is_in_the_gateways_namespace_and_has_a_name_of_its_own() -> None:
    assert {row["metadata"]["namespace"] for row in DOCUMENTS} == {"openfaas"}
    assert len(IDS) == len(set(IDS))


@pytest.mark.parametrize(
    ("pod", "container"), list(_containers()), ids=[container["name"] for _, container in _containers()]
)
def test_a_container_may_do_nothing_but_its_work(pod: Table, container: Table) -> None:
    security = {**pod.get("securityContext", {}), **container["securityContext"]}
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"]["drop"] == ["ALL"]
    assert "privileged" not in security
    if container["name"] in ROOTLESS:
        assert security["capabilities"]["add"] == ["SETUID", "SETGID"]
        assert security["seccompProfile"] == security["appArmorProfile"] == {"type": "Unconfined"}
    else:
        assert "add" not in security["capabilities"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    resources = container["resources"]
    assert {"cpu", "memory"} <= resources["limits"].keys() & resources["requests"].keys()


@pytest.mark.parametrize("template", list(_templates()), ids=[row["app"] for row in _pods_labels()])
def test_a_pod_shares_nothing_with_its_node_and_has_no_token(template: Table) -> None:
    spec = template["spec"]
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert spec["automountServiceAccountToken"] is False
    assert not [row for row in spec["volumes"] if "hostPath" in row]
    assert all("sizeLimit" in row["emptyDir"] for row in spec["volumes"] if "emptyDir" in row)


def test_what_serves_is_probed() -> None:
    for row in _of_kind("Deployment"):
        for container in row["spec"]["template"]["spec"]["containers"]:
            assert container.keys() >= {"livenessProbe", "readinessProbe"}, container["name"]


def test_build_steps_have_a_process_namespace_of_their_own() -> None:
    """Without, one owner's step rewrites the files of another's build."""
    spec = _named("Deployment", "of-buildkit")["spec"]["template"]["spec"]
    assert spec["hostUsers"] is False
    (buildkitd,) = spec["containers"]
    assert buildkitd["securityContext"]["procMount"] == "Unmasked"
    assert not [argument for argument in buildkitd["args"] if "no-process-sandbox" in argument]


def test_build_steps_are_neither_the_pods_root_nor_buildkitd() -> None:
    used: list[int] = []
    for line in _named("ConfigMap", "of-buildkit")["data"]["ids"].splitlines():
        user, first, count = line.split(":")
        assert user == "user"
        used += range(int(first), int(first) + int(count))
    assert len(used) == len(set(used))
    # All else that a pod's user namespace has, so that images may belong to nobody (65534).
    assert set(used) == set(range(65_536)) - {0, 1000}


@pytest.mark.parametrize("container", [pair[1] for pair in _containers()], ids=lambda row: str(row["name"]))
def test_each_mount_has_its_volume(container: Table) -> None:
    pod = next(spec for spec, row in _containers() if row is container)
    volumes = {row["name"] for row in pod["volumes"]}
    assert {row["name"] for row in container.get("volumeMounts", ())} <= volumes


def test_images_have_versions() -> None:
    images = [container["image"] for _, container in _containers()]
    images += [row["image"] for row in _services(SWARM, BUILDKIT).values()]
    assert all(re.fullmatch(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+(-rootless)?", image) for image in images), images
    version = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ours = {image for image in images if image.startswith("registry.example.com/openfaas-cloud/")}
    assert {image.rpartition(":")[2] for image in ours} == {version}
    assert len({image for image in images if "buildkit" in image}) == 1


@pytest.mark.parametrize("service", _of_kind("Service"), ids=lambda row: str(row["metadata"]["name"]))
def test_a_service_finds_its_pods_and_their_ports(service: Table) -> None:
    selector = {"matchLabels": service["spec"]["selector"]}
    (template,) = [row for row in _templates() if _selects(selector, row["metadata"]["labels"])]
    ports = {port["name"]: port for row in template["spec"]["containers"] for port in row["ports"]}
    for port in service["spec"]["ports"]:
        assert ports[port["targetPort"]]["containerPort"] == port["port"]


def test_the_addresses_of_the_settings_are_those_of_the_services() -> None:
    ports = {row["metadata"]["name"]: row["spec"]["ports"][0]["port"] for row in _of_kind("Service")}
    assert ports == {"of-builder": 8080, "of-buildkit": 1234, "registry": 5000}
    buildkit = tomli.loads(TOML.read_text())
    assert f"tcp://0.0.0.0:{ports['of-buildkit']}" in buildkit["grpc"]["address"]
    assert list(buildkit["registry"]) == [f"registry:{ports['registry']}"]
    for given in (_builder_environment(), _services(SWARM)["of-builder"]["environment"]):
        assert given["buildkit_url"] == f"tcp://of-buildkit:{ports['of-buildkit']}"
        assert given["registry_api_url"] == f"https://registry:{ports['registry']}"


def _builder_environment() -> dict[str, str]:
    (container,) = _named("Deployment", "of-builder")["spec"]["template"]["spec"]["containers"]
    return {row["name"]: row["value"] for row in container["env"]}


@pytest.mark.parametrize("where", ["kubernetes", "swarm"])
def test_of_builders_environment_is_made_of_settings(where: str) -> None:
    given = _builder_environment() if where == "kubernetes" else _services(SWARM)["of-builder"]["environment"]
    settings = {name: value for name, value in given.items() if name not in ENVIRONMENT}
    assert set(settings) <= {row.name for row in fields(Settings)}
    assert read(Settings, settings).work_folder == "/work"


def test_the_work_volume_holds_every_build_packed_and_unpacked() -> None:
    settings = read(Settings, _builder_environment())
    volumes = _named("Deployment", "of-builder")["spec"]["template"]["spec"]["volumes"]
    (limit,) = [row["emptyDir"]["sizeLimit"] for row in volumes if row["name"] == "work"]
    builds = settings.parallel_builds + settings.queued_builds
    assert int(limit.removesuffix("Gi")) * 1024 >= builds * settings.request_limit_mb * 2


def test_a_policy_is_about_pods_that_are_there() -> None:
    known = [*_pods_labels(), *OTHERS]
    for policy in _of_kind("NetworkPolicy"):
        spec = policy["spec"]
        assert any(_selects(spec["podSelector"], labels) for labels in _pods_labels())
        rules = [*spec.get("ingress", ()), *spec.get("egress", ())]
        peers = [peer for rule in rules for peer in (*rule.get("from", ()), *rule.get("to", ()))]
        for peer in peers:
            if "podSelector" in peer:
                assert any(_selects(peer["podSelector"], labels) for labels in known), peer


def test_every_pod_is_closed_both_ways_by_default() -> None:
    closed = [
        row["spec"]["podSelector"]
        for row in _of_kind("NetworkPolicy")
        if row["spec"]["policyTypes"] == ["Ingress", "Egress"]
        and not row["spec"].keys() & {"ingress", "egress"}
    ]
    for labels in _pods_labels():
        assert any(_selects(selector, labels) for selector in closed), labels


def _peers(name: str, direction: str) -> Iterator[tuple[int, Table]]:
    """Port and peer of each rule of a policy."""
    for rule in _named("NetworkPolicy", name)["spec"].get(direction, ()):
        for port in rule["ports"]:
            for peer in rule.get("from" if direction == "ingress" else "to", ({},)):
                yield port["port"], peer


def test_buildkit_is_for_of_builder_alone() -> None:
    assert list(_peers("of-buildkit", "ingress")) == [
        (1234, {"podSelector": {"matchLabels": {"app": "of-builder"}}})
    ]


def test_of_all_functions_only_those_that_build_or_read_logs_reach_of_builder() -> None:
    functions = [peer for _, peer in _peers("of-builder", "ingress") if "openfaas-fn" in str(peer)]
    names = ["buildshiprun", "github-status", "list-functions"]
    asked = {"key": "faas_function", "operator": "In", "values": names}
    assert [row["podSelector"] for row in functions] == [{"matchExpressions": [asked]}]
    # One peer with both selectors: as two peers, each would let in by itself.
    assert all("namespaceSelector" in row for row in functions)
    assert {port for port, _ in _peers("of-builder", "ingress")} == {8080}


@pytest.mark.parametrize("name", ["of-buildkit", "of-builder"])
def test_of_the_world_builds_reach_what_is_public(name: str) -> None:
    blocks = [peer["ipBlock"] for _, peer in _peers(name, "egress") if "ipBlock" in peer]
    assert blocks
    for block in blocks:
        closed = [ip_network(text) for text in block["except"]]
        assert all(any(ip_network(text).subnet_of(row) for row in closed) for text in PRIVATE)  # type: ignore[arg-type]
    pods = [str(peer["podSelector"]) for _, peer in _peers(name, "egress") if "podSelector" in peer]
    assert not [text for text in pods if "gateway" in text or "prometheus" in text]


def test_the_registry_is_closed_to_functions_and_calls_nobody() -> None:
    assert "openfaas-fn" not in str(list(_peers("registry", "ingress")))
    assert not list(_peers("registry", "egress"))


def test_the_registry_never_runs_beside_its_garbage_collection() -> None:
    spec = _named("Deployment", "registry")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {"type": "Recreate"}
    (collect,) = spec["template"]["spec"]["initContainers"]
    assert "registry garbage-collect /etc/docker/registry/config.yml" in collect["command"][-1]
    assert _services(SWARM)["registry"]["deploy"]["update_config"] == {"order": "stop-first"}


def test_the_registry_asks_for_tls_and_a_login() -> None:
    inside = _named("ConfigMap", "registry")["data"]["config.yml"]
    for text in (inside, (ROOT / "registry" / "config-tls.yml").read_text()):
        config = yaml.safe_load(text)
        assert config["auth"]["htpasswd"]["path"]
        assert config["http"]["tls"]["key"]
        assert config["storage"]["delete"] == {"enabled": True}
        # Its cache of blobs would outlive them.
        assert "cache" not in config["storage"]
    pulls = yaml.safe_load((ROOT / "registry" / "config-pull.yml").read_text())
    assert pulls["storage"]["maintenance"] == {"readonly": {"enabled": True}}
    assert pulls["http"]["tls"]["clientcas"]


def test_one_configuration_is_the_same_wherever_it_is_written() -> None:
    maps = {name: _named("ConfigMap", name)["data"] for name in ("of-buildkit", "registry")}
    assert maps["of-buildkit"]["buildkitd.toml"] == TOML.read_text()
    outside = (ROOT / "registry" / "config-tls.yml").read_text()
    assert outside.endswith(maps["registry"]["config.yml"])


def test_buildkit_takes_only_clients_with_a_certificate_and_only_its_own_frontend() -> None:
    config = tomli.loads(TOML.read_text())
    assert config["grpc"]["tls"].keys() == {"ca", "cert", "key"}
    assert config["frontend"] == {"gateway.v0": {"enabled": False}}
    assert "insecure-entitlements" not in config
    assert "noProcessSandbox" not in config["worker"]["oci"]


def test_the_docs_say_how_to_make_what_the_stack_takes() -> None:
    """On Kubernetes tests/contract/test_guides.py does."""
    docs = DOCS.read_text()
    stack = yaml.safe_load(SWARM.read_text())
    for name in stack["secrets"]:
        assert f"docker secret create {name} " in docs, name
    for row in stack["configs"].values():
        if row.get("external"):
            assert f"docker config create {row['name']} " in docs


@pytest.mark.parametrize("file", [SWARM, BUILDKIT], ids=["swarm", "of-buildkit"])
def test_docker_understands_the_stack(file: Path) -> None:
    """Needs the command only, no engine."""
    if not shutil.which("docker"):
        pytest.skip("the docker command is not installed")
    read_ = subprocess.run(("docker", "stack", "config", "-c", str(file)), capture_output=True, text=True)
    assert read_.returncode == 0, read_.stderr
    assert yaml.safe_load(read_.stdout)["services"].keys() == _services(file).keys()


@pytest.mark.parametrize("name", [*_services(SWARM, BUILDKIT)])
def test_a_service_of_the_swarm_may_do_nothing_but_its_work(name: str) -> None:
    service = _services(SWARM, BUILDKIT)[name]
    assert not service["user"].startswith("0")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert "healthcheck" in service
    assert "privileged" not in service
    assert "docker.sock" not in str(service)
    assert service.get("cap_add", ["SETUID", "SETGID"]) == ["SETUID", "SETGID"]


def test_a_stack_takes_nothing_that_swarm_leaves_out() -> None:
    """`docker stack deploy` only warns of these."""
    left_out = {"security_opt", "privileged", "devices", "restart", "network_mode", "userns_mode", "build"}
    for name, service in _services(SWARM).items():
        assert not service.keys() & left_out, name


def test_of_buildkit_on_a_machine_is_as_on_kubernetes() -> None:
    service = _services(BUILDKIT)["of-buildkit"]
    assert "systempaths=unconfined" in service["security_opt"]
    assert not [argument for argument in service["command"] if "no-process-sandbox" in argument]
    (buildkitd,) = _named("Deployment", "of-buildkit")["spec"]["template"]["spec"]["containers"]
    assert service["command"] == buildkitd["args"]
    assert service["user"].startswith(str(buildkitd["securityContext"]["runAsUser"]))
    assert "ports" not in service


def test_on_a_swarm_each_is_on_the_networks_that_it_needs() -> None:
    networks = {name: set(row["networks"]) for name, row in _services(SWARM, BUILDKIT).items()}
    assert networks == {
        "of-builder": {"func_system", "builds"},
        "of-buildkit": {"builds"},
        "registry": {"builds"},
        "registry-pull": {"pulls"},
    }
    published = [name for name, row in _services(SWARM).items() if "ports" in row]
    assert published == ["registry-pull"]


def test_the_images_user_is_the_manifests() -> None:
    owner = re.search(r"install -d -o (\d+) -g (\d+) /work", DOCKERFILE.read_text())
    assert owner
    pod = _named("Deployment", "of-builder")["spec"]["template"]["spec"]["securityContext"]
    assert (str(pod["runAsUser"]), str(pod["runAsGroup"])) == owner.groups()
    assert _services(SWARM)["of-builder"]["user"] == ":".join(owner.groups())
