"""The recorded exchanges with a real gateway: request and response, as they were on the wire."""

from __future__ import annotations

import re
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


def names() -> list[str]:
    """All files, as they were recorded: in the order of their numbers."""
    return sorted((path.stem for path in FOLDER.glob("*.txt")), key=_order)


def is_exchange(name: str) -> bool:
    return ">>> REQUEST\n" in (FOLDER / f"{name}.txt").read_text()


def callbacks() -> list[Message]:
    """What the receiver of the callbacks got."""
    texts = (FOLDER / "C9-callbacks-received.txt").read_text().split("\n----\n")
    return [_message(text) for text in texts if text.strip()]


def _order(name: str) -> list[tuple[int, str]]:
    """`95-ref-2-status` is before `95-ref-10`, and after `95-ref-2`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _message(text: str) -> Message:
    head, _, body = text.partition("\n\n")
    start, _, headers = head.partition("\n")
    fields = dict(message_from_string(headers).items())
    length = int(fields.get("Content-Length", "0"))
    return Message(start, fields, body.encode()[:length])
