"""No secret, token or value of an author's environment shows in a log, an error, an answer or a record."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import buildshiprun.handler
import garbage_collect.handler
import git_tar.handler
from sdk.secrets import Keys
from tests.conftest import ROOT
from tests.unit.test_push import EVENT

from . import test_pipeline
from .fakes import Event
from .github import INSTALLATION, TOKEN, FakeGitHub
from .test_gh_push import call as deliver
from .test_pipeline import HANDLER, Cloud, files, stack

cloud, github = test_pipeline.cloud, test_pipeline.github

PLANTED = {
    name: f"planted-{name}-hunter2"
    for name in "payload builder webhook env env-file build-arg operator-arg clone template".split()
}


@dataclass
class Run:
    """A cloud full of planted values; `answers` are what its functions say, `shown` all that anybody sees."""

    cloud: Cloud
    github: FakeGitHub
    secret_folder: Path
    answers: list[str] = field(default_factory=list)

    def push(
        self, files: Mapping[str, str], clone_url: str = "", then: Callable[[], None] | None = None
    ) -> int:
        """From the webhook on, as GitHub and the gateway's queue would call; `then` comes between the two."""
        sha = self.cloud.origin.commit(files)
        repository = {**EVENT["repository"], "clone_url": clone_url or self.github.clone_url}
        installation = {"id": INSTALLATION}
        event = {**EVENT, "after": sha, "repository": repository, "installation": installation}
        status, answer = deliver(json.dumps(event).encode(), key=PLANTED["webhook"].encode())
        self.answers.append(json.dumps(answer))
        assert status == 202
        name, body, headers = self.cloud.gateway.queued[-1]
        assert name == "git-tar"
        if then:
            then()
        got = git_tar.handler.handle(Event(body, headers), None)
        self.answers.append(str(got))
        return int(got["statusCode"])

    def check(self, logged: str) -> None:
        secret = [file.read_text() for file in self.secret_folder.iterdir() if file.name != "basic-auth-user"]
        lines = {line for text in secret for line in text.splitlines() if not line.startswith("-----")}
        encoded = base64.b64encode(b"admin:s3cret").decode()
        for place in (logged, *self.answers, *self.annotations()):
            for value in (*PLANTED.values(), *(lines - {"payload"}), TOKEN, encoded):
                assert value not in place

    def annotations(self) -> list[str]:
        rows = self.cloud.gateway.functions.values()
        return [json.dumps([row["labels"], row["annotations"]]) for row in rows]


