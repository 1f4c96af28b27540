"""`python -m local.gateway` serves until it is told to stop."""

from __future__ import annotations

import logging

from aiohttp import web

from sdk.settings import read

from .app import SERVER, Gateway
from .settings import Settings

# Calls that are being made when it is told to stop have so long to end.
SHUTDOWN_SECONDS = 5

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
settings = read(Settings)
app = Gateway(settings).app()
web.run_app(app, port=settings.port, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, **SERVER)
