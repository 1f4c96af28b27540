"""Git LFS, against a server that enforces the batch protocol."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests
import responses

from git_tar import lfs
from git_tar.fetch import Remote
from git_tar.mirrors import Checkout, File
from git_tar.sdk.errors import CloudError, Failed, TooLarge, Unavailable, Upstream
from git_tar.sdk.settings import Settings

CONTENT = b"large " * 100_000
OID = hashlib.sha256(CONTENT).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize {len(CONTENT)}\n"
REMOTE = Remote("https://github.com/alice/hello.git", "ghs_hunter2")
BATCH = "https://github.com/alice/hello.git/info/lfs/objects/batch"
LATER = time.monotonic() + 3600
STORE = "https://lfs.example/objects/1"


@pytest.fixture
def api() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def checkout(folder: Path, **files: str) -> Checkout:
    rows = {"attributes": "*.bin filter=lfs\n", **files}
    for name, text in rows.items():
        (folder / name).write_text(text)
    (folder / "attributes").rename(folder / ".gitattributes")
    listed = [File("100644", "0" * 40, len(text), name) for name, text in rows.items()]
    return Checkout(
        folder, [row._replace(path=row.path.replace("attributes", ".gitattributes")) for row in listed], {}
    )


def test_pointers_are_found_and_nothing_else(tmp_path: Path) -> None:
    found = checkout(tmp_path, model=POINTER, other=POINTER + "x", text="version 1")
    assert lfs.pointers(found) == [lfs.Pointer("model", OID, len(CONTENT))]
    assert not lfs.pointers(Checkout(tmp_path, [row for row in found.files if row.path == "model"], {}))


def test_content_takes_the_pointers_place(tmp_path: Path, api: responses.RequestsMock) -> None:
    def batch(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        assert request.headers["Accept"] == request.headers["Content-Type"] == "application/vnd.git-lfs+json"
        assert request.headers["Authorization"].startswith("Basic ")
        asked = json.loads(request.body or "")
        assert asked["operation"] == "download"
        rows = [
            {**row, "actions": {"download": {"href": STORE, "header": {"X-Signed": "yes"}}}}
            for row in asked["objects"]
        ]
        return 200, {}, json.dumps({"transfer": "basic", "objects": rows})

    api.add_callback(responses.POST, BATCH, batch)
    api.get(STORE, body=CONTENT, match=[responses.matchers.header_matcher({"X-Signed": "yes"})])
    found = checkout(tmp_path, model=POINTER)
    lfs.fill(found, lfs.pointers(found), REMOTE, Settings(), LATER)
    assert (tmp_path / "model").read_bytes() == CONTENT
    assert "Authorization" not in api.calls[1].request.headers, "the token is for the repository's host only"


@pytest.mark.parametrize(
    ("href", "content", "error"),
    [
        (STORE, CONTENT[:-1], Unavailable),
        (STORE, CONTENT + b"x", Unavailable),
        (STORE, CONTENT[::-1], Unavailable),
        ("file:///etc/passwd", CONTENT, Upstream),
        ("", CONTENT, Upstream),
    ],
)
def test_content_that_is_not_the_oids_is_not_taken(
    href: str, content: bytes, error: type[CloudError], tmp_path: Path, api: responses.RequestsMock
) -> None:
    row = {"oid": OID, "size": len(CONTENT), "actions": {"download": {"href": href}}}
    api.post(BATCH, json={"objects": [row]})
    api.get(STORE, body=content)
    found = checkout(tmp_path, model=POINTER)
    with pytest.raises(error):
        lfs.fill(found, lfs.pointers(found), REMOTE, Settings(), LATER)


def test_what_the_server_does_not_have_fails_the_push(tmp_path: Path, api: responses.RequestsMock) -> None:
    api.post(BATCH, json={"objects": [{"oid": OID, "size": 1, "error": {"code": 404, "message": "gone"}}]})
    found = checkout(tmp_path, model=POINTER)
    with pytest.raises(Failed, match="no content for model"):
        lfs.fill(found, lfs.pointers(found), REMOTE, Settings(), LATER)


@pytest.mark.parametrize("status", [301, 401, 404, 500])
def test_a_server_without_lfs_is_unavailable(
    status: int, tmp_path: Path, api: responses.RequestsMock
) -> None:
    api.post(BATCH, status=status)
    found = checkout(tmp_path, model=POINTER)
    with pytest.raises(Unavailable, match=f"answered {status}"):
        lfs.fill(found, lfs.pointers(found), REMOTE, Settings(), LATER)


def test_more_than_a_repository_may_have_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    found = checkout(tmp_path, model=POINTER.replace(str(len(CONTENT)), str(600 * 1024**2)))
    with pytest.raises(TooLarge, match=r"600\.0 MiB in Git LFS, 500 MiB are allowed"):
        lfs.fill(found, lfs.pointers(found), REMOTE, replace(Settings(), repo_limit_mb=500), LATER)


def test_content_that_trickles_is_given_up(tmp_path: Path, api: responses.RequestsMock) -> None:
    row = {"oid": OID, "size": len(CONTENT), "actions": {"download": {"href": STORE}}}
    api.post(BATCH, json={"objects": [row]})
    api.get(STORE, body=CONTENT)
    found = checkout(tmp_path, model=POINTER)
    with pytest.raises(Failed, match="takes too long"):
        lfs.fill(found, lfs.pointers(found), REMOTE, Settings(), time.monotonic() - 1)


def test_a_link_is_no_pointer(tmp_path: Path) -> None:
    found = checkout(tmp_path, model=POINTER)
    (tmp_path / "model").unlink()
    (tmp_path / "model").symlink_to("/dev/zero")
    assert not lfs.pointers(found)
