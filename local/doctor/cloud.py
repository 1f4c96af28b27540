"""The examination through the gateway: what any operator's laptop can see of any installation."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests

from sdk import __version__, checkup, messages, records, settings, signature
from sdk.checkup import Check, Health, Wanted
from sdk.errors import CloudError, Failed, told
from sdk.gateway import Gateway, Status
from sdk.naming import CLOUD
from sdk.secrets import Keys
from sdk.sessions import CONNECT_SECONDS, reason, session
from sdk.stack import Function

from ..calls import FAILED, Queue, Queued
from ..following import rfc3339
from .chain import ABOUT as TIMEOUTS
from .chain import Chain
from .findings import Finding, fail, ok, unseen, warn

# buildshiprun builds an image before it answers.
CHECK_SECONDS = 120
READ_SECONDS = 15
CLOCK_WARN, CLOCK_FAIL = 10, 240
RECONCILE_MINUTES = 15
# A held call is given so much longer before it counts as lost.
GRACE_SECONDS = 30

# Takes pushes; what it answers with 422 is the author's to mend.
PUSHED = "git-tar"
# The provider as the local gateway names itself; it is the clock, too.
LOCAL = "openfaas-cloud-local"
PAYLOAD = "payload-secret"
_BODY = b"{}"


@dataclass(frozen=True)
class Reply:
    """What came back; `status` 0 and why, where nothing did."""

    status: int
    body: bytes = b""
    error: str = ""

    @property
    def said(self) -> str:
        found = told(self.body)
        return self.error or (found[0] if found else f"it answered {self.status}")


@dataclass
class Cloud:
    """One installation: `platform` is what stack.yml deploys; the secrets are what the operator gave."""

    gateway: Gateway
    platform: Sequence[Function]
    payload: Keys | None = None
    webhook: Keys | None = None
    measure: bool = False
    there: dict[str, Status] = field(default_factory=dict)
    healths: dict[str, Health] = field(default_factory=dict)
    upstream_timeout: float = 0
    is_local: bool = False

    def examine(self) -> Iterator[Finding]:
        """One finding after the other; where the gateway can't be asked, there are no more."""
        reachable = [*self._gateway()]
        yield from reachable
        if any(finding.level == "fail" for finding in reachable):
            return
        for check in (
            self._functions,
            self._health,
            self._secrets,
            self._neighbours,
            self._pull,
            self._clocks,
            self._timeouts,
            self._webhook,
            self._reconcile,
            self._queue,
        ):
            try:
                yield from check()
            except CloudError as error:
                about = check.__name__.strip("_")
                yield fail(about, error.message, "see the gateway's own log, then run doctor again")

    def _gateway(self) -> Iterator[Finding]:
        url = self.gateway.url
        try:
            self.gateway.ping()
        except CloudError as error:
            yield fail("gateway", error.message, f"is {url} right, and reachable from here?")
            return
        if urlsplit(url).scheme != "https" and not _is_private(url):
            yield warn(
                "gateway", f"{url} has no TLS: its password can be read on the way", "put TLS before it"
            )
        try:
            info = self.gateway.info()
        except CloudError as error:
            yield fail(
                "gateway",
                f"its password is refused: {error.message}" if self.gateway.auth else "no password was given",
                f"faas-cli login --gateway {url} --password-stdin, or --username and --password-file",
            )
            return
        self.upstream_timeout = info.upstream_timeout
        version = info.version.release if info.version else ""
        name = info.provider.provider or info.provider.orchestration
        self.is_local = name == LOCAL
        yield ok("gateway", f"{url} answers: {name} {version}".rstrip())

    def _functions(self) -> Iterator[Finding]:
        self.there = {status.name: status for status in self.gateway.list()}
        replies = {}
        for name in (function.name for function in self.platform):
            if name not in self.there:
                yield fail("functions", f"{name} is not deployed", f"faas-cli deploy --filter {name}")
                continue
            replies[name] = reply = self._ask("GET", f"/function/{name}")  # wakes one that is scaled to 0
            status = self.gateway.get(name) or self.there[name]  # faasd's list has no available replicas
            self.there[name] = status
            if status.failure or not status.available_replicas:
                why = status.failure or "no replica of it is ready"
                yield fail(
                    "functions", f"{name}: {why}", f"faas-cli logs {name}, mend it and deploy it again"
                )
            elif reply.status != 200:
                yield fail("functions", f"{name} does not answer: {reply.said}", f"faas-cli logs {name}")
        yield from self._versions({name: _version(reply.body) for name, reply in replies.items()})

    def _versions(self, versions: Mapping[str, str]) -> Iterator[Finding]:
        known = {name: version for name, version in versions.items() if version}
        shown = ", ".join(f"{name} {version}" for name, version in known.items())
        if len(set(known.values())) > 1:
            yield fail(
                "functions", f"of different versions: {shown}", "faas-cli up all of them from one checkout"
            )
        elif known and set(known.values()) != {__version__}:
            yield warn(
                "functions", f"{shown}; this doctor is {__version__}", "run the doctor of their version"
            )
        elif len(known) == len(self.platform):
            yield ok("functions", f"all {len(known)} are deployed, answer, and are of version {__version__}")

    def _health(self) -> Iterator[Finding]:
        """Ask each function itself."""
        if not self.payload:
            yield unseen(
                "health",
                "what the functions see of their settings, of-builder and the registry",
                "give --payload-secret-file, and they are asked",
            )
            return
        for name in self._messaged():
            reply, health = self._check(name)
            if health:
                self.healths[name] = health
            elif "clocks differ" in reply.said:
                remedy = "let NTP set the clocks of all nodes, and here"
                yield fail("clocks", f"{name}: its clock and the one here are minutes apart", remedy)
            elif reply.status == 401:
                yield fail(
                    "health",
                    f"{name} does not know this payload-secret: {reply.said}",
                    "make the secret the same everywhere and deploy the functions again (docs/settings.md)",
                )
            else:
                yield fail("health", f"{name}: {reply.said}", f"faas-cli logs {name}")

    def _messaged(self) -> list[str]:
        """The functions that take signed messages; list-functions takes links alone."""
        there = [function for function in self.platform if function.name in self.there]
        return [function.name for function in there if PAYLOAD in function.secrets]

    def _secrets(self) -> Iterator[Finding]:
        needed = {name for function in self.platform for name in function.secrets}
        needed |= {name for status in self._ours() for name in status.secrets or ()}
        listed = self.gateway.secret_names()
        seen = {name for health in self.healths.values() for name in health.secrets}
        missing = sorted(needed - listed - seen)
        for name in missing:
            yield fail("secrets", f"{name} is missing", f"faas-cli secret create {name} --from-file=FILE")
        for name in sorted((needed & seen) - listed):
            said = f"{name} is there, but the gateway does not list it: the next deploy may not find it"
            yield warn("secrets", said, f"create it by faas-cli secret create {name}")
        for function in self.platform:
            health = self.healths.get(function.name)
            for name in sorted(set(function.secrets) - set(health.secrets)) if health else ():
                if name not in missing:
                    yield fail(
                        "secrets",
                        f"{function.name} can't read {name}, or it is empty",
                        f"is it among the secrets of {function.name} in stack.yml? Deploy it again",
                    )
        if not missing:
            yield ok("secrets", f"all {len(needed)} are there")

    def _neighbours(self) -> Iterator[Finding]:
        """What the functions say of the gateway, of-builder and the registry."""
        for name, health in self.healths.items():
            for neighbour, problem in health.neighbours.items():
                if problem:
                    yield fail(neighbour, f"{name} says: {problem}", _REMEDIES.get(neighbour, ""))
        told = self.healths["buildshiprun"].neighbours if "buildshiprun" in self.healths else {}
        for neighbour, what in _FINE.items():
            if told.get(neighbour) == "":
                yield ok(neighbour, what)
        if not told:
            yield unseen(
                "of-builder", "of-builder and the registry", "buildshiprun would be asked, see health"
            )

    def _pull(self) -> Iterator[Finding]:
        """Whether the cluster pulls: something that was pushed runs, or nothing does."""
        pushed = [status for status in self.there.values() if f"{CLOUD}git-repo" in (status.labels or {})]
        wanted: list[str] = []
        for status in pushed:
            current = self.gateway.get(status.name)
            if current and current.available_replicas:
                host = current.image.partition("/")[0]
                yield ok("cluster pull", f"{current.name} runs, from {host}")
                return
            if current and (current.replicas or current.failure):
                wanted.append(current.name)
        if wanted:
            names = ", ".join(sorted(wanted)[:3])
            yield warn(
                "cluster pull",
                f"of {len(pushed)} functions that were pushed none is ready, such as {names}",
                "is repository_url the registry as the nodes reach it? See docs/install-kubernetes.md",
            )
        elif pushed:
            yield unseen(
                "cluster pull",
                "whether the nodes can pull: all that was pushed is scaled to 0, or gone",
                "call a function that was pushed, then run doctor again",
            )
        else:
            yield unseen(
                "cluster pull", "whether the nodes can pull: nothing was pushed yet", "push a function"
            )

    def _clocks(self) -> Iterator[Finding]:
        if not self.healths:
            yield unseen("clocks", "the functions' clocks", "give --payload-secret-file, and they are asked")
            return
        apart = {name: abs(health.at - self.asked_at[name]) for name, health in self.healths.items()}
        for name, seconds in apart.items():
            if seconds > CLOCK_WARN:
                kind = fail if seconds > CLOCK_FAIL else warn
                said = f"the clock of {name} and the one here are {seconds:.0f} s apart"
                yield kind(
                    "clocks", said, "signed messages grow old: let NTP set the clocks of all nodes, and here"
                )
        if max(apart.values()) <= CLOCK_WARN:
            yield ok("clocks", f"at most {max(apart.values()):.1f} s apart")

    def _timeouts(self) -> Iterator[Finding]:
        known = {name: self._known_timeouts(name) for name in self.there}
        chain = Chain(known, self.upstream_timeout)
        if self.measure and self.payload:
            wanted: dict[str, float] = {
                name: chain.needed()[name] for name in ("git-tar", "buildshiprun") if name in self.there
            }
            with ThreadPoolExecutor(max(1, len(wanted))) as pool:
                held = dict(zip(wanted, pool.map(self._hold, wanted.items()), strict=True))
            chain = Chain(known, self.upstream_timeout, held)
        elif self.measure:
            yield unseen(TIMEOUTS, "how long calls may take", "--measure needs --payload-secret-file")
        yield from chain.findings()

    def _known_timeouts(self, name: str) -> Mapping[str, float]:
        """As the function says; else as the gateway shows its environment (Kubernetes does not)."""
        if name in self.healths:
            return self.healths[name].timeouts
        found = {}
        for key, text in (self.there[name].env_vars or {}).items():
            if key.endswith("_timeout") or key == "message_max_age":
                with suppress(ValueError):
                    found[key] = float(settings.seconds(text))
        return found

    def _webhook(self) -> Iterator[Finding]:
        if "gh-push" not in self.there:
            return
        for name in self._messaged():
            reply = self._ask("POST", f"/function/{name}", _BODY)
            if reply.status == 401:
                continue
            if 200 <= reply.status < 300:
                yield fail(
                    "webhook",
                    f"{name} takes what nobody signed",
                    "this is none of our functions: deploy it again",
                )
            else:
                said = f"{name} does not refuse an unsigned call as it should: {reply.said}"
                yield fail("webhook", said, f"faas-cli logs {name}; a secret that is missing, most often")
        if not self.webhook:
            yield unseen(
                "webhook", "whether gh-push and GitHub have the same secret", "give --webhook-secret-file"
            )
        else:
            signed = {signature.GITHUB_HEADER: signature.sign(_BODY, self.webhook), "X-GitHub-Event": "ping"}
            reply = self._ask("POST", "/function/gh-push", _BODY, signed)
            if reply.status == 200:
                yield ok("webhook", "gh-push answers a signed ping, and none takes an unsigned call")
            else:
                remedy = (
                    "put the webhook secret of the GitHub App into github-webhook-secret, and deploy gh-push"
                )
                yield fail("webhook", f"gh-push refuses a signed ping: {reply.said}", remedy)
        yield unseen(
            "webhook",
            "whether GitHub reaches gh-push",
            "the App's page on GitHub, under Advanced, shows each delivery with its answer",
        )

    def _reconcile(self) -> Iterator[Finding]:
        """Whether a clock calls reconcile: then it leaves records."""
        if "reconcile" not in self.there:
            return
        since = rfc3339(time.time() - RECONCILE_MINUTES * 60)
        try:
            lines = self.gateway.logs("reconcile", since, follow=False, read_seconds=READ_SECONDS)
            last = [record for record in map(records.parse, lines) if record]
        except CloudError as error:
            yield warn(
                "logs", f"can't be read: {error.message}", "trace and metrics need the gateway's /system/logs"
            )
            return
        if not last:
            yield warn(
                "reconcile",
                f"was not called in the last {RECONCILE_MINUTES} minutes",
                _NO_CLOCK_HERE if self.is_local else _NO_CLOCK,
            )
        elif last[-1].outcome != "ok":
            yield warn("reconcile", f"{last[-1].outcome}: {last[-1].error}", "faas-cli logs reconcile")
        else:
            yield ok("reconcile", f"looked after the repositories at {last[-1].at[:19]}Z")

    def _queue(self) -> Iterator[Finding]:
        """What failed for good, where the gateway tells: the local one does."""
        try:
            failed = [call for call in Queue.at(self.gateway).calls() if call.state == FAILED]
        except CloudError:
            return
        authors = [call for call in failed if self._is_authors(call)]
        ours = [call for call in failed if call not in authors]
        if ours:
            said = f"{len(ours)} calls failed for good, of {_functions(ours)}"
            yield warn("queue", said, "python -m local queue; then queue retry, or queue drop")
        if authors:
            said = f"{len(authors)} calls failed for good because of authors, of {_functions(authors)}"
            yield ok("queue", f"{said}: python -m local queue shows them")
        elif not ours:
            yield ok("queue", "no call failed for good")

    def _is_authors(self, call: Queued) -> bool:
        """Whether it failed by what an author has to mend: a push, or the author's own function."""
        platform = {function.name for function in self.platform}
        return call.function not in platform or (call.function == PUSHED and call.status == Failed.status)

    def _ours(self) -> list[Status]:
        names = {function.name for function in self.platform}
        return [status for name, status in self.there.items() if name in names]

    asked_at: dict[str, float] = field(default_factory=dict)

    def _check(self, name: str, hold: float = 0) -> tuple[Reply, Health | None]:
        assert self.payload
        body = messages.seal(name, Check(Wanted(hold)))
        began = time.time()
        seconds = hold + GRACE_SECONDS if hold else CHECK_SECONDS
        headers = messages.headers(body, self.payload)
        reply = self._ask("POST", f"/function/{name}{checkup.PATH}", body, headers, seconds)
        health = None
        if reply.status == 200:
            with suppress(CloudError):
                health = messages.decode(reply.body, Health)
                # It said when it was asked, some time between then and now.
                self.asked_at[name] = min(max(health.at, began), time.time())
        return reply, health

    def _hold(self, wanted: tuple[str, float]) -> str:
        reply, health = self._check(*wanted)
        return "" if health else reply.said

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        seconds: float = READ_SECONDS,
    ) -> Reply:
        """Call a function as anybody may."""
        url = self.gateway.url.rstrip("/") + path
        try:
            answer = session(retries=0).request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, seconds),
                allow_redirects=False,
            )
        except requests.RequestException as error:
            return Reply(0, error=f"no answer: {reason(error)}")
        return Reply(answer.status_code, answer.content)


_NO_CLOCK = "deploy OpenFaaS's cron-connector, or wait if the cloud is that young; lost events stay lost"
_NO_CLOCK_HERE = (
    "the gateway calls it every five minutes: wait, if the cloud was just started or restored; else see "
    "python -m local logs reconcile, and docker logs openfaas-cloud-gateway"
)
_FINE = {
    "of-builder": "answers buildshiprun; BuildKit and the registry answer it",
    "registry push": "an image was built and pushed",
    "registry pull": "the registry has it",
}
_REMEDIES = {
    "gateway": "are gateway_url, basic-auth-user and basic-auth-password what the gateway has?",
    "of-builder": "is builder_url right, and reached by buildshiprun? See docs/deploy-builder.md",
    "registry push": "are builder-secret and push_repository_url right? See of-builder's log",
    "registry pull": "see the registry's log; is its storage writable?",
}


def _functions(calls: Iterable[Queued]) -> str:
    return ", ".join(sorted({call.function for call in calls}))


def _version(body: bytes) -> str:
    try:
        return str(json.loads(body)["version"])
    except (ValueError, LookupError, TypeError):
        return ""


def _is_private(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
