"""The install guides: timeouts, the queue, the clock, the gateway, the registry and the settings fit."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from typing import Any

import yaml

from sdk.settings import Settings, read, seconds
from tests.guides import Run

QUEUE_RETRIES = {"429", "502", "503", "504"}


def longest(run: Run) -> float:
    """What the slowest function may take, in seconds."""
    timeouts = ("read_timeout", "write_timeout", "exec_timeout")
    return max(seconds(row["environment"][name]) for row in run.functions.values() for name in timeouts)


def compose(run: Run) -> Mapping[str, Any]:
    return dict(yaml.safe_load((run.folder / "faasd" / "docker-compose.yaml").read_text())["services"])


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    return dict(row.split("=", 1) for row in service["environment"])


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
