"""git-tar's template sources: fetched once, refreshed by age, pinned by commit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from git_tar import template_cache as module
from git_tar.fetch import Client
from git_tar.mirrors import Mirrors
from git_tar.sdk import stack
from git_tar.sdk.errors import CloudError, Failed, Misconfigured, Refused, Unavailable
from git_tar.sdk.settings import Seconds, Settings
from git_tar.sdk.shrinkwrap import shrinkwrap
from git_tar.sdk.stack import Configuration, Function, TemplateSource
from git_tar.sources import Language, held, is_allowed
from git_tar.template_cache import TemplateCache
from tests.conftest import DATA
from tests.repositories import Origin

from .differences import TEMPLATES

FILES = {"template/python3-http/template.yml": "language: python3-http\n", "template/go/template.yml": ""}


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> TemplateCache:
    return TemplateCache(tmp_path / "cache", Mirrors(tmp_path / "mirrors"))


def settings(*sources: str, age: float = 600, allowed: str = "") -> Settings:
    return Settings(
        custom_templates=sources,
        template_max_age=Seconds(age),
        allowed_template_sources=(allowed,) if allowed else (),
    )


def language(cache: TemplateCache, lang: str, settings: Settings, **named: str) -> Language:
    """`named`: the sources of the stack's `configuration.templates`, `_at_` for @."""
    rows = tuple(TemplateSource(name.replace("_at_", "@"), source) for name, source in named.items())
    with held(cache, Configuration(templates=rows), settings) as sources:
        found = sources.language(Function("f", lang=lang))
    assert found
    return found


def test_a_language_of_a_repository_is_pinned_by_commit(origin: Origin, cache: TemplateCache) -> None:
    commit = origin.commit(FILES)
    found = language(cache, "go", settings(origin.url))
    assert (found.origin.source, found.origin.commit) == (origin.url, commit)
    assert (found.folder / "template.yml").is_file()


