"""Build secrets, sealed as OpenFaaS's Go SDK does."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import Box, PrivateKey, PublicKey

from of_builder import sealed
from of_builder.sealed import Key
from sdk.errors import Malformed, Misconfigured
from tests.conftest import DATA

KEY = Key(PrivateKey.generate())


def seal(values: Mapping[str, str], key: str = KEY.public, /, **changed: object) -> bytes:
    """As `faas-cli publish --remote-builder` does with `build_secrets`."""
    sender = PrivateKey.generate()
    box = Box(sender, PublicKey(base64.b64decode(key)))
    rows = {
        "version": "v1",
        "algorithm": "nacl/box",
        "key_id": key[:8],
        "public_key": base64.b64encode(bytes(sender.public_key)).decode(),
        "secrets": {
            name: base64.b64encode(box.encrypt(text.encode())).decode() for name, text in values.items()
        },
        **changed,
    }
    return yaml.safe_dump(rows).encode()


def test_what_is_sealed_for_the_key_is_opened() -> None:
    values = {"pip": "pip-token\n", "empty": "", "long": "x" * 60_000}
    assert KEY.open(seal(values)) == values


def test_the_envelope_has_the_recorded_shape() -> None:
    rows = json.loads((DATA / "faas-cli" / "request-variants.json").read_text())
    recorded = next(row for row in rows if row["name"] == "build-secrets")
    shape = yaml.safe_load(recorded["_sealed_shape"].replace("<base64>", "x"))
    assert yaml.safe_load(seal({"pip": "x"})).keys() == shape.keys()
    assert json.loads("".join(recorded["unseal"])) == KEY.open(seal({"pip": "pip-token\n"}))
    assert len(shape["key_id"]) == len(KEY.describe()["key_id"]) == 8


@pytest.mark.usefixtures("rotating")
def test_the_key_is_a_secret_or_made_for_this_life(tmp_path: Path) -> None:
    assert Key.read(str(tmp_path)).public != Key.read(str(tmp_path)).public
    (tmp_path / "builder-private-key").write_bytes(base64.b64encode(bytes(KEY.private)) + b"\n")
    assert Key.read(str(tmp_path)).public == KEY.public
    assert Key.read(str(tmp_path)).open(seal({"a": "b"})) == {"a": "b"}
    for text in ("short", "é", base64.b64encode(b"x" * 31).decode()):
        (tmp_path / "builder-private-key").write_text(text)
        with pytest.raises(Misconfigured, match="32 bytes"):
            Key.read(str(tmp_path))


def test_the_private_key_shows_in_no_repr() -> None:
    assert base64.b64encode(bytes(KEY.private)).decode() not in repr(KEY)
    assert repr(bytes(KEY.private)) not in repr(KEY)


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        (seal({"a": "b"}, version="v2"), "only version v1"),
        (seal({"a": "b"}, algorithm="rot13"), "only version v1"),
        (seal({"a": "b"}, public_key="AAAA", secrets={"a": "b"}), "key"),
        (seal({"a": "b"}, Key(PrivateKey.generate()).public), "a was not sealed for this builder's key"),
        (seal({"../a": "b"}), "no name of a secret"),
        (seal({"a,src=/etc/passwd": "b"}), "no name of a secret"),
        (seal({"a": "b\0"}), "NUL"),
        (seal({"a": "b" * 70_000}), "65536 bytes"),
        (seal({str(number): "" for number in range(101)}), "more than 100"),
        (b"- a list", "no map"),
        (b"a: &x [1]\nb: *x", "alias"),
        (b"\xff", "not readable"),
        (b" " * 2_000_000, "larger"),
    ],
)
def test_what_was_not_sealed_for_us_is_malformed(envelope: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        KEY.open(envelope)


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_bytes_are_secrets_or_malformed(envelope: bytes) -> None:
    with contextlib.suppress(Malformed):
        KEY.open(envelope)
    with contextlib.suppress(Malformed):
        KEY.open(seal({}, secrets={"a": envelope.decode(errors="replace")}))


def test_a_value_is_in_an_environment_variable_that_linux_takes() -> None:
    assert sealed.VALUE_BYTES < 128 * 1024


@pytest.mark.parametrize("piece", ["[", "{a: ", "- ", "? "])
def test_an_envelope_that_is_deep_is_refused_at_once(piece: str) -> None:
    began = time.monotonic()
    with pytest.raises(Malformed):
        KEY.open((piece * (sealed.ENTRY_BYTES // len(piece))).encode())
    assert time.monotonic() - began < 1
