"""The layout in which the functions are imported, as the template gives it to them."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from local.staging import stage


def test_what_was_looked_for_before_it_was_staged_is_found(tmp_path: Path) -> None:
    """As by pytest in a fresh clone, where `.cloud` is not there yet."""
    target = tmp_path / "staged"
    assert PathFinder.find_spec("gh_push", [str(target)]) is None
    assert PathFinder.find_spec("gh_push", [str(stage(target))])
