"""The workers: git-tar's loop, buildshiprun's shipping, garbage-collect's deleting, as in production.

Only what stands around the decisions is replaced: HTTP below `Gateway`, the builder, clocks, random numbers.

A commit is named by its stack: at "a1 b2!" the function a has the content a1, and b the content b2!. A word
that ends in ":" tells two commits of one stack apart. The last character of a content says what it does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

import buildshiprun.sdk.gateway
import garbage_collect.handler
import garbage_collect.sdk.gateway
from buildshiprun import deployment, ship
from buildshiprun.sdk import errors as ship_errors
from buildshiprun.sdk import naming
from buildshiprun.sdk import records as ship_records
from buildshiprun.sdk.messages import Owner, Repository, Shipment
from buildshiprun.sdk.settings import Settings
from buildshiprun.sdk.specs import Spec, canonical
from buildshiprun.sdk.stack import Function
from garbage_collect.sdk import errors as collect_errors
from garbage_collect.sdk.messages import Collect
from garbage_collect.sdk.records import Stage
from garbage_collect.sdk.settings import Settings as CollectSettings
from git_tar import converge
from git_tar.handler import given_up
from git_tar.sdk import errors, records
from git_tar.sdk.settings import Settings as LoopSettings

from .replay import Acknowledge, Build, Call, Head, Invoke, Locate, Outside, Reply

# It dies at once; it does, and the provider does not say so (faasd); it never gets ready; it does not build;
# it dies the first time.
EXITS, UNSEEN, MUTE, UNBUILT, FLAKY = "!.?~*"
BROKEN = EXITS + UNSEEN + MUTE + UNBUILT
SETTINGS = Settings()
LOOP_SETTINGS = LoopSettings(converge_rounds=2)
SENDS = 2  # how often a call of buildshiprun that fails is made, before the push goes back to the queue


@dataclass(frozen=True)
class Repo:
    """A repository as events name it. `id` is what counts; the URL is where its name leads."""

    id: int = 7
    owner: str = "alice"
    owner_id: int = 3
    name: str = "repo"

    @property
    def url(self) -> str:
        return f"{self.owner}/{self.name}"

    def service(self, function: str) -> str:
        return naming.service_name(self.owner, function)


def stack(sha: str) -> dict[str, str]:
    """Function → content."""
    contents = [word for word in sha.split() if not word.endswith(":")]
    return {re.sub(r"\d+\W?$", "", content): content for content in contents}


@cache
def shipment(repo: Repo, sha: str, function: str) -> Shipment:
    whole = Repository(
        repo.id, repo.name, repo.url, repo.url, repo.url, False, Owner(repo.owner, repo.owner_id)
    )
    content = stack(sha)[function]
    return Shipment("github", "d", whole, "refs/heads/master", sha, Function(function), digest=content)


def deployed(repo: Repo, sha: str, function: str) -> Spec:
    """What a push of long ago has left."""
    spec = deployment.wanted(shipment(repo, sha, function), SETTINGS, now=0)
    return deployment.complete(spec, f"{stack(sha)[function]}@sha256:0", f"before/{function}", None)


@dataclass(frozen=True)
class Job:
    """git-tar with one push from the queue. `located`: it asks the API where the repository is."""

    name: str
    repo: Repo
    located: bool = False

    @property
    def key(self) -> Hashable:
        return "git-tar", self.repo.id

    def run(self, outside: Outside) -> Reply:
        try:
            repo = outside.ask(Locate(self.repo.id)) if self.located else self.repo
            if repo is None:
                raise errors.Failed("the repository is gone")
            report = converge.converge(Branch(self.name, repo, outside), LOOP_SETTINGS.converge_rounds)
        except Exception as error:
            final = given_up(error, 0, LOOP_SETTINGS)
            if not isinstance(final, errors.CloudError):
                raise
            return Reply(final.status)
        return Reply(errors.Failed.status if report.outcome == "failed" else 200)


@dataclass(frozen=True)
class Branch:
    """What pipeline.Pipeline is to the loop, without git and tars."""

    job: str
    repo: Repo
    outside: Outside

    def head(self) -> str | None:
        found: str | None = self.outside.ask(Head(self.repo.url))
        return found

    def apply(self, sha: str) -> Sequence[converge.Result]:
        if not stack(sha):
            raise errors.Failed("no functions: nothing changes")
        results: dict[str, converge.Result] = {}
        waiting: list[errors.CloudError] = []
        left = list(stack(sha))
        for _ in range(SENDS):
            if not left:
                break
            waiting, number = [], self.outside.invoked()
            calls = tuple(Shipping(f"{self.job}.{number}{name}", self.repo, sha, name) for name in left)
            for name, reply in zip(left, self.outside.ask(Invoke(calls)), strict=True):
                error = failure("buildshiprun", reply)
                if isinstance(error, errors.Unavailable):
                    waiting.append(error)
                else:
                    outcome = records.outcome_of(error) if error else "ok"
                    results[name] = converge.Result(name, outcome, error=error.message if error else "")
            left = [name for name in left if name not in results]
        if waiting:
            raise errors.Unavailable("; ".join(error.message for error in waiting))
        return [results[name] for name in stack(sha)]

    def finish(self, sha: str, keep: Sequence[str]) -> converge.Tidied:
        error: errors.CloudError = errors.Unavailable("it was not sent")
        for sent in range(SENDS):
            call = Collecting(f"{self.job}.{self.outside.invoked()}gc", self.repo, sha, tuple(keep))
            reply = self.outside.ask(Invoke((call,)))[0]
            failed = failure("garbage-collect", reply)
            if not failed:
                return converge.Tidied(tuple(json.loads(reply.content)), whole=sent == 0)
            error = failed
            if not isinstance(error, errors.Unavailable):
                break
        raise error

    def report(self, report: converge.Report) -> None:
        """Nobody reads it here."""

    def acknowledge(self) -> None:
        self.outside.ask(Acknowledge())


def failure(who: str, reply: Reply) -> errors.CloudError | None:
    return errors.received(who, reply.status, reply.content) if reply.status >= 400 else None


def refusal(error: ship_errors.CloudError | collect_errors.CloudError) -> Reply:
    return Reply(error.status, canonical(error.body()))


@dataclass(frozen=True)
class Shipping:
    """buildshiprun with one function."""

    name: str
    repo: Repo
    sha: str
    function: str

    @property
    def key(self) -> Hashable:
        return "buildshiprun", self.repo.service(self.function)

    def run(self, outside: Outside) -> Reply:
        wanted = shipment(self.repo, self.sha, self.function)

        def build() -> str:
            reply: Reply = outside.ask(Build(wanted.digest))
            if reply.status == ship_errors.Failed.status:
                raise ship_errors.Failed("it does not build")
            if reply.status == ship_errors.Superseded.status:
                raise ship_errors.Superseded("a newer commit was pushed")
            if reply.status >= 400:
                raise ship_errors.Unavailable("of-builder restarts")
            return "sha256:0"

        gateway: Any = buildshiprun.sdk.gateway.Gateway(f"model:{self.repo.id}")
        no_image: Any = SimpleNamespace(digest=lambda repository, context: None)
        try:
            ship.Ship(gateway, no_image, SETTINGS).ship(wanted, build, wanted.digest)
        except ship_errors.CloudError as error:
            return refusal(error)
        return Reply(200)


@dataclass(frozen=True)
class Collecting:
    """garbage-collect with what a head's stack keeps."""

    name: str
    repo: Repo
    sha: str
    keep: tuple[str, ...]

    @property
    def key(self) -> Hashable:
        return None

    def run(self, outside: Outside) -> Reply:
        repo = self.repo
        settings = CollectSettings(gateway_url=f"model:{repo.id}", basic_auth=False)
        request = Collect(
            "github", "d", repo.owner, repo.owner_id, repo.name, repo.id, self.keep, self.sha, "push"
        )
        try:
            done = garbage_collect.handler.tidy(request, settings, Stage("ok"))
        except collect_errors.CloudError as error:
            return refusal(error)
        return Reply(200, canonical(done["removed"]))


