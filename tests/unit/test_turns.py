"""Owners take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from of_builder.turns import Turns


def order(owners: Sequence[str], parallel: int = 1) -> list[str]:
    """Who runs, in turn, when all of them came before the first had ended."""

    async def whole() -> list[str]:
        turns, ran = Turns(parallel), list[str]()

        async def build(owner: str) -> None:
            with turns.ticket(owner) as ticket:
                async for _ in turns.ahead(ticket):
                    pass
                assert len(turns.running) <= parallel
                ran.append(owner)
                for _ in range(3):
                    await asyncio.sleep(0)

        await asyncio.gather(*(build(owner) for owner in owners))
        assert not turns.running
        assert not turns.waiting
        return ran

    return asyncio.run(whole())


def test_nobody_waits_for_all_of_anothers() -> None:
    assert order("aaaaab") == list("abaaaa")
    assert order("aaabbbc") == list("abcabab")


def test_one_owners_builds_are_first_come_first_served() -> None:
    assert order(["a", "a", "a"], parallel=2) == ["a", "a", "a"]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(1, 4))
def test_everybody_has_a_turn_and_none_more_than_once(owners: list[str], parallel: int) -> None:
    ran = order(owners, parallel)
    assert sorted(ran) == sorted(owners)
    others = {owner: owners.count(owner) for owner in set(owners)}
    first = ran.index(owners[-1])
    # Each other owner goes first at most once for each that runs, and once more for its place in the round.
    assert first <= (len(others) - 1) + 2 * parallel


def test_how_many_are_ahead_is_told_when_it_changes() -> None:
    async def whole() -> list[int]:
        turns = Turns(1)
        first, second, third = ExitStack(), ExitStack(), ExitStack()
        first.enter_context(turns.ticket("a"))
        second.enter_context(turns.ticket("a"))
        asking = turns.ahead(third.enter_context(turns.ticket("a")))
        told = [await anext(asking)]
        first.close()
        told.append(await anext(asking))
        second.close()
        told += [ahead async for ahead in asking]
        third.close()
        return told

    assert asyncio.run(whole()) == [2, 1]
