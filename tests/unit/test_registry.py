"""What the registry keeps."""

from __future__ import annotations

import os
from pathlib import Path

from registry.serve import tidy


def tag(repositories: Path, repository: str, name: str, pushed: float | None) -> Path:
    """A tag as the registry has it on disk."""
    folder = repositories / repository / "_manifests" / "tags" / name
    (folder / "current").mkdir(parents=True)
    if pushed is not None:
        link = folder / "current" / "link"
        link.write_text("sha256:1")
        os.utime(link, (pushed, pushed))
    return folder


def test_the_newest_tags_of_each_repository_stay(tmp_path: Path) -> None:
    deep = [tag(tmp_path, "local/1/2/hello", f"t{age}", 1_000 - age) for age in range(5)]
    other = tag(tmp_path, "local/1/2/other", "old", 1)
    broken = tag(tmp_path, "local/1/2/hello", "broken", None)
    assert set(tidy(tmp_path, 3)) == {*deep[3:], broken}
    assert [folder.exists() for folder in (*deep, other, broken)] == [True] * 3 + [False] * 2 + [True, False]
    assert tidy(tmp_path, 3) == []
