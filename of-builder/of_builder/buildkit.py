"""BuildKit through buildx: the one program that this package runs, and what it needs around it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sdk import secrets
from sdk.errors import Misconfigured, Unavailable

from .settings import Settings, buildx

BUILDER = "of-buildkit"
POLICY = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"
# For a buildkitd that speaks TLS; the option of buildx's driver, and our secret.
_CERTIFICATES = {"cacert": "buildkit-ca.pem", "cert": "buildkit-cert.pem", "key": "buildkit-key.pem"}
_STOP_SECONDS = 5
_CALL_SECONDS = 20


@dataclass(frozen=True)
class BuildKit:
    """The BuildKit of the settings; `folder` is where buildx keeps what it knows of it."""

    settings: Settings
    folder: Path

    async def create(self) -> None:
        """Tell buildx of a standalone buildkitd. Nothing connects before the first build does.

        The Docker engine's own BuildKit needs nothing.
        """
        url = self.settings.buildkit_url
        if not url:
            return
        code, said = await self.run("create", "--driver=remote", f"--name={BUILDER}", *self._tls(), "--", url)
        if code:
            raise Misconfigured(f"setting buildkit_url: buildx does not take {url!r}: {said.strip()[-300:]}")

    async def prune(self) -> bool:
        """Keep the build cache within its limit; whether that worked."""
        # buildx remembers each build in a file, for commands that nobody calls here.
        await asyncio.to_thread(shutil.rmtree, self.folder / "buildx" / "refs", ignore_errors=True)
        keep = f"--keep-storage={self.settings.cache_limit_gb}gb"
        code, _ = await self.run("prune", *self.chosen, "--force", keep, seconds=600)
        return code == 0

    async def worker(self) -> dict[str, str]:
        """What the worker says of itself: its labels, in short; `Unavailable` if it does not answer.

        `buildx inspect` ends with 0 also where nobody answers.
        """
        code, said = await self.run("inspect", *([BUILDER] if self.chosen else []))
        rows = [line.partition(":") for line in said.splitlines()]
        facts = {key.strip(): value.strip() for key, _, value in rows if value.strip()}
        if code or facts.get("Status") != "running":
            why = facts.get("Error") or facts.get("Status") or said.strip()[-300:]
            raise Unavailable(f"BuildKit does not answer: {why}")
        return {key.rpartition("buildkit.worker.")[2]: value for key, value in facts.items()}

    @property
    def chosen(self) -> Sequence[str]:
        return (f"--builder={BUILDER}",) if self.settings.buildkit_url else ()

    async def start(self, *arguments: str, extra: Mapping[str, str]) -> asyncio.subprocess.Process:
        """buildx, whose progress is on its stderr; it ends when we do, however that happens."""
        return await asyncio.create_subprocess_exec(
            *_dying_with_us(),
            buildx(),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**self._environment(), **extra},
            start_new_session=True,
        )

    async def run(
        self,
        *arguments: str,
        seconds: float = _CALL_SECONDS,
        extra: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """A short call: its exit code and all that it said; a code of its own if it takes too long."""
        process = await asyncio.create_subprocess_exec(
            *_dying_with_us(),
            buildx(),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**self._environment(), **(extra or {})},
            start_new_session=True,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), seconds)
        except asyncio.TimeoutError:
            return 124, f"no answer within {seconds:.0f} s"
        finally:
            await stop(process)
        return int(process.returncode or 0), said.decode(errors="replace")

    def _tls(self) -> Sequence[str]:
        folder = Path(self.settings.secret_mount_path)
        given = {name: folder / file for name, file in _CERTIFICATES.items() if (folder / file).exists()}
        options = ",".join(f"{name}={path}" for name, path in given.items())
        return (f"--driver-opt={options}",) if options and "tcp://" in self.settings.buildkit_url else ()

    def _environment(self) -> dict[str, str]:
        """Only what buildx needs: no setting or secret of ours."""
        kept = ("PATH", "DOCKER_HOST", "SSL_CERT_FILE")
        given = {name: os.environ[name] for name in kept if name in os.environ}
        return {
            "HOME": str(self.folder),
            "BUILDX_CONFIG": str(self.folder / "buildx"),
            "DOCKER_CONFIG": str(self.folder),
            # It would run git in the context, whose .git/config may name programs to run.
            "BUILDX_GIT_INFO": "false",
            "BUILDX_GIT_LABELS": "false",
            **given,
        }


def docker_config(settings: Settings) -> bytes | None:
    """The secret `registry-secret`: a Docker `config.json` with the registries' logins."""
    return secrets.content("registry-secret", settings.secret_mount_path)


async def stop(process: asyncio.subprocess.Process) -> None:
    """End buildx if it still runs; SIGTERM cancels the solve."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            _signal(process, number)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_ended(process), _STOP_SECONDS)
            break


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for its end, and drop what it still says.

    asyncio's `wait()` also waits for the pipes' end, which never comes to one that nobody reads:
    https://github.com/python/cpython/issues/119710
    """
    for pipe in (process.stdout, process.stderr):
        while pipe and await pipe.read(64 * 1024):
            pass
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _dying_with_us() -> Sequence[str]:
    """If we are killed, the kernel ends the program too (util-linux's setpriv; Linux only)."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig=TERM", "--") if setpriv else ()
