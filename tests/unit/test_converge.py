"""git-tar's loop against a model of the branch and the cluster: no git, no HTTP, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from git_tar.converge import Report, Result, Tidied, converge
from git_tar.sdk.errors import Failed, Unavailable

Stack = dict[str, str]  # function → content
Cluster = dict[str, tuple[str, str]]  # function → (commit, content)


@dataclass
class Model:
    """`moves` is called at every step with the step's name; it may move the branch, as a push would."""

    commits: dict[str, Stack]
    at: str | None
    cluster: Cluster = field(default_factory=dict)
    moves: Callable[[str], None] = lambda step: None
    broken: frozenset[str] = frozenset()
    loses_answers: bool = False
    reports: list[Report] = field(default_factory=list)

    def head(self) -> str | None:
        self.moves("head")
        return self.at

    def apply(self, sha: str) -> Sequence[Result]:
        self.moves("fetch")
        if not self.commits[sha]:
            raise Failed("no functions")
        results = []
        for name, content in self.commits[sha].items():
            self.moves("ship")
            if content in self.broken:
                results.append(Result(name, "failed", error="does not build"))
            else:
                self.cluster[name] = (sha, content)
                results.append(Result(name, "ok"))
        return results

    def finish(self, sha: str, keep: Sequence[str]) -> Tidied:
        self.moves("finish")
        gone = tuple(name for name in self.cluster if name not in keep)
        for name in gone:
            del self.cluster[name]
        return Tidied(gone, whole=not self.loses_answers)

    def report(self, report: Report) -> None:
        self.reports.append(report)

    @property
    def live(self) -> Stack:
        return {name: content for name, (_, content) in self.cluster.items()}


COMMITS = {
    "one": {"a": "a1", "b": "b1"},
    "two": {"a": "a2", "c": "c2"},
    "three": {"a": "a3", "b": "b1"},
}


def test_the_stack_at_the_head_is_live_and_what_left_it_is_removed() -> None:
    model = Model(COMMITS, "two", {"b": ("one", "b1")})
    report = converge(model, 5)
    assert model.live == {"a": "a2", "c": "c2"}
    assert (report.outcome, report.removed) == ("ok", ("b",))
    assert model.reports == [report]


STEPS_OF_A_PASS = 7  # head, fetch, ship, ship, head, finish, head


@pytest.mark.parametrize("step", range(STEPS_OF_A_PASS))
@pytest.mark.parametrize("target", ["two", "three"])
def test_a_push_at_any_step_is_taken_along(step: int, target: str) -> None:
    """Flaw 10: a build that was overtaken stayed, or removed what the newer push added."""
    model, counter = Model(COMMITS, "one", {"z": ("zero", "z0")}), itertools.count()

    def move(name: str) -> None:
        if next(counter) == step:
            model.at = target

    model.moves = move
    converge(model, 5)
    assert model.live == COMMITS[target]
    assert model.reports[-1].sha == target


def test_a_head_that_moved_is_followed_in_the_same_call() -> None:
    model = Model(COMMITS, "one")
    seen: list[str] = []

    def move(name: str) -> None:
        seen.append(name)
        if seen.count("ship") == 2 and model.at == "one":
            model.at = "two"

    model.moves = move
    report = converge(model, 5)
    assert (report.sha, report.outcome) == ("two", "ok")
    assert [(passed.sha, passed.outcome) for passed in model.reports] == [
        ("one", "superseded"),
        ("two", "ok"),
    ]
    assert model.live == COMMITS["two"]
    assert seen.count("finish") == 1, "a superseded pass collects nothing"


@pytest.mark.parametrize(
    ("left", "lost"), [({"z": ("zero", "z0")}, False), ({}, True)], ids=["removed", "answer lost"]
)
def test_the_head_is_read_after_the_last_write(left: Cluster, lost: bool) -> None:
    model = Model(COMMITS, "one", left, loses_answers=lost)
    steps: list[str] = []
    model.moves = steps.append
    converge(model, 5)
    assert steps == ["head", "fetch", "ship", "ship", "head", "finish", "head"]


def test_the_head_is_not_read_again_when_nothing_was_removed() -> None:
    """What is pushed from then on is that push's to ship."""
    model = Model(COMMITS, "one")
    steps: list[str] = []
    model.moves = steps.append
    assert converge(model, 5).outcome == "ok"
    assert steps == ["head", "fetch", "ship", "ship", "head", "finish"]


def test_a_branch_that_never_rests_goes_back_to_the_queue() -> None:
    model = Model(COMMITS, "one")
    turn = itertools.cycle(COMMITS)

    def move(name: str) -> None:
        if name == "ship":
            model.at = next(commit for commit in turn if commit != model.at)

    model.moves = move
    with pytest.raises(Unavailable, match="moved 3 times"):
        converge(model, 3)


def test_a_missing_branch_changes_nothing() -> None:
    cluster: Cluster = {"a": ("one", "a1")}
    model = Model(COMMITS, None, dict(cluster))
    assert converge(model, 5).outcome == "skipped"
    assert model.cluster == cluster


def test_one_broken_function_leaves_the_others_live_and_collects_nothing() -> None:
    """Flaw 11: the pipeline went on after an error and collected garbage."""
    model = Model(COMMITS, "two", {"b": ("one", "b1"), "c": ("one", "c0")}, broken=frozenset({"c2"}))
    report = converge(model, 5)
    assert report.outcome == "failed"
    assert "1 of 2 functions failed: c" in report.error
    assert model.live == {"a": "a2", "b": "b1", "c": "c0"}


def test_what_was_not_tried_is_no_last_word_of_a_broken_neighbour() -> None:
    """The branch may be back where it was: then nobody else ships what this pass left out."""
    model = Model(COMMITS, "one", broken=frozenset({"b1"}))
    whole, passes = model.apply, itertools.count()

    def apply(sha: str) -> Sequence[Result]:
        results = whole(sha)
        if next(passes) == 0:
            return [Result("a", "superseded", error="a newer commit was pushed"), *results[1:]]
        return results

    model.apply = apply  # type: ignore[method-assign]
    assert converge(model, 5).error.startswith("1 of 2 functions failed: b")
    assert [report.outcome for report in model.reports] == ["superseded", "failed"]


def test_a_stack_that_cannot_be_read_changes_nothing() -> None:
    model = Model({"empty": {}}, "empty", {"a": ("one", "a1")})
    report = converge(model, 5)
    assert (report.outcome, report.error) == ("failed", "no functions")
    assert model.live == {"a": "a1"}


def test_what_may_work_later_is_not_reported_as_the_end() -> None:
    model = Model(COMMITS, "one")

    def move(name: str) -> None:
        if name == "ship":
            raise Unavailable("of-builder restarts")

    model.moves = move
    with pytest.raises(Unavailable):
        converge(model, 5)
    assert not model.reports
