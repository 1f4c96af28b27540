"""The metrics: what the records add up to, served to Prometheus; and what promtool says of all of it."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from local import metrics
from local.cli import main
from local.following import Follower
from local.metrics import OUTCOMES, STAGES, Meter
from sdk.gateway import Gateway
from sdk.records import Record
from tests import promtool as prometheus

from .fakes import FakeGateway

NOW = time.time()


def record(stage: str, outcome: str = "ok", at: float = 0, **more: Any) -> Record:
    fields = {
        "delivery": "d-1",
        "owner": "alice",
        "repo": "shop",
        "sha": "a" * 40,
        "function": "",
        "seconds": 2.0,
    }
    moment = datetime.fromtimestamp(NOW + at, timezone.utc).isoformat()
    return Record(at=moment, stage=stage, outcome=outcome, **{**fields, **more})


def values(meter: Meter) -> dict[str, float]:
    """By `name{label,…}`, without openfaas_cloud_, and without what is 0."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(meter.registry).decode()):
        for sample in family.samples:
            if "_bucket" not in sample.name and "_created" not in sample.name and sample.value:
                labels = ",".join(sample.labels.values())
                found[sample.name.removeprefix("openfaas_cloud_") + (f"{{{labels}}}" if labels else "")] = (
                    sample.value
                )
    return found


def taken(*records: Record) -> dict[str, float]:
    meter = Meter()
    for each in records:
        meter.take(each)
    return values(meter)


def test_a_push_is_counted_once_and_timed_from_githubs_event_on() -> None:
    found = taken(
        record("queue", at=-20),
        record("fetch", at=-15),
        record("shrinkwrap", at=-14, function="cart"),
        record("check", at=-14, function="cart"),
        record("build", at=-6, function="cart", seconds=8.0),
        record("deploy", at=-3, function="cart"),
        record("collect", at=-2),
        record("push", at=-1),
    )
    assert found["pushes_total{ok}"] == 1
    assert found["push_seconds_sum"] == pytest.approx(19)
    assert found["queue_seconds_sum"] == pytest.approx(5)
    assert found["stage_seconds_sum{build}"] == 8
    assert found["stages_total{ok,deploy}"] == 1
    assert not {name for name in found if name in ("builds_running", "pushes_running", "pushes_waiting")}


def test_what_waits_and_runs_is_known_meanwhile() -> None:
    waiting = [record("queue", at=-50), record("queue", at=-10, delivery="d-2")]
    found = taken(*waiting)
    assert found["pushes_waiting"] == 2
    assert found["queue_age_seconds"] == pytest.approx(time.time() - NOW + 50, abs=5)
    working = [*waiting, record("fetch", at=-5)]
    found = taken(*working)
    assert (found["pushes_waiting"], found["pushes_running"]) == (1, 1)
    assert found["queue_age_seconds"] == pytest.approx(time.time() - NOW + 10, abs=5)
    building = [*working, *(record("check", function=name) for name in "abc"), record("build", function="a")]
    assert taken(*building)["builds_running"] == 2
    assert taken(*building, record("deploy", "unchanged", function="b"))["builds_running"] == 1
    found = taken(*building, record("push", "retry"))
    assert "builds_running" not in found
    assert (found["pushes_waiting"], found["stages_total{retry,push}"]) == (2, 1), "it is in the queue again"
    assert "pushes_total{retry}" not in found


def test_records_out_of_order_leave_nothing_behind() -> None:
    """gh-push's log may be read after git-tar's."""
    late = taken(record("fetch", at=-8), record("push", at=-5), record("queue", at=-9))
    assert "pushes_waiting" not in late
    assert "pushes_running" not in late
    again = taken(record("push", at=-5), record("queue", at=-1))
    assert again["pushes_waiting"] == 1, "GitHub sends a delivery again under the same id"


@pytest.mark.parametrize("outcome", ["refused", "failed"])
def test_what_gh_push_turns_away_is_a_push_that_ended(outcome: str) -> None:
    assert taken(record("queue", outcome))[f"pushes_total{{{outcome}}}"] == 1


def test_what_is_no_push_is_none() -> None:
    """A repository that left, reconcile's look, and an event that GitHub was told to send again."""
    found = taken(
        record("queue", repo=""),
        record("reconcile", repo="", delivery="r"),
        record("queue", "retry", delivery="x"),
    )
    assert "pushes_waiting" not in found
    assert found["stages_total{ok,reconcile}"] == 1


