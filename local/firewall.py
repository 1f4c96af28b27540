"""What is published at 127.0.0.1 is for this machine alone: before version 28, Docker does not see to that.

Whoever is on the same network may route to the bridge that published containers are on, and Docker forwards
it (https://github.com/moby/moby/issues/45610). DOCKER-USER is the chain where others may say no before Docker
says yes (https://docs.docker.com/engine/network/packet-filtering-firewalls/); a restart of dockerd leaves it.
"""

from __future__ import annotations

import os
import shutil
import subprocess

import docker

from .steps import console, run

_BRIDGE = "docker_gwbridge"
_CHAIN = "DOCKER-USER"
_MENDED_API = (1, 48)
_WAIT = ("--wait", "10")
_NEW = ("-o", _BRIDGE, "!", "-i", _BRIDGE, "-m", "conntrack", "--ctstate", "NEW")
# Nobody's published port leads there, or one that is published at 127.0.0.1 does.
RULES = (
    (*_NEW, "-m", "conntrack", "!", "--ctstate", "DNAT", "-j", "DROP"),
    (*_NEW, "-m", "conntrack", "--ctorigdst", "127.0.0.0/8", "-j", "DROP"),
)


def ensure(client: docker.DockerClient) -> None:
    """Refuse what comes from elsewhere; what other services publish to the network goes on working."""
    api = tuple(int(part) for part in client.version()["ApiVersion"].split("."))
    if api >= _MENDED_API:
        return
    if os.geteuid() or not shutil.which("iptables"):
        console.print(
            "[yellow]who is on this machine's network can reach the cloud's containers: run `up` as root, "
            "with iptables, or use Docker 28 or newer[/]",
            soft_wrap=True,
        )
        return
    if not _filters():
        return
    for rule in RULES:
        if not _is_there(rule):
            run(("iptables", *_WAIT, "-I", _CHAIN, *rule), what="iptables")


def remove() -> None:
    """As far as there is anything to remove."""
    if os.geteuid() or not shutil.which("iptables"):
        return
    for rule in RULES:
        while _is_there(rule):
            run(("iptables", *_WAIT, "-D", _CHAIN, *rule), what="iptables")


def _filters() -> bool:
    """Whether Docker forwards at all: an engine with `iptables: false` does not."""
    return _succeeds("-S", _CHAIN)


def _is_there(rule: tuple[str, ...]) -> bool:
    return _succeeds("-C", _CHAIN, *rule)


def _succeeds(*arguments: str) -> bool:
    command = ("iptables", *_WAIT, *arguments)
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
