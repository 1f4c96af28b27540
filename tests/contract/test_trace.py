"""`trace` against a gateway: one push from the logs of all functions."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from local.cli import main
from local.following import Follower, recorded
from local.trace import nothing
from sdk.gateway import Gateway
from sdk.records import Record

from .fakes import FakeGateway

SHA, OTHER = "ab12" + "0" * 36, "ab13" + "0" * 36
STARTED = time.time() - 60


def row(at_: float, stage: str, outcome: str = "ok", **more: Any) -> str:
    at = datetime.fromtimestamp(STARTED + at_, timezone.utc).isoformat()
    fields = {"delivery": "d-1", "owner": "alice", "repo": "shop", "sha": SHA, "function": "", "seconds": 0.5}
    return json.dumps({"at": at, "stage": stage, "outcome": outcome, **fields, **more})


def logged(gateway: FakeGateway, *, end: bool = True, **last: Any) -> None:
    """One push's records, each in its function's log, among others'."""
    gateway.logs["gh-push"] = [row(0.5, "queue"), row(1, "queue", sha=OTHER, delivery="d-2")]
    gateway.logs["git-tar"] = [
        "Forking: python index.py",
        row(1, "fetch"),
        "2026/11/22 12:00:00 stdout: " + row(2, "shrinkwrap", function="cart"),
        row(2.5, "fetch", sha=OTHER, delivery="d-2"),
    ]
    gateway.logs["buildshiprun"] = [
        row(2.2, "check", function="cart"),
        row(9, "build", function="cart", seconds=6.5),
        row(11, "deploy", **{"function": "cart", "url": "http://x/function/alice-cart", **last}),
    ]
    if end:
        outcome, error = last.get("outcome", "ok"), last.get("error", "")
        gateway.logs["git-tar"].append(row(12, "push", outcome, error=error))


def trace(gateway: FakeGateway, *arguments: str, tmp_path: Path) -> tuple[int, list[str]]:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    done = CliRunner().invoke(
        main, ("trace", *arguments, "--gateway", gateway.url, "--password-file", str(file))
    )
    return done.exit_code, done.output.splitlines()


@pytest.mark.parametrize("which", [SHA, "ab12", "d-1", "D-1"])
def test_a_push_is_shown_through_all_stages_by_commit_or_delivery(
    which: str, gateway: FakeGateway, tmp_path: Path
) -> None:
    logged(gateway)
    code, lines = trace(gateway, which, tmp_path=tmp_path)
    assert lines[0].startswith("alice/shop at ab12000000, delivery d-1, 20")
    assert lines[1:] == [
        "   0.5 s  gh-push          queued",
        "   1.0 s  fetch            fetched in 0.5 s",
        "   2.0 s  cart             packed in 0.5 s",
        "   9.0 s  cart             built in 6.5 s",
        "  11.0 s  cart             live in 0.5 s  http://x/function/alice-cart",
        "  12.0 s  push             done: everything is live",
    ]
    assert code == 0


