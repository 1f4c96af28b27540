"""Sends each stage record to `audit_url` too, beside the push: it neither waits nor fails for it.

What the receiver can't take in time is dropped, and the log says how many were. Whoever needs every record
reads them where they are kept: `/system/logs`.
"""

from __future__ import annotations

import queue
import threading
import time

import requests

from . import logs
from .sessions import CONNECT_SECONDS, reason, session

WAITING = 1000
READ_SECONDS = 5
# How often the log says what was dropped.
TELL_SECONDS = 60


class Sender:
    """One thread that posts to one URL what waits, of which there is never more than `WAITING`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.dropped = 0
        self._waiting: queue.Queue[bytes] = queue.Queue(WAITING)
        self._told = float("-inf")
        threading.Thread(target=self._run, name="audit", daemon=True).start()

    def put(self, record: bytes) -> None:
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._drop("too many wait")

    def _run(self) -> None:
        while True:
            if problem := self._post(self._waiting.get()):
                self._drop(problem)

    def _post(self, record: bytes) -> str:
        """Why it was not taken; empty if it was."""
        headers, timeout = {"Content-Type": "application/json"}, (CONNECT_SECONDS, READ_SECONDS)
        try:
            # The answer's body is not read: it may be any size, and take any time.
            with session(retries=0).post(
                self.url, data=record, headers=headers, timeout=timeout, stream=True, allow_redirects=False
            ) as response:
                return "" if response.status_code < 300 else f"it answered {response.status_code}"
        except (requests.RequestException, ValueError) as error:
            return reason(error) if isinstance(error, requests.RequestException) else "it is no URL"

    def _drop(self, problem: str) -> None:
        self.dropped += 1
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            # Without the URL: it may hold a token.
            logs.noted("audit_url", f"{self.dropped} records dropped: {problem}")


_lock = threading.Lock()
_senders: dict[str, Sender] = {}


def send(url: str, record: bytes) -> None:
    """Hand `record` over to the one sender of this process."""
    with _lock:
        if url not in _senders:
            _senders.clear()  # the setting has changed; the old one ends with the process
            try:
                _senders[url] = Sender(url)
            except RuntimeError as error:  # there may be no more threads: the next record tries again
                logs.noted("audit_url", f"a record dropped: {error}")
                return
        sender = _senders[url]
    sender.put(record)
