"""The local gateway's clock, with one that tests set."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime, timezone

import pytest
from cronsim import CronSimError
from hypothesis import given
from hypothesis import strategies as st

from local.gateway import schedule
from local.gateway.deployment import Deployment
from local.gateway.errors import GatewayError
from local.gateway.queue_store import Call
from local.gateway.schedule import Schedule

START = datetime(2026, 3, 1, 12, 0, 20, tzinfo=timezone.utc).timestamp()


class Stop(Exception):
    pass


class World:
    """A clock that goes on when somebody sleeps, and what was called when, in minutes since the start."""

    def __init__(self, *functions: Deployment, minutes: int) -> None:
        self.functions = list(functions)
        self.now = START
        self.end = START + minutes * 60
        self.called: list[tuple[int, str]] = []
        self.hiccup: Callable[[], None] = lambda: None

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if self.now + seconds > self.end:
            raise Stop
        self.now += seconds
        self.hiccup()

    async def put(self, call: Call) -> None:
        assert (call.target, call.body) == ("/", b"")
        assert call.key
        self.called.append((round((self.now - START) / 60), call.function))

    def run(self) -> list[tuple[int, str]]:
        with contextlib.suppress(Stop):
            asyncio.run(Schedule(lambda: self.functions, self.put, self.clock, self.sleep).run())
        return self.called


def function(name: str, expression: str, topic: str = "cron-function") -> Deployment:
    return Deployment(name, "image", annotations={"topic": topic, "schedule": expression})


def test_a_function_is_called_once_whenever_it_is_due() -> None:
    world = World(function("five", "*/5 * * * *"), function("two", "*/2 * * * *"), minutes=10)
    assert world.run() == [
        (2, "two"),
        (4, "two"),
        (5, "five"),
        (6, "two"),
        (8, "two"),
        (10, "five"),
        (10, "two"),
    ]


def test_others_are_not_called() -> None:
    others = (function("topic", "* * * * *", topic="payments"), Deployment("bare", "image"))
    assert World(*others, minutes=5).run() == []


def test_missed_ticks_are_not_made_up_for() -> None:
    world = World(function("every", "* * * * *"), minutes=30)

    def stand_still() -> None:
        if len(world.called) == 2:
            world.now += 1200  # the machine was suspended

    world.hiccup = stand_still
    assert [at for at, _ in world.run()] == [1, 2, *range(23, 31)]


def test_a_clock_that_is_set_back_calls_nothing_twice() -> None:
    world = World(function("every", "* * * * *"), minutes=8)
    back = [True]

    def set_back() -> None:
        if len(world.called) == 3 and back:
            back.clear()
            world.now -= 180

    world.hiccup = set_back
    assert [at for at, _ in world.run()] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_deployed_or_removed_meanwhile_counts() -> None:
    world = World(minutes=6)

    def change() -> None:
        minute = round((world.now - START) / 60)
        world.functions = [function("late", "* * * * *")] if 2 < minute < 5 else []

    world.hiccup = change
    assert world.run() == [(3, "late"), (4, "late")]


def test_a_schedule_that_is_none_and_a_full_queue_stop_nobody_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (function("bad", "every day"), function("full", "* * * * *"), function("good", "* * * * *"))
    world = World(*rows, minutes=3)
    put = world.put

    async def refuse(call: Call) -> None:
        if call.function == "full":
            raise GatewayError(429, "1000 calls of full are waiting")
        await put(call)

    monkeypatch.setattr(world, "put", refuse)
    assert world.run() == [(1, "good"), (2, "good"), (3, "good")]
    assert [record.message for record in caplog.records] == [
        "bad: schedule 'every day' is none: five fields are needed, or a word such as @hourly",
        "full: it is not called: 1000 calls of full are waiting",
    ]


@pytest.mark.parametrize(
    ("word", "minute"), [("@hourly", "13:00"), ("@daily", "00:00"), (" 0 0 * * *", "00:00")]
)
def test_words_stand_for_expressions(word: str, minute: str) -> None:
    expression = schedule.cron({"topic": "cron-function", "schedule": word})
    assert expression
    hour, _, of_hour = minute.partition(":")
    at = datetime(2026, 3, 1, int(hour), int(of_hour), tzinfo=timezone.utc)
    assert schedule.is_due(expression, at)
    assert not schedule.is_due(expression, at.replace(minute=1))


@given(st.text() | st.lists(st.text("0123456789*/-,LW#²MON", max_size=5), max_size=7).map(" ".join))
def test_any_text_is_a_schedule_or_none(text: str) -> None:
    with contextlib.suppress(CronSimError):
        schedule.is_due(text, datetime(2026, 3, 1, tzinfo=timezone.utc))
