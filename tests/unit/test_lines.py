from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdk import lines
from sdk.lines import Lines

THREADS, EACH = 8, 200
# More than a pipe takes at once: such a line is written in parts.
LONG = 100_000


class Stuck:
    """A stream that takes nothing while it is `closed`."""

    def __init__(self) -> None:
        self.opened, self.entered = threading.Event(), threading.Event()
        self.took: list[str] = []

    def write(self, text: str) -> None:
        self.entered.set()
        assert self.opened.wait(10)
        self.took.append(text)

    def flush(self) -> None:
        pass


def test_lines_of_many_threads_arrive_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    stream = open(writing, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    monkeypatch.setattr(sys, "stdout", stream)
    out = Lines("stdout")

    def write(thread: int) -> None:
        for number in range(EACH):
            out.put(f"{thread} {number} " + "x" * (LONG if number % 50 == 0 else number))
        if thread == 0:
            out.put("")

    def read() -> list[str]:
        with open(reading, encoding="utf-8") as source:  # noqa: PTH123
            return source.read().split("\n")

    with ThreadPoolExecutor(THREADS + 1) as pool:
        got = pool.submit(read)
        list(pool.map(write, range(THREADS)))
        stream.close()
        found = got.result()
    monkeypatch.undo()
    words = [line.split(" ") for line in found if line]
    assert len(words) == THREADS * EACH
    for thread in range(THREADS):
        own = [(int(number), len(rest)) for of, number, rest in words if of == str(thread)]
        assert own == [(number, LONG if number % 50 == 0 else number) for number in range(EACH)]


def test_nobody_waits_for_the_line_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck()
    monkeypatch.setattr(sys, "stderr", stuck)
    err = Lines("stderr")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(err.put, "first")
        assert stuck.entered.wait(10)
        err.put("second")
        assert not first.done()
        stuck.opened.set()
        first.result(10)
    assert "".join(stuck.took) == "first\nsecond\n"


def test_what_waits_for_a_stream_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_WAITING", 2)
    stuck = Stuck()
    monkeypatch.setattr(sys, "stderr", stuck)
    err = Lines("stderr")
    with ThreadPoolExecutor() as pool:
        puts = [pool.submit(err.put, "first")]
        assert stuck.entered.wait(10)
        puts += [pool.submit(err.put, text) for text in ("second", "third", "fourth")]
        deadline = time.monotonic() + 10
        while sum(put.done() for put in puts) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert sum(put.done() for put in puts) == 2, (
            "two wait in the deque, its writer and one more in threads"
        )
        stuck.opened.set()
        for put in puts:
            put.result(10)
    assert sorted("".join(stuck.took).split()) == ["first", "fourth", "second", "third"]


def test_a_line_that_cannot_be_written_keeps_no_other_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Lines("stdout")

    class Broken:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Broken())
        with pytest.raises(BrokenPipeError):
            out.put("lost")
    stuck = Stuck()
    stuck.opened.set()
    monkeypatch.setattr(sys, "stdout", stuck)
    out.put("next")
    monkeypatch.undo()
    assert "".join(stuck.took) == "next\n"
