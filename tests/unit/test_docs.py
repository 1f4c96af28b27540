"""What the docs name is there: the tests of docs/guarantees.md, and whatever a link leads to."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

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
