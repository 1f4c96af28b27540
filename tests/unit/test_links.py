"""Signed links: whom they are for, until when, and that nothing of them can be changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk import links, messages, signature
from sdk.errors import Malformed, Unauthorized
from sdk.links import Link
from sdk.secrets import Keys

KEYS = Keys("link-secret", (b"link",))
LINK = Link("alice", "github/3", 2_000)
QUERY = LINK.query(KEYS)


def test_a_link_is_read_as_it_was_made() -> None:
    url = LINK.url("https://cloud.example/", KEYS)
    assert url.startswith("https://cloud.example/function/list-functions?user=alice&")
    assert links.read(dict(parse_qsl(urlsplit(url).query)), KEYS, now=1_999) == LINK


@pytest.mark.parametrize(
    "change",
    [
        {"user": "bob"},
        {"owner": "github/4"},
        {"owner": ""},
        {"user": "*", "owner": ""},
        {"until": "9999999999"},
        {"key": ""},
        {"key": QUERY["key"][:-1]},
        {"key": "é"},
        {"user": "\ud800"},
    ],
)
def test_nothing_of_a_link_can_be_changed(change: Mapping[str, str]) -> None:
    with pytest.raises(Unauthorized, match="not one of this cloud's"):
        links.read({**QUERY, **change}, KEYS, now=1_000)


@pytest.mark.parametrize("until", ["", "-1", "1e9", "٣", "9" * 13])
def test_without_a_time_it_is_no_link(until: str) -> None:
    with pytest.raises(Unauthorized, match="ask the cloud's operator"):
        links.read({**QUERY, "until": until}, KEYS, now=0)


def test_a_link_expires() -> None:
    with pytest.raises(Unauthorized, match="has expired"):
        links.read(QUERY, KEYS, now=2_000)


def test_the_secret_is_rotated_line_by_line_and_a_new_one_revokes_all_links() -> None:
    rotated = Keys("link-secret", (b"new", b"link"))
    assert links.read(QUERY, rotated, now=0) == LINK
    assert links.read(LINK.query(rotated), rotated, now=0) == LINK
    with pytest.raises(Unauthorized, match="revoked"):
        links.read(QUERY, Keys("link-secret", (b"new",)), now=0)


def test_a_signed_message_is_no_link_nor_the_other_way_round() -> None:
    body = LINK._signed()
    with pytest.raises(Malformed):
        messages.decode(body, dict[str, object])
    assert signature.sign(body, KEYS) == signature.PREFIX + QUERY["key"]


@given(st.dictionaries(st.sampled_from(["user", "owner", "until", "key"]), st.text()))
def test_any_query_is_no_link(query: Mapping[str, str]) -> None:
    with contextlib.suppress(Unauthorized):
        links.read(query, KEYS)
        raise AssertionError("nobody signed it")
