"""git-tar's git, with real repositories."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from git_tar import fetch
from git_tar.fetch import Client, Remote
from git_tar.sdk.errors import Refused, Unavailable
from tests.repositories import MASTER, Origin


def client(origin: Origin, seconds: float = 30) -> Client:
    return Client(Remote(origin.url), seconds, 100)


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


def test_the_head_is_that_of_exactly_the_ref(origin: Origin) -> None:
    sha = origin.commit({"a": "1"})
    decoy = origin.commit({"a": "2"}, "refs/heads/refs/heads/master")
    other = origin.commit({"a": "3"}, "refs/heads/x/refs/heads/master")
    assert client(origin).head(MASTER) == sha
    assert sha not in (decoy, other)


def test_a_ref_that_only_ends_in_the_name_is_not_the_branch(origin: Origin) -> None:
    origin.commit({"a": "1"}, "refs/heads/refs/heads/master")
    assert client(origin).head(MASTER) is None


def test_head_itself_can_be_asked_for(origin: Origin) -> None:
    sha = origin.commit({"a": "1"})
    assert client(origin).head("HEAD") == sha


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(ref=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example(ref="--upload-pack=touch${IFS}pwned")
@example(ref="refs/heads/*")
@example(ref="refs/heads/master\n")
def test_any_text_as_a_ref_is_a_commit_none_or_unavailable(ref: str, origin: Origin) -> None:
    with suppress(Unavailable):
        assert client(origin).head(ref) is None


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="git ls-remote"):
        Client(Remote("http://127.0.0.1:9/a/b.git"), 30, 100).head(MASTER)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing but git and a shell: slim images have no ps or pgrep to find git's children by."""
    for name in ("sh", "git", "timeout", "head"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(Unavailable, match="did not end within 1 s"):
            Client(Remote(f"http://127.0.0.1:{port}/a/b.git"), 1, 100).head(MASTER)
    assert time.monotonic() - started < 10


def test_a_token_shows_nowhere() -> None:
    remote = Remote("https://127.0.0.1:9/a/b.git", "ghs_hunter2")
    assert "hunter2" not in repr(Client(remote, 30, 100))
    error = Client(remote, 30, 100)._error(("fetch",), "fatal: ghs_hunter2 is not known")
    assert str(error).endswith("failed: fatal: *** is not known")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("Username for 'https://github.com': ", "x-access-token\n"),
        ("Password for 'https://x-access-token@github.com': ", "ghs_hunter2\n"),
        ("Password for 'https://x-access-token@github.com.evil.example': ", ""),
        ("Password for 'https://x-access-token@evil.example': ", ""),
        ("Password for 'http://x-access-token@github.com': ", ""),
        ("Password for 'https://somebody@github.com': ", ""),
        ("Enter passphrase for key '/root/.ssh/id': ", ""),
    ],
)
def test_credentials_are_for_one_scheme_and_host(asked: str, answer: str) -> None:
    environment = Client(Remote("https://github.com/a/b.git", "ghs_hunter2"), 30, 100)._environment(None)
    done = subprocess.run(
        (environment["GIT_ASKPASS"], asked), capture_output=True, text=True, env=environment
    )
    assert (done.stdout, done.returncode == 0) == (answer, bool(answer))


ALLOWED = ("https://github.com", "http://git-server:8080/teams")


@pytest.mark.parametrize(
    "url", ["https://github.com/alice/hello.git", "http://git-server:8080/teams/a/b.git"]
)
def test_an_allowed_origin_passes(url: str) -> None:
    fetch.check_url(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://github.com",
        "https://github.com.evil.example/a/b.git",
        "https://evil.example/https://github.com/a/b.git",
        "https://user:token@github.com/a/b.git",
        "http://github.com/a/b.git",
        "http://git-server:8080/teams/../admin/b.git",
        "http://git-server:8080/teamsters/b.git",
        "ext::sh -c id",
        "file:///etc",
        "--upload-pack=id",
        "https://github.com/a b.git",
        "https://github.com/a/b.git#x",
        "https://github.com\\@evil.example/a",
        "http://[x",
    ],
)
def test_every_other_url_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="clone URL"):
        fetch.check_url(url, ALLOWED)


@given(st.text() | st.text().map("https://github.com/{}".format))
@example("http://[")
def test_any_text_is_checked_without_another_error(url: str) -> None:
    try:
        fetch.check_url(url, ALLOWED)
    except Refused:
        return
    assert url.startswith(ALLOWED)
