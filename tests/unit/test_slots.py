from __future__ import annotations

import threading

import pytest

from sdk.errors import Unavailable
from sdk.slots import Slots


def test_a_bounded_number_works_at_once_and_one_for_each_key() -> None:
    slots = Slots()
    with slots.taken(2, "a"):
        with pytest.raises(Unavailable, match="a is busy"), slots.taken(2, "a", busy="a is busy"):
            pass
        with slots.taken(2, "b"), pytest.raises(Unavailable, match="2 long calls"), slots.taken(2, "c"):
            pass
        with slots.taken(2, "c"):
            pass
    with slots.taken(1, "a"):
        pass


def test_a_key_is_held_alone_also_by_who_needs_no_slot_for_it() -> None:
    slots = Slots()
    with slots.taken(1, "a"), slots.held("b"):
        for key in ("a", "b"):
            with pytest.raises(Unavailable, match="it is busy"), slots.held(key, busy="it is busy"):
                pass
        with pytest.raises(Unavailable, match="it is busy"), slots.taken(2, "b", busy="it is busy"):
            pass
    with slots.held("a"), slots.taken(1, "b"):
        pass


def test_a_key_comes_back_where_there_is_no_slot() -> None:
    slots = Slots()
    with slots.taken(1), pytest.raises(Unavailable), slots.taken(1, "a"):
        pass
    with slots.taken(1, "a"):
        pass


def test_a_slot_comes_back_when_its_work_fails() -> None:
    slots = Slots()
    for _ in range(3):
        with pytest.raises(RuntimeError), slots.taken(1, "a"):
            raise RuntimeError
    with slots.taken(1, "a"):
        pass


def test_calls_without_a_key_only_count() -> None:
    slots = Slots()
    with slots.taken(2), slots.taken(2), pytest.raises(Unavailable), slots.taken(2):
        pass


def test_threads_never_hold_more_than_there_are() -> None:
    slots, most, held, lock = Slots(), 0, 0, threading.Lock()
    barrier = threading.Barrier(8)

    def work() -> None:
        nonlocal most, held
        barrier.wait()
        for _ in range(200):
            try:
                with slots.taken(3):
                    with lock:
                        held += 1
                        most = max(most, held)
                    with lock:
                        held -= 1
            except Unavailable:
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3


def test_a_slot_can_be_waited_for() -> None:
    slots, order = Slots(), list[str]()
    waits = threading.Event()

    def second() -> None:
        waits.set()
        with slots.taken(1, seconds=30):
            order.append("second")

    thread = threading.Thread(target=second)
    with slots.taken(1):
        thread.start()
        waits.wait()
        order.append("first")
        with pytest.raises(Unavailable), slots.taken(1, seconds=0.01):
            pass
    thread.join()
    assert order == ["first", "second"]
