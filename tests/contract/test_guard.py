"""Who may use the local gateway's /system: not a page in the operator's browser."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from local.gateway.settings import Settings

from .local_gateway import AUTH, V1, Client, deployed, run, spec
from .swarm import Behaviour, FakeSwarm

CALLS = [
    ("GET", "/system/functions"),
    ("POST", "/system/functions"),
    ("PUT", "/system/functions"),
    ("DELETE", "/system/functions"),
    ("GET", "/system/secrets"),
    ("PUT", "/system/secrets"),
    ("GET", "/system/logs?name=hello"),
    ("GET", "/system/queue"),
    ("POST", "/system/queue/1"),
    ("DELETE", "/system/queue/1"),
]

# What browsers send with a request that a page makes; the last is an old one's.
PAGES = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Content-Type": "text/plain"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9999"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "Cross-Site"},
    {"Origin": "null"},
    {"Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", PAGES, ids=str)
def test_no_page_uses_the_credentials_that_a_browser_keeps(
    headers: dict[str, str], settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        for method, path in CALLS:
            async with client.request(method, path, json=spec(), headers=headers) as answer:
                assert answer.status == 403, (method, path)
                assert "Access-Control-Allow-Origin" not in answer.headers
        assert swarm.created == [V1]

    run(settings, test)


def test_a_functions_page_is_of_the_gateways_origin_and_may_no_more(settings: Settings) -> None:
    """Functions answer at the gateway's own origin: what `same-origin` says is worth nothing here."""

    async def test(client: Client, swarm: FakeSwarm) -> None:
        own = str(client.make_url("/")).rstrip("/")
        headers = {"Sec-Fetch-Site": "same-origin", "Origin": own}
        async with client.delete("/system/functions", json={"functionName": "x"}, headers=headers) as answer:
            assert answer.status == 403

    run(settings, test)


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}])
def test_command_lines_and_the_address_bar_go_on_working(headers: dict[str, str], settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        async with client.get("/system/functions", headers=headers) as answer:
            assert answer.status == 200

    run(settings, test)


def test_functions_are_called_from_any_page(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        async with client.post("/function/hello", headers=PAGES[0]) as answer:
            assert answer.status == 200
        async with client.post("/async-function/hello", headers=PAGES[0]) as answer:
            assert answer.status == 202

    run(settings, test)


def test_no_function_gets_the_gateways_own_credentials(settings: Settings) -> None:
    """One that asks for them in the gateway's realm would get them from the operator's browser."""
    got: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        got.append(request.headers.get("Authorization"))
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="Restricted"'})

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        await client.get("/function/hello")  # with AUTH, as all that this client sends
        await client.post("/async-function/hello", data=b"x")
        others = {"Authorization": "Basic " + base64.b64encode(b"author:own").decode()}
        async with aiohttp.ClientSession(headers=others) as author:
            await author.get(client.make_url("/function/hello"))
        while len(got) < 3:
            await asyncio.sleep(0.01)
        assert sorted(got, key=str) == [others["Authorization"], None, None]
        assert AUTH["Authorization"] not in got

    run(settings, test)


@pytest.mark.parametrize(
    ("line", "status"), [("old", 200), ("new", 200), ("", 401), ("old\nnew", 401), ("other", 401)]
)
def test_the_gateways_password_is_rotated_line_by_line(
    line: str, status: int, settings: Settings, secret_folder: Path
) -> None:
    (secret_folder / "basic-auth-password").write_text("new\nold\n")

    async def test(client: Client, swarm: FakeSwarm) -> None:
        given = {"Authorization": "Basic " + base64.b64encode(f"admin:{line}".encode()).decode()}
        async with client.get("/system/functions", headers=given) as answer:
            assert answer.status == status

    run(settings, test)


def test_no_function_has_a_service_worker_which_would_answer_for_all(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        async with client.get("/function/hello", headers={"Service-Worker": "script"}) as answer:
            assert answer.status == 403

    run(settings, test)


@pytest.mark.usefixtures("rotating")
@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic é", "Bearer x", "Basic " + "A" * 5])
def test_what_is_no_credential_is_401(header: str, settings: Settings, secret_folder: Path) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        async with client.get("/system/functions", headers={"Authorization": header}) as answer:
            assert answer.status == 401
        (secret_folder / "basic-auth-password").unlink()
        async with client.get("/system/functions") as answer:
            assert answer.status == 401, "without a password nobody is known"

    run(settings, test)
