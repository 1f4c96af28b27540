"""The install guides, followed from their first command to the first push (tests/guides.py says how).

Commands of kubectl, helm, faas-cli, docker and curl, and the blocks for other machines, are checked by their
form and by the files that they name: no cluster is here. Everything else really runs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from local.state import State
from local.up import _how_to_join
from sdk.settings import Settings, read, seconds
from tests.commands import blocks
from tests.conftest import ROOT
from tests.contract.test_manifests import VERSIONS
from tests.guides import MACHINE, RUN, Run, follow
from tests.repositories import Origin

from .fakes import running
from .registration import FakeRegistration

DOCS = ROOT / "docs"
KUBERNETES, FAASD, SWARM = (DOCS / f"install-{name}.md" for name in ("kubernetes", "faasd", "swarm"))
# The lines of faasd 0.19.0's own files that the guide changes.
COMPOSE = """services:
  gateway:
    environment:
      - read_timeout=60s
      - write_timeout=60s
      - upstream_timeout=65s
    ports:
       - "8080:8080"
  queue-worker:
    environment:
      - ack_wait=5m5s
      - max_inflight=1
"""
UNIT = '[Service]\nEnvironment="secret_mount_path={{.SecretMountPath}}"\nRestart=on-failure\n'
# OpenFaaS's own, and Kubernetes'.
BROUGHT = {"basic-auth", "kube-root-ca.crt"}
QUEUE_RETRIES = {"429", "502", "503", "504"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    fake = FakeRegistration(Origin(tmp_path_factory.mktemp("origin")))
    with running(fake):
        yield fake.api


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory, api: str) -> Run:
    return follow(KUBERNETES, tmp_path_factory.mktemp("kubernetes"), api)


@pytest.fixture(scope="module")
def faasd(tmp_path_factory: pytest.TempPathFactory, api: str) -> Run:
    folder = tmp_path_factory.mktemp("faasd")
    (folder / "lib" / "secrets").mkdir(parents=True)
    (folder / "lib" / "secrets" / "basic-auth-user").write_text("admin")
    (folder / "lib" / "secrets" / "basic-auth-password").write_text("s3cret")
    (folder / "faasd" / "hack").mkdir(parents=True)
    (folder / "faasd" / "docker-compose.yaml").write_text(COMPOSE)
    (folder / "faasd" / "hack" / "faasd-provider.service").write_text(UNIT)
    elsewhere = {"/var/lib/faasd": str(folder / "lib"), "/root/faasd": str(folder / "faasd")}
    return follow(FAASD, folder, api, elsewhere)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory, api: str) -> Run:
    return follow(SWARM, tmp_path_factory.mktemp("swarm"), api)


@pytest.fixture(params=["kubernetes", "faasd"])
def run(request: pytest.FixtureRequest) -> Run:
    """A guide to OpenFaaS."""
    found: Run = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("name", ["kubernetes", "faasd", "swarm"])
def test_every_command_that_can_run_here_does(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    assert run.status == 0, run.output
    assert run.calls


@pytest.mark.parametrize("page", [KUBERNETES, FAASD, SWARM], ids=lambda page: str(page.stem))
def test_bash_understands_what_other_machines_are_to_run(page: Path) -> None:
    found = list(blocks(page))
    assert {kind for kind, _ in found} <= {RUN, MACHINE}
    assert len([kind for kind, _ in found if kind == MACHINE]) >= 1
    for _, text in found:
        done = subprocess.run(("bash", "-n"), input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def of_functions(run: Run) -> set[str]:
    return {call.argv[2] for call in run.made("faas-cli secret create")}


def test_the_secrets_that_are_created_are_those_that_the_functions_take(run: Run) -> None:
    needed = {name for row in run.functions.values() for name in row["secrets"]}
    assert of_functions(run) == needed
    for call in run.made("faas-cli secret create"):
        assert list(call.keys) == [call.argv[2]], "a file is named as its secret"


def test_the_key_of_the_app_is_for_those_who_ask_github(run: Run) -> None:
    holders = {name for name, row in run.functions.items() if "private-key" in row["secrets"]}
    assert holders == {"git-tar", "reconcile", "github-status"}
    assert run.settings["github_app_id"] == (run.checkout / "secrets" / "github_app_id").read_text().strip()


def test_nothing_of_the_secrets_is_for_others_or_in_git(run: Run) -> None:
    folder = run.checkout / "secrets"
    assert folder.stat().st_mode & 0o077 == 0
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/of-builder/tls/", "github.yml"} <= set(ignored)


def test_the_steps_come_in_an_order_that_works(run: Run) -> None:
    up = run.index("faas-cli up")
    before = [run.index(part) for part in ("secret create", "template pull", "github-app", "docker build")]
    assert max(before) < up < run.index("local doctor") < run.index("local trace")
    assert {"REPO", "TAG", "OPENFAAS_URL"} <= run.calls[up].environment.keys()
    assert run.calls[run.index("local trace")].argv[3] == "--follow"


def test_stack_yml_is_for_the_gateway_that_faas_cli_is_logged_in_to(run: Run) -> None:
    """faas-cli takes OPENFAAS_URL where stack.yml has its default; so none has to be written into it."""
    given = yaml.safe_load((run.checkout / "stack.yml").read_text())
    assert given["provider"]["gateway"] == "http://127.0.0.1:8080"
    assert run.calls[run.index("faas-cli up")].environment["OPENFAAS_URL"] == given["provider"]["gateway"]
    before = (ROOT / "stack.yml").read_text().replace("# - private-key", "- private-key")
    assert (run.checkout / "stack.yml").read_text() == before


def longest(run: Run) -> float:
    """What the slowest function may take, in seconds."""
    timeouts = ("read_timeout", "write_timeout", "exec_timeout")
    return max(seconds(row["environment"][name]) for row in run.functions.values() for name in timeouts)


def test_every_timeout_on_the_way_is_longer_than_the_functions(kubernetes: Run, faasd: Run) -> None:
    (helm,) = kubernetes.made("helm upgrade openfaas ")
    values = yaml.safe_load(helm.stdin)
    gateway, queue = values["gateway"], values["queueWorker"]
    # The chart gives the provider the gateway's.
    chain = [(gateway["upstreamTimeout"], gateway["readTimeout"], gateway["writeTimeout"], queue["ackWait"])]
    services = compose(faasd)
    provider = (faasd.folder / "faasd" / "hack" / "faasd-provider.service").read_text()
    service = re.search(r'^Environment="service_timeout=(\w+)"$', provider, re.MULTILINE)
    assert service
    given = environment(services["gateway"])
    ack = environment(services["queue-worker"])["ack_wait"]
    chain.append((given["upstream_timeout"], given["read_timeout"], given["write_timeout"], ack))
    chain.append((given["upstream_timeout"], service[1], service[1], ack))
    for upstream, reading, writing, wait in chain:
        assert longest(kubernetes) < seconds(upstream) < min(seconds(reading), seconds(writing))
        assert seconds(wait) > seconds(writing)


def compose(run: Run) -> Mapping[str, Any]:
    return dict(yaml.safe_load((run.folder / "faasd" / "docker-compose.yaml").read_text())["services"])


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    return dict(row.split("=", 1) for row in service["environment"])


def test_the_queue_tries_again_what_may_work_later(kubernetes: Run) -> None:
    (helm,) = kubernetes.made("helm upgrade openfaas ")
    values = yaml.safe_load(helm.stdin)
    assert values["openfaasPro"] is True
    assert set(values["queueWorkerPro"]["httpRetryCodes"].split(",")) >= QUEUE_RETRIES


def test_faasds_queue_never_has_more_calls_than_git_tar_takes(faasd: Run) -> None:
    """It tries nothing again, so one that is refused as one too many would be lost."""
    given = environment(compose(faasd)["queue-worker"])
    assert int(given["max_inflight"]) == read(Settings, faasd.settings).parallel_long_calls


def test_a_clock_calls_reconcile(kubernetes: Run, faasd: Run) -> None:
    (helm,) = kubernetes.made("helm upgrade cron-connector")
    assert "openfaasPro=true" in helm.argv
    connector = compose(faasd)["cron-connector"]
    assert environment(connector)["gateway_url"] == "http://gateway:8080"
    assert {row["target"].rpartition("/")[2] for row in connector["volumes"]} == {
        "basic-auth-user",
        "basic-auth-password",
    }


def test_no_gateway_is_open_without_tls(kubernetes: Run, faasd: Run) -> None:
    (helm,) = kubernetes.made("helm upgrade openfaas ")
    assert yaml.safe_load(helm.stdin)["exposeServices"] is False
    (ingress,) = [row for row in kubernetes.documents if row["kind"] == "Ingress"]
    assert ingress["spec"]["tls"][0]["hosts"] == ["cloud.example.com"]
    (rule,) = ingress["spec"]["rules"]
    assert [path["path"] for path in rule["http"]["paths"]] == ["/function/"]
    assert compose(faasd)["gateway"]["ports"] == ["127.0.0.1:8080:8080"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_manifest_as_the_guide_applies_it(kubernetes: Run, version: str) -> None:
    known = [row for row in kubernetes.documents if "cert-manager.io" not in row["apiVersion"]]
    assert len(known) > 15
    for document in known:
        kubernetes_validate.validate(document, version, strict=True)


def test_nothing_that_stands_for_something_is_left(kubernetes: Run) -> None:
    applied = yaml.safe_dump_all(kubernetes.documents)
    assert "registry.example.com" not in applied
    assert "192.0.2.0" not in applied
    (images,) = [call for call in kubernetes.made("docker push") if "of-builder" in call.line]
    assert f"image: {images.argv[1]}" in applied
    assert "10.1.0.0/16" in applied


def of_kubernetes(run: Run) -> dict[str, set[str]]:
    """Secrets and ConfigMaps that the guide creates in OpenFaaS's namespace, and their keys."""
    calls = [call for call in run.made("kubectl") if "create" in call.argv and "openfaas" in call.argv]
    named = ((re.search(r" (?:generic|tls|configmap) (\S+)", call.line), call) for call in calls)
    return {found[1]: set(call.keys) for found, call in named if found}


