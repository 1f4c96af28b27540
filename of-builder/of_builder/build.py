"""One build: drives BuildKit through buildx, pushes the image, and yields the log as it comes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sdk.builder import Line
from sdk.errors import Failed, Misconfigured, Unavailable

from .progress import Progress
from .settings import Settings, buildx
from .tarball import Job

BUILDER = "of-buildkit"
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
        env=_environment(settings),
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
        *_builder(settings),
        "--output=type=registry" + (",registry.insecure=true" if settings.insecure else ""),
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


async def create_builder(settings: Settings) -> None:
    """Tell buildx of a standalone buildkitd, and of none that an earlier process told it of.

    The Docker engine's own BuildKit needs nothing. Nothing connects before the first build does.
    """
    shutil.rmtree(settings.buildx_folder, ignore_errors=True)
    if not settings.buildkit_url:
        return
    arguments = ("create", "--driver=remote", f"--name={BUILDER}", "--", settings.buildkit_url)
    if await _run(settings, *arguments):
        raise Misconfigured(f"setting buildkit_url: buildx does not take {settings.buildkit_url!r}")


async def prune(settings: Settings) -> bool:
    """Keep the build cache within its limit; whether that worked."""
    keep = f"--keep-storage={settings.cache_limit_gb}gb"
    return not await _run(settings, "prune", *_builder(settings), "--force", keep)


async def _run(settings: Settings, *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        buildx(), *arguments, stdout=asyncio.subprocess.DEVNULL, env=_environment(settings)
    )
    return await process.wait()


def _builder(settings: Settings) -> Sequence[str]:
    return (f"--builder={BUILDER}",) if settings.buildkit_url else ()


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


def _environment(settings: Settings) -> dict[str, str]:
    """Only what buildx needs: no setting or secret of ours."""
    kept = ("PATH", "DOCKER_HOST", "DOCKER_CONFIG")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    return {"HOME": settings.work_folder, "BUILDX_CONFIG": str(settings.buildx_folder), **given}
