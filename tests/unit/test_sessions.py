"""How a hand-over is made again."""

from __future__ import annotations

import pytest

from sdk import sessions
from sdk.errors import RETRIED, Busy, CloudError, Failed, Misconfigured, Unavailable, Upstream, received


class Clock:
    """Time that only passes in pauses; `tries` are the moments of the calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tries: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def fail(self, error: CloudError) -> None:
        self.tries.append(self.now)
        raise error


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(sessions, "time", clock)
    return clock


@pytest.mark.parametrize("error", [Unavailable, Busy])
def test_pauses_double_and_the_last_try_begins_within_the_time(
    error: type[CloudError], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    with pytest.raises(error, match="away"):
        sessions.persistently(lambda: clock.fail(error("away")), 20)
    assert clock.tries == pytest.approx([0, 0.2, 0.6, 1.4, 3.0, 6.2, 11.2, 16.2])


def test_not_all_come_back_at_once(clock: Clock) -> None:
    with pytest.raises(Unavailable):
        sessions.persistently(lambda: clock.fail(Unavailable("away")), 20)
    first, second = clock.tries[1], clock.tries[2] - clock.tries[1]
    assert 0.1 <= first <= 0.2 <= second <= 0.4


@pytest.mark.parametrize("error", [Failed, Misconfigured, Upstream])
def test_what_would_fail_again_is_made_once(error: type[CloudError], clock: Clock) -> None:
    with pytest.raises(error):
        sessions.persistently(lambda: clock.fail(error("no")), 20)
    assert clock.tries == [0]


def test_the_answers_that_are_made_again_are_those() -> None:
    assert {code for code in range(300, 600) if isinstance(received("x", code, b""), Unavailable)} == {
        *(408, 425, 429, 502, 503, 504)
    }
    assert set(RETRIED) == {408, 425, 429, 502, 503, 504}
