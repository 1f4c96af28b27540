"""The local gateway's REST API, with a Swarm in memory; the recordings: test_replayed_recordings.py."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import docker
import pytest
from aiohttp import web
from yarl import URL

from local.gateway.deployment import parse
from local.gateway.errors import GatewayError
from local.gateway.settings import Settings
from local.gateway.swarm import LIVE, Swarm, Task, task_template
from sdk.settings import Seconds

from . import recordings
from .fakes import running
from .local_gateway import (
    V1,
    V2,
    V3,
    Client,
    break_off,
    deployed,
    failure,
    hang,
    run,
    serving,
    spec,
    status,
    status_has,
    text_of,
    until,
)
from .swarm import Behaviour, FakeEngine, FakeSwarm


@pytest.mark.parametrize("name", ["04-no-auth", "05-wrong-auth"])
def test_it_asks_for_credentials_as_recorded(name: str, settings: Settings) -> None:
    exchange = recordings.load(name)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        wrong = {"Authorization": exchange.request.headers.get("Authorization", "")}
        async with aiohttp.ClientSession(headers=wrong) as stranger:
            for path in ("/system/functions", "/system/secrets", "/system/info", "/system/logs?name=x"):
                async with stranger.get(client.make_url(path)) as answer:
                    assert (answer.status, await answer.text()) == (401, "invalid credentials")
                    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Restricted"'
            async with stranger.get(client.make_url("/healthz")) as answer:
                assert answer.status == 200

    run(settings, test)


def test_what_was_sent_comes_back_in_the_status(settings: Settings) -> None:
    sent = json.loads(recordings.load("55-deploy-full").request.body)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        assert (await client.put("/system/secrets", json={"name": "s1", "value": "v"})).status == 200
        assert (await client.post("/system/functions", json=sent)).status == 200
        found = await status(client)
        for key in ("image", "envVars", "envProcess", "secrets", "labels", "annotations", "limits"):
            assert found[key] == sent[key]
        assert found["namespace"] == "openfaas-fn"
        [listed] = await (await client.get("/system/functions")).json()
        assert (listed["name"], listed["labels"]) == ("hello", {"l1": "x"})

    run(settings, test)


def test_a_function_that_exists_is_not_created_again(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        assert (await client.post("/system/functions", json=spec(V2))).status == 400
        assert await text_of(client) == (200, V1)

    run(settings, test)


def test_an_image_that_cannot_be_pulled_never_touches_the_old_version(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.unpullable.add(V2)
        answer = await client.put("/system/functions", json=spec(V2))
        assert answer.status == 400
        assert "unable to pull image" in await answer.text()
        assert await text_of(client) == (200, V1)
        assert (await status(client))["availableReplicas"] == 1

    run(settings, test)


def test_calls_go_on_during_an_update_and_then_only_the_new_version_answers(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.behaviours[V2] = Behaviour(ready_after=0.3)
        answers: list[tuple[int, str]] = []
        done = asyncio.Event()

        async def call() -> None:
            while not done.is_set():
                answers.append(await text_of(client))

        callers = [asyncio.create_task(call()) for _ in range(4)]
        await deployed(client, V2)
        after = len(answers)
        await asyncio.sleep(0.1)
        done.set()
        await asyncio.gather(*callers)
        assert {code for code, _ in answers} == {200}
        assert {text for _, text in answers} == {V1, V2}
        assert {text for _, text in answers[after + 4 :]} == {V2}
        await until(lambda: asyncio.sleep(0, swarm.removed == [V1]))

    run(settings, test)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(dies_after=0.0), "non-zero exit (1)"),
        (Behaviour(dies_after=0.25), "non-zero exit (1)"),
        (Behaviour(dies_after=0.25, early_exits=1), "non-zero exit (1)"),
        (Behaviour(rejected="No such image"), "No such image"),
    ],
    ids=["at start", "after half a second", "for the second time", "rejected"],
)
def test_a_version_that_dies_never_takes_the_old_one_down(
    behaviour: Behaviour, said: str, settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.behaviours[V2] = behaviour
        assert (await client.put("/system/functions", json=spec(V2))).status == 200
        assert said in await failure(client)
        assert not await status_has(client, "availableReplicas")
        assert await text_of(client) == (200, V1)
        assert V1 not in swarm.removed
        await deployed(client, V3)
        assert await text_of(client) == (200, V3)

    run(settings, test)


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(dies_after=0.1), Behaviour(dies_after=0.1, late=1)],
    ids=["Swarm says so", "Swarm is late to say so"],
)
def test_a_version_that_dies_early_is_never_told_as_available(
    behaviour: Behaviour, settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = behaviour
        await client.post("/system/functions", json=spec(V1))
        seen: list[int] = []

        async def has_failed() -> bool:
            found = await status(client)
            seen.append(found.get("availableReplicas", 0))
            return "failure" in found

        await until(has_failed)
        assert set(seen) == {0}

    run(settings, test)


def test_one_that_is_busy_with_calls_is_told_as_available(settings: Settings) -> None:
    busy: list[bool] = []

    async def answer(request: web.Request) -> web.Response:
        if busy:
            await asyncio.sleep(30)
        busy.append(True)
        return web.Response()

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer, ready_paths=())
        await client.post(
            "/system/functions", json=spec(V1, annotations={"com.openfaas.health.http.path": "/up"})
        )
        await until(lambda: status_has(client, "availableReplicas"))

    run(settings, test)


def test_the_old_version_stays_behind_the_new_one_for_a_while(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await deployed(client, V2)
        assert await text_of(client) == (200, V2)
        swarm.of(V2).behaviour.dies_after = 0
        assert "exit (1)" in await failure(client)
        assert await text_of(client) == (200, V1)
        assert (await status_has(client, "availableReplicas"), swarm.removed) == (False, [])

    run(replace(settings, probation=Seconds(3)), test)


def test_what_was_told_as_available_gives_way_to_newer_versions_alone(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await deployed(client, V2)
        swarm.behaviours[V3] = Behaviour(ready_after=0.2, dies_after=0.3)
        await client.put("/system/functions", json=spec(V3))
        while "failure" not in await status(client):
            assert (await text_of(client))[1] != V1
        assert await text_of(client) == (200, V2)
        await until(lambda: asyncio.sleep(0, swarm.removed == [V1]))
        assert swarm.of(V2).generation.state == LIVE

    run(replace(settings, probation=Seconds(1)), test)


def test_the_old_version_can_be_had_back_at_once(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await deployed(client, V2)
        await client.put("/system/functions", json=spec(V1))
        assert await status_has(client, "availableReplicas")
        assert (await text_of(client), swarm.created) == ((200, V1), [V1, V2])
        await until(lambda: asyncio.sleep(0, swarm.removed == [V2]))
        assert await text_of(client) == (200, V1)

    run(replace(settings, probation=Seconds(3)), test)


def test_one_early_exit_is_bad_luck(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(early_exits=1)
        await client.post("/system/functions", json=spec(V1))
        await until(lambda: status_has(client, "availableReplicas"))

    run(settings, test)


def test_a_version_that_never_gets_ready_is_given_up(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(ready_after=1)
        await client.post("/system/functions", json=spec(V1))
        assert await failure(client) == "it was not ready within 0.3 s"
        await asyncio.sleep(1)
        assert (await text_of(client))[0] == 503, "it came too late"
        assert swarm.of(V1).generation.replicas == 0

    run(replace(settings, ready_timeout=Seconds(0.3)), test)


@pytest.mark.parametrize("path", ["@git-server:8081/x", "http://git-server:8081/x", "up", "/a b", "/a\r\nb"])
def test_a_readiness_path_that_is_none_is_refused(path: str, settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        sent = spec(annotations={"com.openfaas.health.http.path": path})
        answer = await client.post("/system/functions", json=sent)
        assert (answer.status, swarm.created) == (400, [])
        assert "com.openfaas.health.http.path" in await answer.text()

    run(settings, test)


def test_a_readiness_probe_follows_nobody(settings: Settings) -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound("/elsewhere") if request.path == "/up" else web.HTTPOk

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=redirect)
        await client.post(
            "/system/functions", json=spec(annotations={"com.openfaas.health.http.path": "/up"})
        )
        assert "not ready" in await failure(client)
        assert set(swarm.of(V1).calls) == {"/up"}

    run(replace(settings, ready_timeout=Seconds(0.3)), test)


def test_readiness_never_calls_the_handler(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.behaviours[V2] = Behaviour(ready_paths=("/_/health",))
        await deployed(client, V2)
        swarm.behaviours[V3] = Behaviour(ready_paths=("/_/up",))
        await deployed(client, V3, annotations={"com.openfaas.health.http.path": "/_/up?full=1"})
        assert set(swarm.of(V3).calls) == {"/_/up"}

    run(settings, test)


def test_deploying_what_runs_changes_only_labels(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.behaviours[V2] = Behaviour(ready_after=60)
        await client.put("/system/functions", json=spec(V2))
        await deployed(client, V1, annotations={"nonce": "2"})
        assert swarm.created == [V1, V2]
        assert (await status(client))["annotations"] == {"nonce": "2"}
        await until(lambda: asyncio.sleep(0, swarm.removed == [V2]))
        assert await text_of(client) == (200, V1)

    run(settings, test)


def test_a_newer_deploy_takes_the_place_of_one_that_is_still_being_proven(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.behaviours[V2] = Behaviour(ready_after=60)
        await client.put("/system/functions", json=spec(V2))
        await deployed(client, V3)
        assert await text_of(client) == (200, V3)
        await until(lambda: asyncio.sleep(0, sorted(swarm.removed) == [V1, V2]))

    run(settings, test)


def test_a_restart_forgets_nothing(settings: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        try:
            async with serving(settings, swarm) as client:
                await deployed(client, V1)
                swarm.behaviours[V2] = Behaviour(ready_after=0.5)
                await client.put("/system/functions", json=spec(V2))
            async with serving(settings, swarm) as client:
                assert await text_of(client) == (200, V1)

                async def has_switched() -> bool:
                    return await text_of(client) == (200, V2)

                await until(has_switched)
                await until(lambda: asyncio.sleep(0, swarm.removed == [V1]))
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_what_ended_with_the_engine_is_no_death_of_a_version_that_is_new(settings: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        swarm.behaviours[V1] = behaviour = Behaviour(ready_after=0.5)
        try:
            async with serving(settings, swarm) as client:
                await client.post("/system/functions", json=spec(V1))
            behaviour.early_exits = 3  # what Swarm says of the containers of before
            async with serving(settings, swarm) as client:
                await until(lambda: status_has(client, "availableReplicas"))
                assert await text_of(client) == (200, V1)
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_an_image_that_was_removed_just_before_it_was_needed_is_fetched_again(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(removed=1, ready_after=0.2)
        await deployed(client)
        assert await text_of(client) == (200, V1)

    run(settings, test)


def test_a_task_that_the_engine_gave_up_with_itself_is_no_death() -> None:
    canceled = Task("rejected", "rpc error: code = Canceled desc = context canceled", None, "", "shutdown")
    assert not canceled.died
    assert replace(canceled, error="No such image").died


def test_what_was_removed_behind_its_back_can_be_deployed_again(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await swarm.remove(swarm.of(V1).generation)
        assert (await client.put("/system/functions", json=spec(V2))).status == 404
        await deployed(client, V2)

    run(settings, test)


def test_a_deleted_function_is_gone_at_once(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        answer = await client.delete("/system/functions", json={"functionName": "hello"})
        assert answer.status == 200
        assert await status(client) == {}
        assert await text_of(client) == (503, "No endpoints available for: hello.\n")
        assert not swarm.services

    run(settings, test)


def test_a_delete_that_failed_can_be_sent_again(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await client.post("/system/functions", json=spec())
        swarm.hiccups.append("remove")
        named = {"functionName": "hello"}
        assert (await client.delete("/system/functions", json=named)).status == 503
        await until(lambda: status_has(client, "availableReplicas"))
        assert (await client.delete("/system/functions", json=named)).status == 200
        assert (await status(client), swarm.services) == ({}, {})

    run(settings, test)


def test_a_deleted_function_is_gone_with_its_old_versions(settings: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        swarm.behaviours[V1] = Behaviour(answer=hang)
        try:
            async with serving(settings, swarm) as client:
                await deployed(client, V1)
                call = asyncio.create_task(text_of(client))
                await until(lambda: asyncio.sleep(0, "/" in swarm.of(V1).calls))
                await deployed(client, V2)
                await client.delete("/system/functions", json={"functionName": "hello"})
                assert not swarm.services
                assert (await call)[0] in (500, 503)
            async with serving(settings, swarm) as client:
                assert await (await client.get("/system/functions")).json() == []
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_a_version_that_has_given_way_does_not_return_with_a_restart(settings: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        swarm.behaviours[V2] = Behaviour(answer=hang)
        try:
            async with serving(replace(settings, probation=Seconds(1)), swarm) as client:
                await deployed(client, V1)
                await client.put("/system/functions", json=spec(V2))
                calls: list[asyncio.Task[tuple[int, str]]] = []

                async def is_called() -> bool:
                    calls.append(asyncio.create_task(text_of(client)))
                    return "/" in swarm.of(V2).calls

                await until(is_called)
                await client.put("/system/functions", json=spec(V1))
                assert V2 not in swarm.removed, "it has a call to end"
            await asyncio.gather(*calls, return_exceptions=True)
            async with serving(settings, swarm) as client:
                assert (await status(client))["image"] == V1
                await until(lambda: asyncio.sleep(0, swarm.removed == [V2]))
                assert await text_of(client) == (200, V1)
        finally:
            await swarm.close()

    asyncio.run(whole())


@pytest.mark.parametrize("method", ["mark", "remove"])
def test_an_old_version_goes_also_when_the_engine_hiccups(method: str, settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.hiccups.append(method)
        await deployed(client, V2)
        await until(lambda: asyncio.sleep(0, swarm.removed == [V1]))
        assert swarm.of(V2).generation.state == LIVE

    run(settings, test)


def test_a_call_is_streamed_both_ways_with_its_path_query_and_headers(settings: Settings) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(
            status=207, headers={"X-Path": request.raw_path, "X-Mine": request.headers["X-Mine"]}
        )
        await response.prepare(request)
        assert "Connection-Only" not in request.headers
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=answer)
        await deployed(client)
        gate = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            await gate.wait()
            yield b"two"

        headers = {"X-Mine": "1", "Connection": "close, Connection-Only", "Connection-Only": "x"}
        url = URL(f"{client.make_url('/')}function/hello/a%20b/c?x=%2F&y", encoded=True)
        async with client.session.patch(url, data=body(), headers=headers) as got:
            assert (got.status, got.headers["X-Path"]) == (207, "/a%20b/c?x=%2F&y")
            assert got.headers["X-Call-Id"]
            assert await got.content.readexactly(3) == b"one"
            gate.set()
            assert await got.content.read() == b"two"

    run(settings, test)


def test_a_function_that_cannot_be_reached_is_500(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        service = swarm.of(V1)
        assert service.server
        await service.server.close()
        assert await text_of(client) == (500, "Can't reach service for: hello.\n")

    run(settings, test)


def test_callers_of_a_version_that_dies_on_probation_get_the_old_one(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.behaviours[V2] = Behaviour(dies_after=0.25)
        await client.put("/system/functions", json=spec(V2))

        async def has_switched() -> bool:
            return await text_of(client) == (200, V2)

        await until(has_switched)
        server = swarm.of(V2).server
        assert server
        await server.close()
        assert await text_of(client) == (200, V1)

    run(replace(settings, connect_patience=Seconds(3)), test)


def test_an_answer_that_breaks_off_is_asked_for_again_if_that_does_no_harm(settings: Settings) -> None:
    broken: list[str] = []

    async def break_off_once(request: web.Request) -> web.StreamResponse:
        if len(broken) % 2:
            broken.append("no")
            return web.Response(text="whole")
        broken.append("yes")
        return await break_off(request)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=break_off_once)
        await deployed(client)
        assert await text_of(client) == (200, "whole")
        async with client.post("/function/hello", data=b"order") as answer:
            assert answer.status == 500, "a POST may have been carried out"
        assert broken == ["yes", "no", "yes"]

    run(settings, test)


def test_a_call_that_takes_too_long_is_502(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=hang)
        await deployed(client)
        assert await text_of(client) == (502, "")

    run(replace(settings, upstream_timeout=Seconds(1)), test)


def test_secrets_are_upserted_and_functions_get_the_new_value(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        for value in ("one", "two"):
            assert (await client.post("/system/secrets", json={"name": "s1", "value": value})).status == 200
        assert await (await client.get("/system/secrets")).json() == [
            {"name": "s1", "namespace": "openfaas-fn"}
        ]
        assert [row["value"] for row in swarm.secret_rows] == [b"two"]
        await deployed(client, V1, secrets=["s1"])
        assert (await client.put("/system/secrets", json={"name": "s1", "rawValue": "AAEC"})).status == 200
        assert swarm.secret_rows[-1]["value"] == b"\0\1\2"
        assert swarm.created == [V1, V1], "a new generation reads the new value"
        assert (await client.delete("/system/secrets", json={"name": "s1"})).status == 500
        await client.delete("/system/functions", json={"functionName": "hello"})
        assert (await client.delete("/system/secrets", json={"name": "s1"})).status == 200

    run(settings, test)


def test_one_function_that_cannot_start_keeps_no_other_from_a_secrets_new_value(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await client.post("/system/secrets", json={"name": "s1", "value": "one"})
        await deployed(client, V1, secrets=["s1"])
        await client.post("/system/functions", json={"service": "other", "image": V2, "secrets": ["s1"]})
        swarm.unpullable.add(V1)
        answer = await client.put("/system/secrets", json={"name": "s1", "value": "two"})
        assert (answer.status, swarm.created) == (500, [V1, V2, V2])
        said = await answer.text()
        assert "hello (unable to pull image" in said
        assert "other" not in said

    run(settings, test)


@pytest.mark.parametrize("answered", [401, 403, 404, 500])
def test_whatever_the_registry_refuses_is_an_image_that_cannot_be_pulled(
    answered: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recordings.load("26-deploy-unreachable-registry").status == 400
    engine = FakeEngine(registry=answered)
    monkeypatch.setattr(docker, "APIClient", partial(docker.APIClient, base_url=engine.url))
    with running(engine):
        swarm = Swarm(settings)
        with pytest.raises(GatewayError, match=r"unable to pull image .* denied") as raised:
            asyncio.run(swarm.check_image(V1))
        assert raised.value.status == 400
        swarm._api.close()
    with pytest.raises(GatewayError, match="does not answer") as raised:
        asyncio.run(swarm.check_image(V1))
    assert raised.value.status == 503


@pytest.mark.parametrize(("given", "is_read_only"), [({}, False), ({"readOnlyRootFilesystem": True}, True)])
def test_the_root_is_read_only_where_the_deployment_says_so(
    given: dict[str, Any], is_read_only: bool, settings: Settings
) -> None:
    deployment = parse(json.dumps(spec(**given)).encode())
    assert task_template(deployment, {}, settings)["ContainerSpec"]["ReadOnly"] is is_read_only


def test_a_compressed_body_goes_through_as_it_came(settings: Settings) -> None:
    packed = gzip.compress(b"print('hello')" * 20_000)

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), headers={"Got": request.headers["Content-Encoding"]})

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=echo)
        await deployed(client)
        for body in (packed, b"no gzip at all", os.urandom(200_000)):
            headers = {"Content-Encoding": "gzip"}
            async with client.post("/function/hello", data=body, headers=headers) as answer:
                assert (answer.status, answer.headers["Got"], await answer.read()) == (200, "gzip", body)

    run(settings, test)


@pytest.mark.parametrize("length", [1_000, 10_000_000])
def test_a_caller_that_sends_nothing_more_is_given_up(length: int, settings: Settings) -> None:
    async def read(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=read)
        await deployed(client)
        assert client.server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
        writer.write(b"POST /function/hello HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\nx" % length)
        status = await asyncio.wait_for(reader.readline(), 5)
        assert status.split()[1] == b"408"
        writer.close()

    run(replace(settings, body_patience=Seconds(0.3)), test)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/system/functions?namespace=kube-system", None),
        ("GET", "/system/function/hello?namespace=staging", None),
        ("POST", "/system/functions", {**spec(), "limits": {"memory": "1"}}),
        ("POST", "/system/functions", {**spec(), "limits": {"memory": "999999999999g"}}),
        ("POST", "/system/functions", {**spec(), "image": "a/" * 200 + "b"}),
        ("POST", "/system/secrets", {"name": "empty", "value": ""}),
        ("POST", "/system/secrets", {"name": "large", "value": "x" * 600_000}),
    ],
)
def test_what_swarm_does_not_take_is_400(method: str, path: str, body: Any, settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        async with client.request(method, path, json=body) as answer:
            assert answer.status == 400, await answer.text()

    run(settings, test)


def test_odd_numbers_and_ids_are_not_taken_for_what_they_are_not(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        odd = {"com.openfaas.scale.min": "²"}
        await deployed(client, labels=odd)
        assert client.server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
        writer.write(b"POST /async-function/hello HTTP/1.1\r\nHost: h\r\nX-Call-Id: \xff\xfe\r\n")
        writer.write(b"Content-Length: 0\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"202"
        writer.close()

    run(settings, test)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"X-Odd: \xff\xfe", b"202"),
        (b"X-Callback-Url: http://example.com/\xff", b"400"),
        (b"X-Callback-Url: :\xff", b"400"),
    ],
)
def test_a_queued_call_has_no_header_that_is_no_text(header: bytes, code: bytes, settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        seen: list[bool] = []

        async def look(request: web.Request) -> web.Response:
            seen.append("X-Odd" in request.headers)
            return web.Response()

        swarm.behaviours[V1] = Behaviour(answer=look)
        await deployed(client)
        assert client.server.port
        reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
        writer.write(
            b"POST /async-function/hello HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n%s\r\n\r\n" % header
        )
        assert (await reader.readline()).split()[1] == code
        writer.close()
        if code == b"202":
            await until(lambda: asyncio.sleep(0, seen == [False]))

    run(settings, test)


def test_a_deploy_is_done_to_its_end_though_who_asked_for_it_has_gone(settings: Settings) -> None:
    """Else a service is left that nobody knows, until a restart takes it for the newest."""

    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        swarm.slowness = 0.3
        with pytest.raises(asyncio.TimeoutError):
            await client.put("/system/functions", json=spec(V2), timeout=aiohttp.ClientTimeout(0.1))
        swarm.slowness = 0
        await until(lambda: asyncio.sleep(0, len(swarm.services) == 1))
        assert (await status(client))["image"] == V2
        await deployed(client, V3)
        await until(lambda: asyncio.sleep(0, len(swarm.services) == 1))
        assert await text_of(client) == (200, V3)

    run(settings, test)
