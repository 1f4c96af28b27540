from __future__ import annotations

import time
from pathlib import Path

import pytest

from sdk import secrets
from sdk.errors import Misconfigured


def test_the_lines_of_a_file_are_its_keys(tmp_path: Path) -> None:
    (tmp_path / "payload-secret").write_text("new\n\n  old  \n")
    assert secrets.read("payload-secret", str(tmp_path)).lines == (b"new", b"old")


@pytest.mark.usefixtures("rotating")
def test_a_file_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("github_webhook_secret", "from-github.yml")
    fallback = secrets.read("github-webhook-secret", str(tmp_path), fallback="github_webhook_secret")
    assert fallback.signing == b"from-github.yml"
    (tmp_path / "github-webhook-secret").write_text("from-file")
    found = secrets.read("github-webhook-secret", str(tmp_path), fallback="github_webhook_secret")
    assert found.signing == b"from-file"


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_a_missing_or_empty_secret_says_which(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "payload-secret").write_text(content)
    with pytest.raises(Misconfigured, match="payload-secret is missing"):
        secrets.read("payload-secret", str(tmp_path))


def test_no_value_shows_in_a_repr(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("hunter2")
    keys = secrets.read("s", str(tmp_path))
    assert "hunter2" not in f"{keys!r} {keys} {[keys]}"


def test_a_changed_secret_is_read_soon_and_not_at_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    (tmp_path / "s").write_text("old")
    assert secrets.content("s", str(tmp_path)) == b"old"
    (tmp_path / "s").write_text("new")
    now += secrets.LOOK_SECONDS / 2
    assert secrets.content("s", str(tmp_path)) == b"old", "read again"
    now += secrets.LOOK_SECONDS
    assert secrets.content("s", str(tmp_path)) == b"new"
    (tmp_path / "s").unlink()
    now += secrets.LOOK_SECONDS
    assert secrets.content("s", str(tmp_path)) is None
