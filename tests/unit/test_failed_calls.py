"""Which failed calls stay."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from local.gateway import failed_calls

SIGNED = {"x-cloud-signature": "sha256=0"}


@dataclass
class Call:
    id: int
    function: str = "git-tar"
    status: int = 422
    kept_bytes: int = 10
    ended_at: float = 100


def gone(*calls: Call, limit: int = 2, limit_bytes: int = 1000, since: float = 0) -> list[int]:
    there = ("git-tar", "hello")
    found = failed_calls.surplus(
        calls, is_there=there.__contains__, limit=limit, limit_bytes=limit_bytes, since=since
    )
    return sorted(found)


def test_the_newest_of_each_function_stay() -> None:
    calls = [Call(number, ended_at=number) for number in (3, 1, 2)]
    assert gone(*calls, Call(4, "hello")) == [1]


def test_what_is_too_old_goes() -> None:
    assert gone(Call(1, ended_at=10), Call(2, ended_at=20), since=15) == [1]


def test_what_a_function_refuses_displaces_no_call_that_failed() -> None:
    refused = [Call(number, status=401, ended_at=200) for number in range(2, 9)]
    assert 1 not in gone(Call(1), *refused)
    assert len(gone(Call(1), *refused)) == 5


def test_all_that_was_for_no_function_counts_together() -> None:
    assert gone(*(Call(number, f"made-up-{number}") for number in range(5)), Call(9)) == [0, 1, 2]


def test_when_all_is_too_much_the_oldest_of_the_largest_kind_go() -> None:
    large = [Call(number, "hello", kept_bytes=400) for number in (1, 2, 3)]
    assert gone(*large, Call(4), limit=5) == [1]


@pytest.mark.parametrize(
    ("status", "headers", "kept"),
    [
        (500, {}, True),
        (503, {}, True),
        (422, {}, True),
        (409, {}, True),
        (400, {}, False),
        (403, SIGNED, False),
        (404, {}, False),
        (413, {}, False),
        (401, {}, False),
        (401, SIGNED, True),
    ],
)
def test_bodies_of_refused_calls_are_not_kept_but_for_a_secret_that_differs(
    status: int, headers: dict[str, str], kept: bool
) -> None:
    assert failed_calls.keeps_body(status, headers) is kept
    assert failed_calls.is_alarm(status, headers) is (status == 401 and bool(headers))
