"""A build's log: bounded, and without secrets."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from of_builder import kept
from of_builder.kept import HEAD_BYTES, TAIL_BYTES, Log, redact


def test_a_short_log_is_kept_whole() -> None:
    log = Log()
    log.add(["one", "two"])
    assert log.text() == "one\ntwo\n"


def test_of_a_long_log_the_beginning_and_the_end_are_kept() -> None:
    log = Log()
    for number in range(100_000):
        log.add([f"line {number} of many"])
    text = log.text()
    assert len(text) < HEAD_BYTES + TAIL_BYTES + 100
    assert text.startswith("line 0 of many\n")
    assert text.endswith("line 99999 of many\n")
    [cut] = [line for line in text.splitlines() if "left out" in line]
    assert len(text.splitlines()) - 1 + int(cut.split()[1]) == 100_000


@given(st.lists(st.text(alphabet="xé\n", max_size=5), max_size=50))
def test_no_line_is_lost_below_the_limits(lines: list[str]) -> None:
    log = Log()
    log.add(lines)
    assert log.text() == "".join(f"{line}\n" for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token s3cret-value here", "token *** here"),
        ("first line of it", "*** of it"),
        ("second line", "***"),
        ("git clone https://me:pass@example.com/x", "git clone https://***@example.com/x"),
        ("git clone https://ghp_0123abc@example.com/x", "git clone https://***@example.com/x"),
        ("git clone https://me:p@ss@example.com/x", "git clone https://***@example.com/x"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("authorization: Basic YTpi", "authorization: Basic ***"),
        ("nothing of note, abc", "nothing of note, abc"),
    ],
)
def test_secrets_and_logins_are_not_shown(text: str, shown: str) -> None:
    assert redact(text, ["s3cret-value\n", "first line\nsecond line\n", "abc"]) == shown


def test_of_a_secret_that_holds_another_nothing_stays() -> None:
    for secrets in (["abcd", "abcdefgh"], ["abcdefgh", "abcd"], ["abcdefgh\nabcd"]):
        assert redact("abcdefgh abcd", secrets) == "*** ***"


@pytest.mark.parametrize("text", ["authorization:" + " " * 100_000, "://" + "a:" * 100_000, "://" * 100_000])
def test_no_line_takes_long_to_redact(text: str) -> None:
    began = time.monotonic()
    assert redact(text) == text
    assert time.monotonic() - began < 1


def test_the_tag_of_a_log_is_a_tag_however_long_the_images_is() -> None:
    assert kept.tag("v1") == "log-v1"
    assert kept.tag("ctx-" + "a" * 64) == "log-ctx-" + "a" * 64
    assert len(kept.tag("x" * 128)) <= 128
    assert kept.tag("x" * 128) != kept.tag("x" * 127 + "y")
