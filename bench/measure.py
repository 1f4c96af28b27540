"""The core: ours and the floor in turn, medians, ratios, and how they are shown. Nothing here knows a row."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.table import Table

REPEAT, QUICK_REPEAT = 5, 15


@dataclass(frozen=True)
class Samples:
    """What was measured of one row: a figure of ours and one of the floor for each turn."""

    ours: tuple[float, ...]
    floor: tuple[float, ...]
    note: str = ""


@dataclass(frozen=True)
class Measure:
    """A row that can be measured: `take` gets how often, by default `repeat`."""

    name: str
    what: str
    floor: str
    unit: str
    goal: float
    take: Callable[[int], Samples]
    needs_cloud: bool = False
    repeat: int = REPEAT


@dataclass(frozen=True)
class Row:
    """A row that was measured. `ours` and `floor` are medians; median, min and max are of our `n` figures."""

    name: str
    ours: float
    floor: float
    ratio: float
    n: int
    median: float
    min: float
    max: float
    unit: str
    goal: float
    floor_min: float
    floor_max: float
    note: str = ""

    @property
    def is_reached(self) -> bool:
        return self.ratio <= self.goal


def row(measure: Measure, samples: Samples) -> Row:
    ours, floor = statistics.median(samples.ours), statistics.median(samples.floor)
    return Row(
        name=measure.name,
        ours=ours,
        floor=floor,
        ratio=ours / floor,
        n=len(samples.ours),
        median=ours,
        min=min(samples.ours),
        max=max(samples.ours),
        unit=measure.unit,
        goal=measure.goal,
        floor_min=min(samples.floor),
        floor_max=max(samples.floor),
        note=samples.note,
    )


def interleaved(
    repeat: int, ours: Callable[[], float], floor: Callable[[], float], warm_up: int = 1
) -> Samples:
    """Ours, floor, ours, floor …: what slows the machine down for a while slows both down.

    What each returns is what counts; the first `warm_up` turns don't, as caches are filled then.
    """
    turns = [(ours(), floor()) for _ in range(warm_up + repeat)][warm_up:]
    return Samples(tuple(turn[0] for turn in turns), tuple(turn[1] for turn in turns))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def quantile(figures: Sequence[float], part: float) -> float:
    """The figure that `part` of all figures don't exceed."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def save(rows: Sequence[Row], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")


def load(file: Path) -> Sequence[Row]:
    return msgspec.json.decode(file.read_bytes(), type=list[Row])


def changes(rows: Iterable[Row], before: Iterable[Row]) -> Mapping[str, float]:
    """By how much each ratio changed: 0.1 is a tenth more."""
    old = {known.name: known.ratio for known in before}
    return {new.name: new.ratio / old[new.name] - 1 for new in rows if old.get(new.name)}


def table(rows: Iterable[Row], compared: Mapping[str, float] | None = None) -> Table:
    headings = ["", "ours", "floor", "unit", "ratio", "goal", "n", "ours from", "to", *_compared(compared)]
    shown = Table(*headings, "note")
    for found in rows:
        mark = "[green]✓[/]" if found.is_reached else "[red]✗[/]"
        change = compared.get(found.name) if compared is not None else None
        shown.add_row(
            found.name,
            *(figure(number) for number in (found.ours, found.floor)),
            found.unit,
            f"{found.ratio:.2f} {mark}",
            f"{found.goal:g}",
            str(found.n),
            *(figure(number) for number in (found.min, found.max)),
            *([] if compared is None else ["" if change is None else f"{change:+.0%}"]),
            found.note,
        )
    return shown


def markdown(rows: Iterable[Row], measures: Mapping[str, Measure]) -> str:
    """The rows as the table of RESULTS.md."""
    lines = [
        "| name | ours | floor | unit | ratio | goal | n | ours, from – to | floor | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        mark = "" if found.is_reached else " **over**"
        span = f"{figure(found.min)} – {figure(found.max)}"
        cells = (
            *(found.name, figure(found.ours), figure(found.floor), found.unit),
            *(f"{found.ratio:.2f}{mark}", f"{found.goal:g}", str(found.n), span),
            *(measures[found.name].floor, found.note),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def figure(number: float) -> str:
    """Three digits that count, never an exponent."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _compared(compared: Mapping[str, float] | None) -> Sequence[str]:
    return [] if compared is None else ["change"]
