"""What a queued call was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """`status` is 503 where the call could not be made; `seconds` is how long it took.

    `said` is the message of an error in our functions' shape, `is_busy` that it was only busy with others.
    `headers` and `body` are for a callback alone; None is a body that is too large for it.
    """

    status: int
    said: str = ""
    is_busy: bool = False
    seconds: float = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=b"", repr=False)

    @property
    def is_good(self) -> bool:
        return self.status < 400
