"""The pure parts of `make chaos`: what a seed plans, what a repository says must be live, the verdict."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.gateway.swarm import CANDIDATE, FAILED, FUNCTION, LIVE, RETIRED, STATE
from local.state import State
from sdk.records import Record
from tests.chaos import authors, expected, plan, quiet, run
from tests.chaos.authors import Author, Move
from tests.chaos.expected import Head
from tests.chaos.plan import CRASH, MISSING, NO_FUNCTIONS, NO_YAML, Commit, Function, Repo
from tests.chaos.plants import PLANTS, planted
from tests.chaos.verdict import LOST, WRONG, Answers, allowed, judge
from tests.conftest import ROOT

REPO = Repo("o", "r", "fghi", ("x",))


def test_a_seed_plans_the_same_run_and_a_longer_one_begins_with_it() -> None:
    known = plan.repos("p")
    short, long = (list(plan.rounds(7, number, known)) for number in (20, 60))
    assert long[:20] == short
    assert list(plan.rounds(8, 20, known)) != short


KILLED = ("gh-push", "git-tar", "buildshiprun", "garbage-collect", "of-builder", "registry", "gateway")


@given(st.integers(0, 10**6))
def test_whatever_the_seed_200_rounds_have_everything_in_them(seed: int) -> None:
    rounds = list(plan.rounds(seed, 200, plan.repos("p")))
    assert all(at.faults for at in rounds)
    faults = Counter((fault.kind, fault.target) for at in rounds for fault in at.faults)
    assert {target for kind, target in faults if kind == "kill"} == {*KILLED}
    assert all(faults["kill", target] >= 5 for target in KILLED), faults
    kinds = Counter(kind for kind, _ in faults.elements())
    assert kinds.keys() == {"kill", "disk", "delay", "cut", "cut applied", "500", "502 applied", "late"}
    assert min(kinds.values()) >= 5, kinds
    happened = Counter(what for at in rounds for what in happening(at))
    happened.update(what for repo in plan.repos("p") for what in moves(rounds, repo))
    expected = {
        *("two at once", "duplicated", "dropped", "reordered", "taken over", "removed", "reverted"),
        *("forced back", "forked", CRASH, MISSING, plan.CLASH, NO_YAML, NO_FUNCTIONS),
    }
    assert {what for what, times in happened.items() if times} == expected, happened


def happening(at: plan.Round) -> Iterator[str]:
    if len({push.repo for push in at.pushes}) > 1:
        yield "two at once"
    if at.takeover:
        yield "taken over"
    for push in at.pushes:
        if len(push.events) != 1:
            yield "duplicated" if push.events else "dropped"
    arrivals = [
        (push.repo.full_name, push.at + event, push.at) for push in at.pushes for event in push.events
    ]
    if any(
        one[0] == other[0] and one[1] < other[1] and one[2] > other[2]
        for one, other in itertools.permutations(arrivals, 2)
    ):
        yield "reordered"


def moves(rounds: Sequence[plan.Round], repo: Repo) -> Iterator[str]:
    """What the pushes to `repo` are, by the commits alone."""
    pushed = [push.commit for at in rounds for push in at.pushes if push.repo == repo]
    seen: list[Commit] = []
    for commit in pushed:
        before = seen[-1] if seen else None
        if before and commit in seen[:-1]:
            yield "forced back"
        elif before and commit.parent != before.number:
            yield "forked"
        elif before and commit.is_good and any(commit.functions == old.functions for old in seen[:-1]):
            yield "reverted"
        if before and set(before.functions) - set(commit.functions) - set(repo.clashing):
            yield "removed"
        if commit.broken:
            yield commit.broken
        yield from {function.broken for function in commit.functions.values()} - {""}
        seen.append(commit)


def test_a_strict_segment_leaves_no_shipment_without_its_git_tar() -> None:
    for at in plan.rounds(3, 200, plan.repos("p")):
        if at.strict:
            for fault in at.faults:
                assert (fault.kind, fault.target) not in {("kill", "git-tar"), ("kill", "gateway")}
                assert fault.kind != "late"
                assert fault.target != "ship" or fault.kind == "delay"


def test_two_repositories_never_share_a_function() -> None:
    services = [f"{repo.owner}-{name}" for repo in plan.repos("p") for name in (*repo.names, *repo.clashing)]
    assert len(services) == len(set(services))


def test_something_is_left_of_every_stack() -> None:
    for at in plan.rounds(5, 300, plan.repos("p")):
        for push in at.pushes:
            own = set(push.commit.functions) - set(push.repo.clashing)
            assert 0 < len(own) <= plan.MOST_FUNCTIONS


@pytest.fixture
def author(tmp_path: Path) -> Author:
    """With a repository here instead of the server's."""
    author = Author(REPO, tmp_path / "r.git", State(tmp_path))
    author.folder.mkdir()
    expected.git(author.folder, "init", "--quiet", "--bare", "--initial-branch=master")
    expected.git(author.folder, "config", "core.logAllRefUpdates", "true")
    return author


