"""The command: measure, show, keep, compare."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from rich.console import Console

from . import collect, context, fetch, growth, live, measure, memory, proxy, results, webhook
from .measure import QUICK_REPEAT, REPEAT, Measure, Row

MODULES = (live, fetch, context, memory, webhook, collect, proxy)
MEASURES: Mapping[str, Measure] = {each.name: each for module in MODULES for each in module.MEASURES}
_WIDTH = 150


def _listed(measures: Iterable[Measure]) -> str:
    return "\n".join(f"  {each.name:<20} {each.what} (≤ {each.goal:g})" for each in measures)


_EPILOG = f"""\b
NAMES (all without one; in brackets the goal, as times the floor)
{_listed(each for each in MEASURES.values() if not each.needs_cloud)}
\b
On the running cloud, one is started if there is none
{_listed(each for each in MEASURES.values() if each.needs_cloud)}
\b
Only by its name, some 15 minutes on the running cloud
  growth               how cost grows with functions, repositories and pushes"""


@click.command(epilog=_EPILOG, context_settings={"max_content_width": _WIDTH})
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice([*MEASURES, growth.NAME]))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures as JSON.")
@click.option(
    "--compare",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Show by how much each ratio changed since that JSON.",
)
@click.option(
    "--results", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the Markdown."
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    help=f"Turns of each row.  [default: {REPEAT}, of quick rows {QUICK_REPEAT}]",
)
def main(
    names: tuple[str, ...], out: Path | None, compare: Path | None, page: Path | None, repeat: int | None
) -> None:
    """Measure ours beside the tools underneath, in turn, on this machine."""
    before = measure.load(compare) if compare else None
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    rows: list[Row] = []
    for name in [name for name in names or MEASURES if name in MEASURES]:
        each = MEASURES[name]
        with console.status(name):
            rows.append(measure.row(each, each.take(repeat or each.repeat)))
        console.print(f"{name}: {rows[-1].ratio:.3g}, goal {rows[-1].goal:g}")
        if out:
            measure.save(rows, out)
    points = growth.measured(console) if growth.NAME in names else ()
    compared = measure.changes(rows, before) if before is not None else None
    if rows:
        console.print(measure.table(rows, compared))
    if points:
        console.print(growth.table(points))
    if page:
        page.write_text(results.page(rows, MEASURES, points))
