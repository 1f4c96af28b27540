"""What the loop of converge.py works with: the branch in git, and buildshiprun behind the gateway."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import disk, fetch, lfs
from .contexts import Tree, pack
from .converge import Report, Result, Tidied
from .fetch import Client, Remote
from .mirrors import Checkout, Mirrors
from .overtaken import Cuts, Watch
from .sdk import messages, naming, records, signature
from .sdk.context import CLOUD_ENTRY, SignedTar, read_entry
from .sdk.errors import Busy, CloudError, Misconfigured, Unavailable
from .sdk.gateway import Gateway
from .sdk.messages import Closing, Finish, Overtaken, Push
from .sdk.records import Stage, Subject
from .sdk.secrets import Keys
from .sdk.sessions import persistently
from .sdk.settings import Settings
from .sdk.slots import Slots
from .sdk.stack import Function, Stack
from .sdk.tree import read_sealed, read_stack
from .setbacks import Setbacks
from .sources import held
from .submodules import Submodules
from .template_cache import TemplateCache

# buildshiprun's timeout in stack.yml; its own steps end before.
SHIP_SECONDS = 300
FINISH_SECONDS = 60
# How long a busy buildshiprun is asked again before the whole push goes back to the queue.
PATIENCE_SECONDS = 300
OVERTAKEN_SECONDS = 10


@dataclass(frozen=True)
class Pipeline:
    """One push on its way; a converge.Branch. `deadline`: when this call must end, by time.monotonic."""

    push: Push
    remote: Remote
    settings: Settings
    keys: Keys
    mirrors: Mirrors
    templates: TemplateCache
    setbacks: Setbacks
    cuts: Cuts
    sending: Slots
    deadline: float

    @property
    def repository(self) -> tuple[str, int]:
        """What stays the same wherever the repository is moved to."""
        return self.push.scm, self.push.repository.id

    @property
    def client(self) -> Client:
        fetch.check_url(self.remote.url, self.settings.allowed_git_hosts)
        return Client(self.remote, self.settings.fetch_timeout, self.settings.repo_limit_mb)

    def head(self) -> str | None:
        return self.client.head(self.push.ref)

    def apply(self, sha: str) -> Sequence[Result]:
        if not self.push.periodic:
            return self._applied(sha)
        with self.setbacks.counted(self.repository, sha, self.settings):
            return self._applied(sha)

    def _applied(self, sha: str) -> Sequence[Result]:
        with tempfile.TemporaryDirectory(prefix="git-tar-") as work:
            folder, found = self._checkout(sha, Path(work))
            with held(self.templates, found.configuration, self.settings) as sources:
                tree = Tree(self.push, sha, folder, found.configuration, sources, read_sealed(folder, found))
                ended = self._ship_all(found.functions, tree, Path(work))
        for error in ended:
            if isinstance(error, Misconfigured):
                raise error
        waiting = [error for error in ended if isinstance(error, Unavailable)]
        if waiting:
            kind = Busy if all(isinstance(error, Busy) for error in waiting) else Unavailable
            raise kind("; ".join(error.message for error in waiting))
        return [result for result in ended if isinstance(result, Result)]

    def _ship_all(
        self, functions: Sequence[Function], tree: Tree, work: Path
    ) -> Sequence[Result | Unavailable | Misconfigured]:
        if not self.push.periodic:
            for function in functions:  # all of them are known from now on
                records.emit(records.QUEUE_STAGE, self._subject(tree.sha), function.name, Stage(), 0)
        watch = Watch(self.head, tree.sha, lambda: self._tell_overtaken(tree.sha))
        with (
            self.cuts.watched(self.repository, watch) as watch,
            ThreadPoolExecutor(max(1, self.settings.parallel_functions)) as pool,
        ):

            def ship(function: Function) -> Result | Unavailable | Misconfigured:
                return self._ship(function, tree, work, watch)

            return list(pool.map(records.of_this_call(ship), functions))

    def _tell_overtaken(self, sha: str) -> None:
        """Let buildshiprun end what is built of the commit; what is being deployed goes on."""
        push, repository = self.push, self.push.repository
        told = Overtaken(push.scm, push.delivery, repository.owner.id, repository.id, sha)
        body = messages.seal("buildshiprun", told)
        gateway = Gateway(self.settings.gateway_url)
        gateway.invoke("buildshiprun", body, messages.headers(body, self.keys), OVERTAKEN_SECONDS)

    def finish(self, sha: str, keep: Sequence[str]) -> Tidied:
        push, repository = self.push, self.push.repository
        finish = Finish(
            scm=push.scm,
            delivery=push.delivery,
            owner=repository.owner.login,
            owner_id=repository.owner.id,
            repo=repository.name,
            repo_id=repository.id,
            sha=sha,
            keep=tuple(keep),
        )
        body = messages.seal("buildshiprun", Closing(finish))
        headers = messages.headers(body, self.keys)
        gateway, tries = Gateway(self.settings.gateway_url), itertools.count()

        def hand_over() -> bytes:
            next(tries)
            return gateway.invoke("buildshiprun", body, headers, max(1, self._seconds(FINISH_SECONDS)))

        answer = persistently(hand_over, self._seconds(FINISH_SECONDS))
        removed = messages.decode(answer, _Finished).removed
        return Tidied(removed, whole=next(tries) == 1)  # a try without an answer may have removed more

    def report(self, report: Report) -> None:
        """Print the record of what became of the commit, and remember a head that failed."""
        if report.outcome in ("ok", "skipped"):
            self.setbacks.forget(self.repository)
        elif report.outcome == "failed" and not self.push.periodic:
            self.setbacks.failed(self.repository, report.sha)
        errors = {result.name: result.error for result in report.results if result.error}
        log = [f"{name}: {error.removeprefix(f'{name}: ')}" for name, error in errors.items()]
        told = Stage(report.outcome, log)
        records.emit(
            records.TERMINAL_STAGE, self._subject(report.sha or self.push.after), "", told, 0, report.error
        )

    def _seconds(self, most: float) -> float:
        """How long a step may take: `most`, or what is left until the deadline."""
        return min(most, self.deadline - time.monotonic())

    def _subject(self, sha: str) -> Subject:
        push, repo, owner = self.push, self.push.repository, self.push.repository.owner
        return Subject(push.delivery, owner.login, repo.name, sha, push.scm, owner.id, repo.id, push.after)

    def _checkout(self, sha: str, work: Path) -> tuple[Path, Stack]:
        with records.stage("fetch", self._subject(sha)) as told, disk.checked():
            told.silent = self.push.periodic  # every few minutes, for every repository
            folder = self._fetched(sha, work / "tree", told.log)
            with suppress(CloudError):  # a bad file fails the push, not the fetch: it is read again below
                found = read_stack(folder, self.settings.functions_limit)
                told.log += [f"stack.yml: {line}" for line in found.ignored]
                return folder, found
        return folder, read_stack(folder, self.settings.functions_limit)

    def _fetched(self, sha: str, folder: Path, notes: list[str]) -> Path:
        """The commit's tree, with the submodules and Git LFS that the operator wants; `notes` name others."""
        owner, settings = f"{self.push.scm}/{self.push.repository.id}", self.settings
        checkout = self.mirrors.checkout(self.client, owner, sha, folder, settings)
        inner: Sequence[Checkout] = ()
        if settings.fetch_submodules:
            inner = Submodules(self.mirrors, owner, settings, self.deadline).fill(checkout, self.client)
        elif checkout.submodules:
            notes.append(f"submodules are not fetched here: {some(checkout.submodules)}")
        large = lfs.pointers(checkout)
        left = [pointer.path for part in inner for pointer in lfs.pointers(part)]
        if settings.fetch_lfs:
            lfs.fill(checkout, large, self.remote, settings, self.deadline)
        else:
            left += [pointer.path for pointer in large]
        if left:
            notes.append(f"Git LFS is not fetched here, only pointers: {some(left)}")
        return checkout.folder

    def _ship(
        self, function: Function, tree: Tree, work: Path, watch: Watch
    ) -> Result | Unavailable | Misconfigured:
        """What became of the function; what is no failure of its own is returned: the others are tried."""
        name = naming.qualified(function.name, function.namespace)
        try:
            watch.check()
            with records.stage("shrinkwrap", self._subject(tree.sha), function.name) as told, disk.checked():
                told.silent = self.push.periodic
                tar = pack(function, tree, work / f"{function.name}.tar", self.settings, self.keys)
            try:
                return self._send(tar, name, watch)
            finally:
                tar.path.unlink()
        except (Unavailable, Misconfigured) as error:
            return type(error)(f"{name}: {error.message}")
        except CloudError as error:
            return Result(name, records.outcome_of(error), error=error.message)

    def _send(self, tar: SignedTar, name: str, watch: Watch) -> Result:
        """buildshiprun's answer; one that is busy or restarts is asked again, with backoff."""
        if self.push.periodic and self._is_live(tar):
            return Result(name, "unchanged")
        headers = {signature.CLOUD_HEADER: tar.signature, "Content-Type": "application/x-tar"}
        gateway = Gateway(self.settings.gateway_url)

        def hand_over() -> bytes:
            # All pushes here together send no more than it takes: the next one need not ask when it may.
            waiting = self._seconds(PATIENCE_SECONDS)
            with (
                self.sending.taken(self.settings.parallel_long_calls, seconds=waiting),
                tar.path.open("rb") as body,
            ):
                watch.check()
                return gateway.invoke("buildshiprun", body, headers, max(1, self._seconds(SHIP_SECONDS)))

        if time.monotonic() > self.deadline:
            raise Busy("the push takes long, and goes on in a moment")
        answer = persistently(hand_over, self._seconds(PATIENCE_SECONDS))
        shipped = messages.decode(answer, _Shipped)
        return Result(name, shipped.outcome, url=shipped.url)

    def _is_live(self, tar: SignedTar) -> bool:
        """Whether buildshiprun knows without the context that nothing is to be done; else the tar tells."""
        with tar.path.open("rb") as file:
            body = read_entry(file, CLOUD_ENTRY) or b""
        headers, gateway = messages.headers(body, self.keys), Gateway(self.settings.gateway_url)
        try:
            answer = gateway.invoke("buildshiprun", body, headers, max(1, self._seconds(FINISH_SECONDS)))
            return messages.decode(answer, _Shipped).outcome == "unchanged"
        except CloudError:
            return False


def some(names: Iterable[str], most: int = 5) -> str:
    """The first few of many names."""
    listed = sorted(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


@dataclass(frozen=True)
class _Shipped:
    """buildshiprun's answer to a tar."""

    outcome: str
    url: str = ""


@dataclass(frozen=True)
class _Finished:
    """buildshiprun's answer to the closing message."""

    removed: tuple[str, ...] = ()
