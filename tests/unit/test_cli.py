"""The command line, as far as it needs no engine."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, urlsplit

import click
import pytest
from click.testing import CliRunner
from nacl.public import PrivateKey

from local import author, containers, debian
from local.cli import main
from local.errors import CommandError
from local.gitserver.repository import owner_id
from local.publish import Publisher
from local.state import SECRETS, State
from sdk import links, messages, secrets, secrets_file, signature, stack
from sdk.builder import Builder, Built
from sdk.gateway import Gateway, Status
from sdk.messages import Collect, Reconcile
from sdk.sealing import Home, SealKeys
from sdk.secrets import Keys
from tests.conftest import ROOT
from tests.contract.fakes import Answer, Server, running
from tests.repositories import Origin

COMMANDS = sorted(main.commands)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    made = State(tmp_path / "state")
    made.create()
    made.keep_ports()
    monkeypatch.setattr(State, "here", classmethod(lambda cls: made))
    return made


def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments, input=stdin)
    return result.exit_code, result.output


def test_the_commands_are_those_that_the_readme_names() -> None:
    assert set(COMMANDS) >= {"up", "down", "status", "push", "retry", "secret", "logs", "queue", "sign"}


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS), ("secret", "set"), ("queue", "drop")]
)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    code, output = run(*command, "--help")
    assert code == 0
    assert "Usage: " in output
    assert len(output.splitlines()) > 4


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("link", "alice"),
        ("logs", "git-tar"),
        ("push", "."),
        ("retry",),
        ("reconcile",),
        ("queue",),
    ],
)
def test_without_a_cloud_it_says_how_to_start_one(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(State, "here", classmethod(lambda cls: State(tmp_path)))
    code, output = run(*command)
    assert code == 1
    assert "start it with `make up`" in output


KEYS = SealKeys((PrivateKey.generate(),))


class Public(Server):
    """buildshiprun behind a gateway, and GitHub's API, as anybody may ask them."""

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path == "/function/buildshiprun":
            return 200, json.dumps({"name": "buildshiprun", "seal_key": KEYS.public}).encode()
        if path == "/repos/alice/hello":
            return 200, json.dumps({"id": 7, "owner": {"id": 3, "login": "alice"}}).encode()
        return 404, b"{}"


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Public]:
    server = Public()
    monkeypatch.setenv("github_api_url", server.url)
    monkeypatch.setattr(State, "here", classmethod(lambda cls: State(Path("/nowhere"))))
    with running(server):
        yield server


def test_an_author_needs_no_password_and_no_cloud_here_to_seal(public: Public, tmp_path: Path) -> None:
    home, file = Home("github", 3, 7), tmp_path / "secrets.yml"
    to = ("-C", str(tmp_path), "--gateway", public.url)
    code, output = run("seal", "db", *to, "--repo", "alice/hello", stdin="hunter2\n")
    assert (code, "hunter2" in output, "hunter2" in file.read_text()) == (0, False, False), output
    ids = ("-C", str(tmp_path), "--key", KEYS.public, "--id", "github/3/7")
    assert run("seal", "api", *ids, stdin="other")[0] == 0
    texts = secrets_file.parse(file.read_bytes()) or {}
    assert {name: KEYS.open(name, text, home) for name, text in texts.items()} == {
        "db": "hunter2",
        "api": "other",
    }
    assert run("seal", "db", *ids, stdin="rotated")[0] == 0
    again = secrets_file.parse(file.read_bytes()) or {}
    assert (KEYS.open("db", again["db"], home), again["api"]) == ("rotated", texts["api"])


