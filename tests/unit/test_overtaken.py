"""When a pass is cut short because the branch has left its commit, and when it ships all."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from git_tar import overtaken
from git_tar.overtaken import Cuts, Watch
from git_tar.sdk.errors import Superseded, Unavailable


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overtaken, "WATCH_SECONDS", 0.001)


class Told:
    """Where the branch is, and whether somebody said that it has moved."""

    def __init__(self, head: str | None = "newer") -> None:
        self.head = head
        self.times = 0
        self.twice = threading.Event()

    def watch(self, head: Callable[[], str | None] | None = None) -> Watch:
        return Watch(head or (lambda: self.head), "a1", self.tell)

    def tell(self) -> None:
        self.times += 1
        if self.times == 1:
            raise Unavailable("the message is lost")
        self.twice.set()


def is_cut(cuts: Cuts, told: Told, repository: str = "r") -> bool:
    """Whether a pass that lasts until it is told to end is."""
    with cuts.watched(repository, told.watch()) as watch:
        return told.twice.wait(0.2) and watch.moved()


@pytest.mark.parametrize("head", ["newer", None])
def test_a_branch_that_moves_is_told_until_the_pass_has_ended(head: str | None) -> None:
    told = Told(head)
    with Cuts().watched("r", told.watch()) as watch:
        assert told.twice.wait(10), "also after a message was lost"
        with pytest.raises(Superseded, match="a newer commit was pushed"):
            watch.check()


def test_nothing_is_told_once_the_pass_has_ended() -> None:
    """The next one may be of the same commit: the branch goes back."""
    begun, go_on, told = threading.Event(), threading.Event(), list[str]()

    def tell() -> None:
        begun.set()
        go_on.wait(10)
        told.append("told")

    def whole() -> None:
        with Cuts().watched("r", Watch(lambda: "newer", "a1", tell)):
            assert begun.wait(10)
        told.append("ended")

    thread = threading.Thread(target=whole)
    thread.start()
    thread.join(0.2)  # a pass that does not wait ends now
    go_on.set()
    thread.join(10)
    assert told[-1] == "ended"
    assert "told" in told


def test_a_server_that_does_not_answer_is_no_newer_commit() -> None:
    told, asked = Told(), threading.Event()
    answers = iter(["a1", "a1", "newer"])

    def head() -> str:
        if not asked.is_set():
            asked.set()
            raise Unavailable("git does not answer")
        return next(answers, "newer")

    with Cuts().watched("r", told.watch(head)) as watch:
        assert asked.wait(10)
        assert told.twice.wait(10)
        assert watch.moved()


def test_of_a_busy_repository_every_third_pass_ships_all() -> None:
    cuts = Cuts()
    assert [is_cut(cuts, Told()) for _ in range(7)] == [True, True, False, True, True, False, True]


def test_repositories_are_counted_apart_and_only_in_a_row() -> None:
    cuts = Cuts()
    assert [is_cut(cuts, Told(), name) for name in ("r", "s", "r", "s")] == [True] * 4
    for name in ("r", "s"):
        assert not is_cut(cuts, Told(), name)
    assert [is_cut(cuts, Told(head)) for head in ("newer", "a1", "newer", "newer")] == [
        True,
        False,
        True,
        True,
    ]
    assert not is_cut(cuts, Told())


def test_a_pass_that_was_to_ship_all_and_could_not_is_made_up_for() -> None:
    cuts = Cuts()
    assert is_cut(cuts, Told())
    assert is_cut(cuts, Told())
    with pytest.raises(Unavailable), cuts.watched("r", Told().watch()):
        raise Unavailable("of-builder restarts")
    assert not is_cut(cuts, Told())


def test_a_pass_that_is_cut_counts_also_if_it_fails() -> None:
    cuts = Cuts()

    def cut_and_fail(told: Told) -> None:
        with cuts.watched("r", told.watch()):
            assert told.twice.wait(10)
            raise Unavailable("of-builder restarts")

    for _ in range(2):
        with pytest.raises(Unavailable):
            cut_and_fail(Told())
    assert not is_cut(cuts, Told())


def test_another_push_of_the_repository_is_a_hint_to_look_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overtaken, "WATCH_SECONDS", 60)
    monkeypatch.setattr(overtaken, "HINT_SECONDS", 0.01)
    cuts, told = Cuts(), Told()
    with cuts.watched("r", told.watch()) as watch:
        cuts.hint("another one")
        assert not told.twice.wait(0.1)
        assert not watch.moved()
        cuts.hint("r")
        assert told.twice.wait(10)
    cuts.hint("r")  # nobody watches


def test_a_hint_that_was_wrong_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overtaken, "WATCH_SECONDS", 60)
    monkeypatch.setattr(overtaken, "HINT_SECONDS", 0.01)
    cuts, looks = Cuts(), threading.Semaphore(0)

    def head() -> str:
        looks.release()
        return "a1"

    with cuts.watched("r", Told().watch(head)) as watch:
        cuts.hint("r")
        assert looks.acquire(timeout=10)
        assert not looks.acquire(timeout=0.1)
        assert not watch.moved()
