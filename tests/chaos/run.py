"""One run: rounds of pushes and faults, and between them the verdicts."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import docker
import requests

from local.state import State
from sdk.records import Record

from . import cleaning, expected, plan, quiet, verdict
from .authors import Author, Move
from .expected import Head
from .nemesis import Nemesis
from .plan import Commit, Fault, Function, Push, Repo, Round, Takeover
from .platform import Api, Control, deployment, names
from .verdict import Answers, Finding
from .witness import Caller, Canaries, Records

ROUND_SECONDS = 2.7
_SHOWN_RECORDS = 12
_TAKEOVER_SECONDS, _SETTLED_SECONDS = 15, 60
_NOTICED_SECONDS = 0.5  # by then buildshiprun, too, knows that a version has failed, and reads its log
_RECORDS_SECONDS = 2  # a record may be that long on its way


@dataclass
class Repository:
    """What is known of a repository: its author, and how it was when it was last verified."""

    author: Author
    answers: Answers = field(default_factory=dict)
    verified: int = 0  # how many heads of the branch's log

    @property
    def full_name(self) -> str:
        return self.author.repo.full_name

    def service(self, function: str) -> str:
        return f"{self.author.repo.owner}-{function}"


@dataclass
class Figures:
    """The one line that a run ends with."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    pushes: int = 0
    live: int = 0
    found: Counter[str] = field(default_factory=Counter)
    excused: int = 0

    @property
    def clean(self) -> bool:
        return not any(self.found.values())

    @property
    def table(self) -> str:
        """How often each fault was met."""
        kinds = sorted({name.rpartition(" ")[0] for name in self.faults})
        return "\n".join(f"{kind:12} {self._targets(kind)}" for kind in kinds)

    def _targets(self, kind: str) -> str:
        split = ((name.rpartition(" "), times) for name, times in self.faults.most_common())
        return ", ".join(f"{target} {times}" for (found, _, target), times in split if found == kind)

    def __str__(self) -> str:
        counted = ", ".join(
            f"{kind} {self.found[kind]}" for kind in ("lost", "wrong", "stuck", "foreign", "failed requests")
        )
        away = f" (and {self.excused} while the gateway itself was away)" if self.excused else ""
        met = self.faults.total()
        return (
            f"rounds {self.rounds}, faults {met}, pushes {self.pushes}, heads live {self.live}, "
            f"{counted}{away}"
        )


