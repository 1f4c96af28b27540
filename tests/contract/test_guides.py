"""The install guides, followed from their first command to the first push (tests/guides.py says how).

Commands of kubectl, helm, faas-cli, docker and curl, and the blocks for other machines, are checked by their
form and by the files that they name: no cluster is here. Everything else really runs.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from local.state import State
from local.up import _how_to_join
from tests.commands import blocks
from tests.conftest import ROOT
from tests.guides import FAASD, KUBERNETES, MACHINE, RUN, SWARM, Run


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
