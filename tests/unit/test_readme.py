"""README is short, and shows and names what is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sdk import stack
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PICTURE = ROOT / "docs" / "pipeline.svg"
SVG = "{http://www.w3.org/2000/svg}"
LINES = 200


def folders() -> list[str]:
    """Those at the top of what git has, or would have."""
    listed = ("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({file.partition("/")[0] for file in files if "/" in file and (ROOT / file).exists()})


def test_it_is_read_in_a_few_minutes() -> None:
    assert len(README.splitlines()) <= LINES


def test_every_folder_is_named() -> None:
    missing = [folder for folder in folders() if f"`{folder}/`" not in README]
    assert len(folders()) > 10
    assert not missing


def test_every_picture_is_there_and_says_what_it_shows() -> None:
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", README)
    assert [Path(path) for _, path in pictures] == [PICTURE.relative_to(ROOT)]
    assert all(len(text.split()) > 5 for text, _ in pictures)


@pytest.fixture(scope="module")
def picture() -> ElementTree.Element:
    return ElementTree.fromstring(PICTURE.read_bytes())


def test_the_picture_has_every_function(picture: ElementTree.Element) -> None:
    shown = {text.text for text in picture.iter(f"{SVG}text")}
    ours = {function.name for function in stack.parse((ROOT / "stack.yml").read_bytes()).functions}
    assert ours <= shown


def test_the_picture_is_told_to_whoever_does_not_see_it(picture: ElementTree.Element) -> None:
    told = {child.get("id"): child.text for child in picture if child.tag in (f"{SVG}title", f"{SVG}desc")}
    assert picture.get("role") == "img"
    assert all(told[name] for name in str(picture.get("aria-labelledby")).split())


def test_the_picture_needs_nothing_from_elsewhere_and_is_for_light_and_dark() -> None:
    text = PICTURE.read_text()
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(r"(?:href|src)=|@import|url\((?!#)", text)
