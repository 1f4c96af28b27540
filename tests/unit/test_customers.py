"""The list of customers: what is one, how long it is kept, and what happens when it can't be had."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from sdk import customers
from sdk.customers import Customers, parse
from sdk.errors import CloudError, Malformed, Misconfigured, Refused, Unavailable
from sdk.settings import Settings

URL = "https://token:hunter2@lists.example/CUSTOMERS?token=hunter2"
BY_URL = "https://lists.example/CUSTOMERS"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("sdk.customers.time.monotonic", found)
    return found


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def by_url(tmp_path: Path) -> Settings:
    return Settings(validate_customers=True, customers_url=BY_URL, secret_mount_path=str(tmp_path))


def test_one_login_per_line_trimmed_in_any_case_blank_lines_ignored() -> None:
    assert parse(b"\xef\xbb\xbfAlice \r\n\n\t bob-1\n  \nacme_corp") == {"alice", "bob-1", "acme_corp"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        b"<!DOCTYPE html>\n<html></html>",
        b"404: Not Found",
        b"alice\n<b>",
        b'{"message": "x"}',
        b"\xff\xfe",
        b"alice, bob",
        b"../etc",
        b"a\n" * (customers.SIZE_LIMIT // 2 + 1),
        b"x" * 256,
    ],
)
def test_what_is_no_list_is_malformed(content: bytes) -> None:
    """Flaw 17: a customers URL that answers 404 became the list."""
    with pytest.raises(Malformed):
        parse(content)


@given(st.binary() | st.text().map(lambda text: text.encode(errors="replace")))
def test_whatever_the_bytes_it_is_a_list_of_logins_or_malformed(content: bytes) -> None:
    with suppress(Malformed):
        found = parse(content)
        assert found
        assert all(login == login.strip().lower() and login.isascii() for login in found)


@given(
    st.lists(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9-]{0,38}\Z"), min_size=1), st.sampled_from(["\n", "\r\n"])
)
def test_every_login_of_a_list_is_found(logins: list[str], end: str) -> None:
    assert parse(f" {end}".join(logins).encode()) == {login.lower() for login in logins}


def test_without_validate_customers_everybody_is_one() -> None:
    Customers().check("anybody", Settings(), 1)


def test_a_file_decides_before_the_url_and_the_secret_is_one(tmp_path: Path) -> None:
    (tmp_path / "customers").write_text("Alice\n")
    settings = Settings(validate_customers=True, customers_url=BY_URL, secret_mount_path=str(tmp_path))
    Customers().check("aLICE", settings, 1)
    with pytest.raises(Refused, match="mallory is not on the list of customers"):
        Customers().check("mallory", settings, 1)
    (tmp_path / "other").write_text("bob\n")
    Customers().check("bob", Settings(**{**vars(settings), "customers_path": str(tmp_path / "other")}), 1)


@pytest.mark.parametrize("path", ["missing", ".", "customers\0"])
def test_without_any_list_all_are_refused_and_the_operator_is_told(path: str, tmp_path: Path) -> None:
    nothing = Settings(validate_customers=True, secret_mount_path=str(tmp_path))
    with pytest.raises(Misconfigured, match="set customers_path or customers_url"):
        Customers().check("alice", nothing, 1)
    settings = Settings(**{**vars(nothing), "customers_path": f"{tmp_path}/{path}"})
    with pytest.raises(Misconfigured, match="can't be read"):
        Customers().check("alice", settings, 1)


def test_the_list_is_kept_for_five_minutes(
    by_url: Settings, web: responses.RequestsMock, clock: Clock
) -> None:
    web.get(BY_URL, body="alice\n")
    web.get(BY_URL, body="bob\n")
    known = Customers()
    known.check("alice", by_url, 1)
    clock.now += 299
    known.check("alice", by_url, 1)
    clock.now += 2
    known.check("bob", by_url, 1)
    with pytest.raises(Refused):
        known.check("alice", by_url, 1)
    assert web.assert_call_count(BY_URL, 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"status": 404, "body": "alice\nmallory"},
        {"status": 500},
        {"status": 204},
        {"status": 301, "headers": {"Location": "https://evil.example/"}},
        {"body": "<html>mallory</html>"},
        {"body": ""},
        {"body": "mallory\n" * 200_000},
        {"body": TimeoutError()},
    ],
    ids=["404", "500", "204", "redirect", "html", "empty", "oversized", "cut"],
)
def test_a_failed_fetch_keeps_the_last_good_list(
    bad: dict[str, Any], by_url: Settings, web: responses.RequestsMock, clock: Clock
) -> None:
    web.get(BY_URL, body="alice\n")
    web.get(BY_URL, **bad)
    web.get(BY_URL, body="alice\nmallory\n")
    known = Customers()
    known.check("alice", by_url, 1)
    clock.now += 301
    known.check("alice", by_url, 1)
    with pytest.raises(Refused):
        known.check("mallory", by_url, 1)
    assert web.assert_call_count(BY_URL, 2), "it is not asked again for every push"
    clock.now += 31
    known.check("mallory", by_url, 1)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"status": 404}, Misconfigured),
        ({"status": 503}, Unavailable),
        ({"body": "<html>"}, Misconfigured),
        ({"body": ConnectionError()}, Unavailable),
        ({"body": "x\n" * customers.SIZE_LIMIT}, Misconfigured),
    ],
)
def test_without_a_first_list_the_operator_is_told_and_no_secret_of_the_url(
    bad: dict[str, Any], error: type[CloudError], tmp_path: Path, web: responses.RequestsMock, clock: Clock
) -> None:
    web.get(URL, **bad)
    settings = Settings(validate_customers=True, customers_url=URL, secret_mount_path=str(tmp_path))
    known = Customers()
    for _ in range(3):
        with pytest.raises(error, match="customers_url") as raised:
            known.check("alice", settings, 1)
        assert "hunter2" not in f"{raised.value!s} {known!r}"
    assert web.assert_call_count(URL, 1), "nor is it asked for by each"
    clock.now += 6
    with pytest.raises(error):
        known.check("alice", settings, 1)
    assert web.assert_call_count(URL, 2)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "lists.example", "http://", "http://[", "ftp://x/y", "http://\0"]
)
def test_a_url_that_is_none_by_http_is_refused(url: str, tmp_path: Path) -> None:
    settings = Settings(validate_customers=True, customers_url=url, secret_mount_path=str(tmp_path))
    with pytest.raises((Misconfigured, Unavailable), match="customers_url"):
        Customers().check("alice", settings, 1)


def test_a_server_that_takes_its_time_holds_nobody_up_for_long(
    by_url: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    started: list[int] = []

    def slow(url: str, seconds: float, says: object) -> bytes:
        started.append(1)
        free.wait(10)
        return b"alice"

    monkeypatch.setattr(customers, "_fetched", slow)
    monkeypatch.setattr(customers, "SOON_SECONDS", 0)
    known, begun = Customers(), time.monotonic()
    for _ in range(3):
        with pytest.raises(Unavailable):
            known.check("alice", by_url, 0.1)
    assert time.monotonic() - begun < 2
    assert len(started) == 1, "one thread waits for it, whoever asks"
    free.set()


def test_many_threads_ask_once(by_url: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []

    def fetch(url: str, seconds: float, says: object) -> bytes:
        fetched.append(1)
        time.sleep(0.1)
        return b"alice"

    monkeypatch.setattr(customers, "_fetched", fetch)
    known, failed = Customers(), list[Exception]()

    def ask() -> None:
        try:
            known.check("alice", by_url, 5)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (fetched, failed) == ([1], [])
