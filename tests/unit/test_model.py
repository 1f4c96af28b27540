"""Our real decisions in every order of what may happen: whatever happens, it ends right.

Right means: once it is quiet, the cluster is the stack at the branch's head, a function that can't start has
its last good version, and nobody has touched what is another's. Some things only reconcile can mend, whose
tick is one more look at every branch; those say why in `tick`, and are shown to need it. The model is in
tests/unit/model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

import garbage_collect.handler
from buildshiprun import deployment, ship
from buildshiprun.sdk.gateway import Gateway, Status
from buildshiprun.sdk.specs import Spec
from git_tar import converge
from git_tar.sdk.settings import Settings as LoopSettings

from .model import programs, world
from .model.programs import Repo
from .model.search import BOUND, explore, shortest
from .model.world import Event, Scenario

ALICE = Repo()
AGAIN = Repo(id=8)  # deleted, and made again under the same name
MOVED = Repo(owner="bob", owner_id=4)  # transferred
A, A_B = Repo(1, "a", 1), Repo(2, "a-b", 2)  # a's b-c and a-b's c are one name in the cluster
QUICK = 6_000  # states of a large scenario; all of them with --hypothesis-profile=fuzz


def live(*contents: str) -> tuple[tuple[Repo, str], ...]:
    return ((ALICE, " ".join(contents)),)


TWO_PUSHES = Scenario((Event("one", "a1"), Event("two", "a2")), live("a0"))
RESTORED = Scenario((Event("one", "a1"), Event("two", "back: a1 b1")), live("a1", "b1"))
FLAKY = Scenario((Event("one", "a1*", delivered=2),), live("a0"))
CLASH = Scenario((Event("one", "b-c1", A), Event("two", "c1", A_B)))
NAME_CHANGES_HANDS = Scenario((Event("one", "x1", A), Event("two", "c1", A_B)), ((A, "b-c0 x0"),))
OLD_OWNER_BUILDS = Scenario(
    (Event("one", "b-c1 x0", A), Event("two", "x1", A), Event("three", "c1", A_B)),
    ((A, "b-c0 x0"),),
    workers=3,
    windows=False,
)
LISTS_LAG = Scenario(
    (Event("one", "x1", A), Event("two", "c1", A_B, quiet=True), Event("three", "x2", A)),
    ((A, "b-c0 x0"),),
    kinds=("lists lag",),
    one_each=True,
)
NODE_DIES = replace(TWO_PUSHES, kinds=("kill all",))
KILLED = Scenario((Event("one", "a1!"),), live("a0"), kinds=("kill",), one_each=True)


@dataclass(frozen=True)
class Case:
    """`tick`: why only reconcile can end it right; empty where the workers do."""

    scenario: Scenario
    tick: str = ""


ORPHAN = "a call whose caller is gone goes on, and nobody looks after its write"

CASES = {
    "two pushes in the same second": Case(TWO_PUSHES),
    "two pushes of two functions": Case(Scenario((Event("one", "a1 b1"), Event("two", "a2 b1")), live("a0"))),
    "a force-push back to an older commit": Case(
        Scenario((Event("one", "a1"), Event("two", "a2"), Event("three", "back: a1")), live("a1"))
    ),
    "a revert restores a removed function": Case(RESTORED),
    "a newer version fails and is rolled back": Case(
        Scenario((Event("one", "a1"), Event("two", "a2!")), live("a0"))
    ),
    "an older version fails while a newer one starts": Case(
        Scenario((Event("one", "a1!"), Event("two", "a2")), live("a0"))
    ),
    "a version that never gets ready": Case(Scenario((Event("one", "a1?", delivered=2),), live("a0"))),
    "a version that starts at the second attempt": Case(replace(FLAKY, windows=False)),
    "an old event again": Case(
        Scenario(
            (Event("one", "a1", delivered=2), Event("two", "a2", quiet=True), Event("one again")), live("a0")
        )
    ),
    "one of two functions leaves": Case(Scenario((Event("one", "a1 b1"), Event("two", "a2")), live("a0"))),
    "a push adds a function during a collection": Case(
        Scenario((Event("one", "a1"), Event("two", "a1 c1")), live("a0", "b0"))
    ),
    "one of two functions is broken": Case(
        Scenario((Event("one", "a1 b1!", delivered=2),), live("a0", "b0", "c0"))
    ),
    "one of two functions does not build": Case(
        Scenario((Event("one", "a1 b1~"), Event("two", "a2 b1~")), live("a0", "b0", "c0"))
    ),
    "slow starts": Case(Scenario((Event("one", "a1", delivered=2),), live("a0"), slow=True)),
    "a write is answered 502, and applied": Case(replace(TWO_PUSHES, kinds=("502 applied",))),
    "a delete is answered 502, and applied": Case(replace(RESTORED, kinds=("502 applied",))),
    "a write is answered 200, and not applied": Case(replace(TWO_PUSHES, kinds=("200 lost",), faults=2)),
    "builds of an overtaken commit are ended": Case(replace(TWO_PUSHES, cuts=True)),
    "they are, and a revert restores a removed function": Case(replace(RESTORED, cuts=True)),
    "they are, beside a function that does not build": Case(
        Scenario((Event("one", "a1 b1~"), Event("two", "a2 b1~")), live("a0", "b0"), cuts=True)
    ),
    "they are, of a force-push back": Case(
        Scenario((Event("one", "a1"), Event("two", "a2"), Event("three", "a1")), live("a0"), cuts=True)
    ),
    "of-builder restarts": Case(replace(TWO_PUSHES, kinds=("builder",))),
    "a node dies with all that runs there": Case(NODE_DIES),
    "a node dies during a collection": Case(replace(RESTORED, kinds=("kill all",))),
    "a collection is killed": Case(replace(RESTORED, kinds=("kill called",))),
    "a worker is killed over a broken version": Case(KILLED),
    "a worker is killed over a version that never gets ready": Case(
        replace(KILLED, script=(Event("one", "a1?"),))
    ),
    "a worker is killed over one that dies unseen": Case(replace(KILLED, script=(Event("one", "a1."),))),
    "two owners want one name": Case(CLASH),
    "a list that lags": Case(LISTS_LAG),
    "reads lag": Case(replace(TWO_PUSHES, kinds=("lag",), one_each=True)),
    "reads lag after a function was added and one has left": Case(
        Scenario((Event("one", "a0 b1"),), live("a0", "c0"), kinds=("lag",), one_each=True)
    ),
    # What needs the tick
    "a webhook is dropped": Case(
        Scenario((Event("one", "a1"), Event("two", "a2", delivered=0)), live("a0")), "nobody told git-tar"
    ),
    "a version that another attempt mends during a rollback": Case(
        FLAKY, "the rollback's PUT follows its GET, and no gateway refuses it"
    ),
    "a write is applied late": Case(replace(TWO_PUSHES, kinds=("late",)), "it may come after the last check"),
    "a worker is killed": Case(replace(TWO_PUSHES, kinds=("kill",), one_each=True), ORPHAN),
    "two workers are killed": Case(replace(TWO_PUSHES, kinds=("kill",), faults=2, one_each=True), ORPHAN),
    "a retry while the first attempt still runs": Case(
        replace(TWO_PUSHES, kinds=("cut",), one_each=True), ORPHAN
    ),
    "a collection whose caller is gone": Case(replace(RESTORED, kinds=("cut",), one_each=True), ORPHAN),
    "a name changes hands": Case(NAME_CHANGES_HANDS, "who was refused a name is not told when it is free"),
    "the old owner of a name still builds": Case(
        OLD_OWNER_BUILDS, "who was refused a name is not told when it is free"
    ),
    "a repository is made again, and an old event comes": Case(
        Scenario((Event("new", "a1", AGAIN), Event("old")), live("a0"), adopts=((7, 8), (8, 7))),
        "an event of the old repository leads to the new one's URL",
    ),
    "a repository is transferred during a push": Case(
        Scenario((Event("one", "a1"), Event("moved", "a2", moves_to=MOVED)), live("a0"), located=True),
        "where the repository is was asked before, and is not in the last check",
    ),
}

# Minutes' worth: a part of their orders, chosen by a fixed seed; all with --hypothesis-profile=fuzz.
LARGE = {
    "three pushes, three workers": Case(
        Scenario((Event("one", "a1"), Event("two", "a2"), Event("three", "back: a1")), live("a1"), workers=3)
    ),
    "two functions side by side": Case(
        Scenario((Event("one", "a1 b1"), Event("two", "a2 b2")), live("a0"), parallel=2)
    ),
    "slow starts of two pushes": Case(replace(TWO_PUSHES, slow=True)),
    "two pushes with one broken function": Case(
        Scenario((Event("one", "a1 b1!"), Event("two", "a2 b1!")), live("a0", "b0", "c0"))
    ),
    "a worker of many is killed": Case(replace(TWO_PUSHES, kinds=("kill",)), ORPHAN),
    "a retry among many workers": Case(replace(TWO_PUSHES, kinds=("cut",)), ORPHAN),
    "reads lag among many workers": Case(replace(TWO_PUSHES, kinds=("lag",)), "the last check sees what was"),
    "reads lag while a function leaves": Case(
        Scenario((Event("one", "a1 b1"), Event("two", "a2")), live("a0"), kinds=("lag",)),
        "the last check sees what was",
    ),
}


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    programs.install(monkeypatch)


@pytest.mark.parametrize("name", [*CASES, *LARGE])
def test_whatever_happens_it_ends_right(name: str, request: pytest.FixtureRequest) -> None:
    thorough = request.config.getoption("--hypothesis-profile") == "fuzz"
    case = CASES.get(name) or LARGE[name]
    found = explore(case.scenario, bound=QUICK if name in LARGE and not thorough else BOUND)
    print(
        f"{name}: {found.states} states, {found.schedules:.1e} schedules{'' if found.whole else ', a part'}"
    )
    assert not found.late, told(shortest(case.scenario, late=True)[0] or found.late)
    assert found.whole or name in LARGE
    if not case.tick:
        assert not found.early, told(shortest(case.scenario)[0] or found.early)
    elif found.whole:
        assert found.early, f"the tick is not needed any more: {case.tick}"


def test_of_attempts_at_one_broken_version_each_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """None gives way to another that deploys the same: both would begin again, and again."""
    monkeypatch.setattr(programs, "LOOP_SETTINGS", LoopSettings(converge_rounds=3))
    monkeypatch.setattr(world, "MOST", 1)  # attempts: no job comes back to the queue
    scenario = Scenario((Event("one", "a1!", delivered=2),), live("a0"), slow=True, windows=False)
    found = explore(scenario)
    assert not [*found.late, *found.early], told(found.late or found.early)


def test_no_gateway_keeps_a_write_apart_from_the_look_before_it() -> None:
    """Why nothing foreign is touched but within that moment: a PUT, or a DELETE, that names no version."""
    trace, _ = shortest(replace(OLD_OWNER_BUILDS, windows=True), late=True)
    assert "touches what is not repository" in trace[-1]


def test_the_local_gateway_does_by_the_tag_of_what_was_looked_at() -> None:
    found = explore(replace(OLD_OWNER_BUILDS, windows=True, tags=True))
    assert not found.late, told(found.late)


# The checker can fail: each of these bugs is found.

Plant = Callable[[pytest.MonkeyPatch], None]


def no_check_after_the_last_write(patch: pytest.MonkeyPatch) -> None:
    def once(branch: converge.Branch, rounds: int) -> converge.Report:
        shipped = converge._shipped(branch, branch.head() or "")
        return converge._collected(branch, shipped)[0] if shipped.outcome == "ok" else shipped

    patch.setattr(converge, "converge", once)


def no_check_after_a_removal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(converge.Tidied, "has_written", False)


def no_check_after_a_removal_whose_answer_was_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(converge.Tidied, "has_written", property(lambda tidied: bool(tidied.removed)))


def no_look_before_a_delete(patch: pytest.MonkeyPatch) -> None:
    def delete(gateway: Gateway, listed: Status, request: object) -> bool:
        gateway.delete(listed.name)
        return True

    patch.setattr(garbage_collect.handler, "delete", delete)


def rollback_without_the_nonce(patch: pytest.MonkeyPatch) -> None:
    def roll_back(self: ship.Ship, service: str, nonce: str, previous: Spec | None) -> None:
        if previous:
            whole = deployment.complete(previous, previous["image"], "rollback", None)
            self._put(whole, self.gateway.get(service))

    patch.setattr(ship.Ship, "_roll_back", roll_back)


def acknowledged_before_the_check(patch: pytest.MonkeyPatch) -> None:
    apply = programs.Branch.apply

    def and_acknowledge(self: programs.Branch, sha: str) -> Sequence[converge.Result]:
        results = apply(self, sha)
        self.acknowledge()
        return results

    patch.setattr(programs.Branch, "apply", and_acknowledge)


def what_is_not_ready_is_skipped(patch: pytest.MonkeyPatch) -> None:
    def is_unchanged(current: Status | None, spec: Spec) -> bool:
        there = (current.annotations or {}) if current else {}
        return bool(there.get(deployment.CONFIG) == spec["annotations"][deployment.CONFIG])

    patch.setattr(deployment, "is_unchanged", is_unchanged)


def creates_by_an_update(patch: pytest.MonkeyPatch) -> None:
    """A bug that we had: of two owners who wanted one name, the second overwrote the first's function."""
    patch.setattr(Gateway, "create", Gateway.deploy)


