"""Prometheus's own opinion of what we give it: Debian's promtool, where it is or can be had."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .conftest import ROOT

ALERTS = ROOT / "docs" / "monitoring" / "alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "dashboard.json"
# Where `fetch` puts it: no daemon is installed, and root is not needed.
FETCHED = ROOT / ".cloud" / "prometheus"


def find() -> str | None:
    return shutil.which("promtool") or shutil.which("promtool", path=str(FETCHED / "usr" / "bin"))


def fetch() -> str:
    """Take promtool out of Debian's package."""
    if not (found := find()):
        FETCHED.mkdir(parents=True, exist_ok=True)
        for command in (("apt-get", "download", "-q", "prometheus"), ("dpkg", "-x", "prometheus.deb", ".")):
            for package in FETCHED.glob("prometheus_*.deb"):
                package.rename(FETCHED / "prometheus.deb")
            subprocess.run(command, cwd=FETCHED, check=True, capture_output=True, timeout=300)
        found = find()
    assert found, "the package has no promtool"
    return found


def run(promtool: str, *arguments: str, stdin: bytes = b"") -> None:
    done = subprocess.run((promtool, *arguments), input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def check_alerts(promtool: str) -> None:
    run(promtool, "check", "rules", str(ALERTS))


def check_expressions(promtool: str, expressions: Sequence[str], folder: Path) -> None:
    """Each is PromQL: as rules, for promtool parses no others."""
    rules = [
        {"record": f"checked_{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions)
    ]
    file = folder / "expressions.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", str(file))


def check_metrics(promtool: str, text: bytes) -> None:
    run(promtool, "check", "metrics", stdin=text)


def check_firing(
    promtool: str, folder: Path, alert: str, series: Mapping[str, str], at: str, fires: int
) -> None:
    """Whether the alert fires, so many times, `at` that time of these series."""
    rule = next(rule for rule in rules() if rule["alert"] == alert)
    text = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                        "eval_time": at,
                        "exp_samples": [{"labels": "{}", "value": fires}],
                    }
                ],
            }
        ],
    }
    assert rule["annotations"].keys() >= {"summary", "remedy"}
    file = folder / "firing.yml"
    file.write_text(yaml.safe_dump(text))
    run(promtool, "test", "rules", str(file))


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


def expressions() -> list[str]:
    """The dashboard's."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]
