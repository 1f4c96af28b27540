"""Who may use /system: whoever has the credentials, but no page that their browser shows."""

from __future__ import annotations

import base64
import binascii
import hmac

from aiohttp import web

from sdk import secrets
from sdk.errors import Misconfigured

from .errors import GatewayError
from .proxy import Handler

_SYSTEM = "/system/"


@web.middleware
async def not_for_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A browser adds credentials that it knows to whatever any page asks for. 403 for all such calls.

    Also for those of our own origin: that is where authors' functions answer. What is typed into the
    address bar (`none`) is no page's. https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header
    A name that leads here by DNS rebinding is an origin that the browser knows no credentials for.
    """
    if request.path.startswith(_SYSTEM):
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site.lower() != "none" or "Origin" in request.headers:
            raise GatewayError(403, "pages may not use /system: use faas-cli, curl or python -m local")
    # A worker's script from /function/NAME may answer for all of /function/ from then on.
    # https://www.w3.org/TR/service-workers/#service-worker-script-request
    if "Service-Worker" in request.headers:
        raise GatewayError(403, "functions share one origin: none may have a service worker")
    return await handler(request)


class Guard:
    """Basic authentication for /system; functions are called by anybody, as in OpenFaaS."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @web.middleware
    async def authenticated(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(_SYSTEM) and not self.knows(request):
            raise web.HTTPUnauthorized(
                text="invalid credentials", headers={"WWW-Authenticate": 'Basic realm="Restricted"'}
            )
        return await handler(request)

    def knows(self, request: web.Request) -> bool:
        """Whether a line of each secret is what is given: several lines while one is rotated."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded)
            users, passwords = (
                secrets.read(name, self._folder).lines for name in ("basic-auth-user", "basic-auth-password")
            )
        except (binascii.Error, ValueError, Misconfigured):
            return False
        pairs = (user + b":" + password for user in users for password in passwords)
        matches = [hmac.compare_digest(given, pair) for pair in pairs]  # all of them: no early way out
        return any(matches)
