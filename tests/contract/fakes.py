"""Neighbours for tests: servers on port 0 that enforce the real protocols.

The gateway answers as it was recorded (tests/data/openfaas), of-builder as faas-cli expects it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from sdk import signature
from sdk.context import Digest
from sdk.errors import Unauthorized
from sdk.secrets import Keys

Answer = tuple[int, bytes] | tuple[int, bytes, Mapping[str, str]]
Call = tuple[str, str, Mapping[str, str], bytes]


@dataclass
class Event:
    """What the template hands to a handler."""

    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)


class Server:
    """An HTTP server in a thread; `answer` is called for each request, one at a time."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.calls: list[Call] = []
        self.lock = threading.RLock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with outer.lock:
                    outer.calls.append((self.command, self.path, dict(self.headers), body))
                status, content, *more = outer.answer(self.command, self.path, dict(self.headers), body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **(more[0] if more else {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _any

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer((address, 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda request, client_address: None  # type: ignore[method-assign]

    @property
    def url(self) -> str:
        address, port = self.http.server_address[:2]
        return f"http://{address!s}:{port}"

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        raise NotImplementedError

    def made(self, method: str, path: str) -> list[Call]:
        return [call for call in self.calls if call[0] == method and call[1].startswith(path)]


@contextmanager
def running(server: Server) -> Iterator[None]:
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


class FakeGateway(Server):
    """OpenFaaS's gateway. A deployed function is ready after `polls_until_ready` looks at it."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__(address)
        self.functions: dict[str, dict[str, Any]] = {}
        self.secrets: set[str] = set()
        self.values: dict[str, str] = {}
        self.namespaces: list[str] | None = None
        self.queued: list[tuple[str, bytes, Mapping[str, str]]] = []
        self.handlers: dict[str, Callable[[Event], Mapping[str, Any]]] = {}
        self.polls_until_ready = 0
        self.failures: dict[str, str] = {}
        self.overrides: list[Callable[[str, str, bytes], Answer | None]] = []
        self.logs: dict[str, list[str]] = {}
        self._polls: dict[str, int] = {}

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(path)
        with self.lock:
            for override in list(self.overrides):
                if (answer := override(method, parts.path, body)) is not None:
                    return answer
        if parts.path.startswith("/function/"):
            _, _, name, *rest = parts.path.split("/")
            return self._invoke(name, Event(body, headers, method, "/" + "/".join(rest)))
        if parts.path == "/healthz":
            return 200, b""
        with self.lock:
            if parts.path.startswith("/async-function/"):
                return self._enqueue(parts.path.split("/")[2], headers, body)
            if headers.get("Authorization") != "Basic " + base64.b64encode(b"admin:s3cret").decode():
                return 401, b"invalid credentials"
            return self._system(method, parts.path, parse_qs(parts.query), body)

    def _invoke(self, name: str, event: Event) -> Answer:
        if name not in self.handlers:
            return 503, f"No endpoints available for: {name}.\n".encode()
        answer = self.handlers[name](event)
        return int(answer["statusCode"]), str(answer["body"]).encode()

    def _enqueue(self, name: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if len(body) > 256_000:
            return 500, b"Error queuing request: request body too large\n"
        self.queued.append((name, body, headers))
        return 202, b""

    def _system(self, method: str, path: str, query: Mapping[str, list[str]], body: bytes) -> Answer:
        if path == "/system/info":
            return (
                200,
                b'{"provider":{"provider":"faasd","version":{"release":""}},"version":{"release":"dev"}}',
            )
        if path == "/system/functions":
            return self._functions(method, query.get("namespace", [""])[0], body)
        if match := re.fullmatch(r"/system/function/([^/]+)", path):
            return self._status(match[1])
        if path == "/system/namespaces" and self.namespaces is not None:
            return 200, json.dumps(self.namespaces).encode()
        if path == "/system/secrets":
            return self._secrets(method, body)
        if path == "/system/logs":
            lines = self.logs.get(query["name"][0], [])
            return 200, b"".join(json.dumps({"text": line}).encode() + b"\n" for line in lines)
        return 404, b"404 page not found\n"

    def _secrets(self, method: str, body: bytes) -> Answer:
        if method == "GET":
            return 200, json.dumps([{"name": name} for name in sorted(self.secrets)]).encode()
        row = json.loads(body)
        if "/" in row["name"] or ".." in row["name"]:
            return 400, b"directory traversal found in name\n"
        self.secrets.add(row["name"])
        self.values[row["name"]] = row["value"]
        return 200, b""

    def _functions(self, method: str, namespace: str, body: bytes) -> Answer:
        if method == "GET":
            there = [name for name, rows in self.functions.items() if rows.get("namespace", "") == namespace]
            return 200, json.dumps([self._view(name) for name in sorted(there)]).encode()
        rows = json.loads(body)
        if method == "DELETE":
            name = rows["functionName"]
            if self.functions.pop(name, None) is None:
                return 404, f"service {name} not found\n".encode()
            return 200, b""
        name = rows["service"]
        if missing := [secret for secret in rows.get("secrets") or () if secret not in self.secrets]:
            return 400, f"unable to find secret: {missing[0]}\n".encode()
        for key in ("labels", "annotations", "envVars"):
            if any(not isinstance(value, str) for value in (rows.get(key) or {}).values()):
                return 400, b"json: cannot unmarshal number into Go struct field\n"
        if method == "PUT" and name not in self.functions:
            return 404, f"service {name} not found\n".encode()
        if method == "POST" and name in self.functions:
            return 400, b"already exists\n"
        self.functions[name] = rows
        self._polls[name] = 0
        return 200, b""

    def _status(self, name: str) -> Answer:
        if name not in self.functions:
            return 404, b""
        self._polls[name] = self._polls.get(name, 0) + 1
        return 200, json.dumps(self._view(name)).encode()

    def _view(self, name: str) -> Mapping[str, Any]:
        rows = {key: value for key, value in self.functions[name].items() if key != "service"}
        failure = self.failures.get(rows["image"])
        ready = not failure and self._polls.get(name, 0) > self.polls_until_ready
        return {
            **rows,
            "name": name,
            "replicas": 1,
            **({"availableReplicas": 1} if ready else {}),
            **({"failure": failure} if failure else {}),
        }


class FakeBuilder(Server):
    """of-builder: verifies the signature, reads the tar, and answers.

    A build takes as many seconds as `lasts` says of its image, unless it is overtaken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys("builder-secret", (b"builder",))
        self.images: dict[str, str] = {}
        self.built: list[str] = []
        self.contexts: list[dict[str, bytes]] = []
        self.failing: dict[str, list[Mapping[str, Any]]] = {}
        self.lasts: Callable[[str], float] = lambda image: 0
        self.overtaken: dict[str, threading.Event] = defaultdict(threading.Event)
        self.readers = Keys("builder-readers", (b"readers",))
        self.logs: dict[str, tuple[str, bool]] = {}
        self.ready: Answer = (200, b'{"ready": true}')

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if path == "/readyz":
            return self.ready
        signed = body if method == "POST" else path.encode()
        keys = self.readers if path.startswith("/log?") else self.keys
        try:
            signature.verify(signed, headers.get(signature.BUILDER_HEADER), keys)
        except Unauthorized as error:
            return 401, json.dumps(error.body()).encode()
        if method == "DELETE":
            return self._overtake(path)
        return self._asked(path) if method == "GET" else self._build(body)

    def _overtake(self, path: str) -> Answer:
        query = parse_qs(urlsplit(path).query)
        self.overtaken[f"{query['image'][0]}/*:{query['tag'][0]}"].set()
        return 200, b"{}"

    def _asked(self, path: str) -> Answer:
        query = parse_qs(urlsplit(path).query)
        tag = query["tag"][0] if "tag" in query else f"ctx-{query['context'][0]}"
        image = f"{query['image'][0]}:{tag}"
        if path.startswith("/log?") and image in self.logs:
            text, is_whole = self.logs[image]
            status = "ended" if is_whole else "in_progress"
            return 200, text.encode(), {"Content-Type": "text/plain; charset=utf-8", "X-Build-Status": status}
        if path.startswith("/image?") and image in self.images:
            return 200, json.dumps({"digest": self.images[image]}).encode()
        return 404, json.dumps({"error": {"code": "missing", "message": "no such image"}}).encode()

    def _build(self, body: bytes) -> Answer:
        digest, files = Digest(), dict[str, bytes]()
        config: Mapping[str, Any] = {}
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            for info in tar:
                content = tar.extractfile(info)
                data = content.read() if content else b""
                name = info.name.removeprefix("context/")
                if info.name == "com.openfaas.docker.config":
                    config = json.loads(data)
                elif info.isdir():
                    digest.folder(name)
                elif info.name.startswith("context/"):
                    files[name] = data
                    digest.file(name, info.mode, hashlib.blake2b(data, digest_size=32).hexdigest())
        image, repository = config["image"], config["image"].rpartition(":")[0]
        function = repository.rpartition("/")[2]
        if function in self.failing:
            return 200, b"".join(json.dumps(line).encode() + b"\n" for line in self.failing[function])
        below = f"{repository.rpartition('/')[0]}/*:{image.rpartition(':')[2]}"
        if self.overtaken[below].wait(self.lasts(image)):
            ended = {"status": "failed", "error": "a newer commit was pushed", "code": "superseded"}
            return 200, json.dumps(ended).encode() + b"\n"
        context = digest.hex(config["buildArgs"], epoch=config.get("epoch", ""))
        found = f"sha256:{hashlib.sha256(image.encode() + context.encode()).hexdigest()}"
        self.images[image] = self.images[f"{repository}:ctx-{context}"] = found
        self.built.append(image)
        self.contexts.append(files)
        lines = (
            {"log": ["#1 [1/1] FROM scratch"], "image": image, "status": "in_progress"},
            {"image": image, "status": "success", "digest": found, "context": context},
        )
        return 200, b"".join(json.dumps(line).encode() + b"\n" for line in lines)
