"""Pooled HTTP connections, one session a thread, and how a hand-over is retried."""

from __future__ import annotations

import os
import threading

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from .errors import RETRIED

CONNECT_SECONDS = 3.05


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
            backoff_factor=0.2,
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


def reason(error: requests.RequestException) -> str:
    """The last cause without its chain of wrappers: `connection refused`, `timed out`."""
    text = str(error).lower()
    known = ("connection refused", "timed out", "name or service not known", "connection reset")
    return next((cause for cause in known if cause in text), type(error).__name__)
