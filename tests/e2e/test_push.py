"""A git push becomes a live function: what an author sees, with everything real."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import requests

from .cloud import Caller, Cloud, Repository, handler, stack, until

Make = Callable[..., Repository]

SLOW_BUILD = {"build_args": "{ADDITIONAL_PACKAGE: file less}"}


def test_the_example_of_the_readme_is_live(cloud: Cloud) -> None:
    assert cloud.call("alice-hello")[0] == 200


def test_a_push_shows_its_stages_and_ends_when_the_function_is_live(repository: Make) -> None:
    repo = repository()
    sha = repo.functions(hello="one")
    code, told = repo.push()
    assert code == 0, told
    for stage in (
        r"gh-push +queued",
        r"fetch +fetched in [\d.]+ s",
        r"hello +packed in [\d.]+ s",
        r"hello +built in [\d.]+ s",
        rf"hello +live in [\d.]+ s  http://127\.0\.0\.1:\d+/function/{repo.owner}-hello",
        r"push +done: everything is live",
    ):
        assert re.search(stage, told), told
    assert repo.call("hello") == (200, "one")
    status = repo.cloud.gateway.get(repo.service("hello"))
    assert status
    assert re.search(rf"/hello:{sha}@sha256:[0-9a-f]{{64}}$", status.image)
    assert (status.labels or {})["com.openfaas.cloud.git-sha"] == sha
    assert (status.labels or {})["com.openfaas.cloud.git-owner"] == repo.owner


def test_callers_see_no_failure_and_after_the_push_only_the_new_answer(repository: Make) -> None:
    repo = repository()
    repo.functions(hello="old")
    repo.push()
    caller = Caller(repo.cloud.url(repo.service("hello")))
    with caller.calling():
        until(lambda: len(caller.answers) > 20)
        repo.functions(hello="new")
        code, told = repo.push()
        assert code == 0, told
        after = len(caller.answers) + 4  # those under way
        until(lambda: len(caller.answers) > after + 50)
    assert set(caller.counted) == {(200, "old"), (200, "new")}, caller.counted
    assert set(caller.answers[after:]) == {(200, "new")}


def test_functions_are_added_renamed_and_removed_and_nothing_else_is_touched(
    repository: Make, owner: str
) -> None:
    repo, neighbour = repository("repo"), repository("neighbour")
    neighbour.functions(canary="tweet")
    assert neighbour.push()[0] == 0
    canary = repo.cloud.deployed(neighbour.service("canary"))
    repo.functions(one="1")
    assert repo.push()[0] == 0
    repo.functions(one="1", two="2")
    assert repo.push()[0] == 0
    assert (repo.call("one"), repo.call("two")) == ((200, "1"), (200, "2"))

    caller = Caller(repo.cloud.url(repo.service("two")))
    with caller.calling(1):
        repo.commit(
            {
                "stack.yml": stack("one", "three"),
                "three/handler.py": handler("3"),
                "three/requirements.txt": "",
            },
            remove=("two",),
        )
        code, told = repo.push()
        assert code == 0, told
    assert (repo.call("one"), repo.call("three")) == ((200, "1"), (200, "3"))
    assert repo.call("two")[0] == 503
    assert caller.answers[0] == (200, "2")
    assert "tidied up" in told
    mine = {name for name in repo.cloud.names() if name.startswith(f"{owner}-")}
    assert mine == {repo.service("one"), repo.service("three"), repo.service("canary")}
    assert repo.cloud.deployed(neighbour.service("canary")) == canary
    assert neighbour.call("canary") == (200, "tweet")


def test_a_build_that_fails_shows_its_own_lines_and_the_old_version_stays(repository: Make) -> None:
    repo = repository()
    repo.functions(one="1", two="2")
    assert repo.push()[0] == 0
    repo.commit(
        {"one/handler.py": handler("1b"), "two/requirements.txt": "no-such-package-of-this-name==1.0\n"}
    )
    (repo.folder / "stack.yml").write_text(stack("one", "two"))
    code, told = repo.push()
    assert code != 0
    assert "No matching distribution found for no-such-package-of-this-name" in told
    assert "1 of 2 functions failed: two" in told
    assert (repo.call("one"), repo.call("two")) == ((200, "1b"), (200, "2"))

    repo.commit({"stack.yml": stack("one")}, remove=("two",))
    assert repo.push()[0] == 0
    assert repo.call("two")[0] == 503


def test_a_function_that_crashes_at_start_shows_its_trace_and_the_old_version_stays(
    repository: Make,
) -> None:
    repo = repository()
    repo.functions(hello="good")
    assert repo.push()[0] == 0
    caller = Caller(repo.cloud.url(repo.service("hello")))
    with caller.calling():
        repo.commit({"hello/handler.py": "import nothing_of_that_name\n"})
        code, told = repo.push()
        assert code != 0
        assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in told
        repo.commit(
            {
                "hello/handler.py": handler("bad")
                + "import os, threading\nthreading.Timer(0.5, lambda: os._exit(3)).start()\n"
            }
        )
        code, told = repo.push()
        assert code != 0
        assert "does not start" in told
    assert caller.answers[-1] == (200, "good")
    assert {status for status, _ in caller.answers} == {200}, caller.counted
    status = repo.cloud.gateway.get(repo.service("hello"))
    assert status
    assert status.available_replicas
    assert not status.failure


def test_the_second_of_two_pushes_stays_although_the_first_builds_longer(repository: Make) -> None:
    repo = repository()
    repo.commit(
        {
            "stack.yml": stack("hello", **SLOW_BUILD),
            "hello/handler.py": handler("first"),
            "hello/requirements.txt": "",
        }
    )
    slow = repo.start_push()
    assert slow.stderr
    seen = ""
    while "packed" not in seen:
        seen += slow.stderr.readline()
    repo.commit({"stack.yml": stack("hello"), "hello/handler.py": handler("second")})
    code, told = repo.push()
    _, rest = slow.communicate(timeout=300)
    assert code == 0, told
    assert repo.call("hello") == (200, "second")
    assert "superseded" in rest or "live" in rest
    status = repo.cloud.gateway.get(repo.service("hello"))
    assert status
    assert (status.labels or {})["com.openfaas.cloud.git-sha"] == repo.git("rev-parse", "HEAD")


def test_pushing_what_changes_nothing_builds_and_deploys_nothing(repository: Make) -> None:
    repo = repository()
    repo.functions(hello="same")
    repo.push()
    before = repo.cloud.gateway.get(repo.service("hello"))
    repo.commit({"README.md": "only words"})
    code, told = repo.push()
    assert code == 0, told
    assert re.search(r"hello +unchanged", told)
    assert repo.cloud.gateway.get(repo.service("hello")) == before


def test_a_revert_needs_no_build(repository: Make) -> None:
    repo = repository()
    repo.functions(hello="one")
    repo.push()
    repo.functions(hello="two")
    repo.push()
    repo.git("revert", "--no-edit", "HEAD")
    code, told = repo.push()
    assert code == 0, told
    assert re.search(r"hello +image is there already", told)
    assert repo.call("hello") == (200, "one")


def test_another_branch_is_ignored_and_the_push_says_so(repository: Make) -> None:
    repo = repository()
    repo.functions(hello="x")
    repo.git("push", "cloud", "HEAD:refs/heads/wip")
    assert repo.service("hello") not in repo.cloud.names()


def test_a_stack_that_is_wrong_says_what_to_mend(repository: Make) -> None:
    repo = repository()
    repo.commit(
        {"stack.yml": "provider: {name: openfaas}\nfunctions:\n  x:\n    lang: cobol\n    handler: .\n"}
    )
    code, told = repo.push()
    assert code != 0
    assert "lang 'cobol' is unknown; the languages here are: python3-http" in told
    repo.commit({"stack.yml": "provider: {name: openfaas}\nfunctions: [\n"})
    code, told = repo.push()
    assert code != 0
    assert "stack.yml: line" in told


def test_two_owners_cannot_take_each_others_names(cloud: Cloud, repository: Make, owner: str) -> None:
    mine, theirs = repository("repo", f"{owner}-a"), repository("repo", owner)
    mine.functions(b="mine")
    assert mine.push()[0] == 0
    theirs.commit(
        {"stack.yml": stack("a-b"), "a-b/handler.py": handler("theirs"), "a-b/requirements.txt": ""}
    )
    code, told = theirs.push()
    assert code != 0
    assert f"{owner}-a-b belongs to {owner}-a/repo" in told
    assert mine.call("b") == (200, "mine")


def test_an_authors_secret_reaches_the_function_and_a_missing_one_is_named(
    cloud: Cloud, repository: Make, owner: str
) -> None:
    repo = repository()
    reads = (
        "import glob\n\ndef handle(event, context):\n"
        "    [file] = glob.glob('/var/openfaas/secrets/*-db')\n    return open(file).read()\n"
    )
    repo.commit(
        {"stack.yml": stack("hello", secrets="[db]"), "hello/handler.py": reads, "hello/requirements.txt": ""}
    )
    code, told = repo.push()
    assert code != 0
    assert f"{owner} has no such secret: db (in the cluster: local-" in told
    for value in ("one", "two"):
        done = cloud.cli("secret", "set", owner, "db", stdin=value)
        assert done.returncode == 0, done.stderr
        assert value not in done.stdout + done.stderr
        if value == "one":
            retried = cloud.cli("retry", cwd=repo.folder)
            assert retried.returncode == 0, retried.stderr
        expected = (200, value)
        until(partial(answers, repo, expected), what=f"the value {value}")


def answers(repo: Repository, expected: tuple[int, str]) -> bool:
    return repo.call("hello") == expected


def test_the_command_line_pushes_lists_and_logs(cloud: Cloud, repository: Make, owner: str) -> None:
    repo = repository()
    repo.functions(hello="x")
    done = cloud.cli("push", str(repo.folder), "--owner", owner)
    assert done.returncode == 0, done.stderr
    assert "done: everything is live" in done.stderr
    again = cloud.cli("push", str(repo.folder))
    assert again.returncode == 0, again.stderr
    listed = cloud.cli("status")
    assert repo.service("hello") in listed.stderr + listed.stdout
    logged = cloud.cli("logs", "git-tar")
    assert f'"owner":"{owner}"' in logged.stdout
    assert cloud.cli("logs", "nothing-of-that-name").returncode == 1


def test_gets_on_the_functions_say_what_they_are(cloud: Cloud) -> None:
    for name in ("gh-push", "git-tar", "buildshiprun", "garbage-collect", "reconcile", "github-status"):
        answer = requests.get(cloud.url(name), timeout=10)
        assert (answer.status_code, answer.json()["name"]) == (200, name)
    assert requests.get(cloud.state.builder_url, timeout=10).json()["name"] == "of-builder"
