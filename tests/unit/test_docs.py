"""What the docs name is there: tests of docs/guarantees.md, what links lead to, and what commands name.

The commands of the install guides really run, in tests/contract/test_guides.py.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.commands import blocks, commands, inline, local_arguments, problem_with, targets
from tests.conftest import ROOT

GUARANTEES = ROOT / "docs" / "guarantees.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
# A row of a table of promises: promise, but, held by.
_PROMISE = re.compile(
    r"^\| (?P<promise>[^|]+) \|(?P<but>[\d, ]*)\| (?P<held>[^|]*tests/[^|]*) \|$", re.MULTILINE
)


@cache
def names_of(file: Path) -> frozenset[str]:
    """The names that pytest collects."""
    tree = ast.parse(file.read_bytes())
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    )


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings: lower case, dashes for blanks, without other signs."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings)


def test_each_promise_is_held_by_a_test_that_is_there() -> None:
    text = GUARANTEES.read_text()
    named = _TEST.findall(text)
    assert len(named) > 50
    assert len(named) == text.count("::"), "each is written as `tests/FILE.py::NAME`"
    missing = [f"{file}::{name}" for file, name in named if name not in names_of(ROOT / file)]
    assert not missing


def test_each_promise_says_where_it_is_weaker() -> None:
    text = GUARANTEES.read_text()
    known = set(re.findall(r"^\| (\d+) \|", text, re.MULTILINE))
    used = {number for row in _PROMISE.finditer(text) for number in re.findall(r"\d+", row["but"])}
    assert used == known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors_of(target), link


ON_PAGES = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
# What a block makes, or what stands for somebody else's.
_MADE = ("secrets/", "of-builder/tls", "bench/RESULTS.md", "template/", ".cloud/", ".venv/")
# The function that CONTRIBUTING has its readers add.
_ADDED = ("count/", "tests/contract/test_count.py")
_FOLDERS = frozenset(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
_WORD = re.compile(r"[\w.-]+(?:/[\w.-]+)+")


def shown(page: Path) -> Iterator[Sequence[str]]:
    """Every command of a page: of its blocks, and between backticks."""
    yield from commands(page)
    yield from inline(page)


@ON_PAGES
def test_a_command_of_ours_is_understood_as_it_is_shown(page: Path) -> None:
    problems = []
    for words in shown(page):
        arguments = local_arguments(words)
        if arguments is None or not arguments:
            continue
        # Tables and synopses: COMMAND, `queue [--json]`, `SHA|DELIVERY`.
        if arguments[0].isupper() or any(word[0] in "[<…" for word in arguments if word):
            continue
        if problem := problem_with(arguments):
            problems.append(problem)
    assert not problems


def test_commands_are_found_wherever_they_stand() -> None:
    """Else the tests here would hold whatever the pages say."""
    found = [words for page in PAGES for words in shown(page)]
    ours = {arguments[0] for words in found if (arguments := local_arguments(words))}
    assert {"doctor", "github-app", "link", "seal", "trace", "metrics", "collect", "up"} <= ours
    assert len([words for words in found if words[0] == "make"]) > 10
    assert problem_with(["doctor", "--gatewax", "URL"])
    assert problem_with(["doctr"])
    assert problem_with(["secret", "set", "a", "b", "c"])
    assert not problem_with(["doctor", "--gateway", "URL"])


@ON_PAGES
def test_make_makes_what_a_page_says(page: Path) -> None:
    for words in shown(page):
        if words[0] == "make":
            asked = [word for number, word in enumerate(words) if number and words[number - 1] != "-C"]
            goals = {word for word in asked if "=" not in word and not word.startswith("-")}
            assert goals <= targets(), words


@ON_PAGES
def test_a_file_that_a_command_names_is_there(page: Path) -> None:
    missing = []
    for words in shown(page):
        for word in (part for whole in words for part in _WORD.findall(whole)):
            if word.partition("/")[0] not in _FOLDERS or word.startswith(_MADE + _ADDED):
                continue
            if not (ROOT / word.rstrip(".")).exists():
                missing.append((" ".join(words), word))
    assert not missing


@ON_PAGES
def test_bash_understands_each_block_of_commands(page: Path) -> None:
    for kind, text in blocks(page):
        if kind.partition(" ")[0] == "sh":
            done = subprocess.run(("bash", "-n"), input=text, capture_output=True, text=True)
            assert done.returncode == 0, text + done.stderr


def test_each_secret_of_the_functions_is_in_the_docs_with_all_that_take_it() -> None:
    """Those that stack.yml has, and those that it has a line for."""
    text = (ROOT / "stack.yml").read_text().replace("      # - ", "      - ")
    functions = yaml.safe_load(text)["functions"]
    taken: dict[str, set[str]] = {}
    for name, row in functions.items():
        for secret in row["secrets"]:
            taken.setdefault(secret, set()).add(name)
    docs = (ROOT / "docs" / "settings.md").read_text()
    rows = re.findall(
        r"^\| (`[a-z`, -]+`) \| ([^|]+) \| [^|]+ \|$", docs[docs.index("## Secrets") :], re.MULTILINE
    )
    listed: dict[str, set[str]] = {}
    for names, users in rows:
        for secret in re.findall(r"`([a-z-]+)`", names):
            listed.setdefault(secret, set()).update(set(re.split(r", ", users)) & functions.keys())
    assert {secret: users for secret, users in listed.items() if secret in taken} == taken