@dataclass(frozen=True)
class Response:
    """As much of requests.Response as `Gateway` reads."""

    reply: Reply

    @property
    def status_code(self) -> int:
        return self.reply.status

    @property
    def content(self) -> bytes:
        return self.reply.content

    @property
    def ok(self) -> bool:
        return self.reply.status < 400

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *raised: object) -> None:
        """Nothing is open."""

    def iter_lines(self) -> Iterable[bytes]:
        return ()


@dataclass(frozen=True)
class Session:
    """Stands for sdk/sessions.py: what is answered 502, 503 or the like is sent again, as there."""

    retries: int

    def request(self, method: str, url: str, **rest: Any) -> Response:
        about, _, path = url.removeprefix("model:").partition("/")
        if path in ("system/logs", "system/secrets"):  # nothing there depends on the order
            return Response(Reply(200, b"[]"))
        body = canonical(rest["json"]).decode() if "json" in rest else ""
        reply = Reply(503)
        for _ in range(1 + min(self.retries, 1)):
            over = rest.get("headers", {}).get("If-Match", "")[1:-1]
            reply = Outside.current.ask(Call(method, "/" + path, body, int(about), over))
            if reply.status not in errors.RETRIED:
                break
        return Response(reply)


@dataclass(frozen=True)
class Clock:
    """The module `time`, for workers."""

    time: Any = field(default=lambda: 1_000)

    def monotonic(self) -> float:
        return Outside.current.monotonic()

    def sleep(self, seconds: float) -> None:
        Outside.current.sleep(seconds)


class InOrder:
    """Stands for ThreadPoolExecutor: what is done at once is done in one order, others' steps between."""

    def __init__(self, threads: int) -> None:
        """There are none."""

    def __enter__(self) -> InOrder:
        return self

    def __exit__(self, *raised: object) -> None:
        """Nothing runs on."""

    def map(self, work: Callable[[Any], Any], rows: Iterable[Any]) -> list[Any]:
        return [work(row) for row in rows]


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the model below our code."""
    nonces = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=Outside.current.nonce()))
    for module in (ship, garbage_collect.handler):
        patch.setattr(module, "time", Clock())
    patch.setattr(ship, "uuid", nonces)
    patch.setattr(garbage_collect.handler, "ThreadPoolExecutor", InOrder)
    for gateway in (buildshiprun.sdk.gateway, garbage_collect.sdk.gateway):
        patch.setattr(gateway, "session", Session)
    patch.setattr(ship_records, "emit", lambda *told: None)
