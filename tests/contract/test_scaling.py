"""Functions that are scaled by hand, to 0 too, at the local gateway."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from local.gateway.deployment import Deployment
from local.gateway.readiness import Readiness
from local.gateway.settings import Settings
from local.gateway.swarm import Generation, Task
from sdk.settings import Seconds

from .local_gateway import (
    V1,
    V2,
    V3,
    Client,
    deployed,
    hang,
    run,
    serving,
    spec,
    status,
    status_has,
    text_of,
    until,
)
from .swarm import Behaviour, FakeSwarm


async def scaled(client: Client, replicas: int, name: str = "hello") -> tuple[int, str]:
    sent = {"serviceName": name, "replicas": replicas}
    async with client.post(f"/system/scale-function/{name}", json=sent) as answer:
        return answer.status, await answer.text()


async def counts(client: Client) -> tuple[int, int]:
    found = await status(client)
    return found.get("replicas", 0), found.get("availableReplicas", 0)


def test_a_function_is_scaled_up_and_down(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        assert await scaled(client, 3) == (200, "")
        assert (await counts(client), swarm.created) == ((3, 3), [V1])
        assert await scaled(client, 1) == (200, "")
        assert await counts(client) == (1, 1)
        [listed] = await (await client.get("/system/functions")).json()
        assert (listed["replicas"], listed["availableReplicas"]) == (1, 1)

    run(settings, test)


def test_the_labels_bound_no_one_who_scales_by_hand_but_the_gateway_does(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client, labels={"com.openfaas.scale.max": "2"})
        await scaled(client, 4)
        assert await counts(client) == (4, 4)
        await scaled(client, 1000)
        assert await counts(client) == (10, 10)

    run(settings, test)


def test_a_call_wakes_what_is_scaled_to_zero_and_waits_until_it_is_ready(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(ready_after=0.3)
        await deployed(client, labels={"com.openfaas.scale.min": "2"})
        assert await scaled(client, 0) == (200, "")
        assert await counts(client) == (0, 0)
        assert swarm.of(V1).server is None
        calls = [asyncio.create_task(text_of(client)) for _ in range(5)]
        await until(lambda: asyncio.sleep(0, swarm.of(V1).generation.replicas == 2))
        assert await counts(client) == (2, 0), "it is told as available before it is ready"
        assert await asyncio.gather(*calls) == [(200, V1)] * 5
        assert await counts(client) == (2, 2)

    run(settings, test)


def test_a_queued_call_wakes_it_too(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        assert (await client.post("/async-function/hello")).status == 202
        await until(lambda: asyncio.sleep(0, "/" in swarm.of(V1).calls))

    run(settings, test)


def test_what_is_scaled_up_from_zero_gets_ready_by_itself(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        await scaled(client, 2)
        await until(lambda: status_has(client, "availableReplicas"))
        assert await counts(client) == (2, 2)

    run(settings, test)


def test_a_restart_changes_no_number_of_replicas(settings: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        try:
            async with serving(settings, swarm) as client:
                await deployed(client)
                await scaled(client, 3)
            async with serving(settings, swarm) as client:
                assert await counts(client) == (3, 3)
                await scaled(client, 0)
            async with serving(settings, swarm) as client:
                assert await counts(client) == (0, 0)
                assert await text_of(client) == (200, V1)
                assert await counts(client) == (1, 1)
        finally:
            await swarm.close()

    asyncio.run(whole())


def test_what_does_not_wake_is_503_and_tried_again_by_the_next_call(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        swarm.of(V1).behaviour.ready_after = 60
        code, said = await text_of(client)
        assert (code, said) == (503, "hello does not wake: it was not ready within 0.3 s\n")
        swarm.of(V1).behaviour.ready_after = 0
        assert await text_of(client) == (200, V1)

    run(replace(settings, ready_timeout=Seconds(0.3)), test)


def test_what_dies_when_it_is_woken_is_told_so(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        swarm.of(V1).behaviour.dies_after = 0
        code, said = await text_of(client)
        assert code == 503
        assert "non-zero exit (1)" in said

    run(settings, test)


def test_a_deploy_wakes_what_sleeps_and_begins_with_the_deployed_number(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        await deployed(client, V1, annotations={"nonce": "2"})
        assert (swarm.created, await counts(client)) == ([V1], (1, 1))
        await scaled(client, 0)
        await deployed(client, V2)
        assert (await text_of(client), await counts(client)) == ((200, V2), (1, 1))
        await until(lambda: asyncio.sleep(0, swarm.removed == [V1]))

    run(settings, test)


def test_a_deploy_of_what_did_not_wake_waits_for_it_again(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        swarm.of(V1).behaviour.ready_after = 60
        assert (await text_of(client))[0] == 503
        swarm.of(V1).behaviour.ready_after = 0
        await deployed(client, V1, annotations={"nonce": "2"})
        assert (swarm.created, await counts(client)) == ([V1], (1, 1))

    run(replace(settings, ready_timeout=Seconds(0.3)), test)


def test_a_call_that_is_cut_off_by_scaling_to_zero_wakes_it(settings: Settings) -> None:
    async def hang_once(request: web.Request) -> web.Response:
        asked.append(request.path)
        return await hang(request) if len(asked) == 1 else web.Response(text=V1)

    asked: list[str] = []

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=hang_once)
        await deployed(client)
        call = asyncio.create_task(text_of(client))
        await until(lambda: asyncio.sleep(0, bool(asked)))
        assert await scaled(client, 0) == (200, "")
        assert await call == (200, V1)
        assert await counts(client) == (1, 1)

    run(replace(settings, connect_patience=Seconds(3)), test)


def test_a_version_that_fails_leaves_one_that_can_still_be_woken(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        swarm.behaviours[V2] = Behaviour(rejected="No such image")
        await client.put("/system/functions", json=spec(V2))
        await until(lambda: status_has(client, "failure"))
        assert await text_of(client) == (200, V1)
        assert await scaled(client, 2) == (200, "")
        assert swarm.of(V1).generation.replicas == 2

    run(settings, test)


def test_a_call_that_waits_for_the_old_version_gets_the_new_one_if_that_is_ready(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        swarm.of(V1).behaviour.ready_after = 60
        call = asyncio.create_task(text_of(client))
        await until(lambda: asyncio.sleep(0, swarm.of(V1).generation.replicas == 1))
        await deployed(client, V2)
        assert await call == (200, V2)

    run(settings, test)


def test_a_call_that_waits_for_what_is_deleted_is_told_so(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await scaled(client, 0)
        swarm.of(V1).behaviour.ready_after = 60
        call = asyncio.create_task(text_of(client))
        await until(lambda: asyncio.sleep(0, swarm.of(V1).generation.replicas == 1))
        assert (await client.delete("/system/functions", json={"functionName": "hello"})).status == 200
        assert await call == (503, "No endpoints available for: hello.\n")

    run(settings, test)


def test_only_a_version_that_is_ready_is_scaled(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(ready_after=60)
        await client.post("/system/functions", json=spec())
        assert (await scaled(client, 0))[0] == 409
        await deployed(client, V2)
        assert await scaled(client, 2) == (200, ""), "one on probation is waited for"
        swarm.behaviours[V3] = Behaviour(rejected="No such image")
        await client.post("/system/functions", json={"service": "other", "image": V3})

        async def is_known() -> bool:
            return "failed" in (await scaled(client, 1, "other"))[1]

        await until(is_known)

    run(settings, test)


def test_scaling_survives_an_engine_that_hiccups(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client)
        await asyncio.sleep(settings.probation)
        swarm.hiccups.append("mark")
        assert await scaled(client, 0) == (200, "")
        swarm.hiccups += ["mark"] * 3
        assert (await scaled(client, 2))[0] == 503
        assert await counts(client) == (0, 0)
        assert await text_of(client) == (200, V1)

    run(settings, test)


def test_a_death_is_forgiven_only_while_swarm_tells_of_it(settings: Settings) -> None:
    """Anybody may call what dies when it is woken, for as long as they like."""

    async def test() -> Generation:
        generation = Generation("s1", "hello-1", "hello", 1, Deployment())
        tasks: list[Task] = []

        async def told(service_id: str) -> dict[str, list[Task]]:
            return {service_id: list(tasks)}

        swarm: Any = SimpleNamespace(tasks=told)
        readiness = Readiness(swarm, None, settings)  # type: ignore[arg-type]
        for number in range(50):
            tasks.append(Task("failed", "", 1, "", "shutdown", str(number)))
            del tasks[:-5]  # as many as Swarm keeps
            await readiness.forgive(generation)
        return generation

    assert asyncio.run(test()).forgiven == {"45", "46", "47", "48", "49"}


@pytest.mark.parametrize(
    ("name", "sent", "expected"),
    [
        ("hello", {"serviceName": "hello", "replicas": -1}, (400, "replicas must be 0 or more\n")),
        ("hello", {"serviceName": "hello", "replicas": "2"}, (400, "Error unmarshalling request body\n")),
        ("hello", {"serviceName": "hello"}, (400, "Error unmarshalling request body\n")),
        ("hello", {"serviceName": "x", "replicas": 1}, (400, "serviceName is x, but the path says hello\n")),
        (
            "hello",
            {"serviceName": "hello", "replicas": 1, "namespace": "dev"},
            (400, "namespace dev is not supported here\n"),
        ),
        ("nope", {"replicas": 1}, (404, "service nope not found\n")),
    ],
)
def test_what_cannot_be_scaled_is_refused(
    name: str, sent: Any, expected: tuple[int, str], settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await client.post("/system/functions", json=spec())
        async with client.post(f"/system/scale-function/{name}", json=sent) as answer:
            assert (answer.status, await answer.text()) == expected

    run(settings, test)


def test_calls_are_counted_until_the_function_is_deleted(settings: Settings) -> None:
    async def fail(request: web.Request) -> web.Response:
        return web.Response(status=500 if request.path == "/bad" else 200)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        swarm.behaviours[V1] = Behaviour(answer=fail)
        await deployed(client)
        assert "invocationCount" not in await status(client), "0 is left out, as recorded"
        await text_of(client)
        await text_of(client, "/function/hello/bad")
        await client.post("/async-function/hello")

        async def is_counted() -> bool:
            return (await status(client)).get("invocationCount") == 3

        await until(is_counted)
        await deployed(client, V2)
        [listed] = await (await client.get("/system/functions")).json()
        assert listed["invocationCount"] == 3, "a new version is the same function"
        await client.delete("/system/functions", json={"functionName": "hello"})
        await deployed(client)
        assert "invocationCount" not in await status(client)

    run(settings, test)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/system/functions", {"functionName": "hello", "namespace": "dev"}),
        ("POST", "/system/secrets", {"name": "s", "value": "v", "namespace": "dev"}),
    ],
)
def test_another_namespace_in_a_body_is_refused_too(
    method: str, path: str, body: Any, settings: Settings
) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await client.post("/system/functions", json=spec())
        async with client.request(method, path, json=body) as answer:
            assert (answer.status, await answer.text()) == (400, "namespace dev is not supported here\n")
        assert (len(swarm.services), swarm.secret_rows) == (1, [])

    run(settings, test)
