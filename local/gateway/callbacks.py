"""Callbacks: the answer of a queued call, for the `X-Callback-Url` that the call was sent with.

Whoever may call a function may name the URL, authors' functions too, and the gateway reaches more than they
do: the registry, of-builder, the git server, /system. So a callback goes to a function of this gateway, or to
a public address; to others only where the operator says so.
https://docs.openfaas.com/reference/async/#callback-urls
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

import aiohttp
from aiohttp import AddrInfoType
from multidict import CIMultiDict
from yarl import URL

from sdk import naming
from sdk.errors import Misconfigured

from .errors import GatewayError
from .proxy import CALL_ID, START_TIME, Proxy, client, passed_on, split
from .queue_answer import Answer
from .queue_store import BODY_LIMIT, Call, kept
from .settings import Settings

CALLBACK_URL = "X-Callback-Url"
# What functions call the gateway, here and on Kubernetes.
_OWN_NAMES = frozenset({"gateway", "gateway.openfaas"})
_CONNECT_SECONDS = 5

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
# What is public of IPv6; the rest stands for addresses of IPv4, was once for sites, or is reserved.
# https://www.iana.org/assignments/ipv6-address-space
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Callbacks:
    """The client that posts them."""

    def __init__(self, proxy: Proxy, settings: Settings) -> None:
        self._proxy = proxy
        self._settings = settings
        self._reachable = Reachable(networks(settings.callback_networks))
        self._http = client(settings, socket_factory=self._reachable.socket)
        self._timeout = aiohttp.ClientTimeout(total=settings.callback_timeout, sock_connect=_CONNECT_SECONDS)

    async def close(self) -> None:
        await self._http.close()

    def check(self, text: str) -> URL:
        """The URL that is asked for; `GatewayError` 400 if no callback goes there."""
        try:
            text.encode()
            if text.startswith(":"):
                raise GatewayError(400, f'parse "{text}": missing protocol scheme')
            url = URL(text)
            host = url.host or ""  # which is decoded here
            (url.raw_host or "").encode("idna")  # as whoever resolves it does
        except ValueError:
            raise GatewayError(400, f"{CALLBACK_URL} is no URL") from None
        has_password = url.user is not None or url.password is not None
        if url.scheme not in ("http", "https") or not host or has_password:
            raise GatewayError(400, f"{CALLBACK_URL} must be an http or https URL without a password")
        if self._is_own(url):
            if not url.path.startswith("/function/") or not naming.SERVICE.fullmatch(split(url.raw_path)[0]):
                raise GatewayError(
                    400, f"{CALLBACK_URL}: of this gateway, only /function/NAME is called back"
                )
        elif not self._reachable.takes(host):
            raise GatewayError(400, f"{CALLBACK_URL}: {host} is not public: see callback_networks")
        return url

    async def post(self, call: Call) -> tuple[int, str]:
        """The receiver's status, and what was wrong. Redirects are not followed: they are errors.

        Raises what the call of a function raises.
        """
        try:
            url = self.check(call.target)
        except GatewayError as error:  # callback_networks was changed
            return error.status, error.text
        post = self._post_to_function if self._is_own(url) else self._post
        status = await post(url, call)
        return (status, "") if status < 300 else (max(status, 400), f"it answered {status}")

    async def _post(self, url: URL, call: Call) -> int:
        async with self._http.post(
            url, data=call.body, headers=call.headers, allow_redirects=False, timeout=self._timeout
        ) as answer:
            return answer.status

    async def _post_to_function(self, url: URL, call: Call) -> int:
        """As any caller would, without leaving the gateway."""
        name, path = split(url.raw_path)
        target = URL.build(path=path, query_string=url.raw_query_string, encoded=True)
        async with self._proxy.call(name, "POST", target, call.headers, call.body) as answer:
            return answer.status

    def _is_own(self, url: URL) -> bool:
        return url.host in _OWN_NAMES and (url.scheme, url.port) == ("http", self._settings.port)


class Reachable:
    """The addresses that callbacks may go to: the public ones, and those that the operator allows."""

    def __init__(self, allowed: Iterable[Network]) -> None:
        self._allowed = tuple(allowed)

    def has(self, text: str) -> bool:
        try:
            address = _meant(ipaddress.ip_address(text))
        except ValueError:
            return False
        is_public = address.is_global and not address.is_multicast
        if isinstance(address, ipaddress.IPv6Address):
            is_public = is_public and address in _GLOBAL_UNICAST
        return is_public or any(address in network for network in self._allowed)

    def takes(self, host: str) -> bool:
        """Whether it may be connected to, or is a name: what that leads to is seen when it is called."""
        is_name = ":" not in host and not host.replace(".", "").isdigit()
        return is_name or self.has(host)

    def socket(self, info: AddrInfoType) -> socket.socket:
        """For a connection to that address, whatever name led to it."""
        family, kind, protocol, _, address = info
        if not self.has(str(address[0])):
            raise OSError(f"{address[0]} is not public")
        return socket.socket(family, kind, protocol)


def _meant(address: Address) -> Address:
    """An IPv6 address may stand for one of IPv4."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) % 2**32)
    return address.ipv4_mapped or address.sixtofour or address


def networks(given: Iterable[str]) -> list[Network]:
    try:
        return [ipaddress.ip_network(text) for text in given]
    except ValueError as error:
        raise Misconfigured(f"callback_networks: {error}") from None


def url_of(call: Call) -> str:
    """What the call asks for; a callback asks for none."""
    return "" if call.is_callback else CIMultiDict(call.headers).get(CALLBACK_URL, "")


def callback(call: Call, answer: Answer) -> Call | None:
    """The callback that tells of a call's end, if one was asked for."""
    url = url_of(call)
    if not url:
        return None
    headers = passed_on(answer.headers)
    asked = CIMultiDict(call.headers)
    headers.update({name: asked[name] for name in (CALL_ID, START_TIME) if name in asked})
    headers["X-Duration-Seconds"] = f"{answer.seconds:.6f}"
    headers["X-Function-Name"] = call.function
    headers["X-Function-Status"] = str(answer.status)
    if answer.body is None:
        headers.popall("Content-Encoding", None)
        headers["X-Callback-Error"] = f"the answer has more than {BODY_LIMIT} bytes"
    return Call(call.function, url, kept(headers), answer.body or b"", is_callback=True)
