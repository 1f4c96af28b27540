"""A push to the local cloud shows its checks: the real functions, and the real play of GitHub beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import github_status.handler
from github_status.report import Memory

from . import test_pipeline
from .played import Played
from .test_github_status import TELLING, readable, settled
from .test_pipeline import HANDLER, Cloud, files

cloud = test_pipeline.cloud
REPOSITORY = 7  # as in the pushes of test_pipeline


@pytest.fixture
def played(
    cloud: Cloud, tmp_path: Path, secret_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Played]:
    """It knows the very repository that is pushed."""
    made = Played(tmp_path)
    made.knows(cloud.origin.bare, REPOSITORY)
    (secret_folder / "private-key").write_bytes(made.key)
    monkeypatch.setenv("github_app_id", "1")
    monkeypatch.setenv("report_status", "true")
    monkeypatch.setattr(github_status.handler, "MEMORY", Memory())
    readable(cloud, monkeypatch)
    with made.serving() as url:
        monkeypatch.setenv("github_api_url", url)
        yield made
        settled()
    made.store.close()


def push(cloud: Cloud, changes: dict[str, str]) -> tuple[int, str]:
    sha = cloud.origin.commit(changes)
    status, _ = cloud.push(sha, scm="local")
    settled()
    return status, sha


def test_a_push_that_goes_well_shows_where_each_function_answers(cloud: Cloud, played: Played) -> None:
    status, sha = push(cloud, files("one", "two"))
    assert status == 200
    assert played.shown("alice/hello", sha) == {"stack-deploy": "success", "one": "success", "two": "success"}
    html = played.page(f"/alice/hello/commit/{sha[:10]}")
    for name in ("one", "two"):
        assert f'/function/alice-{name}" rel=' in html
    assert html.count('<section class="success">') == 3
    assert "| build | ok |" in html
    assert f"/alice/hello/commit/{sha}" in played.page("/")


def test_a_build_that_fails_shows_the_end_of_its_log(cloud: Cloud, played: Played) -> None:
    cloud.builder.failing["one"] = [{"status": "failed", "error": "exit code: 2", "code": "failed"}]
    sha = cloud.origin.commit(files("one"))
    log = "<script>\nmake: no rule\n"
    cloud.builder.logs[f"registry:5000/local/3/7/one:{sha}"] = (log, True)
    assert cloud.push(sha, scm="local")[0] == 422
    settled()
    assert played.shown("alice/hello", sha) == {"stack-deploy": "failure", "one": "failure"}
    html = played.page(f"/alice/hello/commit/{sha}")
    assert "build failed: exit code: 2" in html
    assert "&lt;script&gt;\nmake: no rule" in html
    cloud.builder.failing.clear()
    assert push(cloud, {"one/handler.py": HANDLER + "# again\n"})[0] == 200
    assert played.shown("alice/hello", sha)["one"] == "failure", "that commit's end stays"


def test_a_play_that_was_made_anew_is_told_again(
    cloud: Cloud, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--no-github`, then `--github`: another database, and nobody knows the tokens of before."""
    _, sha = push(cloud, files("one"))
    anew = Played(played.root.parent / "anew")
    anew.knows(cloud.origin.bare, REPOSITORY)
    with anew.serving() as url:
        monkeypatch.setenv("github_api_url", url)
        assert cloud.push(sha, scm="local", delivery="reconcile-1", periodic=True)[0] == 200
        settled()
    assert anew.shown("alice/hello", sha) == {"stack-deploy": "success", "one": "success"}
    anew.store.close()


def test_a_push_is_as_good_while_the_play_is_away(
    cloud: Cloud, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("github_api_url", "http://127.0.0.1:1")
    for module in TELLING:
        monkeypatch.setattr(module, "_TRY_SECONDS", 0.1)
    assert push(cloud, files("one"))[0] == 200
    assert set(cloud.live) == {"alice-one"}