def no_look_after_the_build(patch: pytest.MonkeyPatch) -> None:
    """A bug that we had: what was another owner's by the end of a build was updated."""
    deploy = ship.Ship._deploy

    def blind(self: ship.Ship, *arguments: Any) -> None:
        with patch.context() as here:
            here.setattr(ship.Ship, "_check_owner", lambda *_: None)
            deploy(self, *arguments)

    patch.setattr(deployment, "is_same", lambda *_: True)
    patch.setattr(ship.Ship, "_deploy", blind)


PLANTED = [
    (no_check_after_the_last_write, "two pushes in the same second"),
    (no_check_after_a_removal, "a revert restores a removed function"),
    (no_check_after_a_removal_whose_answer_was_lost, "a collection is killed"),
    (no_look_before_a_delete, "the old owner of a name still builds"),
    (rollback_without_the_nonce, "a version that starts at the second attempt"),
    (acknowledged_before_the_check, "a node dies with all that runs there"),
    (what_is_not_ready_is_skipped, "a worker is killed over a broken version"),
    (creates_by_an_update, "two owners want one name"),
    (no_look_after_the_build, "the old owner of a name still builds"),
]


@pytest.mark.parametrize(("plant", "name"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_bug_is_found(plant: Plant, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a case that ends right without it, as said above; `pytest -s` prints the shortest schedule."""
    case = CASES[name]
    plant(monkeypatch)
    trace, states = shortest(case.scenario, late=bool(case.tick))
    print(f"{plant.__name__}, found after {states} states:", told(trace))
    assert trace[-1].startswith("WRONG: ")


def told(trace: Sequence[str]) -> str:
    return "\n  ".join(["", *trace])