def test_what_the_pods_mount_is_created_and_nothing_else(kubernetes: Run) -> None:
    made = of_kubernetes(kubernetes)
    maps = {row["metadata"]["name"] for row in kubernetes.documents if row["kind"] == "ConfigMap"}
    taken = {name: keys for name, keys in mounted(kubernetes) if name not in BROUGHT | maps}
    assert made.pop("openfaas-license") == {"license"}
    assert set(made) == set(taken)
    for name, keys in taken.items():
        assert keys <= made[name], name


def mounted(run: Run) -> Iterator[tuple[str, set[str]]]:
    """Each Secret and ConfigMap that a pod mounts, and the keys that it names."""
    for row in run.documents:
        if row["kind"] not in ("Deployment", "CronJob"):
            continue
        spec = row["spec"]["jobTemplate"]["spec"] if row["kind"] == "CronJob" else row["spec"]
        for volume in spec["template"]["spec"]["volumes"]:
            for part in (volume, *volume.get("projected", {}).get("sources", ())):
                source = part.get("secret") or part.get("configMap") or {}
                if name := source.get("name") or source.get("secretName"):
                    yield name, {item["key"] for item in source.get("items", ())}


def test_the_policy_of_the_functions_lets_them_reach_what_the_settings_name(kubernetes: Run) -> None:
    (policy,) = [row for row in kubernetes.documents if row["metadata"].get("namespace") == "openfaas-fn"]
    selector = policy["spec"]["podSelector"]["matchLabels"]
    for name, row in kubernetes.functions.items():
        assert selector.items() <= row["labels"].items(), name
    (inside,) = [
        peer["podSelector"]["matchExpressions"][0]["values"]
        for rule in policy["spec"]["egress"]
        for peer in rule["to"]
        if "matchExpressions" in peer.get("podSelector", {})
    ]
    hosts = {kubernetes.settings[name].split("/")[2] for name in ("gateway_url", "builder_url")}
    assert hosts == {f"{name}.openfaas:8080" for name in inside}


