"""The calls in the local gateway's queue, for whoever operates it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sdk.errors import CloudError

from .calls import FAILED, Queue
from .errors import CommandError
from .state import State
from .steps import console


@click.group("queue", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """The calls that wait in the queue, and those that failed for good: list, retry, drop.

    retry makes a failed call again, as if it were new; drop forgets one.
    """
    if context.invoked_subcommand:
        return
    calls = _queue().calls()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(calls), indent=2))
        return
    table = Table(box=None)
    for column in (
        "ID",
        "FUNCTION",
        "STATE",
        "TRIES",
        "LAST",
        "QUEUED",
        "NEXT TRY / END",
        "BYTES",
        "OWNER/REPO",
        "DELIVERY",
    ):
        table.add_column(column, no_wrap=True, overflow="ignore")
    for call in calls:
        times = (call.queued_at, call.ended_at or call.next_try)
        table.add_row(
            *(
                str(call.id),
                call.function + " (callback)" * call.callback,
                call.state,
                str(call.attempts),
                str(call.status or ""),
            ),
            *(time[:19].replace("T", " ") for time in times),
            *(str(call.bytes), call.repository, call.delivery or call.call_id),
        )
    Console(width=max(console.width, 200)).print(table)
    for call in calls:
        if call.error:
            click.echo(f"{call.id}: {call.error}")


@command.command("retry")
@click.argument("numbers", metavar="ID...", nargs=-1, type=int)
@click.option("--all", "every", is_flag=True, help="All that failed and can be made again.")
def retry(numbers: tuple[int, ...], every: bool) -> None:
    """Make calls again that failed for good; one that pauses is made at once."""
    queue = _queue()
    _each(queue, queue.retry, numbers, every, "queued again")


@command.command("drop")
@click.argument("numbers", metavar="ID...", nargs=-1, type=int)
@click.option("--all", "every", is_flag=True, help="All that failed.")
def drop(numbers: tuple[int, ...], every: bool) -> None:
    """Forget calls that failed or wait."""
    queue = _queue()
    _each(queue, queue.drop, numbers, every, "dropped")


def _each(
    queue: Queue,
    act: Callable[[int], None],
    numbers: Iterable[int],
    every: bool,
    done: str,
) -> None:
    """Act on each, also after one that could not be."""
    if every:
        numbers = [
            call.id
            for call in queue.calls()
            if call.state == FAILED and (call.can_be_retried or act == queue.drop)
        ]
    elif not numbers:
        raise click.UsageError("name the ID of a call, as `queue` lists it, or --all")
    problems = []
    for number in numbers:
        try:
            act(number)
            console.print(f"{number} {done}")
        except CloudError as error:
            problems.append(f"{number}: {error.message}")
    if problems:
        raise CommandError("\n".join(problems))


def _queue() -> Queue:
    state = State.here()
    if not state.exists:
        raise CommandError("there is no cloud on this machine: start it with `make up`")
    return Queue.at(state.gateway)
