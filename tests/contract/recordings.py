"""The recorded exchanges with a real gateway: request and response, as they were on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_string

from tests.conftest import DATA

FOLDER = DATA / "openfaas"


@dataclass(frozen=True)
class Message:
    start: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """`response` is None where the server closed the connection without a byte."""

    request: Message
    response: Message | None

    @property
    def method(self) -> str:
        return self.request.start.split()[0]

    @property
    def path(self) -> str:
        return self.request.start.split()[1]

    @property
    def status(self) -> int:
        assert self.response
        return int(self.response.start.split()[1])


def load(name: str) -> Exchange:
    """The recording whose file is `<name>.txt`."""
    text = (FOLDER / f"{name}.txt").read_text()
    request, _, response = text.partition(">>> REQUEST\n")[2].partition("<<< RESPONSE\n")
    closed = response.startswith("(connection closed")
    return Exchange(_message(request), None if closed else _message(response))


def _message(text: str) -> Message:
    head, _, body = text.partition("\n\n")
    start, _, headers = head.partition("\n")
    fields = dict(message_from_string(headers).items())
    length = int(fields.get("Content-Length", "0"))
    return Message(start, fields, body.encode()[:length])