@pytest.fixture
def run(cloud: Cloud, github: FakeGitHub, secret_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (secret_folder / "github-webhook-secret").write_text(PLANTED["webhook"])
    (secret_folder / "payload-secret").write_text(f"{PLANTED['payload']}\npayload\n")
    (secret_folder / "builder-secret").write_text(PLANTED["builder"])
    cloud.builder.keys = Keys("builder-secret", (PLANTED["builder"].encode(),))
    monkeypatch.setenv("build_args", f"PYTHON_IMAGE=base:1,OPERATOR={PLANTED['operator-arg']}")
    monkeypatch.setattr("git_tar.pipeline.PATIENCE_SECONDS", 0.1)
    made = Run(cloud, github, secret_folder)
    for name, handler in (
        ("buildshiprun", buildshiprun.handler.handle),
        ("garbage-collect", garbage_collect.handler.handle),
    ):
        cloud.gateway.handlers[name] = recorded(handler, made.answers)
    return made


def recorded(handle: Callable[..., Any], answers: list[str]) -> Callable[[Event], Any]:
    def called(event: Event) -> Any:
        answer = handle(event, None)
        answers.append(str(answer))
        return answer

    return called


def planted(**function: Any) -> dict[str, str]:
    """A repository whose stack holds planted values."""
    text = json.loads(stack("one"))
    text["functions"]["one"] |= {
        "environment": {"PASSWORD": PLANTED["env"]},
        "environment_file": ["env.yml"],
        "build_args": {"NPM_TOKEN": PLANTED["build-arg"]},
        **function,
    }
    whole = {"stack.yml": json.dumps(text), "env.yml": f"environment:\n  KEY: {PLANTED['env-file']}\n"}
    return {**files("one"), **whole}


def test_a_run_that_succeeds_shows_nothing(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert run.push(planted()) == 200
    [function] = run.cloud.gateway.functions.values()
    assert function["envVars"] == {"PASSWORD": PLANTED["env"], "KEY": PLANTED["env-file"]}
    sent = b"".join(body for _, path, _, body in run.cloud.builder.calls if path == "/build")
    assert PLANTED["build-arg"].encode() in sent
    assert PLANTED["operator-arg"].encode() in sent
    shown = capfd.readouterr()
    run.check(shown.out + shown.err)


def wrong_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    return run.push(planted(environment=PLANTED["env"], build_args=[PLANTED["build-arg"]]))


def an_alias(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    return run.push({"stack.yml": f"functions:\n  one:\n    environment:\n      A: *{PLANTED['env']}\n"})


def a_wrong_environment_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    return run.push({**planted(), "env.yml": f"environment: {PLANTED['env-file']}\n"})


def a_build_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    run.cloud.builder.failing["one"] = [
        {"log": [f"npm ERR! {PLANTED['build-arg']} is no token"], "status": "in_progress"},
        {"status": "failed", "error": f'process "npm {PLANTED["build-arg"]}"', "code": "failed"},
    ]
    return run.push(planted())


def a_version_that_does_not_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    def crash(method: str, path: str, body: bytes) -> None:
        for rows in run.cloud.gateway.functions.values():
            run.cloud.gateway.failures[rows["image"]] = f"exit: {PLANTED['env']}"

    run.cloud.gateway.overrides.append(crash)
    run.cloud.gateway.logs["alice-one"] = [f"can't reach db://u:p@{PLANTED['env']}/", PLANTED["env-file"]]
    return run.push(planted())


def a_gateway_that_repeats_what_it_was_sent(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    def repeat(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (400, body[:490]) if (method, path) == ("POST", "/system/functions") else None

    run.cloud.gateway.overrides.append(repeat)
    return run.push(planted())


def a_clone_url_with_credentials(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    url = f"https://bob:{PLANTED['clone']}@github.com/alice/hello.git"
    monkeypatch.setenv("github_app_id", "")
    return run.push(planted(), url)


def a_template_source_that_is_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    source = f"http://bob:{PLANTED['template']}@127.0.0.1:9/t.git"
    monkeypatch.setenv("custom_templates", f"{source}, {ROOT / 'local'}")
    return run.push(planted())


def a_git_server_that_is_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    run.cloud.origin.bare.with_suffix(".away").mkdir()
    monkeypatch.setattr(FakeGitHub, "_git", lambda *_: (500, b"broken"))
    return run.push(planted())


def secrets_that_differ(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    run.cloud.builder.keys = Keys("builder-secret", (b"another",))
    return run.push(planted())


def build_args_that_are_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    return run.push(
        planted(), then=lambda: monkeypatch.setenv("build_args", f"A={PLANTED['operator-arg']},b")
    )


@pytest.mark.parametrize(
    ("fails", "status"),
    [
        (wrong_environment, 422),
        (an_alias, 422),
        (a_wrong_environment_file, 422),
        (a_build_that_fails, 422),
        (a_version_that_does_not_start, 422),
        (a_gateway_that_repeats_what_it_was_sent, 422),
        (a_clone_url_with_credentials, 403),
        (a_template_source_that_is_away, 503),
        (a_git_server_that_is_away, 503),
        (secrets_that_differ, 500),
        (build_args_that_are_none, 500),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_run_that_fails_shows_nothing(
    fails: Callable[[Run, pytest.MonkeyPatch], int],
    status: int,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert fails(run, monkeypatch) == status, run.answers
    shown = capfd.readouterr()
    assert '"stage":"push"' in shown.out or fails is build_args_that_are_none
    run.check(shown.out + shown.err)


HOLDERS = {
    "payload-secret": ("gh-push", "git-tar", "buildshiprun", "garbage-collect"),
    "builder-secret": ("buildshiprun", "of-builder"),
    "github-webhook-secret": ("GitHub", "gh-push"),
}
STEPS = (("old",), ("old", "new"), ("new", "old"), ("new",))


@pytest.mark.parametrize("backwards", [False, True], ids=["senders first", "receivers first"])
@pytest.mark.parametrize("secret", HOLDERS)
def test_a_secret_is_rotated_without_a_refused_push(
    secret: str,
    backwards: bool,
    cloud: Cloud,
    secret_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One holder after the other takes each step of docs/settings.md, and after each a push goes through."""
    names = ("gh-push", "git-tar", "buildshiprun", "garbage-collect", "of-builder", "GitHub")
    folders = {name: tmp_path / "holders" / name for name in names}
    for folder in folders.values():
        folder.mkdir(parents=True)
        for file in secret_folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    def give(holder: str, lines: tuple[str, ...]) -> None:
        (folders[holder] / secret).write_text("\n".join(lines) + "\n")
        if holder == "of-builder":
            cloud.builder.keys = Keys(secret, tuple(line.encode() for line in lines))

    def called(name: str, handle: Callable[..., Any]) -> Callable[[Event], Any]:
        def call(event: Event) -> Any:
            monkeypatch.setenv("secret_mount_path", str(folders[name]))  # read as it begins
            return handle(event, None)

        return call

    cloud.gateway.handlers = {
        "buildshiprun": called("buildshiprun", buildshiprun.handler.handle),
        "garbage-collect": called("garbage-collect", garbage_collect.handler.handle),
    }
    git_tar_called = called("git-tar", git_tar.handler.handle)
    for holder in HOLDERS[secret]:
        give(holder, STEPS[0])
    for number, step in enumerate(STEPS):
        for holder in HOLDERS[secret][:: -1 if backwards else 1]:
            give(holder, step)
            changed = {"one/handler.py": f"{HANDLER}# {number} {holder}\n"}
            sha = cloud.origin.commit({**files("one"), **changed})
            repository = {**EVENT["repository"], "clone_url": cloud.origin.url}
            event = {**EVENT, "after": sha, "repository": repository}
            key = (folders["GitHub"] / "github-webhook-secret").read_text().split()[0]
            monkeypatch.setenv("secret_mount_path", str(folders["gh-push"]))
            assert deliver(json.dumps(event).encode(), key=key.encode())[0] == 202
            _, body, headers = cloud.gateway.queued[-1]
            answer = git_tar_called(Event(body, headers))
            assert answer["statusCode"] == 200, (step, holder, answer)
            assert f":{sha}@" in cloud.live["alice-one"]
