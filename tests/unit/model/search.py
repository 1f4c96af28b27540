"""Every order of the steps of a world, and whether each of its ends is right."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .programs import BROKEN, Repo, stack
from .world import Outer, Scenario, Step, World, content, owner

SEED = 5  # of the part that is looked at where all would be too many
BOUND = 1_000_000  # states; some 1 GB


@dataclass
class Found:
    """`schedules`: in how many orders the world gets from its beginning to an end. `whole`: none is left out.

    `early`: a schedule that is wrong once it is quiet; `late`: one that is so after reconcile's tick too, or
    that touches what is another's. Both are lists of steps, of which the last says what is wrong.
    """

    states: int = 0
    schedules: int = 0
    whole: bool = True
    early: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)


def explore(scenario: Scenario, *, bound: int = BOUND) -> Found:
    """All orders, depth first, each state once; a part of them, if that is more than `bound` states."""
    outer, found, chance = Outer(scenario), Found(), random.Random(SEED)
    schedules: dict[World, int | None] = {}  # None: on the path from the beginning to here
    path: list[tuple[World, str, Iterator[Step]]] = []

    def enter(name: str, world: World) -> None:
        found.states += 1
        wrong, steps = _onward(outer, world)
        if wrong:
            trace = found.late if world.ticked or world.wrong else found.early
            trace += [] if trace else [*(step for _, step, _ in path), name, f"WRONG: {wrong}"]
        schedules[world] = None
        totals.append(0 if steps else 1)
        chance.shuffle(steps)
        path.append((world, name, iter(steps)))

    totals: list[int] = []
    enter("", outer.begin())
    while path:
        world, _, steps = path[-1]
        step = next(steps, None)
        if step is None:
            path.pop()
            found.schedules = schedules[world] = totals.pop()
            if totals:
                totals[-1] += found.schedules
            continue
        name, after = step
        if after in schedules:
            total = schedules[after]
            assert total is not None, f"it goes round in circles: {[*(name for _, name, _ in path), step[0]]}"
            totals[-1] += total
        elif found.states < bound:
            enter(name, after)
        else:
            found.whole = False
    return found


def shortest(scenario: Scenario, *, late: bool = False, bound: int = BOUND) -> tuple[list[str], int]:
    """The shortest schedule that ends wrong, or only `late`, and how many states were looked at."""
    outer = Outer(scenario)
    first = outer.begin()
    before: dict[World, tuple[World, str] | None] = {first: None}
    waiting = deque([first])
    while waiting and len(before) < bound:
        world = waiting.popleft()
        wrong, steps = _onward(outer, world)
        if wrong and (world.ticked or world.wrong or not late):
            trace, at = [f"WRONG: {wrong}"], before[world]
            while at:
                trace.append(at[1])
                at = before[at[0]]
            return trace[::-1], len(before)
        for name, after in steps:
            if after not in before:
                before[after] = world, name
                waiting.append(after)
    return [], len(before)


def _onward(outer: Outer, world: World) -> tuple[str, list[Step]]:
    """The steps from here. Where there are none it is quiet: what is wrong with that, and then the tick."""
    steps = outer.steps(world)
    if steps:
        return "", steps
    tick = [] if world.ticked or world.wrong else [("it is quiet; reconcile's tick", outer.tick(world))]
    return verdict(outer, world), tick


def verdict(outer: Outer, world: World) -> str:
    """What is wrong with a world in which nothing happens any more; empty if nothing is."""
    if world.wrong or world.workers or world.queue:
        return world.wrong or "stuck: " + ", ".join(worker.name for worker in world.workers)
    heads = dict(world.heads)
    judged = (_judged(outer, world, repo, heads.get(repo.url, "")) for repo in outer.current(world))
    return next((wrong for wrong in judged if wrong), "")


def _judged(outer: Outer, world: World, repo: Repo, head: str) -> str:
    """The cluster against one repository's head."""
    cluster, begun = dict(world.cluster), dict(outer.begin().cluster)
    wanted = {repo.service(name): what for name, what in stack(head).items()}
    others = {other.id for other in outer.current(world)} - {repo.id}
    taken = {name for name in wanted if name in cluster and owner(cluster[name]) in others}
    broken = {name for name, what in wanted.items() if what[-1] in BROKEN}
    for name in wanted.keys() - taken:
        live, what = cluster.get(name), wanted[name]
        shown = f"{content(live)}, {live.state}, of repository {owner(live)}" if live else "missing"
        if name in broken:
            good = live and live.state == "ready" and content(live) != what
            if name in begun and not good:
                return f"{name} has lost its last good version, it is {shown}; the head is [{head}]"
        elif not live or (content(live), live.state, owner(live)) != (what, "ready", repo.id):
            return f"{name} is {shown}; the head is [{head}]"
    if broken or taken:
        return ""  # a stack that is not live as a whole collects nothing
    left = [name for name, live in world.cluster if owner(live) == repo.id and name not in wanted]
    return f"{', '.join(left)} left the stack, and is there; the head is [{head}]" if left else ""
