"""One queued call, made: of a function, or of whoever wants a function's answer."""

from __future__ import annotations

import asyncio
import logging
import time

import aiohttp
from yarl import URL

from sdk.errors import RETRIED, Busy, told
from sdk.masking import masked

from .callbacks import Callbacks, url_of
from .errors import PLAIN, GatewayError
from .proxy import CALL_ID, INTERNAL, Proxy, is_short
from .queue_answer import Answer
from .queue_store import BODY_LIMIT, Call

_PIECE = 64 * 1024
_ERROR_LENGTH = 300

log = logging.getLogger("gateway.queue")


class Caller:
    def __init__(self, proxy: Proxy, callbacks: Callbacks) -> None:
        self._proxy = proxy
        self._callbacks = callbacks

    async def make(self, call: Call) -> Answer:
        began = time.monotonic()
        try:
            if call.is_callback:
                return Answer(*await self._callbacks.post(call))
            target = URL(call.target, encoded=True)
            async with self._proxy.call(call.function, "POST", target, call.headers, call.body) as answer:
                start, is_whole = await _read(answer, BODY_LIMIT if url_of(call) else _PIECE)
                said, code = _told(answer.status, start)
                return Answer(
                    answer.status,
                    said,
                    (answer.status, code) == (Busy.status, Busy.code),
                    time.monotonic() - began,
                    dict(answer.headers),
                    start if is_whole else None,
                )
        except GatewayError as error:
            status, said = error.status if error.status in RETRIED else 503, error.text
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            # Not its text: that may show the call's headers.
            status, said = 503, f"no whole answer: {type(error).__name__}"
        log.warning("%s of %s: %s", call.headers.get(CALL_ID), call.function, said)
        headers = {"Content-Type": "text/plain; charset=utf-8", **PLAIN, INTERNAL: "proxy"}
        body = f"{said}\n".encode() if said else b""
        return Answer(status, said, seconds=time.monotonic() - began, headers=headers, body=body)


async def _read(answer: aiohttp.ClientResponse, most: int) -> tuple[bytes, bool]:
    """The beginning, and whether that is all. Read to its end, so that one that breaks off is noticed."""
    if is_short(answer):
        start = await answer.read()
        return start[:most], len(start) <= most
    kept, is_whole = bytearray(), True
    async for piece in answer.content.iter_chunked(_PIECE):
        is_whole = is_whole and len(kept) + len(piece) <= most
        kept += piece[: most - len(kept)]
    return bytes(kept), is_whole


def _told(status: int, start: bytes) -> tuple[str, str]:
    """Message and code of an error in our functions' shape; what others say is not shown."""
    found = told(start) if status >= 400 else None
    return (masked(" ".join(found[0].split()))[:_ERROR_LENGTH], found[1]) if found else ("", "")
