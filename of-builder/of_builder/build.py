"""One build: drives BuildKit through buildx, pushes the image, and yields the log as it comes."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from sdk.builder import Line
from sdk.errors import Failed

from .buildkit import POLICY, BuildKit, docker_config, stop
from .kept import redact
from .progress import Progress
from .sources import Allowed
from .tarball import Job

CONTEXT_TAG = "ctx-"
CACHE_TAG = "cache"
IMAGE_LABEL = "com.openfaas.cloud.built=1"
CREATED = "org.opencontainers.image.created"
# Constant, or a new commit would re-run what uses it; the first year that a zip file can hold.
SOURCE_DATE_EPOCH = 315532800
_LINE_BYTES = 48 * 1024


async def build(
    job: Job, work: Path, environment: Mapping[str, str], buildkit: BuildKit, *, pull: bool = False
) -> AsyncGenerator[Line, None]:
    """Build and push `job`; the last line has status `success` or `failed`.

    `pull`: its base images are what the registries have now, whatever is in the engine's store.
    Cancelling the iteration stops buildx, and with it the solve.
    """
    settings, image = buildkit.settings, str(job.image)
    progress = Progress(lambda line: redact(line, job.hidden))
    metadata = work / "metadata.json"
    process = await buildkit.start(*command(job, metadata, buildkit, pull=pull), extra=environment)
    try:
        async for lines in _output(process, progress, settings.build_timeout):
            for log in _chunks(lines):
                yield Line(log, image, "in_progress")
        code = await process.wait()
    except asyncio.TimeoutError:
        said = f"the build takes longer than {settings.build_timeout:.0f} s"
        yield Line([], image, "failed", said, Failed.code, reason="timeout", steps=progress.steps())
        return
    finally:
        await stop(process)
    if code == 0:
        digest = "" if job.config.skip_push else _digest(metadata)
        yield Line([], image, "success", digest=digest, context=job.digest, steps=progress.steps())
    else:
        failure = progress.failure()
        reason, steps = failure.reason, progress.steps()
        yield Line([], image, "failed", failure.error, failure.code, reason=reason, steps=steps)


def prepare(work: Path, allowed: Allowed, buildkit: BuildKit, secrets: Mapping[str, str]) -> dict[str, str]:
    """Write what buildx reads beside the context, and return the environment that names it."""
    (work / "policy.json").write_bytes(allowed.policy())
    environment = {POLICY: str(work / "policy.json")}
    if config := docker_config(buildkit.settings):
        folder = work / "docker"
        folder.mkdir(mode=0o700)
        (folder / "config.json").write_bytes(config)
        environment["DOCKER_CONFIG"] = str(folder)
    # In the environment, they are never on a disk.
    return {**environment, **{_secret_variable(at): text for at, text in enumerate(secrets.values())}}


def command(job: Job, metadata: Path, buildkit: BuildKit, *, pull: bool = False) -> Sequence[str]:
    """The argument list of buildx."""
    repository = job.image.repository
    created = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {**job.origin, CREATED: created}
    return [
        "build",
        *buildkit.chosen,
        *_output_options(job, buildkit),
        *(["--pull"] if pull else []),
        "--provenance=false",
        "--progress=rawjson",
        f"--metadata-file={metadata}",
        f"--label={IMAGE_LABEL}",
        *(f"--label={name}={text}" for name, text in labels.items()),
        f"--tag={job.image}",
        # What was built with a secret is never found again by what went in: that has not all of it.
        *([] if job.secrets else [f"--tag={repository}:{CONTEXT_TAG}{job.digest}"]),
        *(f"--platform={','.join(job.config.platforms)}" for _ in job.config.platforms[:1]),
        *(f"--secret=id={name},env={_secret_variable(at)}" for at, name in enumerate(job.secrets)),
        *_fences(job, buildkit),
        *(f"--build-arg={name}={value}" for name, value in _build_args(job, buildkit)),
        "--",
        str(job.context),
    ]


def _output_options(job: Job, buildkit: BuildKit) -> Sequence[str]:
    settings = buildkit.settings
    if job.config.skip_push:
        return ["--output=type=cacheonly"]
    insecure = ",registry.insecure=true" if settings.insecure else ""
    # The engine's exporter can't rewrite times.
    rewrite = ",rewrite-timestamp=true" if settings.buildkit_url else ""
    options = [f"--output=type=registry{insecure}{rewrite}"]
    if settings.registry_cache and not job.secrets:
        # An image manifest, so that no garbage collection takes it for an index without children.
        cache = f"type=registry,ref={job.image.repository}:{CACHE_TAG}{insecure}"
        options += [
            f"--cache-from={cache}",
            f"--cache-to={cache},mode=min,image-manifest=true,oci-mediatypes=true,ignore-error=true",
        ]
    return options


def _fences(job: Job, buildkit: BuildKit) -> Sequence[str]:
    """What keeps owners apart, and a step within its limits.

    A step's cache key holds the names of its extra hosts: with a host of the owner's own, no owner's step is
    ever answered from what another's left behind, say with a secret that is in no key; nor, in a new epoch,
    from what was installed in an older one.
    """
    settings = buildkit.settings
    parent = [f"--cgroup-parent={settings.cgroup_parent}"] if settings.cgroup_parent else []
    epoch = f".epoch-{_letters(job.config.epoch)}" if job.config.epoch else ""
    return [
        f"--add-host=owner-{_owner(job)}{epoch}.invalid:127.0.0.1",
        f"--ulimit=fsize={settings.file_limit_mb * 1024**2}",
        *parent,
    ]


def _build_args(job: Job, buildkit: BuildKit) -> Sequence[tuple[str, str]]:
    """Our own come last: of two, BuildKit takes the last."""
    settings = buildkit.settings
    proxies = {
        "HTTP_PROXY": settings.http_proxy,
        "HTTPS_PROXY": settings.https_proxy,
        "NO_PROXY": settings.no_proxy,
    }
    return [
        *sorted(job.config.build_args.items()),
        *((name, value) for name, value in proxies.items() if value),
        ("SOURCE_DATE_EPOCH", str(SOURCE_DATE_EPOCH)),
        # Cache mounts are shared by path: each owner gets a name space of its own.
        ("BUILDKIT_CACHE_MOUNT_NS", _owner(job)),
    ]


def _owner(job: Job) -> str:
    """The owner in letters that fit anywhere, and that no path of another's can be like."""
    return _letters(job.owner)


def _letters(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _secret_variable(at: int) -> str:
    return f"OF_BUILDER_SECRET_{at}"


async def _output(
    process: asyncio.subprocess.Process, progress: Progress, seconds: float
) -> AsyncIterator[list[str]]:
    assert process.stderr
    deadline = time.monotonic() + seconds
    while True:
        # Not wait_for: up to Python 3.11 it loses a cancellation that comes together with output.
        reading = asyncio.ensure_future(process.stderr.read(64 * 1024))
        try:
            await asyncio.wait({reading}, timeout=max(0.0, deadline - time.monotonic()))
            if not reading.done():
                raise asyncio.TimeoutError
        finally:
            reading.cancel()
            await asyncio.wait({reading})  # two can't read at a time
        if not (piece := reading.result()):
            break
        if lines := list(progress.feed(piece.decode(errors="replace"))):
            yield lines
    if lines := list(progress.close()):
        yield lines


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