def test_a_push_that_never_ends_is_forgotten() -> None:
    day, hour = 25 * 3600, 2 * 3600
    found = taken(
        record("queue", at=-day),
        record("fetch", at=-hour, delivery="d-2"),
        record("check", at=-hour, function="a"),
    )
    assert not {name for name in found if name in ("builds_running", "pushes_running", "pushes_waiting")}


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PUSHES", 10)
    meter = Meter()
    for number in range(100):
        meter.take(record("queue", delivery=f"w-{number}"))
        meter.take(record("push", delivery=f"e-{number}"))
    assert (len(meter._underway), len(meter._ended)) == (10, 10)


@given(st.lists(st.tuples(st.text(), st.text(), st.text(), st.text(), st.text())))
def test_no_name_becomes_a_label(rows: list[tuple[str, str, str, str, str]]) -> None:
    """Whatever the records say, the series are those of the words that we know, and `other`."""
    meter = Meter()
    before = set(re.findall(r'"([^"]*)"', generate_latest(meter.registry).decode()))
    for stage, outcome, delivery, repo, function in rows:
        meter.take(record(stage, outcome, delivery=delivery, repo=repo, function=function))
    after = set(re.findall(r'"([^"]*)"', generate_latest(meter.registry).decode()))
    assert after - before <= {metrics.OTHER}
    assert set(STAGES) | set(OUTCOMES) <= before


@pytest.fixture
def promtool() -> str:
    found = prometheus.find()
    if not found:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found


def test_the_exporter_serves_what_the_gateways_logs_say(gateway: FakeGateway) -> None:
    at = datetime.now(timezone.utc).isoformat()
    fields = ("delivery", "owner", "repo", "sha", "function")
    end = {"at": at, "stage": "push", "outcome": "superseded", "seconds": 1, **dict.fromkeys(fields, "x")}
    gateway.logs["git-tar"] = ["starting", json.dumps(end)]
    gateway.overrides.append(lambda method, path, body: None)
    meter, follower = Meter(), Follower(Gateway(gateway.url, ("admin", "s3cret")), time.time(), seconds=60)
    counted, real = threading.Event(), meter.take

    def take(record: Record) -> None:
        real(record)
        counted.set()

    meter.take = take  # type: ignore[method-assign]
    threading.Thread(target=metrics.follow, args=(follower, meter), daemon=True).start()
    server, _ = start_http_server(0, "127.0.0.1", meter.registry)
    try:
        assert counted.wait(30)
        text = requests.get(f"http://127.0.0.1:{server.server_port}/metrics", timeout=5).text
    finally:
        server.shutdown()
        server.server_close()
    assert 'openfaas_cloud_pushes_total{outcome="superseded"} 1.0' in text


class Silent(Follower):
    """Has looked at its clock once, and reads only what it says."""

    def __init__(self, readable: str) -> None:
        self._readable = readable

    def reads(self, name: str) -> bool:
        return name == self._readable

    def __iter__(self) -> Iterator[Record | None]:
        yield None


def test_a_log_that_cannot_be_read_shows() -> None:
    meter = Meter()
    metrics.follow(Silent("git-tar"), meter)
    assert values(meter) == {"log_readable{git-tar}": 1}


def test_a_gateway_that_is_away_is_noticed() -> None:
    follower = Follower(
        Gateway("http://127.0.0.1:9", ("admin", "x")), time.time(), names=("git-tar",), seconds=60
    )
    for _ in follower:
        if not follower.reads("git-tar"):
            return
    raise AssertionError("it was not")


@pytest.mark.parametrize("listen", ["9400", "localhost:", "localhost:http", "localhost:²", "localhost:65536"])
def test_an_address_that_is_none_is_a_mistake_of_usage(listen: str) -> None:
    done = CliRunner().invoke(main, ("metrics", "--gateway", "http://127.0.0.1:9", "--listen", listen))
    assert done.exit_code == 2
    assert "--listen takes HOST:PORT" in done.output


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bopenfaas_cloud_[a-z_]+", text))


