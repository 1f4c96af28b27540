"""What the doctor makes of timeouts, and how it shows what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import buildshiprun.handler
import git_tar.pipeline
from local.doctor import chain, machine
from local.doctor.chain import Chain
from local.doctor.findings import Finding, are_fine, fail, ok, summary, unseen, warn
from sdk import checkup, settings, stack
from tests.conftest import ROOT

WATCHDOG = ("read_timeout", "write_timeout", "exec_timeout")


def functions(**changed: float | None) -> Mapping[str, Mapping[str, float]]:
    """Those of stack.yml and the settings; `git_tar__exec_timeout=60` changes one, None removes it."""
    found: dict[str, dict[str, float]] = {}
    for function in stack.parse((ROOT / "stack.yml").read_bytes()).functions:
        given = {key: float(settings.seconds(function.environment[key])) for key in WATCHDOG}
        found[function.name] = {**checkup.timeouts(settings.Settings()), **given}
    for key, value in changed.items():
        name, _, setting = key.partition("__")
        found[name.replace("_", "-")].pop(setting)
        if value is not None:
            found[name.replace("_", "-")][setting] = value
    return found


def levels(examined: Chain) -> set[str]:
    return {finding.level for finding in examined.findings()}


def faults(examined: Chain) -> list[str]:
    return [finding.line for finding in examined.findings() if finding.level == "fail"]


def test_what_stack_yml_deploys_is_fine() -> None:
    assert levels(Chain(functions(), gateway=960)) == {"ok"}


def test_the_constants_are_those_of_the_functions() -> None:
    assert chain.SHIP_SECONDS == git_tar.pipeline.SHIP_SECONDS
    assert chain.COLLECT_SECONDS == buildshiprun.handler.COLLECT_SECONDS


@pytest.mark.parametrize(
    ("examined", "said"),
    [
        (
            Chain(functions(git_tar__exec_timeout=60), 960),
            "git-tar: exec_timeout is 60 s, its longest call takes 780",
        ),
        (Chain(functions(buildshiprun__write_timeout=None), 960), "buildshiprun: write_timeout is not set"),
        (Chain(functions(garbage_collect__read_timeout=10), 960), "garbage-collect: read_timeout is 10 s"),
        (
            Chain(functions(git_tar__push_timeout=1000), 1200),
            "git-tar: read_timeout is 900 s, write_timeout is 900",
        ),
        (Chain(functions(buildshiprun__build_timeout=250), 960), "310 s together, git-tar waits 300 s"),
        (
            Chain(functions(buildshiprun__message_max_age=600), 960),
            "message_max_age is 600 s, less than a push",
        ),
        (Chain(functions(), 60), "the gateway ends calls after 60 s, a push takes up to 780 s"),
        (Chain(functions(), 0, {"git-tar": "no answer: timed out"}), "780 s did not come through: no answer"),
    ],
)
def test_a_timeout_that_is_too_short_is_found_with_its_remedy(examined: Chain, said: str) -> None:
    assert [line for line in faults(examined) if said in line and " → " in line], faults(examined)


def test_what_is_not_known_is_neither_fine_nor_a_fault() -> None:
    assert levels(Chain({})) == {"unseen"}
    lines = "\n".join(finding.line for finding in Chain({}).findings())
    for name in ("upstream_timeout", "ack_wait", "the watchdog's of git-tar"):
        assert name in lines
    assert "doctor --measure" in lines


def test_what_was_measured_is_told() -> None:
    lines = [finding.line for finding in Chain(functions(), 0, {"git-tar": ""}).findings()]
    assert "ok     timeouts     a call of git-tar that took 780 s came through the gateway" in lines


def test_a_finding_is_one_line_that_no_terminal_obeys() -> None:
    assert fail("x", "why\nnot \x1b[31m", "do").line == "fail   x            why not \ufffd[31m → do"
    assert ok("x", "y").line == "ok     x            y"
    assert unseen("x", "y", "z").line == "unseen x            can't be seen from here: y → z"


@pytest.mark.parametrize(
    ("found", "fine"),
    [
        ([ok("a", "b")], True),
        ([ok("a", "b"), unseen("a", "b", "c")], True),
        ([ok("a", "b"), warn("a", "b", "c")], False),
        ([fail("a", "b", "c")], False),
    ],
)
def test_only_what_is_to_mend_or_to_look_at_is_not_fine(found: list[Finding], fine: bool) -> None:
    assert are_fine(found) is fine


def test_the_summary_counts() -> None:
    assert summary([ok("a", "b"), ok("a", "b"), fail("a", "b", "c")]) == "2 fine, 1 to mend"


def test_a_disk_that_is_full_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LEAST_FREE", 0)
    assert [finding.level for finding in machine.disk(str(tmp_path))] == ["ok"]
    monkeypatch.setattr(machine, "LEAST_FREE", 2**60)
    assert [finding.level for finding in machine.disk(str(tmp_path))] == ["warn"]
    assert [finding.level for finding in machine.disk("/nowhere")] == ["unseen"]