class Run:
    def __init__(self, state: State, engine: docker.DockerClient, control: Control, seed: int, folder: Path):
        self.state, self.engine, self.seed = state, engine, seed
        self.prefix = f"{cleaning.PREFIX}{seed}"
        self.known = plan.repos(self.prefix)
        self.repositories = {repo: self._repository(repo, folder) for repo in self.known}
        self.folder = folder
        self.nemesis = Nemesis(state, engine, control)
        self.records = Records(state)
        self.canaries = Canaries(state, engine)
        self.caller = Caller(state, self.nemesis, {})
        self.figures = Figures()
        self.taken: dict[str, Repository] = {}  # services that the operator holds
        self._pool = ThreadPoolExecutor(64)
        self._tasks: list[Future[None]] = []

    def go(self, rounds: int, *, keep_going: bool = False) -> Figures:
        self._set_up()
        if not self.figures.clean:
            return self._told(0)
        last_strict: bool | None = None
        for at in plan.rounds(self.seed, rounds, self.known):
            if last_strict is not None and at.strict != last_strict:
                self._verify(at.number - 1, strict=last_strict)
                if not (self.figures.clean or keep_going):
                    return self._told(at.number - 1)
            last_strict = at.strict
            self._round(at)
        self._verify(rounds, strict=bool(last_strict))
        return self._told(rounds)

    def _told(self, rounds: int) -> Figures:
        self.figures.rounds, self.figures.faults = rounds, self.nemesis.met()
        self.figures.excused = self.caller.excused
        return self.figures

    # What is there before the first round

    def _set_up(self) -> None:
        steady = Repo(self.prefix, "steady", ("a-y", "steady"))
        canary = self._repository(steady, self.folder)
        first = Commit(0, None, {name: Function(1, 0) for name in steady.names})
        decks = plan.Decks(self.seed, self.known)
        authors = [(canary.author, first)]
        authors += [(self.repositories[repo].author, plan.Author(repo, decks).head) for repo in self.known]
        for author, commit in authors:
            author.create(self.engine)
            author.deliver(author.push(commit, self.engine))
        repositories = [canary, *self.repositories.values()]
        deadline = time.monotonic() + quiet.CAP
        while missing := [(each, finding) for each in repositories for finding in self._judged(each)]:
            if time.monotonic() > deadline:
                for repository, finding in missing:
                    self._found(finding.kind, 0, self._explained(repository, finding))
                return
            time.sleep(0.5)
        for repository in repositories:
            self._accept(repository)
        self._unlabelled(canary)
        quiet.until_settled(self.engine, deadline)
        held = [canary.service(name) for name in steady.names]
        self.canaries.add(*held, f"{self.prefix}-a-x", *names(self.state))
        self._untouched = {name: str(canary.answers[name.removeprefix(f"{self.prefix}-")]) for name in held}
        self.caller.steady = dict(self._untouched)
        self.caller.start()

    def _unlabelled(self, canary: Repository) -> None:
        """A function that somebody deployed by hand, by a name that one of the repositories may take."""
        status = Api(self.state).status(canary.service("steady"))
        assert status
        by_hand = {**deployment(status), "service": f"{self.prefix}-a-x", "labels": {}, "annotations": {}}
        Api(self.state).deploy_ready(by_hand)

    def _repository(self, repo: Repo, folder: Path) -> Repository:
        return Repository(Author(repo, folder / f"{repo.owner}-{repo.name}.git", self.state))

    # A round

    def _round(self, at: Round) -> None:
        begun = time.monotonic()
        print(f"{at.number:4} {shown(at)}", flush=True)
        moved = [self._later(begun + push.at, self._push, push) for push in at.pushes]
        if at.takeover:
            # One that still waits could hold a write back behind its look: docs/guarantees.md, 1.
            self.nemesis.control.clear()
        for fault in at.faults:
            self._later(begun + fault.at, self._fault, fault)
        if at.takeover:
            self._later(begun, self._take_over, at.number, at.takeover)
        for task in moved:
            task.result()
        time.sleep(max(0, begun + ROUND_SECONDS - time.monotonic()))

    def _fault(self, fault: Fault) -> None:
        self.nemesis.do(fault)

    def _push(self, push: Push) -> None:
        repository = self.repositories[push.repo]
        self.caller.forget({repository.service(name) for name in push.repo.names})
        move = repository.author.push(push.commit, self.engine)
        self.figures.pushes += 1
        now = time.monotonic()
        for seconds in push.events:
            self._later(now + seconds, self._deliver, repository, move)

    def _deliver(self, repository: Repository, move: Move) -> None:
        repository.author.deliver(move)

    def _take_over(self, number: int, takeover: Takeover) -> None:
        """The operator deploys something of his own over a version that fails."""
        repository = self.repositories[takeover.repo]
        service, api = repository.service(takeover.function), Api(self.state)
        deadline = time.monotonic() + _TAKEOVER_SECONDS
        while time.monotonic() < deadline:
            with suppress(requests.RequestException):  # the gateway is away just now
                status = api.status(service)
                if status and status.get("failure"):
                    time.sleep(_NOTICED_SECONDS)
                    other = api.status(f"{self.prefix}-a-x")
                    assert other
                    self.taken[service] = repository
                    api.deploy_ready({**deployment(other), "service": service})
                    # What the gateway still takes away of the version before is no write by anybody.
                    quiet.until_settled(self.engine, time.monotonic() + _SETTLED_SECONDS, service)
                    self.canaries.add(service)
                    if (api.status(service) or {}).get("labels"):  # the operator's has none
                        self._found("foreign", number, f"{service}: what the operator deployed is gone")
                    return
            time.sleep(0.05)

    def _later(self, when: float, work: Callable[..., None], *arguments: object) -> Future[None]:
        def task() -> None:
            time.sleep(max(0, when - time.monotonic()))
            work(*arguments)

        self._tasks.append(self._pool.submit(task))
        return self._tasks[-1]

    # The verdict

    def _verify(self, number: int, *, strict: bool) -> None:
        """Once the faults have stopped: what must be right before any pass, and what after."""
        begun = time.monotonic()
        for task in self._tasks:
            task.result()  # deliveries that are late make more of them: the list grows while it is read
        self._tasks.clear()
        self.nemesis.calm()
        deadline = time.monotonic() + quiet.CAP
        emptied = quiet.until_empty(self.state, deadline)
        if emptied:
            self._verify_before(number, strict=strict)
        self._foreign(number)
        self._give_back()
        passes = quiet.until_quiet(self.state, self.engine, self._authors, deadline) if emptied else 0
        if not passes or not quiet.until_settled(self.engine, deadline):
            self._found(
                "stuck",
                number,
                f"not quiet within {quiet.CAP} s: {quiet.waiting(self.state)} wait, "
                f"{passes} passes, on their way: {quiet.unsettled(self.engine)}",
            )
        for repository in self.repositories.values():
            findings = self._judged(repository)
            for finding in findings:
                self._found(finding.kind, number, self._explained(repository, finding))
            self.figures.live += not findings
            self._accept(repository)
        self._foreign(number)
        self._requests(number)
        self.caller.steady = {**self._untouched, **self._answering()}
        seconds = time.monotonic() - begun
        print(f"     verified in {seconds:.1f} s, {passes} passes; {self._told(number)}", flush=True)

    @property
    def _authors(self) -> list[Author]:
        return [repository.author for repository in self.repositories.values()]

    def _verify_before(self, number: int, *, strict: bool) -> None:
        """An event that was accepted is done, or has failed so that it can be seen."""
        for repository in self.repositories.values():
            findings = self._judged(repository)
            if not findings:
                continue
            time.sleep(_RECORDS_SECONDS)
            records = self.records.of(repository.full_name)
            if reason := owed(repository.author, records, strict=strict):
                for finding in findings:
                    told = f"before any pass of reconcile, though {reason}: "
                    self._found(finding.kind, number, told + self._explained(repository, finding))

    def _judged(self, repository: Repository) -> list[Finding]:
        taken = [
            service.removeprefix(f"{repository.author.repo.owner}-")
            for service, holder in self.taken.items()
            if holder is repository
        ]
        heads = self._heads(repository)
        live = self._live(repository, heads)
        return list(verdict.judge(heads, repository.answers, live, taken))

    def _heads(self, repository: Repository) -> list[Head]:
        """From the one that was verified last to the branch's head, by the bare repository alone."""
        author = repository.author
        with tempfile.TemporaryDirectory() as folder:
            bare = author.fetch(self.engine, Path(folder))
            found = expected.heads(bare, frozenset(author.repo.clashing))
        return found[max(0, repository.verified - 1) :]

    def _live(self, repository: Repository, heads: list[Head]) -> Answers:
        """What answers of the functions that a stack has named, or that are labelled as the repository's."""
        repo = repository.author.repo
        labelled = {
            found.name.removeprefix(f"{repo.owner}-")
            for found in self.state.gateway.list()
            if (found.labels or {}).get("com.openfaas.cloud.git-repo-id") == str(repository.author.id)
        }
        named = {name for head in heads for name in head.functions} | labelled | set(repository.answers)
        mine = sorted(named - set(repo.clashing))
        return {name: quiet.answer(self.state, repository.service(name)) for name in mine}

    def _accept(self, repository: Repository) -> None:
        """What is there now is what the next verdict begins with."""
        heads = self._heads(repository)
        repository.verified += len(heads) - (1 if repository.verified else 0)
        repository.answers = self._live(repository, heads[-1:])

    def _give_back(self) -> None:
        """The operator takes what was his away, and the author pushes again."""
        for service, repository in self.taken.items():
            self.canaries.forget(service)
            Api(self.state).delete(service)
            function = service.removeprefix(f"{repository.author.repo.owner}-")
            repository.answers = {**repository.answers, function: None}
            repository.author.deliver(repository.author.moves[-1])
        self.taken.clear()

    def _foreign(self, number: int) -> None:
        for told in self.canaries.touched():
            self._found("foreign", number, told)

    def _requests(self, number: int) -> None:
        for told in self.caller.failed:
            self._found("failed requests", number, told)
        self.caller.failed.clear()

    def _answering(self) -> Mapping[str, str]:
        """What nobody changes until it is pushed to again."""
        return {
            repository.service(name): answer
            for repository in self.repositories.values()
            for name, answer in repository.answers.items()
            if answer is not None
        }

    def _explained(self, repository: Repository, finding: Finding) -> str:
        service = repository.service(finding.function)
        told = [f"{service} of {repository.full_name}: {finding.told}"]
        status = Api(self.state).status(service) or {}
        told.append(f"gateway: {status.get('labels')} {status.get('failure', '')}")
        told += [f"head {move.sha[:10]} at {move.ended:.2f}" for move in repository.author.moves[-4:]]
        return "\n       ".join([*told, *self._records_of(repository, finding.function)])

    def _records_of(self, repository: Repository, function: str = "") -> list[str]:
        rows = self.records.of(repository.full_name)
        mine = [row for row in rows if row.function in ("", function)]
        return [line(row) for row in mine[-_SHOWN_RECORDS:]]

    def _found(self, kind: str, number: int, told: str) -> None:
        self.figures.found[kind] += 1
        print(f"{kind.upper()}: make chaos ROUNDS={number} SEED={self.seed}\n       {told}", flush=True)


