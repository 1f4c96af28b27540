"""GitHub's App manifest flow: the form that it takes, its redirect, and the code for a key that works.

https://docs.github.com/apps/sharing-github-apps/registering-a-github-app-from-a-manifest
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jsonschema
import requests
from cryptography.hazmat.primitives import serialization

from tests.repositories import Origin

from .fakes import Answer
from .github import APP, NOT_FOUND, FakeGitHub

API = "/api/v3"
WEBHOOK_SECRET = "hunter4hunter4hunter4"
# What each event needs (https://docs.github.com/webhooks/webhook-events-and-payloads); one that is not here
# comes by itself, and GitHub refuses a manifest that lists it.
NEEDS = {"push": "contents", "repository": "metadata", "check_run": "checks", "check_suite": "checks"}
URL = {"type": "string", "pattern": "^https?://[^ ]+$"}
MANIFEST: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["url", "redirect_url", "hook_attributes"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 34},
        "url": URL,
        "hook_attributes": {
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {"url": URL, "active": {"type": "boolean"}},
        },
        "redirect_url": URL,
        "description": {"type": "string"},
        "public": {"type": "boolean"},
        "default_events": {"type": "array", "items": {"enum": list(NEEDS)}},
        "default_permissions": {
            "type": "object",
            "additionalProperties": {"enum": ["read", "write"]},
            "propertyNames": {"enum": ["contents", "metadata", "checks", "statuses"]},
        },
    },
}


class FakeRegistration(FakeGitHub):
    """An Enterprise Server: people at `/`, the API below `/api/v3`. A code works once.

    `manifests` has whose each is, and what it says. `answered` goes instead of the App, if it is there.
    """

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.manifests: list[tuple[str, dict[str, Any]]] = []
        self.codes: set[str] = set()
        self.answered: Answer | None = None

    @property
    def api(self) -> str:
        return self.url + API

    @property
    def key(self) -> str:
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ).decode()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(path)
        if match := re.fullmatch(r"(?:/organizations/([A-Za-z0-9-]+))?/settings/apps/new", parts.path):
            return self._register(method, match[1] or "", parts.query, headers, body)
        if match := re.fullmatch(rf"{API}/app-manifests/([^/]+)/conversions", parts.path):
            return self._convert(match[1]) if method == "POST" else NOT_FOUND
        if not path.startswith(API):
            return NOT_FOUND
        return super().answer(method, path.removeprefix(API), headers, body)

    def _register(self, method: str, org: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What GitHub does once its own button is pressed, on the page that it shows of the form."""
        if method != "POST" or headers.get("Content-Type") != "application/x-www-form-urlencoded":
            return NOT_FOUND
        rows = json.loads(parse_qs(body.decode(), strict_parsing=True)["manifest"][0])
        try:
            jsonschema.validate(rows, MANIFEST)
        except jsonschema.ValidationError as error:
            return 422, f"The configuration does not appear to be a valid manifest. {error.message}".encode()
        permissions = rows.get("default_permissions", {})
        if missing := [event for event in rows.get("default_events", ()) if NEEDS[event] not in permissions]:
            return 422, f"Default events are not supported by permissions: {', '.join(missing)}".encode()
        if urlsplit(rows["hook_attributes"]["url"]).hostname in ("localhost", "127.0.0.1"):
            return 422, b"Hook url is not supported because it isn't reachable over the public Internet"
        self.manifests.append((org, rows))
        code = secrets.token_hex(20)
        self.codes.add(code)
        state = parse_qs(query).get("state", [])
        told = urlencode({"code": code, **({"state": state[0]} if state else {})})
        return 302, b"", {"Location": f"{rows['redirect_url']}?{told}"}

    def _convert(self, code: str) -> Answer:
        if code not in self.codes:
            return NOT_FOUND
        self.codes.remove(code)
        if self.answered:
            return self.answered
        app = {
            "id": int(APP),
            "slug": "cloud",
            "name": self.manifests[-1][1].get("name"),
            "html_url": f"{self.url}/github-apps/cloud",
            "client_id": "Iv1.8a61f9b3a7aba766",
            "client_secret": "hunter5hunter5hunter5",
            "webhook_secret": WEBHOOK_SECRET,
            "pem": self.key,
        }
        return 201, json.dumps(app).encode()


class _Filled(HTMLParser):
    """The one form of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action = self.method = ""
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action, self.method = given["action"], given["method"]
        elif tag == "input":
            self.fields[given["name"]] = given["value"]


def register(page_url: str) -> requests.Response:
    """As somebody in a browser: opens the page, presses its button and GitHub's, and is sent back."""
    filled = _Filled(requests.get(page_url, timeout=5).text)
    assert filled.method == "post"
    return requests.post(filled.action, data=filled.fields, timeout=5)
