"""The functions of the platform: there, of one version, healthy, with their secrets, and with time enough."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sdk import __version__, settings

from .chain import ABOUT as TIMEOUTS
from .chain import Chain
from .cloud import Cloud
from .findings import Finding, fail, ok, unseen, warn

CLOCK_WARN, CLOCK_FAIL = 10, 240


def functions(cloud: Cloud) -> Iterator[Finding]:
    cloud.there = {status.name: status for status in cloud.gateway.list()}
    replies = {}
    for name in (function.name for function in cloud.platform):
        if name not in cloud.there:
            yield fail("functions", f"{name} is not deployed", f"faas-cli deploy --filter {name}")
            continue
        replies[name] = reply = cloud.ask("GET", f"/function/{name}")  # wakes one that is scaled to 0
        status = cloud.gateway.get(name) or cloud.there[name]  # faasd's list has no available replicas
        cloud.there[name] = status
        if status.failure or not status.available_replicas:
            why = status.failure or "no replica of it is ready"
            yield fail("functions", f"{name}: {why}", f"faas-cli logs {name}, mend it and deploy it again")
        elif reply.status != 200:
            yield fail("functions", f"{name} does not answer: {reply.said}", f"faas-cli logs {name}")
    yield from _versions(cloud, {name: _version(reply.body) for name, reply in replies.items()})


def _versions(cloud: Cloud, versions: Mapping[str, str]) -> Iterator[Finding]:
    known = {name: version for name, version in versions.items() if version}
    shown = ", ".join(f"{name} {version}" for name, version in known.items())
    if len(set(known.values())) > 1:
        yield fail(
            "functions", f"of different versions: {shown}", "faas-cli up all of them from one checkout"
        )
    elif known and set(known.values()) != {__version__}:
        yield warn("functions", f"{shown}; this doctor is {__version__}", "run the doctor of their version")
    elif len(known) == len(cloud.platform):
        yield ok("functions", f"all {len(known)} are deployed, answer, and are of version {__version__}")


def health(cloud: Cloud) -> Iterator[Finding]:
    """Ask each function itcloud."""
    if not cloud.payload:
        yield unseen(
            "health",
            "what the functions see of their settings, of-builder and the registry",
            "give --payload-secret-file, and they are asked",
        )
        return
    for name in cloud.messaged():
        reply, health = cloud.check(name)
        if health:
            cloud.healths[name] = health
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


def secrets(cloud: Cloud) -> Iterator[Finding]:
    needed = {name for function in cloud.platform for name in function.secrets}
    needed |= {name for status in cloud.ours() for name in status.secrets or ()}
    listed = cloud.gateway.secret_names()
    seen = {name for health in cloud.healths.values() for name in health.secrets}
    missing = sorted(needed - listed - seen)
    for name in missing:
        yield fail("secrets", f"{name} is missing", f"faas-cli secret create {name} --from-file=FILE")
    for name in sorted((needed & seen) - listed):
        said = f"{name} is there, but the gateway does not list it: the next deploy may not find it"
        yield warn("secrets", said, f"create it by faas-cli secret create {name}")
    for function in cloud.platform:
        health = cloud.healths.get(function.name)
        for name in sorted(set(function.secrets) - set(health.secrets)) if health else ():
            if name not in missing:
                yield fail(
                    "secrets",
                    f"{function.name} can't read {name}, or it is empty",
                    f"is it among the secrets of {function.name} in stack.yml? Deploy it again",
                )
    if not missing:
        yield ok("secrets", f"all {len(needed)} are there")


def clocks(cloud: Cloud) -> Iterator[Finding]:
    if not cloud.healths:
        yield unseen("clocks", "the functions' clocks", "give --payload-secret-file, and they are asked")
        return
    apart = {name: abs(health.at - cloud.asked_at[name]) for name, health in cloud.healths.items()}
    for name, seconds in apart.items():
        if seconds > CLOCK_WARN:
            kind = fail if seconds > CLOCK_FAIL else warn
            said = f"the clock of {name} and the one here are {seconds:.0f} s apart"
            yield kind(
                "clocks", said, "signed messages grow old: let NTP set the clocks of all nodes, and here"
            )
    if max(apart.values()) <= CLOCK_WARN:
        yield ok("clocks", f"at most {max(apart.values()):.1f} s apart")


def timeouts(cloud: Cloud) -> Iterator[Finding]:
    known = {name: _known_timeouts(cloud, name) for name in cloud.there}
    chain = Chain(known, cloud.upstream_timeout)
    if cloud.measure and cloud.payload:
        wanted: dict[str, float] = {
            name: chain.needed()[name] for name in ("git-tar", "buildshiprun") if name in cloud.there
        }
        with ThreadPoolExecutor(max(1, len(wanted))) as pool:
            held = dict(zip(wanted, pool.map(cloud.hold, wanted.items()), strict=True))
        chain = Chain(known, cloud.upstream_timeout, held)
    elif cloud.measure:
        yield unseen(TIMEOUTS, "how long calls may take", "--measure needs --payload-secret-file")
    yield from chain.findings()


def _known_timeouts(cloud: Cloud, name: str) -> Mapping[str, float]:
    """As the function says; else as the gateway shows its environment (Kubernetes does not)."""
    if name in cloud.healths:
        return cloud.healths[name].timeouts
    found = {}
    for key, text in (cloud.there[name].env_vars or {}).items():
        if key.endswith("_timeout") or key == "message_max_age":
            with suppress(ValueError):
                found[key] = float(settings.seconds(text))
    return found


def _version(body: bytes) -> str:
    try:
        return str(json.loads(body)["version"])
    except (ValueError, LookupError, TypeError):
        return ""
