"""Heads that failed, and how long reconcile leaves each alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_tar.sdk.errors import Busy, Failed
from git_tar.sdk.settings import Seconds, Settings
from git_tar.setbacks import Resting, Setbacks, pause

SETTINGS = Settings()
REPOSITORY = ("github", 7)
HEAD, OTHER = "a" * 40, "b" * 40


class Clock:
    now = 1_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("git_tar.setbacks.time", clock)
    return clock


def test_pauses_double_up_to_a_day() -> None:
    minutes = [pause(times, SETTINGS) / 60 for times in range(1, 12)]
    assert minutes == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]


@given(st.integers(1, 10**9), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_pause_is_never_longer_than_its_limit(times: int, first: float, limit: float) -> None:
    settings = replace(SETTINGS, retry_pause=Seconds(first), retry_pause_limit=Seconds(limit))
    assert 0 <= pause(times, settings) <= limit


def test_a_head_that_failed_is_left_alone_and_another_is_not(tmp_path: Path, clock: Clock) -> None:
    setbacks = Setbacks(tmp_path / "file")
    for expected in (300, 600, 1200):
        setbacks.failed(REPOSITORY, HEAD)
        assert setbacks.left(REPOSITORY, HEAD, SETTINGS) == expected
    assert setbacks.left(REPOSITORY, OTHER, SETTINGS) == 0
    assert setbacks.left(("local", 7), HEAD, SETTINGS) == 0
    clock.now += 1200
    assert setbacks.left(REPOSITORY, HEAD, SETTINGS) == 0
    setbacks.failed(REPOSITORY, OTHER)
    assert setbacks.left(REPOSITORY, OTHER, SETTINGS) == 300
    setbacks.forget(REPOSITORY)
    assert setbacks.left(REPOSITORY, OTHER, SETTINGS) == 0


def test_a_clock_that_was_set_back_makes_no_pause_longer(tmp_path: Path, clock: Clock) -> None:
    setbacks = Setbacks(tmp_path / "file")
    setbacks.failed(REPOSITORY, HEAD)
    clock.now -= 1_000_000
    assert setbacks.left(REPOSITORY, HEAD, SETTINGS) == 300


def test_a_look_counts_before_it_begins(tmp_path: Path, clock: Clock) -> None:
    """What ends the process never says that it failed."""
    with pytest.raises(KeyboardInterrupt), Setbacks(tmp_path / "f").counted(REPOSITORY, HEAD, SETTINGS):
        raise KeyboardInterrupt
    again = Setbacks(tmp_path / "f")
    with pytest.raises(Resting, match="in 300 s"), again.counted(REPOSITORY, HEAD, SETTINGS):
        raise AssertionError
    clock.now += 300
    with again.counted(REPOSITORY, HEAD, SETTINGS):
        assert again.left(REPOSITORY, HEAD, SETTINGS) == 600


def test_a_look_that_finds_nobody_free_does_not_count(tmp_path: Path, clock: Clock) -> None:
    setbacks = Setbacks(tmp_path / "f")
    with pytest.raises(Busy), setbacks.counted(REPOSITORY, HEAD, SETTINGS):
        raise Busy("later")
    assert setbacks.left(REPOSITORY, HEAD, SETTINGS) == 0
    with pytest.raises(Failed), setbacks.counted(REPOSITORY, HEAD, SETTINGS):
        raise Failed("no")
    assert setbacks.left(REPOSITORY, HEAD, SETTINGS) == 300


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"github/7": 1}', b'{"github/7": {"sha": "a"}}'])
def test_a_file_that_is_none_only_means_an_earlier_try(content: bytes, tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    setbacks = Setbacks(file)
    assert setbacks.left(REPOSITORY, HEAD, SETTINGS) == 0
    setbacks.failed(REPOSITORY, HEAD)
    assert Setbacks(file).left(REPOSITORY, HEAD, SETTINGS) == 300


def test_without_a_disk_it_is_kept_in_memory(tmp_path: Path, clock: Clock) -> None:
    setbacks = Setbacks(tmp_path / "missing" / "file")
    setbacks.failed(REPOSITORY, HEAD)
    assert setbacks.left(REPOSITORY, HEAD, SETTINGS) == 300


def test_what_is_kept_is_bounded(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("git_tar.setbacks._KEPT", 3)
    setbacks = Setbacks(tmp_path / "file")
    for number in range(10):
        setbacks.failed(("github", number), HEAD)
    kept = [number for number in range(10) if setbacks.left(("github", number), HEAD, SETTINGS)]
    assert kept == [7, 8, 9]
