"""Errors as the OpenFaaS gateway answers them: a status and a line of plain text."""

from collections.abc import Mapping

# Such a line may show what somebody sent.
PLAIN = {"X-Content-Type-Options": "nosniff"}


class GatewayError(Exception):
    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})
