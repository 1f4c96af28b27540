"""A push from the webhook that is accepted until the new version answers, beside the same by hand."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from sdk.settings import Settings

from . import cloud as clouds
from .byhand import ByHand, by_hand
from .cloud import Author, Cloud, Event, handler, stack, until_answers
from .measure import QUICK_REPEAT, Measure, Samples, interleaved, seconds

_MANY = tuple(f"f{number:02}" for number in range(20))
_REPOSITORIES, _PUSHES = 12, 60
_BURST_SECONDS = 2


@contextmanager
def _both() -> Iterator[tuple[Cloud, ByHand]]:
    with clouds.running() as cloud, by_hand(cloud) as hand:
        yield cloud, hand


def live(author: Author, text: str, functions: Sequence[str] = ()) -> float:
    """Push the head; seconds from the accepted webhook until the functions answer `text`."""
    accepted = author.push()
    for name in functions or author.functions:
        until_answers(author.cloud.url(f"{author.cloud.owner}-{name}"), text)
    return time.perf_counter() - accepted


def _first(author: Author, hand: ByHand | None = None) -> None:
    """Deploy what was committed, by both."""
    live(author, "first")
    if hand:
        hand.push(author, "first", parallel=Settings().parallel_functions)
    author.cloud.until_quiet()


def _quietly(cloud: Cloud, hand: ByHand, work: Callable[[], float]) -> Callable[[], float]:
    """`work` on a cloud that is quiet, so that no turn pays for the one before."""

    def turn() -> float:
        hand.tidy()
        cloud.until_quiet()
        return work()

    return turn


def _push_to_live(repeat: int) -> Samples:
    with _both() as (cloud, hand):
        author, texts = cloud.author("one"), (f"change {number}" for number in itertools.count())
        _first(author, hand)

        def ours() -> float:
            author.commit({"one/handler.py": handler(text := next(texts))})
            return live(author, text)

        def floor() -> float:
            author.commit({"one/handler.py": handler(text := next(texts))})
            author.upload()
            return seconds(lambda: hand.push(author, text))

        return interleaved(repeat, _quietly(cloud, hand, ours), _quietly(cloud, hand, floor))


def _monorepo(repeat: int) -> Samples:
    with _both() as (cloud, hand):
        many, single = cloud.author(*_MANY), cloud.author("single")
        texts = (f"change {number}" for number in itertools.count())
        _first(many)
        _first(single)

        def change(author: Author, name: str) -> float:
            author.commit({f"{name}/handler.py": handler(text := next(texts))})
            return live(author, text, [name])

        ours = _quietly(cloud, hand, lambda: change(many, _MANY[7]))
        return interleaved(repeat, ours, _quietly(cloud, hand, lambda: change(single, "single")))


def _first_deploy(repeat: int) -> Samples:
    with _both() as (cloud, hand):
        numbers = itertools.count()
        _first(cloud.author("warm"), hand)

        def author() -> tuple[Author, str]:
            number = next(numbers)
            names = [f"n{number}-{name}" for name in _MANY]
            return cloud.author(*names, text=f"text {number}"), f"text {number}"

        def ours() -> float:
            new, text = author()
            took = live(new, text)
            cloud.until_quiet()
            cloud.remove([new])
            return took

        def floor() -> float:
            new, text = author()
            new.upload()
            took = seconds(lambda: hand.push(new, text, parallel=Settings().parallel_functions))
            hand.remove()
            cloud.authors.remove(new)
            return took

        return interleaved(repeat, _quietly(cloud, hand, ours), _quietly(cloud, hand, floor), warm_up=0)


def _revert(repeat: int) -> Samples:
    """Between two commits whose images are there, forth and back."""
    with _both() as (cloud, hand):
        author = cloud.author("one")
        service = author.services[0]
        images = {}
        for text in ("first", "second"):
            author.commit({"one/handler.py": handler(text)})
            live(author, text)
            images[text] = hand.build(hand.fetch(author), "one")
        ours_next, floor_next = itertools.cycle(("first", "second")), itertools.cycle(("first", "second"))

        def ours() -> float:
            author.commit({"one/handler.py": handler(text := next(ours_next))})
            return live(author, text)

        def floor() -> float:
            text = next(floor_next)
            return seconds(lambda: _deployed(hand, service, text, image=images[text]))

        return interleaved(repeat, _quietly(cloud, hand, ours), _quietly(cloud, hand, floor))


def _config_only(repeat: int) -> Samples:
    with _both() as (cloud, hand):
        author, values = cloud.author("one"), (f" {number}" for number in itertools.count())
        service = author.services[0]
        _first(author)
        image = hand.build(hand.fetch(author), "one")

        def ours() -> float:
            author.commit({"stack.yml": stack(["one"], value := next(values))})
            return live(author, f"first{value}")

        def floor() -> float:
            value = next(values)
            return seconds(lambda: _deployed(hand, service, f"first{value}", image=image, value=value))

        return interleaved(repeat, _quietly(cloud, hand, ours), _quietly(cloud, hand, floor))


def _deployed(hand: ByHand, service: str, text: str, **change: str) -> None:
    hand.deploy(service, hand.task(service, **change))
    until_answers(hand.url(service), text)


def _nothing_changed(repeat: int) -> Samples:
    with _both() as (cloud, hand):
        author, numbers = cloud.author("one"), itertools.count()
        _first(author, hand)

        def ours() -> float:
            author.commit({"README.md": f"{next(numbers)}\n"})
            accepted = author.push()
            author.until_ended()
            return time.perf_counter() - accepted

        def floor() -> float:
            author.commit({"README.md": f"{next(numbers)}\n"})
            author.upload()
            return seconds(lambda: hand.fetch(author))

        return interleaved(repeat, _quietly(cloud, hand, ours), _quietly(cloud, hand, floor))


def _burst(repeat: int) -> Samples:
    """Each repository is pushed to five times at once; only the last one's build has to happen."""
    with _both() as (cloud, hand):
        authors = [cloud.author(f"r{number:02}") for number in range(_REPOSITORIES)]
        rounds, spans = itertools.count(), []
        for author in authors:
            _first(author)

        def commits(author: Author, turn: str) -> Sequence[str]:
            """So many commits of which the server has all; the last one answers `turn`."""
            texts = [*(f"{turn}, {number}" for number in range(_PUSHES // _REPOSITORIES - 1)), turn]
            shas = [author.commit({f"{author.functions[0]}/handler.py": handler(text)}) for text in texts]
            author.upload()
            return shas

        def ours() -> float:
            turn = f"turn {next(rounds)}"
            shas = [commits(author, turn) for author in authors]
            events = [[author.event(sha) for sha in mine] for author, mine in zip(authors, shas, strict=True)]
            begun = time.perf_counter()
            with ThreadPoolExecutor(_REPOSITORIES) as pool:
                accepted = list(pool.map(_pushed, authors, shas, events))
                spans.append(max(last for _, last in accepted) - begun)
                for author in authors:
                    until_answers(cloud.url(author.services[0]), turn)
            took = time.perf_counter() - min(first for first, _ in accepted)
            cloud.until_quiet()
            for author in authors:  # also once all that was queued has ended
                until_answers(cloud.url(author.services[0]), turn)
            return took

        def floor() -> float:
            turn = f"turn {next(rounds)}"
            for author in authors:
                commits(author, turn)
            parallel = Settings().parallel_long_calls

            def push(author: Author) -> None:
                hand.push(author, turn)
                hand.retire()  # as ours: the machine ends old versions while others are built

            def all_of_them() -> None:
                with ThreadPoolExecutor(parallel) as pool:
                    list(pool.map(push, authors))

            return seconds(all_of_them)

        found = interleaved(repeat, _quietly(cloud, hand, ours), _quietly(cloud, hand, floor))
        note = f"all {_REPOSITORIES} heads live; the pushes took {max(spans):.1f} s of {_BURST_SECONDS}"
        return Samples(found.ours, found.floor, note)


def _pushed(author: Author, shas: Sequence[str], events: Sequence[Event]) -> tuple[float, float]:
    """Push one commit after the other; when gh-push took the first, and the last."""
    accepted = []
    for sha, event in zip(shas, events, strict=True):
        author.move(sha)
        accepted.append(author.deliver(event))
    return accepted[0], accepted[-1]


_SWITCH = "a service of the image that is there, and the route switched, by hand"
MEASURES = (
    Measure(
        "push_to_live",
        "one function, one line changed: from the accepted webhook until it answers",
        "git fetch, buildx build --push, a service and the route switched, by hand",
        "s",
        1.25,
        _push_to_live,
        needs_cloud=True,
    ),
    Measure(
        "monorepo_one_of_20",
        "the same of one of 20 functions",
        "ours with one function",
        "s",
        1.5,
        _monorepo,
        needs_cloud=True,
    ),
    Measure(
        "first_deploy_20",
        "20 new functions, until all answer",
        "the same builds and services by hand, as parallel",
        "s",
        1.25,
        _first_deploy,
        needs_cloud=True,
    ),
    Measure("revert", "back to an earlier commit", _SWITCH, "s", 1.5, _revert, needs_cloud=True),
    Measure(
        "config_only", "an environment variable changed", _SWITCH, "s", 1.5, _config_only, needs_cloud=True
    ),
    Measure(
        "nothing_changed",
        "a push of README alone, until it has ended",
        "git fetch by hand",
        "s",
        3,
        _nothing_changed,
        needs_cloud=True,
        repeat=QUICK_REPEAT,
    ),
    Measure(
        "burst",
        f"{_PUSHES} pushes to {_REPOSITORIES} repositories, until all heads are live",
        "the builds and services that must be, as parallel, and the end of those before",
        "s",
        1.4,
        _burst,
        needs_cloud=True,
    ),
)