def pushed(author: Author, *commits: Commit) -> list[Head]:
    for commit in commits:
        expected.git(author.folder, "update-ref", expected.BRANCH, author._sha(commit))
    return expected.heads(author.folder, frozenset(REPO.clashing))


def test_the_expected_answers_are_read_from_the_repository_alone(author: Author) -> None:
    good = Commit(0, None, {"f": Function(1, 0), "g": Function(2, 5)})
    broken = Commit(
        1,
        0,
        {"f": Function(3, 0, CRASH), "g": Function(2, 5, MISSING), "x": Function(4, 0), "h": Function(5, 0)},
    )
    assert [(head.functions, head.is_good) for head in pushed(author, good, broken)] == [
        ({"f": "o/r/f/1/0", "g": "o/r/g/2/5"}, True),
        ({"f": None, "g": None, "x": None, "h": "o/r/h/5/0"}, False),
    ]


@pytest.mark.parametrize("how", [NO_YAML, NO_FUNCTIONS])
def test_a_broken_stack_names_nothing(how: str, author: Author) -> None:
    [head] = pushed(author, Commit(0, None, {"f": Function(1, 0)}, how))
    assert (head.functions, head.is_valid) == ({}, False)


def test_a_branch_that_was_forced_back_is_where_it_was(author: Author) -> None:
    first = Commit(0, None, {"f": Function(1, 0)})
    second, fork = Commit(1, 0, {"f": Function(2, 0)}), Commit(2, 0, {"f": Function(3, 0)})
    heads = pushed(author, first, second, first, fork)
    assert [head.functions["f"] for head in heads] == ["o/r/f/1/0", "o/r/f/2/0", "o/r/f/1/0", "o/r/f/3/0"]
    assert heads[0].sha == heads[2].sha
    assert expected.git(author.folder, "rev-parse", f"{heads[3].sha}^") == heads[0].sha


