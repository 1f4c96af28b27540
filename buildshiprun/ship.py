"""One function from a signed tar to a version that is ready, or to the one before."""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone

from . import deployment, ownership
from .sdk import naming, policy, records
from .sdk.builder import Builder
from .sdk.errors import CloudError, Failed, Superseded, Unavailable, Upstream
from .sdk.gateway import Gateway, Status
from .sdk.messages import Shipment
from .sdk.records import Stage, Subject
from .sdk.sealing import Home, SealKeys
from .sdk.settings import Settings
from .sdk.specs import Spec

# Between two looks at what starts, and how long one may take, at a gateway that answers once it has started.
POLL_SECONDS, LOOK_SECONDS = 0.1, 5
PUT_TRIES = 3
LOG_LINES = 30
SETTLE_SECONDS = 5


@dataclass(frozen=True)
class Shipped:
    """What became of a function: `ok` or `unchanged`, and the image that is live."""

    outcome: str
    image: str


@dataclass(frozen=True)
class Ship:
    """The neighbours that shipping needs."""

    gateway: Gateway
    builder: Builder
    settings: Settings
    keys: SealKeys | None = None

    def ship(self, shipment: Shipment, build: Callable[[], str], repository: str) -> Shipped:
        """Bring the function to the state that `shipment` describes.

        `build` builds and pushes the image and returns its digest; it is called only if
        `repository` (the function's own path in the registry) has none for this context.
        """
        subject, name = subject_of(shipment), shipment.function.name
        spec = deployment.wanted(shipment, self.settings, now=int(time.time()))
        where = url(self.settings, spec["service"], shipment)
        with records.stage("check", subject, name):
            current = self.gateway.get(spec["service"])
            self._check_owner(current, shipment)
            opened = self._opened(shipment)
            self._check_secrets(shipment, spec)
        if current and deployment.is_unchanged(current, spec):
            records.emit("deploy", subject, name, Stage("unchanged", url=where), 0)
            return Shipped("unchanged", current.image)
        # A build and a start may print what they were given; who sees the push need not know it.
        given = [*shipment.function.build_args.values(), *shipment.function.environment.values()]
        given += [shown for value in opened.values() for shown in (value, json.dumps(value)[1:-1])]
        with records.stage("build", subject, name, hide=given) as told:
            digest = self.builder.digest(repository, context=shipment.digest)
            told.outcome = "unchanged" if digest else "ok"
            digest = digest or build()
        image = self._image(shipment, repository, digest)
        with records.stage("deploy", subject, name, hide=given) as told:
            told.url = where
            self._deploy(spec, image, shipment, current, opened, told.log)
        return Shipped("ok", image)

    def is_live(self, shipment: Shipment) -> bool:
        """Whether there is nothing to ship; what `ship` would refuse or fail is raised."""
        spec = deployment.wanted(shipment, self.settings, now=int(time.time()))
        current = self.gateway.get(spec["service"])
        self._check_owner(current, shipment)
        self._check_secrets(shipment, spec)
        return deployment.is_unchanged(current, spec) or deployment.sleeps_unchanged(current, spec)

    def _image(self, shipment: Shipment, repository: str, digest: str) -> str:
        """The reference by which the cluster pulls: the tag is for people, the digest decides."""
        path = repository.removeprefix(self.settings.push_repository_url.rstrip("/"))
        return f"{self.settings.repository_url.rstrip('/')}{path}:{shipment.sha}@{digest}"

    def _check_secrets(self, shipment: Shipment, spec: Spec) -> None:
        """A missing secret kills a running function on some providers: look before the PUT."""
        known = self.gateway.secret_names() if spec["secrets"] else set()
        names = zip(shipment.function.secrets, spec["secrets"], strict=True)
        missing = {name: full for name, full in names if full not in known and name not in shipment.sealed}
        if missing:
            owner = shipment.repository.owner.login
            listed = ", ".join(f"{name} (in the cluster: {full})" for name, full in missing.items())
            commands = ", ".join(f"`python -m local secret set {owner} {name}`" for name in missing)
            raise Failed(
                f"{spec['service']}: {owner} has no such secret: {listed}; create it first, on "
                f"the local cloud by {commands}, or seal it in secrets.yml"
            )

    def _opened(self, shipment: Shipment) -> Mapping[str, str]:
        """The sealed secrets by their names in the cluster, which are always below their owner's id."""
        if not shipment.sealed:
            return {}
        if not self.keys:
            raise Failed("this cloud opens no sealed secrets: its operator must give it the secret seal-key")
        owner, repo = shipment.repository.owner.id, shipment.repository.id
        home = Home(shipment.scm, owner, repo)
        return {
            naming.user_secret(shipment.scm, owner, name): self.keys.open(name, text, home)
            for name, text in shipment.sealed.items()
        }

    def _set_secrets(self, opened: Mapping[str, str], now: Status | None, spec: Spec) -> None:
        """Values can't be read back: what was deployed with the same sealed text has the same."""
        if opened and not (deployment.has_sealed(now, spec) and opened.keys() <= self.gateway.secret_names()):
            for name, value in opened.items():
                self.gateway.set_secret(name, value)

    def _check_owner(self, current: Status | None, shipment: Shipment) -> None:
        ownership.check_owner(current, shipment, adopt_legacy=self.settings.adopt_legacy)

    def _deploy(
        self,
        spec: Spec,
        image: str,
        shipment: Shipment,
        current: Status | None,
        opened: Mapping[str, str],
        log: list[str],
    ) -> None:
        started = datetime.now(timezone.utc).isoformat()
        now = self._settled(self.gateway.get(spec["service"]))
        self._check_owner(now, shipment)  # somebody else may have taken the name during the build
        if not deployment.is_same(now, current):
            raise Superseded(f"{spec['service']}: it was changed while this version was built")
        previous = deployment.last_ready(now, spec)
        self._set_secrets(opened, now, spec)
        whole = deployment.complete(spec, image, uuid.uuid4().hex, previous)
        shown, wrong = self._proven(whole, self._put(whole, now))
        if wrong:
            try:
                log += self._last_lines(spec["service"], started)
            finally:
                self._roll_back(spec["service"], deployment.nonce_of(shown), previous)
            if now and previous is None:
                wrong += "; it stays: no ready version before it is kept whole"
            raise Failed(wrong)

    def _settled(self, current: Status | None) -> Status | None:
        """`current`, a moment later if it is just restarting: then it is still the one to go back to."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while current and deployment.is_starting(current) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            current = self.gateway.get(current.name)
        return current

    def _put(self, spec: Spec, before: Status | None) -> Status:
        """Deploy, and believe no answer but a GET that shows our nonce, or a twin's; what it shows.

        Where there was no function one is created, never updated: it would be somebody else's by now.
        """
        service, nonce = spec["service"], str(spec["annotations"][deployment.NONCE])
        error: CloudError = Unavailable(f"{service}: the gateway took the deploy, but does not show it")
        for attempt in range(PUT_TRIES):
            try:
                if before:
                    self.gateway.deploy(spec, over=before)
                else:
                    self.gateway.create(spec)
            except CloudError as raised:
                error = raised
                time.sleep(POLL_SECONDS * 4 * (attempt + 1))  # before the look: what follows it is at once
            status = self.gateway.get(service)
            if status and deployment.nonce_of(status) == nonce:
                return status
            if status and not deployment.is_same(status, before):
                return self._twin(status, spec)
            if not isinstance(error, (Unavailable, Upstream)):
                break
        raise error

    def _proven(self, spec: Spec, shown: Status) -> tuple[Status, str]:
        """Wait until the version is ready: what is shown of it by then, and what is wrong with it."""
        service, seconds = spec["service"], self.settings.deploy_timeout
        deadline = time.monotonic() + seconds
        while True:
            if shown.failure:
                return shown, f"{service} does not start: {shown.failure}"
            if shown.available_replicas:
                return shown, ""
            if time.monotonic() > deadline:
                return shown, f"{service} was not ready within {seconds:g} s{_readiness(spec)}"
            time.sleep(POLL_SECONDS)
            status = self.gateway.get(service, wait=min(LOOK_SECONDS, deadline - time.monotonic()))
            if status is None or not deployment.is_same(status, shown):
                status, deadline = self._twin(status, spec), time.monotonic() + seconds
            shown = status

    def _twin(self, status: Status | None, spec: Spec) -> Status:
        """What is there in the place of `spec`, if that is the same version by another attempt.

        It is waited for as if it were ours: two attempts that gave way to each other would never end.
        """
        if status is None or not deployment.is_twin(status, spec):
            raise Superseded(f"{spec['service']}: another version was deployed at the same time")
        return status

    def _last_lines(self, service: str, since: str) -> list[str]:
        try:
            log = self.gateway.logs(service, since, follow=False, read_seconds=10, tail=LOG_LINES)
            lines = deque(log, LOG_LINES)
        except CloudError as error:
            return [f"(its log can't be read: {error.message})"]
        return [line.rstrip() for line in lines]

    def _roll_back(self, service: str, nonce: str, previous: Spec | None) -> None:
        """Put the last ready version back, while what is deployed is still ours."""
        status = self.gateway.get(service)
        if previous is None or deployment.nonce_of(status) != nonce:
            return
        with suppress(Superseded):  # the version that failed is replaced as well, and has failed
            self._put(deployment.complete(previous, previous["image"], uuid.uuid4().hex, None), status)


def subject_of(shipment: Shipment) -> Subject:
    owner, repo = shipment.repository.owner, shipment.repository
    return Subject(
        shipment.delivery, owner.login, repo.name, shipment.sha, shipment.scm, owner.id, repo.id, shipment.sha
    )


def url(settings: Settings, service: str, shipment: Shipment) -> str:
    owner, function = shipment.repository.owner.login, shipment.function
    return settings.function_url(owner, function.name, naming.qualified(service, function.namespace))


def _readiness(spec: Spec) -> str:
    """What ready means, for one that logs nothing."""
    path = spec["annotations"].get(policy.HEALTH_PATH)
    answers = f"GET {path}" if path else "GET /_/ready or /_/health, where it has them,"
    return f" (setting deploy_timeout): ready is what answers {answers} at port 8080 with a status below 300"
