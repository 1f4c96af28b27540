"""What is outside of our code: git, the queue, the gateway with its cluster, and what goes wrong there.

A `World` is a value. `Outer.steps` says what may happen next: each step has a name, and the world after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from buildshiprun.deployment import DIGEST, NONCE
from buildshiprun.sdk.errors import RETRIED
from buildshiprun.sdk.specs import canonical

from . import programs
from .programs import EXITS, FLAKY, MUTE, UNBUILT, UNSEEN, Job, Repo, Shipping, stack
from .replay import Acknowledge, Build, Call, Head, Invoke, Locate, Node, Program, Reply, Sleep

LABEL = "com.openfaas.cloud.git-"
HASTY = 2  # attempts of a job that begin at any moment; later ones wait, as pauses double, until it is quiet
MOST = 6  # attempts before the queue gives up


class Live(NamedTuple):
    """A deployed function: what was sent, and `starting`, `ready`, `failed`, or `gone`: failed in silence."""

    spec: str
    state: str


Cluster = tuple[tuple[str, Live], ...]  # sorted by name


class Delivery(NamedTuple):
    """A job in the queue."""

    name: str
    repo: Repo
    attempts: int = 0


class Worker(NamedTuple):
    """`parent` waits for its answer at `place`; `replies` are the answers that it waits for itself."""

    node: Node
    parent: str = ""
    place: int = 0
    delivery: Delivery | None = None
    replies: tuple[Reply | None, ...] | None = None

    @property
    def name(self) -> str:
        return self.node.program.name


class World(NamedTuple):
    """All that there is at one moment.

    `heads`: URL → commit. `cluster` is what is, `shown` what reads show. `late`: writes that were answered,
    and are yet to be applied. `script`: how many of its events have happened. `faults`: how many may still
    happen. `tried`: contents that have died once. `places`: where each repository is, as the API has it.
    `ticked`: reconcile has begun. `wrong`: what must never happen has happened.
    """

    heads: tuple[tuple[str, str], ...]
    cluster: Cluster
    shown: Cluster
    late: tuple[Call, ...] = ()
    script: int = 0
    queue: tuple[Delivery, ...] = ()
    workers: tuple[Worker, ...] = ()
    faults: int = 0
    tried: tuple[str, ...] = ()
    places: tuple[Repo, ...] = ()
    ticked: bool = False
    wrong: str = ""


@dataclass(frozen=True)
class Event:
    """A line of the script: the head of `repo` moves to `sha`; the webhook `name` is `delivered` so often.

    `moves_to`: it is transferred just before. `quiet`: all that began before has ended.
    """

    name: str
    sha: str = ""
    repo: Repo = Repo()
    delivered: int = 1
    moves_to: Repo | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Scenario:
    """What happens: the events of `script` in order, at any moment, and up to `faults` faults of `kinds`.

    `live`: what was deployed before. `workers`: how many jobs git-tar works on at once, `parallel`: how many
    functions of each. `one_each`: one process of each function, so that sdk/slots.py keeps two of one
    repository, and two of one function, apart; else each has a process of its own. `windows`: others may come
    between a GET and the write right after it; no gateway of OpenFaaS can exclude that. `tags`: ours can, a
    write names what it may write over. `slow`: a version
    starts some time after its PUT. `located`: git-tar asks the API where the repository is. `cuts`: builds
    of a commit that the branch has left may be ended. `adopts`: which repository takes over which other's
    functions, by ids.

    The kinds of faults. "kill": a worker dies, and whom it called goes on; "kill all": they die with it.
    "kill called": only whom git-tar called may die.
    "cut": a caller, or the queue, takes a worker that goes on for dead. "builder": of-builder answers 503. Of
    a write: "502 applied", "200 lost", "late" (answered 502, and applied any time later), "lag" (reads show
    it any time later), "lists lag" (only lists do).
    """

    script: tuple[Event, ...]
    live: tuple[tuple[Repo, str], ...] = ()
    kinds: tuple[str, ...] = ()
    faults: int = 1
    workers: int = 2
    parallel: int = 1
    one_each: bool = False
    windows: bool = True
    tags: bool = False
    slow: bool = False
    located: bool = False
    cuts: bool = False
    adopts: tuple[tuple[int, int], ...] = ()


Step = tuple[str, World]


@cache
def parsed(spec: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(spec)
    return found


def content(live: Live) -> str:
    return str(parsed(live.spec)["annotations"].get(DIGEST, ""))


def owner(live: Live) -> int:
    """The id of the repository that the function is labelled with, 0 if with none."""
    return int((parsed(live.spec).get("labels") or {}).get(LABEL + "repo-id", 0))


@cache
def _anonymous(live: Live) -> Live:
    """The same without its nonce."""
    spec = parsed(live.spec)
    marks = {**spec["annotations"], NONCE: "before"}
    return live._replace(spec=canonical({**spec, "annotations": marks}).decode())


@cache
def status(live: Live, *, tagged: bool) -> bytes:
    fields = dict(parsed(live.spec))
    fields["name"] = fields.pop("service")
    more: dict[str, Any] = {"namespace": "openfaas-fn", "replicas": 0 if live.state == "gone" else 1}
    if live.state == "ready":
        more["availableReplicas"] = 1
    if live.state == "failed":
        more["failure"] = "exit status 1"
    if tagged:
        more["etag"] = live.spec
    return json.dumps({**fields, **more}).encode()


@cache
def listing(cluster: Cluster, *, tagged: bool) -> bytes:
    return b"[" + b",".join(status(live, tagged=tagged) for _, live in cluster) + b"]"


def put(table: tuple[tuple[str, Any], ...], name: str, value: Any) -> Any:
    """The sorted table with `name` set, or without it."""
    rest = [(key, old) for key, old in table if key != name]
    return tuple(sorted([*rest, (name, value)] if value is not None else rest, key=lambda row: row[0]))


class Outer:
    """The steps of a scenario's world."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self._roots: dict[Program, Node] = {}

    @property
    def repos(self) -> list[Repo]:
        """All that there ever are, the newest last."""
        script = self.scenario.script
        moved = [event.moves_to for event in script if event.moves_to]
        return list(
            dict.fromkeys([*(repo for repo, _ in self.scenario.live), *(e.repo for e in script), *moved])
        )

    def begin(self) -> World:
        cluster: Cluster = ()
        heads: tuple[tuple[str, str], ...] = ()
        for repo, sha in self.scenario.live:
            heads = put(heads, repo.url, sha)
            for function in stack(sha):
                spec = programs.deployed(repo, sha, function)
                cluster = put(cluster, repo.service(function), Live(canonical(spec).decode(), "ready"))
        cluster = put(cluster, "canary", Live('{"annotations":{},"image":"i","service":"canary"}', "ready"))
        faults = self.scenario.faults if self.scenario.kinds else 0
        places = tuple({repo.id: repo for repo in reversed(self.repos)}.values())
        return World(heads, cluster, cluster, faults=faults, places=places)

    def tick(self, world: World) -> World:
        """reconcile: every repository's branch is looked at once more."""
        last = {repo.url: repo for repo in self.current(world)}
        jobs = tuple(Delivery(f"tick{number}", repo) for number, repo in enumerate(last.values(), 1))
        return self._settled(world._replace(queue=jobs, ticked=True, faults=0))

    def current(self, world: World) -> list[Repo]:
        """The repositories that exist: of two with the same URL, the one that was made last."""
        located = {repo.id: repo for repo in world.places}
        return list({located[repo.id].url: located[repo.id] for repo in self.repos}.values())

    # Steps

    def steps(self, world: World) -> list[Step]:
        if world.wrong:
            return []
        alone = next((worker for worker in world.workers if self._goes_alone(world, worker)), None)
        if alone:
            found = list(self._worker(world, alone))
        else:
            found = [*self._outside(world), *self._deliveries(world, patient=False)]
            for worker in world.workers:
                found += self._worker(world, worker)
        found = found or list(self._deliveries(world, patient=True))
        return [(name, self._settled(after)) for name, after in found]

    def _outside(self, world: World) -> Iterator[Step]:
        script = self.scenario.script
        if world.script < len(script):
            event = script[world.script]
            if not event.quiet or not (world.workers or world.queue or world.late):
                yield self._event(world, event)
        for name, live in world.cluster:
            if live.state == "starting" and content(live)[-1] != MUTE:
                yield self._start(world, name, live)
        for call in dict.fromkeys(world.late):
            left = list(world.late)
            left.remove(call)
            after, reply = self._write(world._replace(late=tuple(left)), call)
            yield f"the late {told(call)} is applied: {reply.status}", after
        if world.shown != world.cluster:
            yield "reads catch up", world._replace(shown=world.cluster)

    def _event(self, world: World, event: Event) -> Step:
        said = []
        if event.moves_to:
            rest = [place for place in world.places if place.id != event.moves_to.id]
            heads = put(world.heads, event.moves_to.url, dict(world.heads)[event.repo.url])
            world = world._replace(places=(*rest, event.moves_to), heads=heads)
            said.append(f"{event.repo.url} becomes {event.moves_to.url}")
        if event.sha:
            world = world._replace(heads=put(world.heads, (event.moves_to or event.repo).url, event.sha))
            said.append(f"the head of {event.repo.url} is now [{event.sha}]")
        if event.delivered:
            said.append(f"{event.name} is delivered" + (" twice" if event.delivered > 1 else ""))
        jobs = (Delivery(event.name, event.moves_to or event.repo), Delivery(event.name + "bis", event.repo))
        queue = tuple(sorted((*world.queue, *jobs[: event.delivered])))
        return "; ".join(said), world._replace(queue=queue, script=world.script + 1)

    def _start(self, world: World, name: str, live: Live) -> Step:
        what = content(live)
        first = what[-1] == FLAKY and what not in world.tried
        state = "failed" if what[-1] == EXITS or first else "gone" if what[-1] == UNSEEN else "ready"
        tried = tuple(sorted({*world.tried, what})) if what[-1] == FLAKY else world.tried
        after = self._changed(world, put(world.cluster, name, Live(live.spec, state)))
        return f"{name} ({what}) is {state}", after._replace(tried=tried)

    def _deliveries(self, world: World, *, patient: bool) -> Iterator[Step]:
        jobs = [worker.node.program for worker in world.workers if isinstance(worker.node.program, Job)]
        if len(jobs) >= self.scenario.workers:
            return
        for delivery in world.queue:
            if self.scenario.one_each and any(job.repo.id == delivery.repo.id for job in jobs):
                continue
            if patient == (delivery.attempts < HASTY):
                continue
            number = delivery.attempts + 1
            name = delivery.name if number == 1 else f"{delivery.name}#{number}"
            if number > MOST:
                yield f"the queue gives {delivery.name} up", world._replace(wrong="a job is given up")
                continue
            worker = Worker(
                self._root(Job(name, delivery.repo, self.scenario.located)),
                delivery=delivery._replace(attempts=number),
            )
            queue = tuple(other for other in world.queue if other != delivery)
            yield f"git-tar begins {name}", with_worker(world._replace(queue=queue), worker)

    def _goes_alone(self, world: World, worker: Worker) -> bool:
        """Whether the worker's next step comes before those of all others.

        It does where another order would end the same, as nobody else sees the step or changes its answer;
        and between a GET and a write right after it, where the scenario has no `windows`.
        """
        request, node = worker.node.request, worker.node
        if isinstance(request, Build):
            return not (self._may_fail(world, "builder") or self.scenario.cuts)
        if isinstance(request, Head):
            return world.script == len(self.scenario.script) and not world.faults
        if isinstance(request, Call) and not request.reads and not self.scenario.windows:
            return bool(node.fresh and node.look and node.look[0].path.endswith("/" + service_of(request)))
        return False

    def _may_fail(self, world: World, kind: str) -> bool:
        return world.faults > 0 and kind in self.scenario.kinds

    def _worker(self, world: World, worker: Worker) -> Iterator[Step]:
        request, name = worker.node.request, worker.name
        if not self._may_run(world, worker):
            return
        if isinstance(request, Head):
            sha = dict(world.heads).get(request.url)
            yield f"{name}: the head is [{sha}]", self._answered(world, worker, sha)
        elif isinstance(request, Locate):
            place = next((place for place in world.places if place.id == request.repo_id), None)
            where = place.url if place else "gone"
            yield f"{name}: the repository is {where}", self._answered(world, worker, place)
        elif isinstance(request, Build):
            built = 422 if request.content[-1] == UNBUILT else 200
            yield f"{name}: builds {request.content}: {built}", self._answered(world, worker, Reply(built))
            if self.scenario.cuts and self._is_overtaken(world, worker.node.program):
                yield f"{name}: its build is ended", self._answered(world, worker, Reply(409))
            if not self._may_fail(world, "builder"):
                return  # a kill before the next step is the same
            after = world._replace(faults=world.faults - 1)
            yield f"{name}: of-builder answers 503", self._answered(after, worker, Reply(503))
        elif isinstance(request, Sleep):
            yield from self._sleep(world, worker)
        elif isinstance(request, Acknowledge):
            after = replace_worker(world, worker, worker._replace(delivery=None))
            yield f"{name}: is acknowledged", self._answered(after, find(after, name), None)
        elif isinstance(request, Call):
            yield from self._call(world, worker, request)
        if world.faults:
            spent = world._replace(faults=world.faults - 1)
            yield from self._killed(spent, worker)

    def _is_overtaken(self, world: World, program: Program) -> bool:
        assert isinstance(program, Shipping)
        return dict(world.heads)[program.repo.url] != program.sha

    def _may_run(self, world: World, worker: Worker) -> bool:
        """Whether the worker holds its key (sdk/slots.py), or nobody does."""
        key = worker.node.program.key
        if not self.scenario.one_each or worker.node.started or key is None:
            return True
        others = (other.node for other in world.workers if other is not worker)
        return not any(other.started and other.program.key == key for other in others)

    def _sleep(self, world: World, worker: Worker) -> Iterator[Step]:
        look = worker.node.look
        if look is None:
            raise AssertionError(f"{worker.name} sleeps, and has not looked at anything")
        call, shown = look
        if self._read(world, call) != shown:
            yield f"{worker.name}: wakes up", self._answered(world, worker, True)
        name = call.path.rpartition("/")[2]
        live = dict(world.cluster).get(name)
        changes = live and live.state == "starting" and content(live)[-1] != MUTE
        if not changes and world.shown == world.cluster:
            yield f"{worker.name}: waits in vain", self._answered(world, worker, False)

    # The gateway

    def _call(self, world: World, worker: Worker, call: Call) -> Iterator[Step]:
        if call.reads:
            reply = self._read(world, call)
            yield f"{worker.name}: {told(call)}: {brief(reply)}", self._answered(world, worker, reply)
            return
        after, reply = self._write(world, call)
        name = f"{worker.name}: {told(call)}"
        yield f"{name}: {reply.status}", self._answered(after, worker, reply)
        if not world.faults or reply.status >= 400:
            return
        kinds, less = self.scenario.kinds, world.faults - 1
        if "lag" in kinds or "lists lag" in kinds:
            unseen = after._replace(shown=world.shown, faults=less)
            yield f"{name}: {reply.status}, and reads lag", self._answered(unseen, worker, reply)
        if "502 applied" in kinds:
            step = self._answered(after._replace(faults=less), worker, Reply(502))
            yield f"{name}: applied, but answered 502", step
        if "200 lost" in kinds:
            step = self._answered(world._replace(faults=less), worker, Reply(200))
            yield f"{name}: answered 200, but not applied", step
        if "late" in kinds:
            late = world._replace(late=(*world.late, call), faults=less)
            yield f"{name}: answered 502, to be applied later", self._answered(late, worker, Reply(502))

    def _read(self, world: World, call: Call) -> Reply:
        if call.path == "/system/functions":
            return Reply(200, listing(world.shown, tagged=self.scenario.tags))
        functions = dict(world.cluster if "lists lag" in self.scenario.kinds else world.shown)
        live = functions.get(call.path.rpartition("/")[2])
        return Reply(200, status(live, tagged=self.scenario.tags)) if live else Reply(404)

    def _write(self, world: World, call: Call) -> tuple[World, Reply]:
        """As the gateway does it: PUT replaces, POST creates, neither waits for what was started."""
        service = service_of(call)
        there = dict(world.cluster).get(service)
        if not there and call.method in ("PUT", "DELETE"):
            return world, Reply(404)
        if there and call.method == "POST":
            return world, Reply(400, b"already exists")
        if there and call.over and call.over != there.spec:
            return world, Reply(412)
        if there and not self._allowed(owner(there), call.by):
            wrong = f"{told(call)} touches what is not repository {call.by}'s"
            return world._replace(wrong=wrong), Reply(200)
        if call.method == "DELETE":
            return self._changed(world, put(world.cluster, service, None)), Reply(200)
        after = self._changed(world, put(world.cluster, service, Live(call.body, "starting")))
        if not self.scenario.slow and content(Live(call.body, ""))[-1] != MUTE:
            after = self._start(after, service, dict(after.cluster)[service])[1]
        return after, Reply(200)

    def _allowed(self, theirs: int, ours: int) -> bool:
        return theirs == ours or (ours, theirs) in self.scenario.adopts

    def _changed(self, world: World, cluster: Cluster) -> World:
        """Reads show it at once, or, while they lag, once they catch up."""
        return world._replace(cluster=cluster, shown=cluster if world.shown == world.cluster else world.shown)

    # The workers

    def _root(self, program: Program) -> Node:
        if program not in self._roots:
            self._roots[program] = Node(program)
        return self._roots[program]

    def _answered(self, world: World, worker: Worker, answer: Any) -> World:
        return replace_worker(world, worker, worker._replace(node=worker.node.after(answer)))

    def _settled(self, world: World) -> World:
        """Start the workers that are called, and pass on the answers of those that have ended."""
        before = None
        while before is not world:
            before = world
            for worker in world.workers:
                world = self._passed_on(world, worker)
                if world is not before:
                    break
        if not (world.workers or world.late) and world.shown == world.cluster:
            nameless = tuple((name, _anonymous(live)) for name, live in world.cluster)
            return self._changed(world, nameless)  # nobody knows a nonce now: all are one
        return world

    def _passed_on(self, world: World, worker: Worker) -> World:
        request, outcome = worker.node.request, worker.node.outcome
        if outcome is not None:
            world = replace_worker(world, worker, None)
            if worker.parent:
                return answer_parent(world, worker, outcome)
            if worker.delivery and outcome.status in RETRIED:
                return queued(world, worker.delivery)
            return world
        if isinstance(request, Invoke):
            if worker.replies is None:
                return replace_worker(world, worker, worker._replace(replies=()))
            if len(worker.replies) == len(request.programs) and None not in worker.replies:
                node = worker.node.after(worker.replies)
                return replace_worker(world, worker, worker._replace(node=node, replies=None))
            index, working = len(worker.replies), worker.replies.count(None)
            if index < len(request.programs) and working < self.scenario.parallel:
                world = replace_worker(world, worker, worker._replace(replies=(*worker.replies, None)))
                return with_worker(world, Worker(self._root(request.programs[index]), worker.name, index))
        return world

    # What goes wrong with workers

    def _killed(self, world: World, worker: Worker) -> Iterator[Step]:
        kinds, is_job = self.scenario.kinds, worker.delivery is not None
        gone = replace_worker(world, worker, None)
        if isinstance(worker.node.program, Job) and {"kill", "kill all"} & {*kinds}:
            if worker.delivery:
                gone = queued(gone, worker.delivery)
            children = [child for child in world.workers if child.parent == worker.name]
            for child in children:
                orphan = None if "kill all" in kinds else child._replace(parent="")
                gone = replace_worker(gone, child, orphan)
            yield f"{worker.name}: kill -9", gone
        elif {"kill", "kill called"} & {*kinds} and not isinstance(worker.node.program, Job):
            yield f"{worker.name}: kill -9", answer_parent(gone, worker, Reply(502))
        if "cut" in kinds:
            if is_job and worker.delivery:
                alone = replace_worker(world, worker, worker._replace(delivery=None))
                yield f"{worker.name}: the queue waits no longer", queued(alone, worker.delivery)
            elif worker.parent:
                alone = replace_worker(world, worker, worker._replace(parent=""))
                yield f"{worker.name}: its caller gets 502", answer_parent(alone, worker, Reply(502))


