"""The timeouts along the chain of a push: each must let the longest of what it waits for end. Pure.

gateway → queue worker → gateway → git-tar → gateway → buildshiprun → of-builder
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .findings import Finding, fail, ok, unseen

ABOUT = "timeouts"
# How long git-tar waits for buildshiprun, and buildshiprun for garbage-collect.
SHIP_SECONDS = 300
COLLECT_SECONDS = 30
_WATCHDOG = ("read_timeout", "write_timeout", "exec_timeout")
_HOW = "in its environment in stack.yml, and deploy it again"


@dataclass(frozen=True)
class Chain:
    """`functions`: the timeouts of each, as far as they are known; `gateway`: its own, 0 if unknown.

    `held`: how long a call of a function really came through, or why it did not.
    """

    functions: Mapping[str, Mapping[str, float]]
    gateway: float = 0
    held: Mapping[str, str] | None = None

    @property
    def build_and_deploy(self) -> float:
        known = self.functions.get("buildshiprun", {})
        return known.get("build_timeout", 210) + known.get("deploy_timeout", 60)

    @property
    def push(self) -> float:
        return self.functions.get("git-tar", {}).get("push_timeout", 780)

    def needed(self) -> Mapping[str, float]:
        """How long a call of each function may take."""
        return {
            "git-tar": self.push,
            "buildshiprun": self.build_and_deploy,
            "garbage-collect": COLLECT_SECONDS,
        }

    def findings(self) -> Iterator[Finding]:
        yield from self._functions()
        yield from self._between()
        longest = max(self.push, self.build_and_deploy)
        if self.held is not None:
            yield from self._held()
        elif not self.gateway:
            yield unseen(
                ABOUT,
                "the gateway's read_timeout, write_timeout and upstream_timeout, and those of an ingress",
                f"each must be over {longest:g} s; `doctor --measure` holds calls open for so long",
            )
        if self.gateway and self.gateway < longest:
            yield fail(
                ABOUT,
                f"the gateway ends calls after {self.gateway:g} s, a push takes up to {longest:g} s",
                f"set the gateway's upstream_timeout to {longest + 120:g}s",
            )
        elif self.gateway:
            yield ok(ABOUT, f"gateway and queue wait {self.gateway:g} s, a push takes up to {longest:g} s")
        else:
            yield unseen(
                ABOUT,
                "the queue worker's ack_wait",
                f"it must be over {longest:g} s, else a push that takes long is worked on twice at once",
            )

    def _functions(self) -> Iterator[Finding]:
        for name, seconds in self.needed().items():
            known = self.functions.get(name, {})
            given = {key: known[key] for key in _WATCHDOG if key in known}
            if not given:
                yield unseen(
                    ABOUT,
                    f"the watchdog's of {name}",
                    f"read_, write_ and exec_timeout must be over {seconds:g} s",
                )
                continue
            short = [f"{key} is {value:g} s" for key, value in given.items() if value < seconds]
            short += [f"{key} is not set" for key in _WATCHDOG if key not in given]
            if short:
                said = f"{name}: {', '.join(short)}, its longest call takes {seconds:g} s"
                yield fail(
                    ABOUT,
                    said,
                    f"set read_timeout, write_timeout and exec_timeout to over {seconds:g}s {_HOW}",
                )
            else:
                yield ok(ABOUT, f"{name}: {min(given.values()):g} s, its longest call takes {seconds:g} s")

    def _between(self) -> Iterator[Finding]:
        """What one function of ours waits for another."""
        if self.build_and_deploy > SHIP_SECONDS:
            yield fail(
                ABOUT,
                f"build_timeout and deploy_timeout are {self.build_and_deploy:g} s together, git-tar waits "
                f"{SHIP_SECONDS} s for a function",
                f"make their sum at most {SHIP_SECONDS}s in gateway_config.yml, and deploy again",
            )
        for name in ("buildshiprun", "garbage-collect"):
            age = self.functions.get(name, {}).get("message_max_age")
            if age is not None and age < self.push:
                yield fail(
                    ABOUT,
                    f"{name}: message_max_age is {age:g} s, less than a push may take: {self.push:g} s",
                    "set message_max_age to over push_timeout in gateway_config.yml, and deploy again",
                )

    def _held(self) -> Iterator[Finding]:
        for name, problem in (self.held or {}).items():
            seconds = self.needed()[name]
            if problem:
                yield fail(
                    ABOUT,
                    f"a call of {name} that took {seconds:g} s did not come through: {problem}",
                    "set read_timeout, write_timeout and upstream_timeout of the gateway, and those of what "
                    f"is before it, to over {seconds:g}s",
                )
            else:
                yield ok(ABOUT, f"a call of {name} that took {seconds:g} s came through the gateway")