def test_the_repository_to_seal_for_is_found_by_its_remote(public: Public, tmp_path: Path) -> None:
    def seal() -> tuple[int, str]:
        return run("seal", "db", "-C", str(tmp_path), "--key", KEYS.public, stdin="x")

    assert "which repository is it for" in seal()[1]
    author.git(tmp_path, "init", "--quiet")
    for number, url in enumerate(("https://github.com/alice/hello.git", "git@github.com:alice/hello.git")):
        author.git(tmp_path, "remote", "set-url" if number else "add", "origin", url)
        assert seal()[0] == 0
        texts = secrets_file.parse((tmp_path / "secrets.yml").read_bytes()) or {}
        assert KEYS.open("db", texts["db"], Home("github", 3, 7)) == "x"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("db", "--key", KEYS.public, "--id", "hello"), "--id is SCM/OWNER-ID/REPOSITORY-ID"),
        (("db", "--key", KEYS.public, "--repo", "alice/private"), "set GITHUB_TOKEN"),
        (("db", "--key", KEYS.public, "--repo", "../../x/y"), "is not OWNER/NAME"),
        (("db", "--key", "nonsense", "--id", "github/3/7"), "GET /function/buildshiprun has it"),
        (("DB", "--key", KEYS.public, "--id", "github/3/7"), "no name of a secret"),
        (("db", "--id", "github/3/7"), "whose cloud is it for"),
        (("db", "--id", "github/3/7", "--gateway", "http://127.0.0.1:9"), "does not answer"),
    ],
)
def test_what_cannot_be_sealed_says_what_is_missing(
    arguments: tuple[str, ...], said: str, public: Public, tmp_path: Path
) -> None:
    code, output = run("seal", *arguments, "-C", str(tmp_path), stdin="x")
    assert (code, said in output) == (1, True), output
    assert not (tmp_path / "secrets.yml").exists()


def test_a_file_of_others_is_not_overwritten(public: Public, tmp_path: Path) -> None:
    (tmp_path / "secrets.yml").write_text("kind: SealedSecret\n")
    ids = ("-C", str(tmp_path), "--key", KEYS.public, "--id", "github/3/7")
    code, output = run("seal", "db", *ids, stdin="x")
    assert (code, "move it away" in output) == (1, True)
    assert (tmp_path / "secrets.yml").read_text() == "kind: SealedSecret\n"


def test_a_link_opens_the_owners_page(state: State) -> None:
    keys = secrets.read("link-secret", str(state.secrets_folder))

    def opened(*arguments: str) -> links.Link:
        code, output = run("link", *arguments)
        assert code == 0, output
        return links.read(dict(parse_qsl(urlsplit(output.strip()).query)), keys)

    link = opened("alice", "--days", "2")
    assert (link.user, link.owner) == ("alice", f"local/{owner_id('alice')}")
    assert 0 < link.until - time.time() <= 2 * 86400
    assert opened("--all").owner == ""
    other = ("--gateway", "https://cloud.example", "--secret", str(state.secret_file("link-secret")))
    assert opened("octocat", "--id", "github/583231", *other).owner == "github/583231"
    for wrong in (
        (),
        ("alice", "--all"),
        ("alice", "--id", "github/1"),
        ("alice", "--gateway", "https://x"),
        ("alice", *other),
        ("alice", *other, "--id", ""),
    ):
        assert run("link", *wrong)[0] == 2, wrong


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (signature.CLOUD_HEADER, "payload-secret"),
        (signature.GITHUB_HEADER, "github-webhook-secret"),
        (signature.BUILDER_HEADER, "builder-secret"),
    ],
)
def test_sign_prints_a_header_for_curl(header: str, secret: str, state: State, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"body")
    keys = Keys(secret, (state.secret_file(secret).read_bytes(),))
    expected = (0, f"{header}: {signature.sign(b'body', keys)}\n")
    assert run("sign", str(tmp_path / "body"), "--header", header) == expected
    assert run("sign", "-", "--header", header, stdin="body") == expected


def test_sign_without_a_header_signs_for_the_cloud(state: State) -> None:
    assert run("sign", "-", stdin="x")[1].startswith("X-Cloud-Signature: sha256=")


def test_credentials_are_random_private_and_made_once(state: State) -> None:
    values = {name: state.secret_file(name).read_text() for name in SECRETS}
    assert len(set(values.values())) == len(SECRETS)
    assert all(len(value) >= 32 for name, value in values.items() if name != "basic-auth-user")
    assert all(state.secret_file(name).stat().st_mode & 0o777 == 0o600 for name in SECRETS)
    assert state.folder.stat().st_mode & 0o777 == 0o700
    state.create()
    assert {name: state.secret_file(name).read_text() for name in SECRETS} == values


