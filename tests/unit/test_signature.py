from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk import signature
from sdk.errors import Unauthorized
from sdk.secrets import Keys

# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
GITHUBS_KEYS = Keys("k", (b"It's a Secret to Everybody",))
GITHUBS_BODY = b"Hello, World!"
GITHUBS_SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

ROTATED = Keys("k", (b"new", b"old"))


def test_githubs_own_vector_is_signed_and_verified() -> None:
    assert signature.sign(GITHUBS_BODY, GITHUBS_KEYS) == GITHUBS_SIGNATURE
    signature.verify(GITHUBS_BODY, GITHUBS_SIGNATURE, GITHUBS_KEYS)


def test_the_first_line_signs_and_every_line_verifies() -> None:
    assert signature.sign(b"x", ROTATED) == signature.sign(b"x", Keys("k", (b"new",)))
    signature.verify(b"x", signature.sign(b"x", Keys("k", (b"old",))), ROTATED)


def test_a_line_that_was_removed_no_longer_verifies() -> None:
    with pytest.raises(Unauthorized):
        signature.verify(b"x", signature.sign(b"x", Keys("k", (b"old",))), Keys("k", (b"new",)))


@pytest.mark.parametrize("header", [None, "", "sha256=", "sha256=00", "757107ea", "\udcff", "sha256=é"])
def test_a_missing_or_wrong_signature_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthorized):
        signature.verify(GITHUBS_BODY, header, GITHUBS_KEYS)


def test_a_good_sha1_signature_is_not_enough() -> None:
    digest = hmac.new(GITHUBS_KEYS.signing, GITHUBS_BODY, hashlib.sha1).hexdigest()
    for header in (f"sha1={digest}", f"sha256={digest}", digest):
        with pytest.raises(Unauthorized):
            signature.verify(GITHUBS_BODY, header, GITHUBS_KEYS)


@given(st.binary(), st.text())
def test_no_header_but_the_right_one_verifies(body: bytes, header: str) -> None:
    if header != signature.sign(body, ROTATED):
        with pytest.raises(Unauthorized):
            signature.verify(body, header, ROTATED)


@given(st.lists(st.binary()))
def test_a_stream_is_signed_like_the_whole(pieces: list[bytes]) -> None:
    running = signature.Running(ROTATED)
    for piece in pieces:
        running.update(piece)
    assert running.header() == signature.sign(b"".join(pieces), ROTATED)
    running.verify(running.header())
