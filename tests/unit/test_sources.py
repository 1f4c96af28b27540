"""git-tar's template sources: fetched once, refreshed by age, pinned by commit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from git_tar import fetch
from git_tar.sdk.errors import Misconfigured, Unavailable
from git_tar.sdk.settings import Seconds, Settings
from git_tar.sources import Sources
from tests.repositories import Origin

FILES = {"template/python3-http/template.yml": "language: python3-http\n", "template/go/template.yml": ""}


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path / "cache")


def settings(*sources: str, age: float = 600) -> Settings:
    return Settings(custom_templates=sources, template_max_age=Seconds(age))


def test_languages_of_a_repository_are_pinned_by_commit(origin: Origin, sources: Sources) -> None:
    commit = origin.commit(FILES)
    found = sources.languages(settings(origin.url))
    assert set(found) == {"python3-http", "go"}
    assert (found["go"].origin.source, found["go"].origin.commit) == (origin.url, commit)
    assert (found["go"].folder / "template.yml").is_file()


def test_a_source_is_not_fetched_for_every_push(
    origin: Origin, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 19: three template repositories were cloned for every push."""
    origin.commit(FILES)
    sources.languages(settings(origin.url))
    monkeypatch.setattr(fetch, "head", lambda *_, **__: pytest.fail("it was asked again"))
    assert sources.languages(settings(origin.url))


def test_an_old_copy_is_refreshed_and_kept_if_that_fails(origin: Origin, sources: Sources) -> None:
    origin.commit(FILES)
    sources.languages(settings(origin.url, age=0))
    commit = origin.commit({"template/node/template.yml": ""})
    found = sources.languages(settings(origin.url, age=0))
    assert found["node"].origin.commit == commit
    shutil.move(origin.bare, origin.bare.with_suffix(".away"))
    assert sources.languages(settings(origin.url, age=0))["node"].origin.commit == commit


def test_a_branch_a_tag_or_a_commit_can_be_named(origin: Origin, sources: Sources) -> None:
    first = origin.commit(FILES)
    origin.git("push", "--quiet", origin.url, f"{first}:refs/tags/v1")
    second = origin.commit({"template/node/template.yml": ""}, "refs/heads/next")
    for ref, commit in {"v1": first, "next": second, f"sha-{first}": first}.items():
        found = sources.languages(settings(f"{origin.url}#{ref}"))
        assert found["go"].origin.commit == commit
        assert ("node" in found) == (commit == second)


def test_of_two_sources_the_first_wins_and_folders_are_taken_as_they_are(
    origin: Origin, sources: Sources, tmp_path: Path
) -> None:
    origin.commit(FILES)
    mine = tmp_path / "mine" / "template" / "go"
    mine.mkdir(parents=True)
    found = sources.languages(settings(str(tmp_path / "mine"), origin.url))
    assert found["go"].folder == mine
    assert found["python3-http"].folder != mine


def test_old_commits_do_not_pile_up(origin: Origin, sources: Sources) -> None:
    for number in range(5):
        origin.commit({**FILES, "n": str(number)})
        sources.languages(settings(origin.url, age=0))
    [folder] = sources.root.iterdir()
    assert len(list(folder.iterdir())) <= 3


def test_a_source_that_is_not_there_is_unavailable_and_a_ref_is_the_operators(
    origin: Origin, sources: Sources
) -> None:
    with pytest.raises(Unavailable):
        sources.languages(settings("http://127.0.0.1:9/a/b.git"))
    origin.commit(FILES)
    with pytest.raises(Misconfigured, match="has no nope"):
        sources.languages(replace(settings(), custom_templates=(f"{origin.url}#nope",)))
