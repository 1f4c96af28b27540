"""The examination through the gateway, in the order in which one finding helps to understand the next."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from sdk.errors import CloudError

from . import functions, pushes
from .cloud import Cloud
from .findings import Finding, fail, ok, warn

# The provider as the local gateway names itself; it is the clock, too.
LOCAL = "openfaas-cloud-local"
_CHECKS = (
    functions.functions,
    functions.health,
    functions.secrets,
    pushes.neighbours,
    pushes.pull,
    functions.clocks,
    functions.timeouts,
    pushes.webhook,
    pushes.reconcile,
    pushes.queue,
)


def examine(cloud: Cloud) -> Iterator[Finding]:
    """One finding after the other; where the gateway can't be asked, there are no more."""
    reachable = [*_gateway(cloud)]
    yield from reachable
    if any(finding.level == "fail" for finding in reachable):
        return
    for check in _CHECKS:
        try:
            yield from check(cloud)
        except CloudError as error:
            yield fail(check.__name__, error.message, "see the gateway's own log, then run doctor again")


def _gateway(cloud: Cloud) -> Iterator[Finding]:
    url = cloud.gateway.url
    try:
        cloud.gateway.ping()
    except CloudError as error:
        yield fail("gateway", error.message, f"is {url} right, and reachable from here?")
        return
    if urlsplit(url).scheme != "https" and not _is_private(url):
        yield warn("gateway", f"{url} has no TLS: its password can be read on the way", "put TLS before it")
    try:
        info = cloud.gateway.info()
    except CloudError as error:
        yield fail(
            "gateway",
            f"its password is refused: {error.message}" if cloud.gateway.auth else "no password was given",
            f"faas-cli login --gateway {url} --password-stdin, or --username and --password-file",
        )
        return
    cloud.upstream_timeout = info.upstream_timeout
    version = info.version.release if info.version else ""
    name = info.provider.provider or info.provider.orchestration
    cloud.is_local = name == LOCAL
    yield ok("gateway", f"{url} answers: {name} {version}".rstrip())


def _is_private(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