def with_worker(world: World, worker: Worker) -> World:
    return world._replace(workers=tuple(sorted((*world.workers, worker), key=lambda other: other.name)))


def replace_worker(world: World, old: Worker, new: Worker | None) -> World:
    """`world` with `new` in the place of `old`, or without it."""
    if new is None:
        return world._replace(workers=tuple([worker for worker in world.workers if worker is not old]))
    return world._replace(workers=tuple([new if worker is old else worker for worker in world.workers]))


def find(world: World, name: str) -> Worker:
    return next(worker for worker in world.workers if worker.name == name)


def queued(world: World, delivery: Delivery) -> World:
    return world._replace(queue=tuple(sorted((*world.queue, delivery))))


def answer_parent(world: World, worker: Worker, reply: Reply) -> World:
    for parent in world.workers:
        if parent.name == worker.parent and parent.replies is not None:
            replies = (*parent.replies[: worker.place], reply, *parent.replies[worker.place + 1 :])
            return replace_worker(world, parent, parent._replace(replies=replies))
    return world


@cache
def service_of(call: Call) -> str:
    fields = parsed(call.body)
    return str(fields.get("service") or fields["functionName"])


@cache
def told(call: Call) -> str:
    if call.reads:
        return "GET " + (call.path.rpartition("/")[2] if "function/" in call.path else "the list")
    marks = parsed(call.body).get("annotations")
    version = f" ({marks.get(DIGEST)}, nonce {marks.get(NONCE)})" if marks else ""
    return f"{call.method} {service_of(call)}{version}"


@cache
def brief(reply: Reply) -> str:
    """What an answer shows, for the trace."""
    if reply.status != 200:
        return str(reply.status)
    shown = json.loads(reply.content)
    if isinstance(shown, list):
        return ", ".join(row["name"] for row in shown)
    marks = shown.get("annotations", {})
    ready = "ready" if shown.get("availableReplicas") else "failed" if shown.get("failure") else "starting"
    return f"{marks.get(DIGEST)}, nonce {marks.get(NONCE)}, {ready}"
