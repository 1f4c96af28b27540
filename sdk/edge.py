"""The edge of every function: describes itself on GET, and turns an error into one JSON answer."""

from __future__ import annotations

import functools
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from . import __version__, checkup, logs
from .errors import CloudError, Malformed, Unavailable

Answer = dict[str, Any]


class Event(Protocol):
    """What the python3-http template hands to a handler."""

    body: bytes
    headers: Mapping[str, str]
    method: str
    path: str
    query: Mapping[str, str]


Handler = Callable[[Event, Any], Answer]


def answer(
    status: int, body: Mapping[str, Any] | Sequence[Any], headers: Mapping[str, str] | None = None
) -> Answer:
    """An answer in the template's form, as JSON."""
    return {
        "statusCode": status,
        "body": json.dumps(body, ensure_ascii=False) + "\n",
        "headers": {"Content-Type": "application/json", **(headers or {})},
    }


def function(
    name: str,
    *,
    takes: str,
    reads: bool = False,
    tells: Callable[[], Mapping[str, Any]] | None = None,
    shown: Callable[[Event, CloudError], Answer | None] | None = None,
    neighbours: checkup.Neighbours | None = None,
) -> Callable[[Handler], Handler]:
    """Wrap a handler: GET answers name, version and `takes`; every error becomes its status.

    `tells` adds to what GET answers. One that `reads` is called by GET with a query, and by nothing else.
    `shown` may make another answer of an error than JSON. At `/check` the operator asks how a function that
    takes messages and its `neighbours` are.
    """

    def wrap(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def handle(event: Event, context: Any) -> Answer:
            logs.called(event.headers)
            try:
                if event.method == "GET" and not (reads and event.query):
                    more = tells() if tells else {}
                    return answer(200, {"name": name, "version": __version__, "takes": takes, **more})
                if reads and event.method not in ("GET", "HEAD"):
                    raise Malformed(f"{name} takes {takes}")
                if event.path.rstrip("/") == checkup.PATH and not reads:
                    return answer(200, asdict(checkup.checked(name, event.body, event.headers, neighbours)))
                return handler(event, context)
            except CloudError as error:
                refusal = _refusal(name, error)
                return (shown and shown(event, error)) or refusal
            except Exception:
                # The trace is for the operator; a caller learns only where to look.
                internal = CloudError(f"internal error: see the log of {name}")
                return _refusal(name, internal, traceback.format_exc())

        return handle

    return wrap


def _refusal(name: str, error: CloudError, trace: str = "") -> Answer:
    logs.refused(name, error, trace)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Unavailable) else None
    return answer(error.status, error.body(), headers)
