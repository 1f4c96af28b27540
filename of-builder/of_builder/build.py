"""One build: drives BuildKit through buildx, pushes the image, and yields the log as it comes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sdk.builder import Line
from sdk.errors import Failed, Unavailable

from .progress import Progress
from .settings import Settings, buildx
from .tarball import Job

CONTEXT_TAG = "ctx-"
IMAGE_LABEL = "com.openfaas.cloud.built=1"
_STOP_SECONDS = 5
_LINE_BYTES = 48 * 1024


async def build(job: Job, work: Path, settings: Settings) -> AsyncGenerator[Line, None]:
    """Build and push `job`; the last line has status `success` or `failed`.

    Cancelling the iteration stops buildx, and with it the solve.
    """
    image, progress = job.config.reference, Progress()
    metadata = work / "metadata.json"
    process = await asyncio.create_subprocess_exec(
        *command(job, metadata, settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(work),
        start_new_session=True,
    )
    try:
        async for lines in _output(process, progress, settings.build_timeout):
            for log in _chunks(lines):
                yield Line(log, image, "in_progress")
        code = await process.wait()
    except asyncio.TimeoutError:
        said = f"the build takes longer than {settings.build_timeout:.0f} s"
        yield Line([], image, "failed", said, Failed.code)
        return
    finally:
        await _stop(process)
    if code == 0:
        yield Line([], image, "success", digest=_digest(metadata), context=job.digest)
    else:
        error, ours = progress.error()
        yield Line([], image, "failed", error, Unavailable.code if ours else Failed.code)


def command(job: Job, metadata: Path, settings: Settings) -> Sequence[str]:
    """The argument list of buildx. Our own build args come last: of two, BuildKit takes the last."""
    image = job.config.reference
    repository = image.rpartition(":")[0]
    # Cache mounts are shared by path: each owner gets a name space of its own.
    owner = "/".join(repository.split("/")[1:3])
    build_args = [*sorted(job.config.build_args.items()), ("BUILDKIT_CACHE_MOUNT_NS", owner)]
    return [
        buildx(),
        "build",
        *(("--builder", BUILDER) if settings.buildkit_url else ()),
        "--push",
        "--provenance=false",
        "--progress=rawjson",
        f"--metadata-file={metadata}",
        f"--label={IMAGE_LABEL}",
        f"--tag={image}",
        f"--tag={repository}:{CONTEXT_TAG}{job.digest}",
        *(f"--build-arg={name}={value}" for name, value in build_args),
        "--",
        str(job.context),
    ]


BUILDER = "of-buildkit"


async def create_builder(settings: Settings, work: Path) -> None:
    """Tell buildx of a standalone buildkitd. The Docker engine's own BuildKit needs nothing."""
    if not settings.buildkit_url:
        return
    arguments = ("create", "--driver=remote", f"--name={BUILDER}", "--", settings.buildkit_url)
    process = await asyncio.create_subprocess_exec(buildx(), *arguments, env=_environment(work))
    if await process.wait():
        raise Unavailable(f"buildx can't use the BuildKit at {settings.buildkit_url}")


async def prune(settings: Settings, work: Path) -> None:
    """Keep the build cache within its limit."""
    arguments = ("prune", "--force", f"--keep-storage={settings.cache_limit_gb}gb")
    process = await asyncio.create_subprocess_exec(
        buildx(), *arguments, stdout=asyncio.subprocess.DEVNULL, env=_environment(work)
    )
    await process.wait()


async def _output(
    process: asyncio.subprocess.Process, progress: Progress, seconds: float
) -> AsyncIterator[list[str]]:
    assert process.stderr
    deadline = time.monotonic() + seconds
    while piece := await asyncio.wait_for(process.stderr.read(64 * 1024), deadline - time.monotonic()):
        if lines := list(progress.feed(piece.decode(errors="replace"))):
            yield lines
    if lines := list(progress.close()):
        yield lines


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End buildx if it still runs; SIGTERM cancels the solve."""
    if process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except asyncio.TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _chunks(lines: Sequence[str]) -> list[list[str]]:
    """Lines in groups that stay below what clients read as one line (64 KiB)."""
    chunks: list[list[str]] = [[]]
    size = 0
    for line in lines:
        length = len(msgspec.json.encode(line)) + 1
        if size + length > _LINE_BYTES and chunks[-1]:
            chunks.append([])
            size = 0
        chunks[-1].append(line)
        size += length
    return chunks


def _digest(metadata: Path) -> str:
    rows = msgspec.json.decode(metadata.read_bytes(), type=dict[str, object])
    return str(rows["containerimage.digest"])


def _environment(work: Path) -> dict[str, str]:
    """Only what buildx needs: no setting or secret of ours."""
    kept = ("PATH", "DOCKER_HOST", "BUILDX_CONFIG", "DOCKER_CONFIG")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    return {"HOME": str(work), **given}
