"""Pooled HTTP connections, one session a thread, and how a hand-over is retried."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from .errors import RETRIED, Unavailable

T = TypeVar("T")

CONNECT_SECONDS = 3.05
# The pause before a call is made again: at first, and at most.
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0


class _Local(threading.local):
    def __init__(self) -> None:
        self.sessions: dict[int, requests.Session] = {}


_local = _Local()


def session(retries: int = 3) -> requests.Session:
    """This thread's session: retries connection errors, read timeouts and `RETRIED`, with backoff.

    Every method is retried, and a call may take its timeout each time: `retries=0` is for what is long,
    or must not be sent twice. Give each call a timeout: `(CONNECT_SECONDS, read seconds)`.
    """
    if retries not in _local.sessions:
        policy = Retry(
            total=retries,
            backoff_factor=PAUSE_SECONDS,
            status_forcelist=RETRIED,
            allowed_methods=None,
            respect_retry_after_header=False,
            raise_on_status=False,
        )
        made = requests.Session()
        made.trust_env = False  # no proxy between the pieces, and no ~/.netrc
        made.verify = os.environ.get("SSL_CERT_FILE") or True  # an operator's own authority, as everywhere
        for scheme in ("http://", "https://"):
            made.mount(scheme, HTTPAdapter(pool_maxsize=16, max_retries=policy))
        _local.sessions[retries] = made
    return _local.sessions[retries]


def persistently(hand_over: Callable[[], T], seconds: float) -> T:
    """What `hand_over` returns. While that raises `Unavailable` it is tried again, after doubling pauses.

    The last try begins within `seconds`. For what may be done twice: an answer that was lost is no sign
    that nothing was done.
    """
    deadline, pause = time.monotonic() + seconds, PAUSE_SECONDS
    while True:
        try:
            return hand_over()
        except Unavailable:
            wait = pause * random.uniform(0.5, 1)  # noqa: S311 - so that not all come back at once
            if time.monotonic() + wait > deadline:
                raise
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def reason(error: requests.RequestException) -> str:
    """The last cause without its chain of wrappers: `connection refused`, `timed out`."""
    text = str(error).lower()
    known = ("connection refused", "timed out", "name or service not known", "connection reset")
    return next((cause for cause in known if cause in text), type(error).__name__)