def test_dashboard_and_alerts_use_what_there_is_and_leave_nothing_out() -> None:
    text = generate_latest(Meter().registry).decode()
    exported = {name for name in names_in(text) if not name.endswith(("_created", "_sum", "_count"))}
    exported -= {re.sub("_bucket$", "", name) for name in exported if name.endswith("_bucket")}
    exported -= {name.removesuffix("_total") for name in exported if name.endswith("_total")}
    used = set().union(
        *map(names_in, prometheus.expressions()), *(names_in(rule["expr"]) for rule in prometheus.rules())
    )
    assert used == exported
    for said in ("stage", "outcome"):
        words = {"stage": STAGES, "outcome": OUTCOMES}[said]
        for expression in [*prometheus.expressions(), *(rule["expr"] for rule in prometheus.rules())]:
            for value in re.findall(said + r'[=!]~?"([^"]+)"', expression):
                assert set(value.split("|")) <= set(words), expression


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    places = [panel["gridPos"] for panel in prometheus.panels()]
    cells = [(x, place["y"]) for place in places for x in range(place["x"], place["x"] + place["w"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_promtool_takes_the_metrics(promtool: str) -> None:
    meter = Meter()
    meter.take(record("push"))
    prometheus.check_metrics(promtool, generate_latest(meter.registry))


def test_promtool_takes_dashboard_and_alerts(promtool: str, tmp_path: Path) -> None:
    prometheus.check_alerts(promtool)
    prometheus.check_expressions(promtool, prometheus.expressions(), tmp_path)
    with pytest.raises(AssertionError):
        prometheus.check_expressions(promtool, ["sum(openfaas_cloud_pushes_total"], tmp_path)


PUSHES = "openfaas_cloud_pushes_total"
STAGE = "openfaas_cloud_stages_total"
FIRING = {
    "nobody exports": ("CloudMetricsMissing", {"up": "1x60"}, 1),
    "somebody exports": ("CloudMetricsMissing", {'openfaas_cloud_log_readable{function="a"}': "1x60"}, 0),
    "a log is unreadable": ("CloudLogsUnreadable", {'openfaas_cloud_log_readable{function="a"}': "0x60"}, 1),
    "the queue stands still": ("CloudQueueStuck", {"openfaas_cloud_queue_age_seconds": "0+60x60"}, 1),
    "the queue moves": ("CloudQueueStuck", {"openfaas_cloud_queue_age_seconds": "600x60"}, 0),
    "most pushes fail": (
        "CloudPushesFail",
        {f'{PUSHES}{{outcome="failed"}}': "0+1x60", f'{PUSHES}{{outcome="ok"}}': "0+0.1x60"},
        1,
    ),
    "some pushes fail": (
        "CloudPushesFail",
        {f'{PUSHES}{{outcome="failed"}}': "0+1x60", f'{PUSHES}{{outcome="ok"}}': "0+3x60"},
        0,
    ),
    "one push failed": ("CloudPushesFail", {f'{PUSHES}{{outcome="failed"}}': "0 0 0 1x57"}, 0),
    "again and again": ("CloudRetries", {f'{STAGE}{{stage="deploy",outcome="retry"}}': "0+2x60"}, 1),
    "now and then": ("CloudRetries", {f'{STAGE}{{stage="deploy",outcome="retry"}}': "0+0.2x60"}, 0),
    "builds are slow": (
        "CloudBuildsSlow",
        {
            f'openfaas_cloud_stage_seconds_bucket{{stage="build",le="{le}"}}': values
            for le, values in (("120", "0+0x60"), ("180", "0+1x60"), ("+Inf", "0+1x60"))
        },
        1,
    ),
    "reconcile is silent": (
        "CloudReconcileSilent",
        {f'{STAGE}{{stage="reconcile",outcome="ok"}}': "7x60"},
        1,
    ),
    "reconcile looks": (
        "CloudReconcileSilent",
        {f'{STAGE}{{stage="reconcile",outcome="ok"}}': "0+0.2x60"},
        0,
    ),
}


def test_every_alert_is_tried() -> None:
    assert {alert for alert, _, fires in FIRING.values() if fires} == {
        rule["alert"] for rule in prometheus.rules()
    }


@pytest.mark.parametrize(("alert", "series", "fires"), FIRING.values(), ids=FIRING)
def test_an_alert_fires_when_it_should_and_only_then(
    alert: str, series: dict[str, str], fires: int, promtool: str, tmp_path: Path
) -> None:
    prometheus.check_firing(promtool, tmp_path, alert, series, "59m", fires)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        given = ("--gateway", "http://127.0.0.1:9", "--password-file", str(password), "--listen", listen)
        done = CliRunner().invoke(main, ("metrics", *given))
    assert (done.exit_code, done.output) == (1, f"Error: --listen {listen}: Address already in use\n")
