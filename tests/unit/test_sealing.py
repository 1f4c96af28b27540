"""Secrets that authors seal for the cloud's key and one repository, and the file that holds them."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey, PublicKey, SealedBox

from sdk import sealing, secrets_file
from sdk.errors import Failed, Malformed, Misconfigured
from sdk.sealing import Home, SealKeys

KEYS = SealKeys((PrivateKey.generate(),))
HOME = Home("github", 3, 7)
VALUE = "planted-hunter2\nwith a second line"
SEALED = sealing.seal(KEYS.public, "db", VALUE, HOME)


def lines(*keys: PrivateKey) -> str:
    return "".join(f"{base64.b64encode(bytes(key)).decode()}\n" for key in keys)


def raw(content: bytes) -> str:
    key = PublicKey(base64.b64decode(KEYS.public))
    return base64.b64encode(SealedBox(key).encrypt(content)).decode()


def content(**change: object) -> bytes:
    rows = {"scm": "github", "owner_id": 3, "repo_id": 7, "name": "db", "value": "hunter2"}
    return json.dumps({**rows, **change}).encode()


def test_what_is_sealed_is_opened_at_home() -> None:
    assert KEYS.open("db", SEALED, HOME) == VALUE
    assert KEYS.open("db", f" {SEALED[:20]}\n  {SEALED[20:]}\n", HOME) == VALUE, "as YAML may fold it"


def test_the_same_value_is_never_sealed_alike() -> None:
    assert sealing.seal(KEYS.public, "db", VALUE, HOME) != SEALED


@pytest.mark.parametrize(
    "home", [replace(HOME, repo_id=8), replace(HOME, owner_id=4), replace(HOME, scm="local")]
)
def test_another_repository_or_owner_cannot_use_it(home: Home) -> None:
    with pytest.raises(Failed, match="sealed for another repository") as raised:
        KEYS.open("db", SEALED, home)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "sealed", "said"),
    [
        ("payload", SEALED, "under another name"),
        ("db", SEALED[:-4], "damaged"),
        ("db", SEALED[:-8] + "AAAAAAA=", "damaged"),
        ("db", "", "damaged"),
        ("db", "é", "damaged"),
        ("db", "A" * 300_000, "damaged"),
        ("db", sealing.seal(SealKeys((PrivateKey.generate(),)).public, "db", "x", HOME), "this cloud's key"),
        ("db", raw(b"hunter2"), "damaged"),
        ("db", raw(content(owner_id="3")), "damaged"),
        ("db", raw(b"[" * 100_000), "damaged"),
        ("db", raw(content(value="")), "from 1 to"),
        ("db", raw(content(value="x" * 65_537)), "from 1 to"),
    ],
)
def test_what_was_not_sealed_for_us_is_told_without_what_is_in_it(name: str, sealed: str, said: str) -> None:
    with pytest.raises(Failed, match=said) as raised:
        KEYS.open(name, sealed, HOME)
    assert "hunter2" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("name", ["", "../payload-secret", "A", "a/b", "-a", "x" * 201, "a b"])
def test_a_name_is_one_that_a_cluster_takes_or_nothing_is_sealed(name: str) -> None:
    with pytest.raises(Malformed, match="no name of a secret"):
        sealing.seal(KEYS.public, name, "x", HOME)
    with pytest.raises(Malformed, match="no name of a secret"):
        secrets_file.parse(f"sealed: v1\nsecrets: {json.dumps({name: 'x'})}".encode())


@pytest.mark.parametrize("value", ["", "x" * 65_537, "\ud800"])
def test_a_value_that_no_function_can_have_is_not_sealed(value: str) -> None:
    with pytest.raises(Malformed):
        sealing.seal(KEYS.public, "db", value, HOME)


@pytest.mark.parametrize("key", ["", "é", "AAAA", base64.b64encode(b"x" * 31).decode()])
def test_a_key_that_is_none_says_where_to_find_it(key: str) -> None:
    with pytest.raises(Malformed, match="GET /function/buildshiprun"):
        sealing.seal(key, "db", "x", HOME)


@pytest.mark.usefixtures("rotating")
def test_the_key_is_rotated_line_by_line(tmp_path: Path) -> None:
    old, new = PrivateKey.generate(), PrivateKey.generate()
    assert SealKeys.find(str(tmp_path)) is None
    (tmp_path / "seal-key").write_text(lines(old))
    before = SealKeys.find(str(tmp_path))
    assert before
    sealed = sealing.seal(before.public, "db", "x", HOME)
    (tmp_path / "seal-key").write_text(lines(new, old))
    both = SealKeys.find(str(tmp_path))
    assert both
    assert both.public != before.public
    assert both.open("db", sealed, HOME) == "x"
    assert both.open("db", sealing.seal(both.public, "db", "y", HOME), HOME) == "y"
    (tmp_path / "seal-key").write_text(lines(new))
    after = SealKeys.find(str(tmp_path))
    assert after
    with pytest.raises(Failed, match="this cloud's key"):
        after.open("db", sealed, HOME)


@pytest.mark.parametrize("line", ["short", "é", base64.b64encode(b"x" * 31).decode()])
def test_a_secret_that_is_no_key_is_the_operators_to_mend(line: str, tmp_path: Path) -> None:
    (tmp_path / "seal-key").write_text(line)
    with pytest.raises(Misconfigured, match="32 bytes") as raised:
        SealKeys.find(str(tmp_path))
    assert line not in str(raised.value)


def test_no_private_key_shows_in_a_repr() -> None:
    assert repr(bytes(KEYS.pairs[0])) not in repr(KEYS)
    assert "hunter2" not in repr(sealing._Content("github", 3, 7, "db", VALUE))


def test_the_file_is_read_as_it_was_written() -> None:
    texts = {"db": SEALED, "api.key": sealing.seal(KEYS.public, "api.key", "x" * 5_000, HOME)}
    content = secrets_file.document(texts)
    assert content.startswith("# Made by")
    found = secrets_file.parse(content.encode())
    assert found == texts
    assert secrets_file.digest(found) == secrets_file.digest(dict(reversed(texts.items())))
    assert secrets_file.digest(found) != secrets_file.digest({**texts, "db": "other"})


def test_a_file_of_others_is_not_ours() -> None:
    assert secrets_file.parse(b"kind: SealedSecret\nspec: {}\n") is None


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (97 + n, 97 + n, b",".join([b"*%c" % (96 + n)] * 9)) for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BOMB, "alias"),
        (b"sealed: v1\nsecrets: " + b"[" * 100_000, "too deep"),
        (b"{" * 400_000, "deep"),
        (b"sealed: v1\nsecrets: {a: [1]}", "a is no text"),
        (b"sealed: v1\nsecrets: {a: 1}", "a is no text"),
        (b"sealed: v1\nsecrets: [a]", "is no map"),
        (b"sealed: v2", "only sealed: v1"),
        (b"- a", "is no map"),
        (b"\xff", "not readable"),
        (b" " * 600_000, "larger than"),
        (json.dumps({"sealed": "v1", "secrets": {f"s{n}": "x" for n in range(51)}}).encode(), "more than 50"),
        (b"!!python/object/apply:os.system ['true']", "not readable"),
    ],
)
def test_a_file_that_is_wrong_is_refused_at_once(data: bytes, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(Malformed, match=said):
        secrets_file.parse(data)
    assert time.monotonic() - began < 5


@given(
    st.one_of(st.binary(), st.text().map(str.encode), st.text().map(lambda t: f"sealed: v1\n{t}".encode()))
)
def test_any_bytes_are_sealed_texts_or_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        secrets_file.parse(data)


@given(st.text(), st.text())
def test_any_text_is_opened_or_failed(name: str, sealed: str) -> None:
    with contextlib.suppress(Failed):
        KEYS.open(name, sealed, HOME)
        raise AssertionError("nobody sealed it")
