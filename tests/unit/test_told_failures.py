"""What docs/repositories.md says of a push that failed is what the functions say."""

from __future__ import annotations

import re

from tests.conftest import ROOT

TABLE = re.compile(r"^\| what it says \|.*\n.*\n((?:\|.*\n)+)", re.MULTILINE)
# Two pieces of one text, on two lines of source.
CONTINUED = re.compile(r"""["']\n\s*f?["']""")
# A stage and its outcome; a file's name and a line of it.
COMPOSED = {"build failed", "stack.yml: line"}
FOLDERS = ("sdk", "gh-push", "git-tar", "buildshiprun", "garbage-collect")


def test_each_message_is_in_the_source() -> None:
    table = TABLE.search((ROOT / "docs" / "repositories.md").read_text())
    assert table
    messages = [text for row in table[1].splitlines() for text in re.findall(r"`([^`]+)`", row.split("|")[1])]
    source = "".join(file.read_text() for folder in FOLDERS for file in sorted((ROOT / folder).glob("*.py")))
    source = CONTINUED.sub("", source)
    # Between "…" stand names and numbers.
    pieces = {piece.strip(" :;") for text in messages for piece in text.split("…")} - COMPOSED
    assert len(pieces) > 12
    assert {piece for piece in pieces if piece not in source} == set()