def test_one_registry_is_meant_by_all_that_name_it(kubernetes: Run, faasd: Run) -> None:
    given, tls = kubernetes.settings, kubernetes.checkout / "of-builder" / "tls"
    registry = given["push_repository_url"]
    assert registry == given["repository_url"] == "registry:5000"
    login = yaml.safe_load((tls / "registry-secret").read_text())
    assert list(login["auths"]) == [registry]
    (pull,) = kubernetes.made("kubectl --namespace openfaas-fn create secret docker-registry")
    assert f"--docker-server={registry}" in pull.argv
    assert f"--docker-password={(tls / 'pull-password').read_text().strip()}" in pull.argv
    given = faasd.settings
    assert given["push_repository_url"] == given["repository_url"] == "127.0.0.1:5000"
    (served,) = faasd.made("docker run --detach --name registry")
    assert f"REGISTRY_HTTP_ADDR={given['repository_url']}" in served.argv
    (built,) = faasd.made("docker run --detach --name of-builder")
    assert f"listen={given['builder_url'].split('/')[2]}" in built.argv
    assert f"registry_api_url=http://{given['repository_url']}" in built.argv


def test_settings_are_understood(run: Run) -> None:
    settings = Settings.read(dict(run.settings))
    assert settings.gateway_public_url == "https://cloud.example.com/"
    assert settings.build_branch == "main"
    pushed = subprocess.run(
        (
            "git",
            f"--git-dir={run.folder / 'github' / 'acme' / 'hello.git'}",
            "branch",
            "--format=%(refname:short)",
        ),
        capture_output=True,
        text=True,
    )
    assert pushed.stdout.split() == [settings.build_branch]


