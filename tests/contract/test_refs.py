"""The commit at a ref, asked of git's own server over HTTP; and of servers that answer something else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_tar import refs
from git_tar.fetch import Client, Remote
from tests.repositories import MASTER, Origin

from .fakes import Answer, Server, running

SECONDS = 5
SHA = "a" * 40
RESULT = {"Content-Type": "application/x-git-upload-pack-result"}


class GitServer(Server):
    """git's own, with a token if it is private; `said` is answered in its place.

    https://git-scm.com/docs/git-http-backend
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__()
        self.origin = origin
        self.said: Answer | None = None
        self.versions = True

    @property
    def repo(self) -> str:
        return f"{self.url}/{self.origin.bare.name}"

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self.said:
            return self.said
        bare, _, query = path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.origin.bare.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": bare,
            "QUERY_STRING": query,
            "REQUEST_METHOD": method,
            "CONTENT_TYPE": headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": headers.get("Git-Protocol", "") if self.versions else "",
        }
        done = subprocess.run(("git", "http-backend"), input=body, capture_output=True, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        told = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return int(told.pop("Status", "200").split()[0]), content, told


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    found = GitServer(Origin(tmp_path))
    with running(found):
        yield found


def test_the_head_is_read_by_one_request_and_no_program(
    server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = server.origin.commit({"a": "1"})
    server.origin.commit({"a": "2"}, "refs/heads/master2")
    monkeypatch.setattr(Client, "run", None)
    assert Client(Remote(server.repo), SECONDS, 100).head(MASTER) == sha
    assert len(server.calls) == 1


def test_after_a_push_the_new_head_is_read(server: GitServer) -> None:
    client = Client(Remote(server.repo), SECONDS, 100)
    assert client.head(MASTER) is None
    for text in "12":
        sha = server.origin.commit({"a": text})
        assert client.head(MASTER) == sha


def test_a_server_of_an_older_protocol_is_asked_by_git(server: GitServer) -> None:
    sha = server.origin.commit({"a": "1"})
    server.versions = False
    assert not refs.commit(server.repo, "", MASTER, SECONDS)
    assert Client(Remote(server.repo), SECONDS, 100).head(MASTER) == sha


def test_the_token_is_sent_as_git_does(server: GitServer) -> None:
    server.origin.commit({"a": "1"})
    refs.commit(server.repo, "ghs_1", MASTER, SECONDS)
    assert server.calls[0][2]["Authorization"] == "Basic eC1hY2Nlc3MtdG9rZW46Z2hzXzE="
    refs.commit(server.repo, "", MASTER, SECONDS)
    assert "Authorization" not in server.calls[1][2]


def _line(text: str) -> bytes:
    return f"{len(text) + 4:04x}{text}".encode()


@pytest.mark.parametrize(
    "said",
    [
        (302, b"", {"Location": "/elsewhere"}),
        (401, b"", {"WWW-Authenticate": "Basic"}),
        (404, b""),
        (500, b""),
        (200, _line(f"{SHA} {MASTER}\n") + b"0000", {"Content-Type": "text/html"}),
        (200, b"", RESULT),
        (200, _line(f"{SHA} {MASTER}\n"), RESULT),
        (200, _line(f"{SHA} {MASTER}2\n") + b"0000", RESULT),
        (200, _line(f"{SHA} {MASTER}\n") + b"0000 and more", RESULT),
        (200, _line("ERR no such repository\n") + b"0000", RESULT),
        (200, _line(f"{SHA} {'x' * 60_000}\n") * 2 + b"0000", RESULT),
    ],
)
def test_whatever_is_no_clear_answer_is_none(said: Answer, server: GitServer) -> None:
    server.said = said
    assert refs.commit(server.repo, "", MASTER, SECONDS) == ""
    assert len(server.calls) == 1


def test_where_nobody_answers_git_is_asked() -> None:
    assert refs.commit("http://127.0.0.1:9/a/b.git", "", MASTER, SECONDS) == ""
    assert refs.commit("file:///a/b.git", "", MASTER, SECONDS) == ""


@given(st.binary(max_size=200))
def test_any_bytes_are_refs_or_nothing(body: bytes) -> None:
    assert isinstance(refs.listed(body), dict)


@given(st.dictionaries(st.text("abc/", min_size=1), st.just(SHA), max_size=5), st.integers(min_value=0))
def test_what_is_whole_is_read_and_what_is_cut_is_not(found: dict[str, str], cut: int) -> None:
    body = b"".join(_line(f"{sha} {ref}\n") for ref, sha in found.items()) + b"0000"
    assert refs.listed(body) == found
    assert refs.listed(body[: cut % len(body)]) == {}
