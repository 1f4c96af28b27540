"""A registry that enforces the protocol as Debian's docker-registry 2.8.3 does.

Without the media type in Accept, an OCI manifest is 404; DELETE takes digests only and all tags with it; a
manifest must not name what is not there; catalogues come in pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from .fakes import Answer, Server

LOGIN = ("ci", "s3cret:with colon")
_REFERENCE = re.compile(r"/v2/(?P<path>.+)/(?P<kind>manifests|blobs)/(?P<name>[^/]+)")
_UPLOAD = re.compile(r"/v2/(?P<path>.+)/blobs/uploads/(?P<id>[0-9]*)")
_TAGS = re.compile(r"/v2/(?P<path>.+)/tags/list")


@dataclass
class Store:
    """One repository."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, name: str) -> str:
        return name if name.startswith("sha256:") else self.tags.get(name, "")


class FakeRegistry(Server):
    """`auth` is empty, `basic` or `bearer`; `page` is the most of one page, whatever is asked for."""

    def __init__(self, auth: str = "", page: int = 2) -> None:
        super().__init__()
        self.auth, self.page = auth, page
        self.stores: dict[str, Store] = {}
        self.tokens: dict[str, str] = {}
        self.deletes = True
        self.overrides: list[Callable[[str, str], Answer | None]] = []
        self._uploads = 0

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        with self.lock:
            for override in list(self.overrides):
                if (answer := override(method, parts.path)) is not None:
                    return answer
            if parts.path == "/token":
                return self._token(headers, query)
            if challenge := self._challenge(parts.path, method, headers):
                return 401, b"{}", {"WWW-Authenticate": challenge}
            return self._api(method, parts.path, query, headers, body)

    def _token(self, headers: Mapping[str, str], query: Mapping[str, list[str]]) -> Answer:
        if headers.get("Authorization") != _basic() or query.get("service") != ["fake"]:
            return 401, b"{}"
        scope = query.get("scope", [""])[0]
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = scope
        return 200, json.dumps({"token": token, "expires_in": 60}).encode()

    def _challenge(self, path: str, method: str, headers: Mapping[str, str]) -> str:
        given = headers.get("Authorization", "")
        if self.auth == "basic" and given != _basic():
            return 'Basic realm="registry"'
        if self.auth == "bearer":
            wanted, token = _scope(path), given.removeprefix("Bearer ")
            if token not in self.tokens or wanted not in self.tokens[token]:
                scope = f',scope="{wanted}"' if wanted else ""
                return f'Bearer realm="{self.url}/token",service="fake"{scope}'
        return ""

    def _api(
        self,
        method: str,
        path: str,
        query: Mapping[str, list[str]],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        if path == "/v2/":
            return 200, b"{}"
        if path == "/v2/_catalog":
            return self._list("repositories", sorted(self.stores), path, query)
        if found := _TAGS.fullmatch(path):
            if found["path"] not in self.stores:
                return _error(404, "NAME_UNKNOWN")
            return self._list("tags", sorted(self.stores[found["path"]].tags), path, query)
        if found := _UPLOAD.fullmatch(path):
            return self._upload(method, found["path"], found["id"], query, body)
        if not (found := _REFERENCE.fullmatch(path)):
            return 404, b"404 page not found\n"
        store = self.stores.get(found["path"], Store())
        if found["kind"] == "blobs":
            return _read_blob(method, store, found["name"])
        if method == "PUT":
            return _put_manifest(store, found["name"], headers.get("Content-Type", ""), body)
        if method == "DELETE":
            return self._delete(store, found["name"])
        return _read_manifest(method, store, found["name"], headers.get("Accept", ""))

    def _list(self, key: str, names: list[str], path: str, query: Mapping[str, list[str]]) -> Answer:
        rest = [name for name in names if name > query.get("last", [""])[0]]
        size = min(int(query["n"][0]), self.page)
        page = rest[:size]
        more = {"Link": f'<{path}?n={size}&last={page[-1]}>; rel="next"'} if len(rest) > size else {}
        return 200, json.dumps({key: page or None}).encode(), more

    def _upload(
        self, method: str, path: str, number: str, query: Mapping[str, list[str]], body: bytes
    ) -> Answer:
        if method == "POST":
            self._uploads += 1
            # Behind a proxy it knows its own name only.
            place = f"http://registry.invalid/v2/{path}/blobs/uploads/{self._uploads}?_state=a%3D%3D"
            return 202, b"", {"Location": place}
        if query.get("_state") != ["a=="] or query.get("digest") != [_digest(body)]:
            return _error(400, "DIGEST_INVALID")
        self.stores.setdefault(path, Store()).blobs[_digest(body)] = body
        return 201, b""

    def _delete(self, store: Store, name: str) -> Answer:
        if not self.deletes:
            return _error(405, "UNSUPPORTED")
        if not name.startswith("sha256:"):
            return _error(400, "DIGEST_INVALID")
        if store.manifests.pop(name, None) is None:
            return _error(404, "MANIFEST_UNKNOWN")
        store.tags = {tag: digest for tag, digest in store.tags.items() if digest != name}
        return 202, b""


def _put_manifest(store: Store, name: str, media_type: str, body: bytes) -> Answer:
    rows = json.loads(body)
    if rows.get("mediaType", media_type) != media_type:
        return _error(400, "MANIFEST_INVALID")
    named = [
        *([rows["config"]] if "config" in rows else []),
        *rows.get("layers", ()),
        *rows.get("manifests", ()),
    ]
    if any(one["digest"] not in {**store.blobs, **store.manifests} for one in named):
        return _error(400, "MANIFEST_BLOB_UNKNOWN")
    digest = _digest(body)
    if name.startswith("sha256:") and name != digest:
        return _error(400, "DIGEST_INVALID")
    store.manifests[digest] = (media_type, body)
    if not name.startswith("sha256:"):
        store.tags[name] = digest
    return 201, b"", {"Docker-Content-Digest": digest}


def _read_manifest(method: str, store: Store, name: str, accept: str) -> Answer:
    digest = store.resolve(name)
    media_type, content = store.manifests.get(digest, ("", b""))
    if not content or media_type not in accept:
        return _error(404, "MANIFEST_UNKNOWN")
    headers = {"Docker-Content-Digest": digest, "Content-Type": media_type}
    return 200, b"" if method == "HEAD" else content, headers


def _read_blob(method: str, store: Store, digest: str) -> Answer:
    if digest not in store.blobs:
        return _error(404, "BLOB_UNKNOWN")
    return 200, b"" if method == "HEAD" else store.blobs[digest]


def _scope(path: str) -> str:
    found = re.match(r"/v2/(.+)/(?:manifests|blobs|tags)/", path)
    if found:
        return f"repository:{found[1]}:pull,push,delete"
    return "registry:catalog:*" if path == "/v2/_catalog" else ""


def _basic() -> str:
    return "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _error(status: int, code: str) -> Answer:
    return status, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