def test_a_source_is_not_fetched_for_every_push(
    origin: Origin, cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flaw 19: three template repositories were cloned for every push."""
    origin.commit(FILES)
    language(cache, "go", settings(origin.url))
    monkeypatch.setattr(Client, "run", lambda *_, **__: pytest.fail("git was run again"))
    assert language(cache, "python3-http", settings(origin.url))


def test_an_old_copy_is_refreshed_and_kept_if_that_fails(origin: Origin, cache: TemplateCache) -> None:
    origin.commit(FILES)
    language(cache, "go", settings(origin.url, age=0))
    commit = origin.commit({"template/node/template.yml": ""})
    assert language(cache, "node", settings(origin.url, age=0)).origin.commit == commit
    shutil.move(origin.bare, origin.bare.with_suffix(".away"))
    assert language(cache, "node", settings(origin.url, age=0)).origin.commit == commit


def test_a_branch_a_tag_or_a_commit_can_be_named(origin: Origin, cache: TemplateCache) -> None:
    first = origin.commit(FILES)
    origin.git("push", "--quiet", origin.url, f"{first}:refs/tags/v1")
    origin.git("-c", "user.name=a", "-c", "user.email=a@b", "tag", "--annotate", "--message=x", "v2", first)
    origin.git("push", "--quiet", origin.url, "refs/tags/v2")
    second = origin.commit({"template/node/template.yml": ""}, "refs/heads/next")
    refs = {"v1": first, "v2": first, "next": second, f"sha-{first}": first, f"sha-{first[:7]}": first}
    for ref, commit in refs.items():
        found = language(cache, "go", settings(f"{origin.url}#{ref}"))
        assert found.origin.commit == commit
        assert (found.folder.parent / "node").exists() == (commit == second)


def test_of_two_sources_the_first_wins_and_folders_are_taken_as_they_are(
    origin: Origin, cache: TemplateCache, tmp_path: Path
) -> None:
    origin.commit(FILES)
    mine = tmp_path / "mine" / "template" / "go"
    mine.mkdir(parents=True)
    both = settings(str(tmp_path / "mine"), origin.url)
    assert language(cache, "go", both).folder == mine
    assert language(cache, "python3-http", both).folder != mine


def test_an_unknown_language_names_those_there_are(origin: Origin, cache: TemplateCache) -> None:
    origin.commit(FILES)
    with pytest.raises(Failed, match="f: lang 'cobol' is unknown; the languages here are: go, python3-http"):
        language(cache, "cobol", settings(origin.url))
    with pytest.raises(Failed, match="f: lang is missing"):
        language(cache, "", settings(origin.url))


def test_a_stack_may_pin_the_operators_source_but_name_no_other(origin: Origin, cache: TemplateCache) -> None:
    """Flaw 7: a user's stack.yml could make git-tar clone any template URL."""
    first = origin.commit(FILES)
    second = origin.commit({"template/node/template.yml": ""})
    here = settings(origin.url)
    assert language(cache, "go", here, go=f"{origin.url}#sha-{first}").origin.commit == first
    assert language(cache, "go", here, go="https://evil.example/t").origin.commit == second
    with pytest.raises(Failed, match=r"its source https://evil\.example/t is not allowed: setting allowed_"):
        language(cache, "cobol", here, cobol="https://evil.example/t")


def test_a_source_that_is_allowed_wins_over_the_operators_templates(
    origin: Origin, cache: TemplateCache, tmp_path: Path
) -> None:
    origin.commit(FILES)
    other = Origin(tmp_path / "other")
    commit = other.commit(FILES)
    here = settings(origin.url, allowed=other.url)
    assert language(cache, "go", here, go=other.url).origin.commit == commit
    assert language(cache, "python3-http", here, go=other.url).origin.source == origin.url
    with pytest.raises(Failed, match="has no template cobol; it has: go, python3-http"):
        language(cache, "cobol", here, cobol=other.url)
    with pytest.raises(Failed, match="there is no nope"):
        language(cache, "go", here, go=f"{other.url}#nope")


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("https://github.com/openfaas/templates", True),
        ("https://github.com/openfaas/templates.git#v1", True),
        ("https://github.com/openfaas/templates-evil", False),
        ("https://github.com/team/any.git#sha-1234567", True),
        ("https://github.com/team", False),
        ("https://github.com/teamsters/any.git", False),
        ("https://user@github.com/team/any.git", False),
        ("https://github.com/team/../other/any", False),
        ("/etc", False),
        ("/templates", False),
        ("ext::sh -c id", False),
        ("--upload-pack=id", False),
        ("", False),
    ],
)
def test_which_sources_a_stack_may_name(source: str, allowed: bool) -> None:
    custom = ("https://github.com/openfaas/templates.git", "/templates")
    table = Settings(custom_templates=custom, allowed_template_sources=("https://github.com/team/*",))
    assert is_allowed(source, table) is allowed