def test_certificates_are_of_the_authority_that_their_holders_trust(kubernetes: Run) -> None:
    tls = kubernetes.checkout / "of-builder" / "tls"
    for authority, name, purpose in (
        ("buildkit", "of-buildkit", "sslserver"),
        ("buildkit", "of-builder", "sslclient"),
        ("registry", "registry", "sslserver"),
        ("nodes", "node", "sslclient"),
    ):
        verify = ("openssl", "verify", "-purpose", purpose, "-CAfile", f"{authority}-ca.pem", f"{name}.pem")
        done = subprocess.run(verify, cwd=tls, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        shown = subprocess.run(
            ("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", f"{name}.pem"),
            cwd=tls,
            capture_output=True,
            text=True,
        )
        assert f"DNS:{name}\n" in shown.stdout
    crossed = ("openssl", "verify", "-CAfile", "buildkit-ca.pem", "node.pem")
    assert subprocess.run(crossed, cwd=tls, capture_output=True).returncode != 0, "a node drives no BuildKit"
    logins = [line.partition(":")[::2] for line in (tls / "htpasswd").read_text().splitlines()]
    assert [name for name, _ in logins] == ["of-builder", "nodes"]
    assert all(text.startswith("$2y$") for _, text in logins), "the registry takes bcrypt alone"
    assert [file for file in tls.iterdir() if file.stat().st_mode & 0o077] == []
    again = subprocess.run(("sh", "of-builder/certificates.sh"), cwd=kubernetes.checkout, capture_output=True)
    assert again.returncode != 0, "what is there is not overwritten"


def test_a_swarms_guide_joins_machines_as_up_says(swarm: Run, tmp_path: Path) -> None:
    text = SWARM.read_text().replace("$TOKEN", "TOKEN").replace("$ADDR", "ADDR")
    told = _how_to_join(State(tmp_path), "ADDR")
    joining = [line.strip() for line in told.splitlines() if line.startswith("  ")]
    assert len(joining) == 2
    for command in joining:
        assert command in text, command
    assert "docs/install-swarm.md" in told
    assert [call.line for call in swarm.made("python -m local up")] == [
        "python -m local up --advertise 192.0.2.10",
        "python -m local up --advertise 192.0.2.10",
    ]


def test_the_swarms_registry_is_reached_by_tunnels_alone() -> None:
    text = SWARM.read_text()
    assert "-L 127.0.0.1:5000:127.0.0.1:5000" in text
    assert 'restrict,port-forwarding,permitopen="127.0.0.1:5000"' in text
    assert not re.search(r"-L (0\.0\.0\.0|\*|\$ADDR):", text)


@pytest.mark.parametrize("page", [KUBERNETES, FAASD, SWARM], ids=lambda page: str(page.stem))
def test_a_guide_says_what_openfaas_allows_before_it_begins_and_how_to_upgrade_at_its_end(page: Path) -> None:
    text = page.read_text()
    first = text.index("```sh")
    assert re.search(r"## Which|No OpenFaaS is installed", text[:first])
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[-1] == "Upgrading"
    assert "Pushes in flight" in text[text.index("## Upgrading") :] or "a push in flight" in text
    assert "](operating.md" in text[text.index("## Upgrading") :]
