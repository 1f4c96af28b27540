"""What operators use, on the running cloud: doctor, trace and metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests import promtool as prometheus
from tests.conftest import ROOT

from .cloud import Cloud, Repository, until

Make = Callable[..., Repository]


@pytest.fixture(scope="session")
def promtool() -> str:
    return prometheus.fetch()


def test_promtool_takes_dashboard_and_alerts(promtool: str, tmp_path: Path) -> None:
    """Here it is never skipped."""
    prometheus.check_alerts(promtool)
    prometheus.check_expressions(promtool, prometheus.expressions(), tmp_path)


def test_the_doctor_finds_nothing_to_mend(cloud: Cloud) -> None:
    """What other tests did may be worth a look: calls that failed, say."""
    assert cloud.cli("reconcile").returncode == 0
    done = cloud.cli("doctor", "--json")
    told = json.loads(done.stdout)
    assert not [finding for finding in told["findings"] if finding["level"] == "fail"], done.stdout
    fine = {finding["about"] for finding in told["findings"] if finding["level"] == "ok"}
    assert fine >= {
        *("engine", "of-builder", "registry", "gateway", "functions", "secrets"),
        *("registry push", "registry pull", "clocks", "timeouts", "webhook"),
    }


def test_a_push_is_traced(cloud: Cloud, repository: Make) -> None:
    repo = repository()
    repo.functions(hello="one")
    assert repo.push()[0] == 0
    sha = repo.git("rev-parse", "HEAD").strip()
    done = cloud.cli("trace", sha[:12])
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("gh-push          queued", "fetched in", "built in", "live in", "done: everything is live"):
        assert said in done.stdout


@pytest.fixture
def exporter(cloud: Cloud) -> Iterator[str]:
    command = (sys.executable, "-m", "local", "metrics", "--listen", "127.0.0.1:0")
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        yield running.stderr.readline().rpartition(" ")[2].strip()
        running.terminate()


def test_a_push_is_counted(repository: Make, exporter: str, promtool: str) -> None:
    repo = repository()
    repo.functions(hello="one")
    assert repo.push()[0] == 0
    until(
        lambda: 'openfaas_cloud_pushes_total{outcome="ok"} 0.0' not in requests.get(exporter, timeout=5).text
    )
    prometheus.check_metrics(promtool, requests.get(exporter, timeout=5).content)
