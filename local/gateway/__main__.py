"""`python -m local.gateway` serves until it is told to stop."""

from __future__ import annotations

import logging

from aiohttp import web

from sdk.settings import read

from .app import SERVER, Gateway
from .settings import Settings

logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
settings = read(Settings)
web.run_app(Gateway(settings).app(), port=settings.port, access_log=None, **SERVER)
