"""A build from its tar to its kept log: who may, in which turn, what came of it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence, Set
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from sdk.builder import Line
from sdk.errors import Busy, CloudError, Misconfigured, Missing, Unavailable
from sdk.registry import Credentials, Reference, Registry
from sdk.signature import Running as Signature

from . import callers, kept, sealed, sources, tarball
from .bases import Bases
from .build import CONTEXT_TAG, build, prepare
from .buildkit import BuildKit, docker_config
from .metrics import Metrics
from .protection import Watch
from .running import Builds, Running
from .settings import Settings
from .turns import Turns

# A sender that is gone without a word must not keep its place.
RECEIVE_SECONDS = 300
LOG_SECONDS, LOG_CALL_SECONDS = 15, 3
_DEFAULT_PLATFORM = "linux/amd64"

log = logging.getLogger("of-builder")


@dataclass
class Service:
    """What the requests share; `folder` is this process's own, with one folder a build."""

    settings: Settings
    folder: Path
    requests: set[asyncio.Task[object]] = field(default_factory=set)  # from their first byte on
    owners: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.buildkit = BuildKit(self.settings, self.folder)
        self.bases = Bases(self.buildkit)
        self.watch = Watch(self.buildkit)
        self.key = sealed.Key.read(self.settings.secret_mount_path)
        self.turns = Turns(self.settings.parallel_builds)
        self.builds = Builds()
        self.metrics = Metrics(lambda: len(self.turns.waiting), lambda: len(self.turns.running))

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for a request with its files: those that arrive count too."""
        if len(self.requests) >= self.settings.places:
            raise Busy(f"{len(self.requests)} builds are running or waiting already")
        task = asyncio.current_task()
        assert task
        self.requests.add(task)
        try:
            yield
        finally:
            self.requests.remove(task)

    @contextmanager
    def share(self, job: tarball.Job) -> Iterator[None]:
        """The place is counted as its owner's: nobody's builds take all of them."""
        most = max(self.settings.parallel_builds + 1, self.settings.places // 2)
        if self.owners[job.owner] >= most:
            raise Busy(f"{self.owners[job.owner]} builds of {job.owner} are running or waiting already")
        self.owners[job.owner] += 1
        try:
            yield
        finally:
            self.owners[job.owner] -= 1
            self.owners += Counter()  # forgets those with none

    async def receive(self, body: AsyncIterable[bytes], header: str | None, work: Path) -> tarball.Job:
        """The job in the request; whoever signed it may push the image."""
        limit, tar = self.settings.request_limit_mb * 1024**2, work / "request.tar"
        signatures = {caller: Signature(caller.keys) for caller in callers.known(self.settings)}
        try:
            receiving = tarball.receive(body, tar, header, signatures, limit)
            caller = await asyncio.wait_for(receiving, RECEIVE_SECONDS)
        except asyncio.TimeoutError:
            raise Unavailable(f"the request has not arrived within {RECEIVE_SECONDS} s") from None
        entries = self.settings.context_files_limit
        unpack = asyncio.to_thread(
            tarball.unpack, tar, work, self.key, entries_limit=entries, bytes_limit=limit
        )
        unpacking = asyncio.ensure_future(unpack)
        try:
            job = await asyncio.shield(unpacking)
        finally:
            # A thread can't be cancelled, and would write into the folder that is being removed.
            await asyncio.gather(unpacking, return_exceptions=True)
        tar.unlink()
        caller.check(job.image)
        return job

    def begin(self, job: tarball.Job, work: Path) -> Running:
        """The build of `job`, which removes `work` in the end; or the running one of the same."""
        key = (job.image.repository, job.digest, job.config.skip_push)
        if not job.secrets and (running := self.builds.find(key)):
            self.metrics.joined()
            running.tags.add(job.image.tag)
            return running
        said = kept.Log()
        tags = {job.image.tag, *([] if job.secrets else [CONTEXT_TAG + job.digest])}
        started = Running(job, tags, said, self._lines(job, tags, work, said))
        return self.builds.start(None if job.secrets else key, started)

    async def tagged(
        self, lines: AsyncGenerator[Line, None], job: tarball.Job, built: tarball.Job
    ) -> AsyncGenerator[Line, None]:
        """The lines of a build that `job` follows: its image gets the tag that `job` wants, too."""
        async for line in lines:
            if line.status == "success" and job.image != built.image and not job.config.skip_push:
                try:
                    await asyncio.to_thread(self._tag, job.image, line.digest)
                except CloudError as error:  # the registry's failure: never the author's
                    line = _failed(
                        job, error if isinstance(error, Misconfigured) else Unavailable(error.message)
                    )
            yield replace(line, image=str(job.image))

    def registry(self, image: Reference) -> Registry:
        """The API of the registry that has the image."""
        scheme = "http" if self.settings.insecure else "https"
        url = self.settings.registry_api_url or f"{scheme}://{image.api_host}"
        config = docker_config(self.settings)
        return Registry(url, Credentials.read(config).login(image.host) if config else None)

    async def log_of(self, image: Reference, tag: str) -> tuple[str, bool]:
        """The log of what was built with that tag, and whether it is whole; `Missing` if there is none."""
        for running in list(self.builds.all):
            if running.job.image.repository == image.repository and tag in running.tags:
                return running.log.text(), running.has_ended
        return await asyncio.to_thread(kept.load, self.registry(image), image.path, tag), True

    async def _lines(
        self, job: tarball.Job, tags: Set[str], work: Path, said: kept.Log
    ) -> AsyncGenerator[Line, None]:
        """The build's own lines, after those that say how many builds are ahead; then its log is kept."""
        image, began, last = str(job.image), time.monotonic(), Line()
        try:
            await self.watch.check()
            allowed = sources.Allowed.of(self.settings.allowed_sources, job.image)
            text = (job.context / "Dockerfile").read_bytes()
            platforms = job.config.platforms or [_DEFAULT_PLATFORM]
            bases = sources.bases(text, job.config.build_args, platforms, allowed)
            with self.turns.ticket(job.owner) as ticket:
                async for ahead in self.turns.ahead(ticket):
                    waiting = f"waiting: {ahead} builds are ahead"
                    yield Line([waiting], image, "in_progress", code=Busy.code)
                log.info("building %s", image)
                began = time.monotonic()
                environment = prepare(work, allowed, self.buildkit, job.secrets)
                pulled = await self.bases.are_pulled(sorted(bases), job.config.epoch)
                await self.bases.check(sorted(bases), environment, pulled=pulled)
                async with aclosing(build(job, work, environment, self.buildkit, pull=pulled)) as lines:
                    async for last in lines:
                        said.add(last.log)
                        yield last
        except (CloudError, OSError) as error:  # a stream has its status already: only a line can tell
            last = _failed(job, error)
            yield last
        finally:
            if last.status == "in_progress" or not last.status:
                self.metrics.cancelled()
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, ignore_errors=True))
        self.metrics.ended(last, time.monotonic() - began)
        log.info("built %s: %s %s", image, last.status, last.reason)
        await self._keep(job, sorted(tags), said, last)

    async def _keep(self, job: tarball.Job, tags: Sequence[str], said: kept.Log, last: Line) -> None:
        if job.config.skip_push or last.code in (Unavailable.code, Misconfigured.code):
            return  # nothing of it goes to the registry, or the build will be tried again
        if last.error:
            said.add([f"ERROR: {last.error}"])
        text = kept.redact(said.text(), job.hidden)
        try:
            # Of a registry that hangs, no thread waits long: others need the threads, too.
            registry = replace(self.registry(job.image), seconds=LOG_CALL_SECONDS, retries=1)
            keeping = asyncio.to_thread(kept.store, registry, job.image.path, tags, text, last.status)
            await asyncio.wait_for(keeping, LOG_SECONDS)
        except (CloudError, asyncio.TimeoutError) as error:
            log.warning("the log of %s is not kept: %s", job.image, error or "the registry is too slow")

    def _tag(self, image: Reference, digest: str) -> None:
        registry = self.registry(image)
        manifest = registry.manifest(image.path, digest)
        if not manifest:
            raise Missing(f"the registry has lost {image.repository}@{digest}")
        registry.put_manifest(image.path, image.tag, manifest)


@contextmanager
def workplace(parent: str) -> Iterator[Path]:
    """A folder of this process's own; those of processes that are gone are removed."""
    for old in Path(parent).glob("of-builder-*"):
        lock = FileLock(old / "lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue  # its process lives
        shutil.rmtree(old, ignore_errors=True)
        lock.release()
    folder = Path(tempfile.mkdtemp(prefix="of-builder-", dir=parent))
    with FileLock(folder / "lock"):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _failed(job: tarball.Job, error: CloudError | OSError) -> Line:
    if isinstance(error, OSError):
        error = Unavailable(f"of-builder: {error.strerror}")
    reasons = {"failed": "syntax", "refused": "policy"}
    return Line(
        [], str(job.image), "failed", error.message, error.code, reason=reasons.get(error.code, error.code)
    )
