"""Errors as the OpenFaaS gateway answers them: a status and a line of plain text."""


class GatewayError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