def test_a_handler_answers_what_is_expected(author: Author, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = Commit(0, None, {"f": Function(1, 7)})
    [head] = pushed(author, commit)
    monkeypatch.setenv("version", "7")
    found: dict[str, object] = {}
    exec(expected.files(REPO, commit)["f/handler.py"], found)
    handle = found["handle"]
    assert callable(handle)
    assert handle(None, None) == {"statusCode": 200, "body": head.functions["f"]}


OLD = Head("1", {"f": "f1", "g": "g1"})


def kinds(heads: list[Head], live: Answers, before: Answers | None = None) -> dict[str, str]:
    found = judge(heads, before if before is not None else {"f": "f1", "g": "g1"}, live)
    return {finding.function: finding.kind for finding in found}


def test_what_the_head_says_is_right_and_nothing_else() -> None:
    heads = [OLD, Head("2", {"f": "f2", "h": "h2"})]
    assert kinds(heads, {"f": "f2", "g": None, "h": "h2"}) == {}
    assert kinds(heads, {"f": "f1", "g": "g1", "h": None}) == {"f": WRONG, "g": WRONG, "h": LOST}
    assert kinds(heads, {"f": None, "h": "h2", "z": "?"}) == {"f": LOST, "z": WRONG}


def test_of_what_is_broken_on_purpose_the_last_good_one_stays() -> None:
    heads = [OLD, Head("2", {"f": None, "g": "g2"})]
    assert kinds(heads, {"f": "f1", "g": "g2"}) == {}
    assert kinds(heads, {"f": None, "g": "g2"}) == {"f": WRONG}
    assert kinds(heads, {"f": "f9", "g": "g2"}) == {"f": WRONG}
    assert kinds(heads, {"f": "f1", "g": "g1"}) == {"g": WRONG}


def test_a_version_between_may_be_the_last_good_one() -> None:
    heads = [OLD, Head("2", {"f": "f2", "g": "g1"}), Head("3", {"f": None, "g": "g1"})]
    assert allowed("f", heads, {"f": "f1"}) == {"f1", "f2"}
    gone = [OLD, Head("2", {"g": "g1"}), Head("3", {"f": None, "g": "g1"})]
    assert allowed("f", gone, {"f": "f1"}) == {"f1", None}


def test_nothing_is_collected_while_something_is_broken() -> None:
    heads = [OLD, Head("2", {"f": None})]
    assert kinds(heads, {"f": "f1", "g": "g1"}) == {}
    assert kinds(heads, {"f": "f1", "g": None}) == {"g": WRONG}


def test_a_stack_that_can_not_be_read_changes_nothing() -> None:
    heads = [OLD, Head("2", {}, is_valid=False)]
    assert kinds(heads, {"f": "f1", "g": "g1"}) == {}
    assert kinds(heads, {"f": "f1", "g": None}) == {"g": WRONG}


def test_what_somebody_else_holds_is_not_judged() -> None:
    heads = [OLD, Head("2", {"f": "f2", "h": "h2"})]
    assert not list(judge(heads, {}, {"f": "?", "h": "h2"}, taken={"f"}))


def record(second: float, sha: str, stage: str, outcome: str) -> Record:
    at = f"2026-01-01T00:00:{second:06.3f}+00:00"
    return Record(at, "d", "o", "r", sha, "f" if stage == "deploy" else "", stage, outcome, 0)


START = record(0, "", "", "").time


@pytest.mark.parametrize(
    ("records", "strict", "loose"),
    [
        ([(5, "new", "push", "ok")], True, False),
        ([(5, "new", "push", "failed")], False, False),
        ([(5, "old", "push", "ok")], True, True),
        ([(5, "new", "push", "retry")], True, True),
    ],
)
def test_an_accepted_event_has_its_end(
    records: list[tuple[float, str, str, str]], strict: bool, loose: bool, author: Author
) -> None:
    author.moves.append(Move("old", "new", START + 1, START + 1.2))
    author.accepted.append((START + 1.5, "new"))
    rows = [record(*row) for row in records]
    assert bool(run.owed(author, rows, strict=True)) == strict
    assert bool(run.owed(author, rows, strict=False)) == loose


def test_a_write_after_the_head_moved_is_followed_by_a_look_even_without_an_event(author: Author) -> None:
    author.moves.append(Move("old", "new", START + 1, START + 1.2))
    before, after = record(1.5, "old", "deploy", "ok"), record(3, "old", "deploy", "ok")
    end = record(4, "old", "push", "ok")
    assert run.owed(author, [after, end], strict=True)
    assert not run.owed(author, [before, end], strict=True)
    assert not run.owed(author, [after, end], strict=False)
    assert not run.owed(author, [], strict=True)


@pytest.mark.parametrize(
    ("states", "settled"),
    [
        ([LIVE], True),
        ([LIVE, FAILED], True),
        ([LIVE, CANDIDATE], False),
        ([RETIRED, LIVE], False),
        ([LIVE, LIVE], False),
    ],
)
def test_settled_is_one_live_service_and_none_that_comes_or_goes(states: list[str], settled: bool) -> None:
    services = [{"Spec": {"Labels": {FUNCTION: "f", STATE: state}}} for state in states]
    services.append({"Spec": {"Labels": {FUNCTION: "other", STATE: LIVE}}})
    engine: Any = SimpleNamespace(api=SimpleNamespace(services=lambda filters: services))
    assert (not quiet.unsettled(engine, "f")) == settled
    assert (not quiet.unsettled(engine)) == settled


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_a_change_of_todays_sources(name: str) -> None:
    for path, text in planted(PLANTS[name], ROOT).items():
        assert text != (ROOT / path).read_text()
        compile(text, path, "exec")


def test_an_imported_commit_has_its_files(author: Author) -> None:
    stream = authors._import({"a/b": "text\n", "c": ""}, "message", None)
    expected.git(author.folder, "fast-import", "--quiet", stdin=stream)
    assert expected.git(author.folder, "ls-tree", "-r", "--name-only", "refs/work").split() == ["a/b", "c"]
    assert expected.git(author.folder, "show", "refs/work:a/b") == "text"
