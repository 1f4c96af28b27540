"""What a query asks for, beside the link that allows it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from .sdk.edge import Event
from .sdk.errors import Malformed

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


@dataclass(frozen=True)
class Asked:
    """Pushes `before` a time (0: the newest), functions from the place `skip` on; or a build's log: of the
    `function` of the delivery `push`, or of what is live. A `still` page does not look again by itself.
    """

    before: float = 0
    skip: int = 0
    function: str = ""
    push: str = ""
    still: bool = False
    link: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Asked:
        for name in ("function", "push"):
            if query.get(name) and not _WORD.fullmatch(query[name]):
                raise Malformed(f"{name} is no name")
        return cls(
            before=_number(query, "before"),
            skip=int(_number(query, "skip")),
            function=query.get("function", ""),
            push=query.get("push", ""),
            still=query.get("still") == "1",
            link={name: query.get(name, "") for name in ("user", "owner", "until", "key")},
        )

    def to(self, **other: object) -> str:
        """The address of another page: all are one path, wherever the gateway has it, with the same link."""
        return "?" + urlencode({**self.link, **other})


def wants_page(event: Event) -> bool:
    """Browsers say so; curl and faas-cli do not."""
    return "text/html" in event.headers.get("Accept", "") and event.query.get("as") != "json"


def _number(query: Mapping[str, str], name: str) -> float:
    try:
        number = float(query.get(name) or 0)
    except ValueError:
        number = math.nan
    if not 0 <= number < 1e12:
        raise Malformed(f"{name} is no number")
    return number
