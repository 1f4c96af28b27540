"""`python -m local.github` serves until it is told to stop."""

from __future__ import annotations

from pathlib import Path

import waitress

from ..gitserver.repository import ROOT
from . import APP_ID
from .app import make
from .store import Store

KEY = Path("/var/openfaas/secrets/private-key")
DATABASE = Path("/var/lib/github/checks.db")
PORT = 8080

app = make(APP_ID, KEY.read_bytes(), Store(DATABASE), ROOT)
waitress.serve(app, host="0.0.0.0", port=PORT, threads=8)  # noqa: S104 - of its container
