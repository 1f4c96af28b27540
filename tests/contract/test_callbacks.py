"""Callbacks of the local gateway's queue: where they go, what they say, and where they never go."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from local.gateway.callbacks import Reachable, networks
from local.gateway.queue_store import BODY_LIMIT
from local.gateway.settings import Settings
from sdk.errors import Misconfigured
from sdk.settings import Seconds

from . import recordings
from .local_gateway import V1, V2, Client, deployed, run, serving, until
from .receiver import receiving
from .swarm import Behaviour, FakeSwarm

LOOPBACK = ("127.0.0.0/8",)


async def queued(client: Client, url: str, **rest: Any) -> int:
    headers = {"X-Callback-Url": url, "X-Call-Id": "mine-7"}
    async with client.post("/async-function/hello", data=b"x", headers=headers, **rest) as answer:
        return answer.status


async def calls(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await (await client.get("/system/queue")).json()
    return found


async def is_empty(client: Client) -> bool:
    return not await calls(client)


@pytest.fixture
def at_home(settings: Settings) -> Settings:
    """The settings of a gateway that may call its own machine back."""
    return replace(settings, callback_networks=LOOPBACK)


def test_the_answer_of_a_queued_call_is_posted_back(at_home: Settings) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=201, body=b"made", headers={"X-Mine": "1", "Content-Type": "text/made"})

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        async with receiving() as receiver:
            assert await queued(client, receiver.url) == 202
            await until(lambda: is_empty(client))
            [(path, headers, body)] = receiver.got
        assert (path, body) == ("/cb?x=1", b"made")
        assert headers["X-Function-Status"] == "201"
        assert (headers["X-Function-Name"], headers["X-Call-Id"]) == ("hello", "mine-7")
        assert (headers["X-Mine"], headers["Content-Type"]) == ("1", "text/made")
        assert 0 <= float(headers["X-Duration-Seconds"]) < 5
        assert "Authorization" not in headers, "the gateway's own credentials"

    run(at_home, test)


def test_a_call_that_fails_for_good_is_told_once(at_home: Settings) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503, text="not now")

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        async with receiving() as receiver:
            await queued(client, receiver.url)
            await until(lambda: asyncio.sleep(0, bool(receiver.got)))
            await asyncio.sleep(0.3)
            [(_, headers, body)] = receiver.got
        assert (headers["X-Function-Status"], body) == ("503", b"not now")
        [kept] = await calls(client)
        assert (kept["state"], kept["callback"]) == ("failed", False)

    run(at_home, test)


@pytest.mark.parametrize(
    ("statuses", "tries"), [((503, 502, 200), 3), ((503,), 5), ((404,), 1), ((302,), 1), ((500,), 1)]
)
def test_a_callback_is_tried_again_only_if_it_may_succeed(
    statuses: tuple[int, ...], tries: int, at_home: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        async with receiving(*statuses) as receiver:
            await queued(client, receiver.url)
            await until(lambda: is_empty(client))
            await asyncio.sleep(0.2)
        assert [path for path, _, _ in receiver.got] == ["/cb?x=1"] * tries, "and no redirect is followed"
        assert swarm.of(V1).calls.count("/") == 1

    run(at_home, test)


@pytest.mark.parametrize("size", [BODY_LIMIT, BODY_LIMIT + 1])
def test_an_answer_that_is_too_large_is_left_out(size: int, at_home: Settings) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * size, headers={"Content-Encoding": "x-mine"})

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        async with receiving() as receiver:
            await queued(client, receiver.url)
            await until(lambda: is_empty(client))
            [(_, headers, body)] = receiver.got
        is_small = size <= BODY_LIMIT
        assert (len(body), headers["X-Function-Status"]) == (size if is_small else 0, "200")
        assert ("X-Callback-Error" in headers, "Content-Encoding" in headers) == (not is_small, is_small)

    run(at_home, test)


def test_a_callback_outlives_a_restart(at_home: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        try:
            async with receiving(503, 200) as receiver:
                async with serving(replace(at_home, queue_backoff=Seconds(60)), swarm) as client:
                    await deployed(client)
                    await queued(client, receiver.url)
                    await until(lambda: asyncio.sleep(0, bool(receiver.got)))
                    [waiting] = await calls(client)
                    assert (waiting["callback"], waiting["function"]) == (True, "hello")
                async with serving(at_home, swarm) as client:
                    await until(lambda: is_empty(client))
            assert [body for _, _, body in receiver.got] == [V1.encode()] * 2
            assert swarm.of(V1).calls.count("/") == 1
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_a_receiver_that_hangs_holds_no_call_up(at_home: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for _ in range(at_home.queue_workers + 1):
                await queued(client, f"http://127.0.0.1:{silent.getsockname()[1]}/")
            await until(lambda: asyncio.sleep(0, swarm.of(V1).calls.count("/") == at_home.queue_workers + 1))
            assert (await client.post("/async-function/hello")).status == 202
            await until(lambda: asyncio.sleep(0, swarm.of(V1).calls.count("/") == at_home.queue_workers + 2))
            await until(lambda: is_empty(client))

    run(replace(at_home, callback_timeout=Seconds(0.5), callback_attempts=2), test)


def test_callbacks_are_bounded_as_calls_are(at_home: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        async def are_made(number: int) -> bool:
            return swarm.of(V1).calls.count("/") == number

        await deployed(client)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for number in range(1, 5):
                assert await queued(client, f"http://127.0.0.1:{silent.getsockname()[1]}/") == 202
                await until(partial(are_made, number))
            await asyncio.sleep(0.1)
            assert [call["callback"] for call in await calls(client)] == [True, True]

    run(replace(at_home, queue_limit=2, callback_timeout=Seconds(3)), test)


def test_a_function_of_this_gateway_is_called_back(settings: Settings) -> None:
    got: list[tuple[str, str, bytes]] = []

    async def listen(request: web.Request) -> web.Response:
        got.append((request.path_qs, request.headers["X-Function-Name"], await request.read()))
        return web.Response()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.behaviours[V2] = Behaviour(answer=listen)
        await client.post("/system/functions", json={"service": "listener", "image": V2})
        assert await queued(client, f"http://gateway:{settings.port}/function/listener/a%20b?q=%26") == 202
        await until(lambda: is_empty(client))
        assert got == [("/a%20b?q=%26", "hello", V1.encode())]

    run(settings, test)


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway:8080/system/functions",
        "http://gateway:8080/function/../system/functions",
        "http://gateway:8080/function/",
        "http://gateway:8080/async-function/hello",
        "http://127.0.0.1:8080/system/functions",
        "http://127.0.0.1/",
        "http://[::1]:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://[::ffff:a00:1]/",
        "http://[64:ff9b::a00:1]/",
        "http://[2002:a00:1::]/",
        "http://10.0.0.3:5000/v2/",
        "http://172.17.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://0.0.0.0:8080/",
        "http://[fe80::1%25eth0]/",
        "http://[::127.0.0.1]/",
        "http://[::ffff:0:a00:1]/",
        "http://[64:ff9b:1::a00:1]/",
        "http://[fec0::1]/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://u:p@example.com/",
        "http://:p@example.com/",
        "http://xn--a/",
        "http://a..b/",
        f"http://{'a' * 70}.com/",
        "unix:///var/run/docker.sock",
        "file:///run/secrets/basic-auth-password",
        "ftp://example.com/",
        "//example.com/cb",
        "cb",
        "http://",
        "http://[::1",
    ],
)
def test_a_url_that_no_callback_goes_to_is_refused_at_once(url: str, settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        assert await queued(client, url) == 400
        assert await is_empty(client)

    run(settings, test)


@pytest.mark.parametrize(
    ("address", "is_reachable"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("10.0.1.5", False),
        ("10.9.0.1", True),
        ("127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::a00:105", False),
        ("64:ff9b::5db8:d70e", True),
        ("64:ff9b:1::a00:105", False),
        ("fec0::1", False),
        ("2130706433", False),
        ("0177.0.0.1", False),
        ("registry", False),
    ],
)
def test_only_what_is_public_or_allowed_is_connected_to(address: str, is_reachable: bool) -> None:
    """Whatever name led there, and also what aiohttp takes for an address and the system then resolves."""
    info: Any = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 80))
    reachable = Reachable(networks(["10.9.0.0/16"]))
    if is_reachable:
        reachable.socket(info).close()
    else:
        with pytest.raises(OSError, match="is not public"):
            reachable.socket(info)


def test_a_name_that_means_a_neighbour_is_never_connected_to(settings: Settings) -> None:
    """A name is queued; where it leads to is known when it is called."""

    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        async with receiving() as receiver:
            assert receiver.server
            for name in ("localhost", "0x7f.1", "0x7f000001"):
                assert await queued(client, f"http://{name}:{receiver.server.port}/") == 202
            await until(lambda: is_empty(client))
            assert receiver.got == []

    run(settings, test)


def test_callbacks_of_functions_that_are_not_there_are_bounded_together(at_home: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            headers = {"X-Callback-Url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
            for number in range(4):
                await client.post(f"/async-function/nope-{number}", headers=headers)
                await until(partial(has_failed, client, number + 1))
            waiting = [call for call in await calls(client) if call["callback"]]
            assert len(waiting) == 2

    run(replace(at_home, queue_unknown_limit=2, queue_attempts=1, callback_timeout=Seconds(3)), test)


async def has_failed(client: Client, number: int) -> bool:
    return [call["state"] for call in await calls(client)].count("failed") == number


def test_a_network_that_is_none_is_the_operators_mistake(settings: Settings) -> None:
    with pytest.raises(Misconfigured, match=r"callback_networks: .*'home'"):
        networks(["home"])


def test_a_callback_url_that_cannot_be_parsed_is_refused_in_the_recorded_words(settings: Settings) -> None:
    exchange = recordings.load("C5-async-bad-callback")

    async def test(client: Client, swarm: FakeSwarm) -> None:
        headers = {"X-Callback-Url": exchange.request.headers["X-Callback-Url"]}
        async with client.post(exchange.path, data=b"x", headers=headers) as answer:
            assert exchange.response
            assert (answer.status, await answer.read()) == (exchange.status, exchange.response.body)

    run(settings, test)


def test_a_sync_call_has_no_callback(at_home: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        async with receiving() as receiver:
            async with client.post("/function/hello", headers={"X-Callback-Url": receiver.url}) as answer:
                assert answer.status == 200
            await asyncio.sleep(0.2)
            assert receiver.got == []

    run(at_home, test)


@pytest.mark.parametrize("odd", [b"\xff\xfe", b"a\x01b"])
def test_what_a_function_answers_that_is_no_text_keeps_no_callback_from_being_made(
    odd: bytes, at_home: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)

        async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Odd: %s\r\n\r\nok" % odd)
            writer.close()

        async with receiving() as receiver:
            server = swarm.of(V1).server
            assert server
            assert server.port
            port = server.port
            await server.close()
            async with await asyncio.start_server(raw, "127.0.0.1", port):
                await queued(client, receiver.url)
                await until(lambda: is_empty(client))
            [(_, headers, body)] = receiver.got
        assert (body, "X-Odd" in headers) == (b"ok", False)

    run(at_home, test)