def test_what_no_push_reads_any_more_goes(
    origin: Origin, cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TREES", 3)
    for number in range(6):
        origin.commit({**FILES, "n": str(number)})
        language(cache, "go", settings(origin.url, age=0))
        for tree in cache.root.glob("*/*"):
            os.utime(tree, (1_000, 1_000))
    assert len(list(cache.root.glob("*/*"))) == 3


def test_what_a_push_reads_stays_until_it_ends(
    origin: Origin, cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TREES", 1)
    origin.commit(FILES)
    with held(cache, Configuration(), settings(origin.url)) as sources:
        first = sources.language(Function("f", lang="go"))
        origin.commit({**FILES, "n": "1"})
        second = language(cache, "go", settings(origin.url, age=0))
        assert first
        assert first.folder.exists()
        assert second.folder.exists()
    origin.commit({**FILES, "n": "2"})
    third = language(cache, "go", settings(origin.url, age=0))
    assert [tree.folder.exists() for tree in (first, second, third)] == [False, False, True]


def test_one_stack_names_a_few_sources_only(origin: Origin, cache: TemplateCache) -> None:
    shas = [origin.commit({**FILES, "n": str(number)}) for number in range(7)]
    here = settings(origin.url)
    with held(cache, Configuration(), here) as sources:
        for sha in shas[:5]:
            assert sources.language(Function("f", lang=f"go@sha-{sha}"))
        with pytest.raises(Refused, match="one stack may name 5 sources"):
            sources.language(Function("f", lang=f"go@sha-{shas[6]}"))
        assert sources.language(Function("f", lang="go"))


def test_a_commit_of_no_branch_or_tag_is_not_taken(origin: Origin, cache: TemplateCache) -> None:
    """Servers hand out commits of a repository's forks: anybody could bring templates in by a pin."""
    origin.commit(FILES)
    evil = origin.commit({"template/go/Dockerfile": "FROM evil"}, "refs/heads/evil")
    origin.delete("refs/heads/evil")
    for pin in (evil, evil[:8]):
        with pytest.raises(Failed, match=f"there is no template go at sha-{pin}"):
            language(cache, f"go@sha-{pin}", settings(origin.url))


def test_what_is_not_there_is_not_looked_for_with_every_push(
    origin: Origin, cache: TemplateCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.commit(FILES)
    for _ in range(2):
        with pytest.raises(Failed, match="there is no template go at nope"):
            language(cache, "go@nope", settings(origin.url))
        monkeypatch.setattr(Client, "run", lambda *_, **__: pytest.fail("git was run again"))


def test_a_source_that_is_not_there_is_unavailable_and_a_ref_is_the_operators(
    origin: Origin, cache: TemplateCache
) -> None:
    with pytest.raises(Unavailable):
        language(cache, "go", settings("http://127.0.0.1:9/a/b.git"))
    origin.commit(FILES)
    with pytest.raises(Misconfigured, match="there is no nope"):
        language(cache, "go", replace(settings(), custom_templates=(f"{origin.url}#nope",)))


PULLS = json.loads((DATA / "faas-cli" / "template-pull.json").read_text())["cases"]
RECORDED = {case["name"]: case for case in PULLS}
BUILDS = sorted(
    name for name, case in RECORDED.items() if case["argv"][0] == "build" and name not in TEMPLATES
)


class Recorded:
    """The repository of templates that the recordings were made with, and its commits."""

    def __init__(self, folder: Path) -> None:
        self.origin = Origin(folder)
        self.shas = {
            "SHA1": self._commit("pull-tag", "@1.0", "refs/heads/master"),
            "SHA2": self._commit("pull-url", "", "refs/heads/master"),
            "SHA3": self._commit("pull-branch-with-slash", "@dev/x", "refs/heads/dev/x"),
        }
        self.origin.git("push", "--quiet", self.origin.url, f"{self.shas['SHA1']}:refs/tags/1.0")

    def _commit(self, name: str, ref: str, branch: str) -> str:
        shutil.rmtree(self.origin.work / "template", ignore_errors=True)
        for path, row in RECORDED[name]["template_files"].items():
            if not path.endswith("meta.json"):
                mode, _, text = row.partition(" ")
                file = self.origin.work / path.replace(ref, "")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
                file.chmod(int(mode, 8))
        return self.origin.commit({}, branch)

    def text(self, recorded: str) -> str:
        """A recorded text with this repository's URL and commits."""
        recorded = recorded.replace("git://127.0.0.1:<GITPORT>/tpl", self.origin.url)
        for name, sha in self.shas.items():
            recorded = recorded.replace(f"<{name}:7>", sha[:7]).replace(f"<{name}>", sha)
        return recorded


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("recorded"))


@pytest.mark.parametrize("name", BUILDS)
def test_templates_are_found_where_faas_cli_finds_them(
    name: str, recorded: Recorded, cache: TemplateCache, tmp_path: Path
) -> None:
    case = RECORDED[name]
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "handler.py").write_text("")
    found = stack.parse(recorded.text(case["stack"]))
    here = settings(recorded.origin.url)

    def build() -> dict[str, dict[str, str]]:
        out: dict[str, dict[str, str]] = {}
        for function in found.functions:
            folder = tmp_path / "build" / function.name
            with held(cache, found.configuration, here) as sources:
                lang = sources.language(function)
            assert lang
            shrinkwrap(function, tmp_path, {function.lang: lang.folder}).write(folder)
            out[function.name] = files(folder)
        return out

    if case["exit_code"]:
        with pytest.raises(CloudError):
            build()
        return
    assert build() == expected(case)


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mode & 0o777:04o} {path.read_text()}"
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("handler")
    }


def expected(case: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The recorded files by function; `meta.json` says when it was pulled, and is no part of a template."""
    out: dict[str, dict[str, str]] = {}
    for path, row in case["build_files"].items():
        _, function, name = path.split("/", 2)
        if name != "meta.json" and not Path(name).name.startswith("handler"):
            out.setdefault(function, {})[name] = row
    return out


def test_a_stack_sees_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPL_URL", "https://evil.example/t")
    found = stack.parse(RECORDED["build-config-env-source"]["stack"])
    assert found.configuration.templates[0].source == ""
