"""Whose turn it is in the local gateway's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from local.gateway.queue_line import Line, Try


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def wait(loop: asyncio.AbstractEventLoop) -> Callable[[Line, Try], None]:
    """Tell a call that is being made to wait for its turn."""

    def tell(line: Line, made: Try) -> None:
        line.pause(made.id, loop.call_later(60, lambda: None), made)
        line.over(made)

    return tell


def taken(line: Line) -> Try:
    made = line.take()
    assert made
    return made


def filled(wait: Callable[[Line, Try], None], count: int) -> tuple[Line, Try]:
    """A line in which 1 is being made, and 2 to `count` wait for their turns."""
    line = Line()
    for number in range(1, count + 1):
        line.add(number)
    first = taken(line)
    for _ in range(1, count):
        wait(line, taken(line))
    assert line.take() is None
    return line, first


def end(line: Line, made: Try) -> None:
    line.has_room(made)
    line.over(made)


def test_one_end_is_one_turn_also_before_those_that_were_never_asked(
    wait: Callable[[Line, Try], None],
) -> None:
    line, first = filled(wait, 3)
    line.add(4)
    end(line, first)
    assert [taken(line).id, taken(line).id] == [2, 4]
    assert line.take() is None


def test_each_is_asked_once_after_an_end(wait: Callable[[Line, Try], None]) -> None:
    line, first = filled(wait, 4)
    end(line, first)
    asked = []
    while made := line.take():
        asked.append(made.id)
        wait(line, made)
    assert asked == [2, 3, 4]


def test_an_end_in_a_walk_begins_another_one_at_the_oldest(wait: Callable[[Line, Try], None]) -> None:
    line, first = filled(wait, 4)
    line.add(5)
    fifth = taken(line)
    end(line, first)
    second = taken(line)
    end(line, fifth)
    third = taken(line)
    wait(line, second)
    assert taken(line).id == 2, "it was asked before the second end"
    wait(line, third)
    assert taken(line).id == 4, "3 was asked after it"
    assert line.take() is None


def test_one_that_leaves_leaves_its_turn(wait: Callable[[Line, Try], None]) -> None:
    line, first = filled(wait, 3)
    end(line, first)
    assert line.leave(2)
    assert taken(line).id == 3
    assert not line.leave(2)


def test_a_try_that_came_to_nothing_hands_its_turn_on(wait: Callable[[Line, Try], None]) -> None:
    line, first = filled(wait, 3)
    end(line, first)
    line.over(taken(line))  # the call was dropped
    assert taken(line).id == 3


def test_a_line_is_empty_once_all_have_ended(wait: Callable[[Line, Try], None]) -> None:
    line, first = filled(wait, 3)
    assert len(line) == 3
    end(line, first)
    end(line, taken(line))
    end(line, taken(line))
    assert (len(line), line.take()) == (0, None)


def test_calls_of_one_function_are_asked_in_proportion_to_their_number(
    wait: Callable[[Line, Try], None],
) -> None:
    """Sixty calls for twelve repositories, and the oldest that can be taken is next."""
    line, asked = Line(), 0
    working: list[Try] = []
    for number in range(60):
        line.add(number)
    order = []
    while len(line):
        while made := line.take():
            asked += 1
            if len(working) == 3 or made.id % 12 in {other.id % 12 for other in working}:
                wait(line, made)
            else:
                working.append(made)
                order.append(made.id)
        end(line, working.pop(0))
    assert order == list(range(60))
    assert asked == 3 + 57 + 57


def test_of_a_repository_one_is_asked_for_all(wait: Callable[[Line, Try], None]) -> None:
    line = Line()
    for number, group in enumerate(["", "a", "a", "b", "a", ""], 1):
        line.add(number, group)
    first, *others = [taken(line) for _ in range(6)]
    for made in others:
        wait(line, made)
    end(line, first)
    asked = []
    while found := line.take():
        asked.append(found.id)
        wait(line, found)
    assert asked == [2, 4, 6]


def test_the_next_of_a_repository_is_asked_after_the_next_end(wait: Callable[[Line, Try], None]) -> None:
    line = Line()
    for number in range(1, 5):
        line.add(number, "a")
    first, *others = [taken(line) for _ in range(4)]
    for made in others:
        wait(line, made)
    end(line, first)
    second = taken(line)
    end(line, second)
    assert line.leave(4)
    assert taken(line).id == 3
    assert line.take() is None


def test_what_was_not_beside_it_is_no_reason_to_ask_again(wait: Callable[[Line, Try], None]) -> None:
    """Others end at once, while what it waits for goes on."""
    line, first = filled(wait, 3)
    for number in range(4, 8):
        line.add(number)
        end(line, taken(line))
    assert line.take() is None
    end(line, first)
    assert taken(line).id == 2


def test_what_overtook_it_on_the_way_was_beside_it(wait: Callable[[Line, Try], None]) -> None:
    line = Line()
    line.add(1)
    line.add(2)
    first, second = taken(line), taken(line)
    wait(line, first)
    assert line.take() is None
    end(line, second)
    assert taken(line).id == 1


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_long_call_remembers_few_of_those_that_come_and_go_beside_it(
    is_busy: bool, wait: Callable[[Line, Try], None]
) -> None:
    line = Line()
    line.add(0)
    long = taken(line)
    for number in range(1, 100):
        line.add(number)
        made = taken(line)
        if is_busy:
            wait(line, made)
        else:
            end(line, made)
    assert len(long.beside) < 3


def test_what_waits_for_none_of_ours_is_asked_after_any_end(wait: Callable[[Line, Try], None]) -> None:
    line = Line()
    line.add(1)
    wait(line, taken(line))
    line.add(2)
    end(line, taken(line))
    assert taken(line).id == 1
