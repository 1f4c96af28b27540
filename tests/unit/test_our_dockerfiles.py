"""Our own Dockerfiles: a changed source is one small layer, and what is installed is kept in a cache."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import dockerfile
import pytest

from tests.conftest import ROOT

FILES = (
    *(
        ROOT / folder / "Dockerfile"
        for folder in ("of-builder", "registry", "local/gateway", "local/gitserver", "local/github")
    ),
    *sorted(ROOT.glob("local/template/*/Dockerfile")),
)
INSTALLS = re.compile(r"\bpip (?:install|wheel|download)\b|\bnpm (?:install|ci)\b|\bgo mod download\b")
# What says which packages there are, and changes as seldom.
LISTS = re.compile(r"(?:.*/)?(?:requirements\.txt|.*\.yml)")


def commands(file: Path) -> Sequence[dockerfile.Command]:
    found: Sequence[dockerfile.Command] = dockerfile.parse_string(file.read_text())
    return found


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=shown)
def test_nothing_is_run_after_a_source_was_copied(file: Path) -> None:
    has_source = False
    for command in commands(file):
        if command.cmd.upper() == "FROM":
            has_source = False
        elif command.cmd.upper() == "COPY":
            has_source = has_source or not all(map(LISTS.fullmatch, command.value[:-1]))
        assert not (has_source and command.cmd.upper() == "RUN"), f"line {command.start_line}"


@pytest.mark.parametrize("file", FILES, ids=shown)
def test_dependencies_are_installed_with_a_cache(file: Path) -> None:
    runs = [command for command in commands(file) if command.cmd.upper() == "RUN"]
    installs = [command for command in runs if INSTALLS.search(" ".join(command.value))]
    assert installs
    for command in installs:
        cached = any(flag.startswith("--mount=type=cache,") for flag in command.flags)
        # What an earlier stage has downloaded needs none.
        assert cached or "--no-index" in " ".join(command.value), f"line {command.start_line}"


@pytest.mark.parametrize("file", sorted(ROOT.glob("local/template/*/Dockerfile")), ids=shown)
def test_the_handler_is_what_a_template_copies_last(file: Path) -> None:
    copied = [command.value for command in commands(file) if command.cmd.upper() == "COPY"]
    assert copied[-1] == ("function/", "function/")
    assert all(
        LISTS.fullmatch(source) for *sources, _ in copied[:-1] for source in sources if "function" in source
    )
