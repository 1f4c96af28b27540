"""A page on this machine with one button, and the address that GitHub sends the browser back to."""

from __future__ import annotations

import hmac
import html
import json
import queue
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CREATED = "/created"
_CODE = re.compile(r"[A-Za-z0-9_-]{1,255}")
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title></head>
<body><h1>{title}</h1>{body}</body></html>
"""


class Form(ThreadingHTTPServer):
    """Serves on loopback. `fill` gives it what to send where; `codes` has what GitHub answered, once."""

    # Who is being answered gets the answer, before the command goes on.
    daemon_threads = False

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state = secrets.token_urlsafe(32)
        self.codes: queue.Queue[str] = queue.Queue(maxsize=1)
        self.page = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fill(self, action: str, manifest: Mapping[str, Any]) -> None:
        """The manifest is one field of the form: https://docs.github.com/apps (see manifest.py)."""
        rows = (("Webhook", manifest["hook_attributes"]["url"]), *manifest["default_permissions"].items())
        told = "".join(f"<li>{html.escape(key)}: {html.escape(value)}</li>" for key, value in rows)
        body = (
            f'<ul>{told}</ul><form method="post" action="{html.escape(action)}">'
            f'<input type="hidden" name="manifest" value="{html.escape(json.dumps(manifest))}">'
            "<button>Go to GitHub</button></form>"
        )
        self.page = _page("Register the GitHub App", body)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no news."""


@contextmanager
def serving(port: int) -> Iterator[Form]:
    """`OSError` if the port is taken; 0 is any that is free."""
    form = Form(port)
    thread = threading.Thread(target=form.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield form
    finally:
        form.shutdown()
        form.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Form
    # Browsers open connections that they never use.
    timeout = 5

    def do_GET(self) -> None:
        # A page of the world's may give this address a name of its own, and would read the state here.
        if self.headers.get("Host") not in (
            f"127.0.0.1:{self.server.server_port}",
            f"localhost:{self.server.server_port}",
        ):
            return self._answer(HTTPStatus.FORBIDDEN, b"")
        parts = urlsplit(self.path)
        if parts.path == "/":
            return self._answer(HTTPStatus.OK, self.server.page)
        if parts.path == CREATED:
            return self._created(parse_qs(parts.query))
        return self._answer(HTTPStatus.NOT_FOUND, b"")

    def _created(self, query: Mapping[str, list[str]]) -> None:
        """GitHub's redirect: only who was sent from here knows the state."""
        state, code = query.get("state", [""])[0], query.get("code", [""])[0]
        if not hmac.compare_digest(state.encode(), self.server.state.encode()):
            text = "<p>This is not the answer to the form of this command. Nothing was done.</p>"
            return self._answer(HTTPStatus.FORBIDDEN, _page("Not from here", text))
        if not _CODE.fullmatch(code):
            return self._answer(HTTPStatus.BAD_REQUEST, _page("There is no code in GitHub's answer", ""))
        try:
            self.server.codes.put_nowait(code)
        except queue.Full:
            return self._answer(HTTPStatus.CONFLICT, _page("This was done already", ""))
        text = "<p>The terminal says how it goes on.</p>"
        return self._answer(HTTPStatus.OK, _page("GitHub has registered the App", text))

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """The path has the code, which is as good as the key."""


def _page(title: str, body: str) -> bytes:
    return _PAGE.format(title=html.escape(title), body=body).encode()
