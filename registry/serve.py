"""Runs the registry, and cares for its storage: at each start, once a day, and when told to by SIGHUP.

Retention deletes while the registry serves. The garbage collection, which gives the space back, must not
run beside pushes (https://distribution.github.io/distribution/about/garbage-collection/), so the registry
stands still for it. It gets no --delete-untagged: that takes the children of multi-platform images.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdk.settings import read

from .settings import Settings

CONFIG = "/etc/openfaas-cloud/registry.yml"
REPOSITORIES = "docker/registry/v2/repositories"
# Longer than the draintimeout of config.yml.
_STOP_SECONDS = 35
# A gateway or a registry that hangs must not keep the next cycle from coming.
_RETENTION_SECONDS = 3600
_LOOK_SECONDS = 0.5


class Asked:
    """Whether a cycle was asked for by SIGHUP; SIGTERM ends the program."""

    def __init__(self) -> None:
        self.now = False
        signal.signal(signal.SIGHUP, self._remember)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def _remember(self, *_: object) -> None:
        self.now = True

    def wait(self, registry: subprocess.Popen[bytes], seconds: float) -> None:
        """Until a cycle is due; ends with the registry's own status if that ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.now:
            if (status := registry.poll()) is not None:
                sys.exit(status)
            time.sleep(_LOOK_SECONDS)
        self.now = False


@contextmanager
def serving() -> Iterator[subprocess.Popen[bytes]]:
    registry = subprocess.Popen(("docker-registry", "serve", CONFIG))
    try:
        yield registry
    finally:
        registry.terminate()
        try:
            registry.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:  # no push may meet the garbage collection
            registry.kill()
            registry.wait()


def retain(settings: Settings) -> None:
    """Run retention, if there is a gateway that knows what runs; one that fails runs again in a cycle."""
    if not settings.gateway_url or settings.retention == "off":
        return
    try:
        ended = subprocess.run((sys.executable, "-m", "registry.retention"), timeout=_RETENTION_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"retention was stopped after {_RETENTION_SECONDS} s: the next one goes on", flush=True)
    else:
        if ended.returncode:
            print(f"retention failed with {ended.returncode}, serving on", flush=True)


def collect(storage: Path) -> None:
    """Give back the space of what was deleted."""
    if not (storage / REPOSITORIES).exists():
        return
    command = ("docker-registry", "garbage-collect", CONFIG)
    collected = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if collected.returncode:
        print(f"garbage collection failed with {collected.returncode}, serving on", flush=True)
    else:
        gone = collected.stdout.count("\nblob eligible for deletion: ")
        print(f"garbage collected: {gone} blobs", flush=True)


def main() -> None:
    """Serve until told to stop."""
    settings = read(Settings)
    asked = Asked()
    while True:
        collect(Path(settings.storage))
        with serving() as registry:
            asked.wait(registry, settings.interval)
            retain(settings)


if __name__ == "__main__":
    main()
