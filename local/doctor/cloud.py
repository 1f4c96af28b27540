"""An installation as any operator's laptop reaches it: what was given, what was seen, and calls of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import requests

from sdk import checkup, messages
from sdk.checkup import Check, Health, Wanted
from sdk.errors import CloudError, told
from sdk.gateway import Gateway, Status
from sdk.secrets import Keys
from sdk.sessions import CONNECT_SECONDS, reason, session
from sdk.stack import Function

# buildshiprun builds an image before it answers.
CHECK_SECONDS = 120
READ_SECONDS = 15
# A held call is given so much longer before it counts as lost.
GRACE_SECONDS = 30
PAYLOAD = "payload-secret"


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
    """`platform` is what stack.yml deploys; the secrets are what the operator gave; the rest is filled by
    the examination: the functions that are there, what they say of themselves, and when they were asked.
    """

    gateway: Gateway
    platform: Sequence[Function]
    payload: Keys | None = None
    webhook: Keys | None = None
    measure: bool = False
    there: dict[str, Status] = field(default_factory=dict)
    healths: dict[str, Health] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    upstream_timeout: float = 0
    is_local: bool = False

    def messaged(self) -> list[str]:
        """The functions that take signed messages; list-functions takes links alone."""
        there = [function for function in self.platform if function.name in self.there]
        return [function.name for function in there if PAYLOAD in function.secrets]

    def ours(self) -> list[Status]:
        names = {function.name for function in self.platform}
        return [status for name, status in self.there.items() if name in names]

    def check(self, name: str, hold: float = 0) -> tuple[Reply, Health | None]:
        assert self.payload
        body = messages.seal(name, Check(Wanted(hold)))
        began = time.time()
        seconds = hold + GRACE_SECONDS if hold else CHECK_SECONDS
        headers = messages.headers(body, self.payload)
        reply = self.ask("POST", f"/function/{name}{checkup.PATH}", body, headers, seconds)
        health = None
        if reply.status == 200:
            with suppress(CloudError):
                health = messages.decode(reply.body, Health)
                # It said when it was asked, some time between then and now.
                self.asked_at[name] = min(max(health.at, began), time.time())
        return reply, health

    def hold(self, wanted: tuple[str, float]) -> str:
        reply, health = self.check(*wanted)
        return "" if health else reply.said

    def ask(
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