def test_ports_can_be_chosen_until_the_containers_run_and_are_then_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path / "s")
    state.create()
    assert state.gateway_url == "http://127.0.0.1:8080"
    monkeypatch.setenv("gateway_port", "9080")
    state.create()
    assert not state.exists
    state.keep_ports()
    monkeypatch.delenv("gateway_port")
    state.keep_ports()
    assert state.exists
    assert state.gateway_url == "http://127.0.0.1:9080"
    assert state.registry == "127.0.0.1:5000"


def test_a_taken_port_names_the_setting_that_helps(state: State) -> None:
    tags = {"registry": "r", "of-builder": "b", "gateway": "g", "git-server": "s"}
    for service in containers.services(state, tags, "builds"):
        said = str(containers.refused(service, "bind: address already in use"))
        assert f"port {service.published}" in said
        assert "_port=" in said


def test_a_folder_that_is_no_repository_says_how_to_make_it_one(state: State, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="git init"):
        author.push(tmp_path, None, state)
    with pytest.raises(CommandError, match="is not a folder"):
        author.push(tmp_path / "nothing", None, state)


def test_a_push_says_as_whom_and_what_stays_of_another_owner(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(author, "followed", lambda command: 0)
    origin = Origin(tmp_path)
    origin.commit({"stack.yml": "x"})

    def said(owner: str | None) -> str:
        author.push(origin.work, owner, state)
        return capsys.readouterr().err

    assert said(None) == "pushing as alice; --owner NAME for another\n"
    assert (said(None), said("alice")) == ("", "")
    assert said("bob") == (
        "the functions of alice/work stay live; to remove them: "
        "python -m local collect alice/work --uninstall\n"
    )


def test_what_was_set_is_said_in_one_line_without_a_terminal(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gateway, "set_secret", lambda self, name, value: None)
    code, output = run("secret", "set", "a" * 39, "db", stdin="x")
    assert (code, len(output.splitlines())) == (0, 1), output


def test_push_calls_the_folder_as_the_readme_does() -> None:
    assert "push [OPTIONS] DIR" in run("push", "--help")[1]


def test_sealing_for_a_repository_that_was_never_pushed_says_what_to_do(state: State, tmp_path: Path) -> None:
    origin = Origin(tmp_path)
    seal = ("seal", "db", "--key", KEYS.public, "-C", str(origin.work))
    code, output = run(*seal, stdin="x")
    assert (code, "python -m local push DIR --owner NAME" in output, "--repo OWNER/NAME" in output) == (
        1,
        True,
        True,
    )


def test_the_remote_pushes_head_to_the_branch_that_is_built(state: State, tmp_path: Path) -> None:
    origin = Origin(tmp_path)
    author.set_remote(origin.work, "alice", "hello", state)
    assert origin.git("remote", "get-url", "cloud") == "http://127.0.0.1:8082/alice/hello.git"
    assert origin.git("config", "remote.cloud.push") == "HEAD:refs/heads/master"
    author.set_remote(origin.work, "bob", "hello", state)
    assert origin.git("remote", "get-url", "cloud") == "http://127.0.0.1:8082/bob/hello.git"
    with pytest.raises(CommandError, match="a-z"):
        author.set_remote(origin.work, "../x", "hello", state)


def test_the_example_is_pushed_to_the_cloud_that_runs_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, folder = tmp_path / "source", tmp_path / "copies" / "hello-python"
    source.mkdir()
    (source / "stack.yml").touch()
    for port in ("1", "2"):  # no cloud of this machine is there
        monkeypatch.setenv("git_port", port)
        author.example(source, folder, "alice", State(tmp_path / "state"))
    assert author.git(folder, "remote", "get-url", "cloud") == "http://127.0.0.1:2/alice/hello-python.git"
    assert author.git(folder, "log", "--format=%s") == "Hello"


def test_the_cluster_is_told_of_a_secret_once_and_again_when_its_value_is_new(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = dict.fromkeys(SECRETS, "of an earlier cloud")
    told: list[str] = []

    def set_secret(self: Gateway, name: str, value: str) -> None:
        told.append(name)
        cluster[name] = value

    monkeypatch.setattr(Gateway, "secret_names", lambda self: set(cluster))
    monkeypatch.setattr(Gateway, "set_secret", set_secret)
    publisher = Publisher(state, "base")
    publisher.secrets()
    assert cluster == {name: state.secret_file(name).read_text() for name in SECRETS}
    told.clear()
    publisher.secrets()
    assert not told, "an update would start every function anew"
    del cluster["payload-secret"]
    publisher.secrets()
    assert told == ["payload-secret"]


class Collector:
    """The gateway as `collect` needs it: its functions, and garbage-collect behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *functions: Status) -> None:
        self.asked: list[Collect] = []

        def invoke(
            gateway: Gateway, name: str, body: bytes, headers: Mapping[str, str], read_seconds: float
        ) -> bytes:
            self.asked.append(messages.unseal(body, name, Collect))
            removed = [] if self.asked[-1].dry_run else ["alice-one"]
            return json.dumps({"removed": removed, "would_remove": ["alice-one"][len(removed) :]}).encode()

        monkeypatch.setattr(Gateway, "list", lambda gateway: list(functions))
        monkeypatch.setattr(Gateway, "invoke", invoke)


def function(name: str, repo_id: str = "7") -> Status:
    labels = {"scm": "local", "owner": "alice", "owner-id": "3", "repo": "Hello", "repo-id": repo_id}
    return Status(name, labels={f"com.openfaas.cloud.git-{key}": text for key, text in labels.items()})


def test_collect_asks_for_what_is_kept_by_the_repositorys_id(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(monkeypatch, function("alice-one"), Status("gateway"), function("x", "seven"))
    assert run("collect", "alice/hello", "--keep", "a, b") == (0, "removed alice-one\n")
    assert run("collect", "ALICE/Hello", "--uninstall", "--dry-run", "--limit", "3") == (
        0,
        "would remove alice-one\n",
    )
    kept, all_ = collector.asked
    assert (kept.scm, kept.owner, kept.owner_id, kept.repo, kept.repo_id) == ("local", "alice", 3, "Hello", 7)
    assert (kept.functions, kept.reason, kept.uninstall, kept.limit) == (("a", "b"), "push", False, None)
    assert (all_.functions, all_.reason, all_.uninstall, all_.limit) == ((), "uninstall", True, 3)


@pytest.mark.parametrize("arguments", [(), ("--keep", "a", "--uninstall"), ("--keep", " , ")])
def test_collect_deletes_all_only_if_told_so(
    arguments: tuple[str, ...], state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(monkeypatch, function("alice-one"))
    code, output = run("collect", "alice/hello", *arguments)
    assert (code, "or say --uninstall" in output, collector.asked) == (2, True, [])


def test_collect_of_a_name_that_none_or_two_have_is_refused(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector(monkeypatch, function("alice-one"), function("alice-two", "8"))
    assert "ids 7, 8" in run("collect", "alice/hello", "--uninstall")[1]
    assert "no function is of alice/other" in run("collect", "alice/other", "--uninstall")[1]
    assert not collector.asked


class FakeQueue(Server):
    """/system/queue with one call that failed, one that was refused, and one that waits."""

    def __init__(self) -> None:
        super().__init__()
        rows = ((1, "failed", True), (2, "failed", False), (3, "waiting", True))
        self.queued = [
            {"id": number, "function": "git-tar", "state": state, "attempts": 4, "status": 422, "bytes": 900}
            | {
                "canBeRetried": whole,
                "error": "why it failed",
                "delivery": "d-7",
                "repository": "alice/cart",
                "headers": "not ours",
            }
            for number, state, whole in rows
        ]

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path == "/system/queue":
            return 200, json.dumps(self.queued).encode()
        number = int(path.removeprefix("/system/queue/"))
        found = [call for call in self.queued if call["id"] == number]
        if not found:
            return 404, b"there is no call 9\n"
        if method == "DELETE":
            self.queued.remove(found[0])
        return (202, b"") if found[0]["canBeRetried"] or method == "DELETE" else (409, b"send it anew\n")


@pytest.fixture
def queue(state: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQueue]:
    fake = FakeQueue()
    monkeypatch.setattr(State, "gateway_url", fake.url)
    with running(fake):
        yield fake


def test_the_queue_is_listed_as_a_table_and_as_json(queue: FakeQueue) -> None:
    code, output = run("queue")
    assert code == 0
    for word in ("git-tar", "failed", "waiting", "422", "900", "alice/cart", "d-7", "1: why it failed"):
        assert word in output
    listed = json.loads(run("queue", "--json")[1])
    assert [call["id"] for call in listed] == [1, 2, 3]
    assert "headers" not in listed[0]


def test_failed_calls_are_made_again_one_by_one_or_all(queue: FakeQueue) -> None:
    assert run("queue", "retry", "1", "3") == (0, "1 queued again\n3 queued again\n")
    assert run("queue", "retry", "--all") == (0, "1 queued again\n"), "what was refused can't be"
    code, output = run("queue", "retry", "9", "2", "1")
    assert code == 1
    assert "1 queued again" in output
    assert "9: the gateway's /system/queue/9 answered 404: there is no call 9" in output
    assert "2: the gateway's /system/queue/2 answered 409: send it anew" in output
    assert run("queue", "retry")[0] == 2


def test_calls_are_dropped(queue: FakeQueue) -> None:
    assert run("queue", "drop", "3")[0] == 0
    assert run("queue", "drop", "--all")[0] == 0
    assert queue.queued == []


def test_an_empty_secret_is_refused(state: State) -> None:
    code, output = run("secret", "set", "alice", "db")
    assert (code, "standard input is empty" in output) == (1, True)


def test_where_packages_cannot_be_installed_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(CommandError, match=r"docker.io, docker-buildx.*As root on Debian or Ubuntu"):
        debian.must_be_installable(("docker.io", "docker-buildx"))


def test_reconcile_says_what_was_queued(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Reconcile] = []
    found = {"queued": ["alice/hello"], "uninstalled": ["bob/old"], "problems": [], "left": 3}

    def invoke(self: Gateway, name: str, body: bytes, headers: dict[str, str], read_seconds: float) -> bytes:
        keys = secrets.read("payload-secret", str(state.secrets_folder))
        asked.append(messages.unseal(messages.verified(body, headers, keys), name, Reconcile))
        return json.dumps(found).encode()

    monkeypatch.setattr(Gateway, "invoke", invoke)
    code, output = run("reconcile", "--repo", "alice/hello")
    assert (code, asked) == (0, [Reconcile("alice/hello")])
    assert output.splitlines()[:3] == [
        "queued alice/hello",
        "uninstalled bob/old",
        "3 more wait for their turn: run it again",
    ]
    found |= {"queued": [], "uninstalled": [], "left": 0}
    assert run("reconcile") == (0, "no repository is installed: push one\n")
    assert asked[-1] == Reconcile()


def test_the_cli_is_a_click_group() -> None:
    assert isinstance(main, click.Group)


def test_what_python_compiled_here_is_no_part_of_our_functions(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[set[str]] = []

    def build(self: Builder, tar: IO[bytes], signed: str, seconds: float) -> Built:
        with tarfile.open(fileobj=tar) as archive:
            contexts.append(set(archive.getnames()))
        return Built("image", "sha256:1", "", [])

    monkeypatch.setattr(Builder, "digest", lambda *_, **__: None)
    monkeypatch.setattr(Builder, "build", build)
    found = stack.parse((ROOT / "stack.yml").read_bytes())
    Publisher(state, "base").built(found.functions[0], found)
    [names] = contexts
    assert "context/function/handler.py" in names
    assert "context/function/sdk/signature.py" in names
    assert not [name for name in names if "__pycache__" in name]
