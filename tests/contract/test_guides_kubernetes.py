"""docs/install-kubernetes.md: its manifests as they are applied, what pods mount, policies, certificates."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import kubernetes_validate
import pytest
import yaml

from tests.contract.test_manifests import VERSIONS
from tests.guides import Run

# OpenFaaS's own, and Kubernetes'.
BROUGHT = {"basic-auth", "kube-root-ca.crt"}


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