def owed(author: Author, records: list[Record], *, strict: bool) -> str:
    """Why the head must be live before any pass of reconcile; empty if a fault may have kept it from that.

    An event that was accepted ends with a record, whatever is killed. What it says must be true, unless a
    shipment may have outlived its git-tar (not in strict segments). A write that came after the head had
    moved must have been followed by a look at the head, whether or not there was an event.
    """
    move = author.moves[-1]
    since = [row for row in records if row.time >= move.begun - 0.01]
    ends = [row for row in since if row.terminal and row.sha == move.sha]
    if ends and ends[-1].outcome == "ok":
        return "its last push is said to be done" if strict else ""
    if ends:
        return ""
    if any(sha == move.sha and at >= move.ended for at, sha in author.accepted):
        return "its event was accepted, and nothing was said of it"
    written = [row for row in since if row.stage == "deploy" and row.outcome == "ok"]
    if strict and any(row.time > move.ended + 0.5 for row in written) and since[-1].terminal:
        return "another commit was deployed after the head had moved"
    return ""


def shown(at: Round) -> str:
    parts = [
        f"{push.repo.full_name.partition('-')[2]} {push.what} "
        f"({'dropped' if not push.events else ', '.join(f'{event:g} s' for event in push.events)})"
        for push in at.pushes
    ]
    parts += [f"{row.kind} {row.target}{f' {row.seconds:g} s' if row.seconds else ''}" for row in at.faults]
    return "; ".join(parts)


def line(row: Record) -> str:
    said = (
        f"{row.at[11:23]} {row.delivery[:8]} {row.sha[:10]} {row.function or '-'} {row.stage} {row.outcome}"
    )
    return f"{said} {row.seconds:.1f} s {row.error[:200]}".rstrip()
