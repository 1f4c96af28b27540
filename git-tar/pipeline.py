"""What the loop of converge.py works with: the branch in git, and buildshiprun behind the gateway."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from . import fetch
from .contexts import Tree, pack
from .converge import Report, Result
from .sdk import messages, records, signature, stack
from .sdk.context import SignedTar
from .sdk.errors import CloudError, Failed, Malformed, TooLarge, Unavailable
from .sdk.gateway import Gateway
from .sdk.messages import Closing, Finish, Push
from .sdk.records import Stage, Subject
from .sdk.secrets import Keys
from .sdk.settings import Settings
from .sdk.stack import Function, Stack
from .sources import Sources

# buildshiprun's timeout in stack.yml; its own steps end before.
SHIP_SECONDS = 300
FINISH_SECONDS = 60
# How long a busy buildshiprun is asked again before the whole push goes back to the queue.
PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Pipeline:
    """One push on its way; a converge.Branch."""

    push: Push
    settings: Settings
    keys: Keys
    sources: Sources

    def head(self) -> str | None:
        url = self.push.repository.clone_url
        fetch.check_url(url, self.settings.allowed_git_hosts)
        return fetch.head(url, self.push.ref, seconds=self.settings.fetch_timeout)

    def apply(self, sha: str) -> Sequence[Result]:
        with tempfile.TemporaryDirectory(prefix="git-tar-") as work:
            tree, functions = self._checkout(sha, Path(work))

            def ship(function: Function) -> Result:
                return self._ship(function, tree, Path(work))

            with ThreadPoolExecutor(max(1, self.settings.parallel_functions)) as pool:
                results = list(pool.map(ship, functions))
        waiting = [f"{result.name}: {result.error}" for result in results if result.outcome == "retry"]
        if waiting:
            raise Unavailable("; ".join(waiting))
        return results

    def finish(self, sha: str, keep: Sequence[str]) -> Sequence[str]:
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
        gateway = Gateway(self.settings.gateway_url)
        answer = gateway.invoke("buildshiprun", body, headers, FINISH_SECONDS)
        return messages.decode(answer, _Finished).removed

    def report(self, report: Report) -> None:
        """Print the record of what became of the commit."""
        log = [f"{result.name}: {result.error}" for result in report.results if result.error]
        told = Stage(report.outcome, log)
        records.emit(
            records.TERMINAL_STAGE, self._subject(report.sha or self.push.after), "", told, 0, report.error
        )

    def _subject(self, sha: str) -> Subject:
        repository = self.push.repository
        return Subject(self.push.delivery, repository.owner.login, repository.name, sha)

    def _checkout(self, sha: str, work: Path) -> tuple[Tree, Sequence[Function]]:
        url, seconds = self.push.repository.clone_url, self.settings.fetch_timeout
        with records.stage("fetch", self._subject(sha)):
            folder = fetch.checkout(url, sha, work, seconds=seconds)
        found = read_stack(folder, self.settings.functions_limit)
        languages = self.sources.languages(self.settings)
        return Tree(self.push, sha, folder, found.configuration, languages), found.functions

    def _ship(self, function: Function, tree: Tree, work: Path) -> Result:
        try:
            with records.stage("shrinkwrap", self._subject(tree.sha), function.name):
                tar = pack(function, tree, work / f"{function.name}.tar", self.settings, self.keys)
            try:
                return self._send(tar, function.name)
            finally:
                tar.path.unlink()
        except CloudError as error:
            return Result(function.name, records.outcome_of(error), error=error.message)

    def _send(self, tar: SignedTar, name: str) -> Result:
        """buildshiprun's answer; one that is busy or restarts is asked again, with backoff."""
        headers = {signature.CLOUD_HEADER: tar.signature, "Content-Type": "application/x-tar"}
        gateway = Gateway(self.settings.gateway_url)
        retrying = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_delay(PATIENCE_SECONDS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        for attempt in retrying:
            with attempt, tar.path.open("rb") as body:
                answer = gateway.invoke("buildshiprun", body, headers, SHIP_SECONDS)
        shipped = messages.decode(answer, _Shipped)
        return Result(name, shipped.outcome, url=shipped.url)


def read_stack(folder: Path, functions_limit: int) -> Stack:
    """The stack file at the top of the tree; `Failed` tells the author what to mend."""
    file = next((folder / name for name in stack.FILE_NAMES if (folder / name).is_file()), None)
    if not file or file.is_symlink():
        raise Failed("there is no stack.yml at the top of the repository: nothing changes")
    try:
        found = stack.parse(file.read_bytes())
    except Malformed as error:
        raise Failed(f"{file.name}: {error.message}") from None
    if not found.functions:
        raise Failed(f"{file.name} has no functions: nothing changes")
    if len(found.functions) > functions_limit:
        raise TooLarge(f"{file.name} has {len(found.functions)} functions, {functions_limit} are allowed")
    return found


@dataclass(frozen=True)
class _Shipped:
    """buildshiprun's answer to a tar."""

    outcome: str
    url: str = ""


@dataclass(frozen=True)
class _Finished:
    """buildshiprun's answer to the closing message."""

    removed: tuple[str, ...] = ()
