"""The rules that keep neighbours from the cloud's containers, with a stand-in for iptables.

That they keep them out is tested by tests/e2e/test_moving.py.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local import firewall

# Rules of one chain, a line each.
IPTABLES = """#!/bin/sh
shift 2
verb=$1 chain=$2
shift 2
[ "$chain" = DOCKER-USER ] && [ -e rules ] || exit 1
case $verb in
  -S) cat rules ;;
  -C) grep -Fxq -e "$*" rules ;;
  -I) echo "$*" >>rules ;;
  -D) grep -Fxv -e "$*" rules >left; mv left rules ;;
esac
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "iptables"
    program.write_text(IPTABLES)
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (tmp_path / "rules").touch()
    return tmp_path / "rules"


def an_engine(api: str = "1.45") -> Any:
    return SimpleNamespace(version=lambda: {"ApiVersion": api})


def test_each_rule_is_there_once_and_goes(rules: Path) -> None:
    rules.write_text("-j RETURN\n")
    for _ in range(2):
        firewall.ensure(an_engine())
    lines = rules.read_text().splitlines()
    assert lines == ["-j RETURN", *(" ".join(rule) for rule in firewall.RULES)]
    firewall.remove()
    assert rules.read_text() == "-j RETURN\n"


def test_a_docker_that_sees_to_it_needs_none(rules: Path) -> None:
    firewall.ensure(an_engine("1.48"))
    assert rules.read_text() == ""


def test_a_docker_that_forwards_nothing_needs_none(rules: Path) -> None:
    rules.unlink()
    firewall.ensure(an_engine())
    firewall.remove()
    assert not rules.exists()


def test_without_root_it_is_told(
    rules: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    firewall.ensure(an_engine())
    assert "can reach the cloud's containers" in capsys.readouterr().err
    assert rules.read_text() == ""
