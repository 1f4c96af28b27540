"""How cost grows: four points each of functions per stack, functions in the cluster, size and pushes."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from . import cloud as clouds
from . import collect, fetch
from .cloud import Author, Cloud, handler, until_answers
from .live import live
from .measure import figure, seconds

NAME = "growth"
_TURNS = 3


@dataclass(frozen=True)
class Point:
    """What `what` took, in seconds, at a size of `size` `unit`."""

    what: str
    unit: str
    size: int
    took: float


def measured(console: Console) -> Sequence[Point]:
    found = []
    for point in itertools.chain(_history(), _collected(), _on_the_cloud()):
        console.print(f"{point.what}: {point.size} {point.unit}, {figure(point.took)} s")
        found.append(point)
    return found


def slopes(points: Iterable[Point]) -> dict[str, tuple[float, float]]:
    """Of each curve the line that fits best: seconds for each unit, and seconds at none."""
    curves: dict[str, list[Point]] = {}
    for point in points:
        curves.setdefault(point.what, []).append(point)
    fits = {
        what: statistics.linear_regression([point.size for point in row], [point.took for point in row])
        for what, row in curves.items()
    }
    return {what: (fit.slope, fit.intercept) for what, fit in fits.items()}


def table(points: Sequence[Point]) -> Table:
    shown = Table("what", "size", "seconds", "seconds for each more")
    for what, unit, rows, slope in _curves(points):
        for point in rows:
            shown.add_row(what, f"{point.size} {unit}", figure(point.took), slope)
    return shown


def markdown(points: Sequence[Point]) -> str:
    lines = ["| what | at | seconds | for each more |", "|---|---|---|---|"]
    for what, unit, rows, slope in _curves(points):
        sizes = ", ".join(str(point.size) for point in rows)
        lines.append(f"| {what} | {sizes} {unit} | {', '.join(figure(row.took) for row in rows)} | {slope} |")
    return "\n".join(lines) + "\n"


def _curves(points: Sequence[Point]) -> Iterator[tuple[str, str, Sequence[Point], str]]:
    for what, (slope, rest) in slopes(points).items():
        rows = [point for point in points if point.what == what]
        yield what, rows[0].unit, rows, f"{1000 * slope:.3g} ms, from {rest:.3g} s on"


def _history() -> Iterator[Point]:
    for commits in (250, 500, 1000, 2000):
        with fetch.large(commits) as repo:
            repo.ours()

            def again(repo: fetch.Large = repo) -> float:
                repo.tidy()
                repo.push()
                return seconds(repo.ours)

            yield Point("fetch of a further push", "commits of 50 KB", commits, _median(again))


def _collected() -> Iterator[Point]:
    for count in (10, 100, 500, 1000):
        took = statistics.median(collect.collect(_TURNS, count).ours)
        yield Point("functions that leave at once", "functions", count, took)


def _on_the_cloud() -> Iterator[Point]:
    with clouds.running() as cloud:
        yield from _stacks(cloud)
        yield from _clusters(cloud)
        yield from _paces(cloud)


def _stacks(cloud: Cloud) -> Iterator[Point]:
    texts = (f"change {number}" for number in itertools.count())
    for count in (1, 5, 10, 20):
        author = cloud.author(*(f"s{count}-{number}" for number in range(count)))
        live(author, "first")

        def change() -> float:
            cloud.until_quiet()
            name = author.functions[0]  # noqa: B023
            author.commit({f"{name}/handler.py": handler(text := next(texts))})  # noqa: B023
            return live(author, text, [name])  # noqa: B023

        yield Point("a push that changes one function", "in the stack", count, _median(change))
        cloud.until_quiet()
        cloud.remove([author])


def _clusters(cloud: Cloud) -> Iterator[Point]:
    """Others' functions, which a push has nothing to do with."""
    texts, there = (f"change {number}" for number in itertools.count()), len(cloud.state.gateway.list())
    author = cloud.author("mine")
    live(author, "first")
    others: list[Author] = []
    for count in (0, 10, 20, 40):
        while len(others) * 10 < count:
            others.append(cloud.author(*(f"o{len(others)}-{number}" for number in range(10))))
            live(others[-1], "first")

        def change() -> float:
            cloud.until_quiet()
            author.commit({"mine/handler.py": handler(text := next(texts))})
            return live(author, text)

        yield Point("a push of one function", "others in the cluster", there + count, _median(change))
    cloud.until_quiet()
    cloud.remove([author, *others])


def _paces(cloud: Cloud) -> Iterator[Point]:
    """Pushes to different repositories, evenly over half a minute: how long each takes to be live."""
    authors = [cloud.author(f"p{number:02}") for number in range(15)]
    for author in authors:
        live(author, "first")
    for pace in (4, 10, 20, 30):
        cloud.until_quiet()
        count, text = pace // 2, f"at {pace}"
        for author in authors[:count]:
            author.commit({f"{author.functions[0]}/handler.py": handler(text)})
            author.upload()
            author.move()

        def push(number: int) -> float:
            author = authors[number]
            time.sleep(number * 30 / count)  # noqa: B023
            accepted = author.deliver()
            until_answers(cloud.url(author.services[0]), text)  # noqa: B023
            return time.perf_counter() - accepted

        with ThreadPoolExecutor(count) as pool:
            took = statistics.median(pool.map(push, range(count)))
        yield Point("a push, while others are made", "pushes a minute", pace, took)
    cloud.remove(authors)


def _median(work: Callable[[], float]) -> float:
    return statistics.median(work() for _ in range(_TURNS))