def test_a_failure_is_shown_with_the_logs_tail_and_the_exit_status(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    logged(gateway, outcome="failed", error="cart does not start: exit 3", log=["ImportError", "bye"])
    code, lines = trace(gateway, "ab12", tmp_path=tmp_path)
    at = lines.index("  11.0 s  cart             deploy failed: cart does not start: exit 3")
    assert lines[at + 1 : at + 3] == ["            | ImportError", "            | bye"]
    assert code == 1


def test_a_prefix_of_two_commits_is_asked_for_more(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.logs["git-tar"] = [row(1, "fetch"), row(1, "fetch", sha="ab12" + "1" * 36, delivery="d-2")]
    code, [line] = trace(gateway, "ab12", tmp_path=tmp_path)
    assert (code, line.startswith("Error: that is the beginning of 2 commits")) == (1, True)


def test_a_push_that_was_tried_again_is_shown_try_by_try(gateway: FakeGateway, tmp_path: Path) -> None:
    logged(gateway)
    gateway.logs["git-tar"] += [row(30, "fetch", delivery="d-9"), row(31, "push", delivery="d-9")]
    _, lines = trace(gateway, "ab12", tmp_path=tmp_path)
    assert [line.split("delivery ")[1][:3] for line in lines if "delivery " in line] == ["d-1", "d-9"]
    assert lines[-1] == "   1.5 s  push             done: everything is live"


def test_looks_of_reconcile_that_changed_nothing_are_counted_not_shown(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    logged(gateway)
    for number in range(3):
        gateway.logs["git-tar"].append(row(300 + number, "push", delivery=f"reconcile-{number}"))
    healed = {"function": "cart", "delivery": "reconcile-9"}
    gateway.logs["buildshiprun"].append(row(400, "deploy", **healed))
    gateway.logs["git-tar"].append(row(401, "push", delivery="reconcile-9"))
    code, lines = trace(gateway, "ab12", tmp_path=tmp_path)
    assert lines[0] == "reconcile looked 3 times and changed nothing"
    heads = [line for line in lines if "delivery " in line]
    assert ["d-1" in heads[0], "reconcile-9" in heads[1], heads[1].endswith(", by reconcile")] == [True] * 3
    assert (len(heads), code) == (2, 0)
    _, asked = trace(gateway, "reconcile-1", tmp_path=tmp_path)
    assert [line.split(", ")[1] for line in asked if "delivery " in line] == ["delivery reconcile-1"]


def test_where_reconcile_alone_is_known_of_a_commit_its_last_look_is_shown(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    gateway.logs["git-tar"] = [row(at, "push", delivery=f"reconcile-{at}") for at in (1, 2, 3)]
    code, lines = trace(gateway, "ab12", tmp_path=tmp_path)
    assert (code, lines[0], len(lines)) == (0, "reconcile looked 2 times and changed nothing", 3)
    assert "delivery reconcile-3" in lines[1]


def test_a_name_is_no_commit(gateway: FakeGateway, tmp_path: Path) -> None:
    code, lines = trace(gateway, "HEAD", tmp_path=tmp_path)
    said = " ".join(lines)
    assert code == 1
    for part in ("commit's hash", "git rev-parse HEAD", "delivery's id"):
        assert part in said
    assert "--since" not in said


def test_on_the_local_cloud_nobody_is_sent_to_github() -> None:
    assert "GitHub" not in nothing("ffff", 60, on_github=False)
    assert "GitHub" in nothing("ffff", 60, on_github=True)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("n", ": did you mean you-n?"),
        ("git-tra", ": did you mean git-tar?"),
        ("pay", ": did you mean alice-pay or bob-pay?"),
        ("xyzzy", ""),
    ],
)
def test_the_log_of_what_is_not_there_names_what_may_be_meant(
    name: str, meant: str, gateway: FakeGateway, tmp_path: Path
) -> None:
    for each in ("you-n", "git-tar", "alice-pay", "bob-pay"):
        gateway.functions[each] = {"service": each, "image": "i"}
        gateway.logs[each] = ["hello"]
    (file := tmp_path / "password").write_text("s3cret\n")
    options = ("--gateway", gateway.url, "--password-file", str(file))
    done = CliRunner().invoke(main, ("logs", name, *options))
    assert (done.exit_code, done.output) == (1, f"Error: there is no function {name}{meant}\n")
    assert CliRunner().invoke(main, ("logs", "you-n", *options)).output == "hello\n"


def test_what_is_not_found_says_what_to_do(gateway: FakeGateway, tmp_path: Path) -> None:
    code, lines = trace(gateway, "ffff", tmp_path=tmp_path)
    assert code == 1
    said = "\n".join(lines)
    for help_ in ("no record of ffff", "--since", "Advanced", "logs gh-push", "reconcile", "doctor"):
        assert help_ in said


def test_a_log_that_cannot_be_read_is_named_and_the_others_are_shown(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    logged(gateway)
    asked = []

    def refuse(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        asked.append(path)
        return (500, b"no log\n") if len(asked) == 1 else None

    gateway.overrides.append(refuse)
    code, lines = trace(gateway, "ab12", tmp_path=tmp_path)
    assert lines[0].startswith("can't be read: gh-push: ")
    assert lines[-1].endswith("done: everything is live")
    assert code == 0


def test_what_has_not_ended_is_followed_to_its_end(gateway: FakeGateway, tmp_path: Path) -> None:
    logged(gateway, end=False)
    _, lines = trace(gateway, "ab12", tmp_path=tmp_path)
    assert lines[-1] == "it has not ended: go on by `trace -f`"

    def end(method: str, path: str, body: bytes) -> None:
        """The end comes while the logs are followed: the eighth time that one is asked for."""
        if len(gateway.made("GET", "/system/logs")) == 13:
            gateway.logs["git-tar"].append(row(12, "push"))

    gateway.overrides.append(end)
    code, lines = trace(gateway, "ab12", "-f", tmp_path=tmp_path)
    assert lines[-1] == "  12.0 s  push             done: everything is live"
    assert len([line for line in lines if "built in" in line]) == 1, "what was shown is not shown again"
    assert code == 0


@pytest.mark.parametrize("how", [(), ("-f",)], ids=["shown", "followed"])
def test_a_push_whose_beginning_is_gone_is_not_waited_for(
    how: tuple[str, ...], gateway: FakeGateway, tmp_path: Path
) -> None:
    logged(gateway)
    gateway.logs["git-tar"] = []
    code, lines = trace(gateway, "ab12", *how, tmp_path=tmp_path)
    assert lines[-1].startswith("how it ended is not known any more")
    assert code == 0


def test_without_credentials_it_says_how_to_give_them(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFAAS_CONFIG", "/nowhere")
    done = CliRunner().invoke(main, ("trace", "ab12", "--gateway", gateway.url))
    assert done.exit_code == 1
    assert "faas-cli login" in done.output


def test_the_login_of_faas_cli_is_used(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logged(gateway)
    monkeypatch.setenv("OPENFAAS_CONFIG", str(tmp_path))
    token = base64.b64encode(b"admin:s3cret").decode()
    (tmp_path / "config.yml").write_text(
        "auths:\n- gateway: http://elsewhere\n  auth: basic\n  token: eA==\n"
        f"- gateway: {gateway.url}\n  auth: basic\n  token: {token}\n"
    )
    done = CliRunner().invoke(main, ("trace", "ab12", "--gateway", gateway.url + "/"))
    assert "everything is live" in done.output


@pytest.mark.parametrize(
    "config", ["", "auths: 5", "auths: [5]", "auths: [{gateway: URL, token: 1}]", "{", "\x00"]
)
def test_a_config_of_faas_cli_that_is_none_is_as_good_as_none(
    config: str, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENFAAS_CONFIG", str(tmp_path))
    (tmp_path / "config.yml").write_text(config.replace("URL", gateway.url))
    done = CliRunner().invoke(main, ("trace", "ab12", "--gateway", gateway.url))
    assert "no credentials" in done.output


def test_a_cut_stream_is_read_again_and_no_record_comes_twice(gateway: FakeGateway) -> None:
    """The fake's streams end at once, so each is read again and again."""
    logged(gateway)
    client = Gateway(gateway.url, ("admin", "s3cret"))
    found: list[Record] = []
    for record in Follower(client, STARTED, seconds=60):
        if record:
            found.append(record)
        elif len(gateway.made("GET", "/system/logs?name=git-tar")) > 3:
            break
    assert len(found) == 9
    all_, problems = recorded(client, STARTED, lambda record: True)
    assert (len(all_), problems) == (9, [])
