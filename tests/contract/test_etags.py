"""The local gateway writes over nothing but what the caller has looked at, if he says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from garbage_collect import handler
from garbage_collect.sdk.gateway import Gateway as CollectGateway
from garbage_collect.sdk.gateway import Status as CollectStatus
from local.gateway.settings import Settings
from sdk.errors import Superseded
from sdk.gateway import Gateway, Status
from tests.unit.test_garbage import CLOUD, REQUEST

from .local_gateway import V1, V2, V3, Client, deployed, run, serving, spec, status
from .swarm import FakeSwarm


async def tag(client: Client) -> str:
    async with client.get("/system/function/hello") as answer:
        return answer.headers["ETag"]


async def updated(client: Client, image: str, over: str) -> int:
    headers = {"If-Match": over}
    return (await client.put("/system/functions", json=spec(image), headers=headers)).status


def test_what_was_deployed_meanwhile_is_not_written_over(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client, V1)
        looked = await tag(client)
        await deployed(client, V2)
        assert await tag(client) != looked
        assert await updated(client, V3, looked) == 412
        headers, body = {"If-Match": looked}, {"functionName": "hello"}
        assert (await client.delete("/system/functions", json=body, headers=headers)).status == 412
        assert (await status(client))["image"] == V2
        assert await updated(client, V3, await tag(client)) == 200
        headers = {"If-Match": await tag(client)}
        assert (await client.delete("/system/functions", json=body, headers=headers)).status == 200

    run(settings, test)


def test_of_two_who_looked_at_the_same_one_writes(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client, V1)
        looked = await tag(client)
        both = await asyncio.gather(updated(client, V2, looked), updated(client, V3, looked))
        assert sorted(both) == [200, 412]

    run(settings, test)


def test_without_a_condition_whoever_comes_last_wins(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client, V1)
        await deployed(client, V2)
        assert await updated(client, V3, "*") == 200
        for wrong in ("", "nothing quoted", 'W/"weak"'):
            assert await updated(client, V1, wrong) == 400
        assert (await status(client))["image"] == V3

    run(settings, test)


def test_a_restart_changes_no_tag(settings: Settings) -> None:
    async def whole() -> None:
        swarm = FakeSwarm()
        try:
            async with serving(settings, swarm) as client:
                await deployed(client, V1)
                before = await tag(client)
            async with serving(settings, swarm) as client:
                assert await tag(client) == before
        finally:
            await swarm.close()

    asyncio.run(whole())


def said(client: Client, work: Callable[[Any], object], kind: type = Gateway) -> Any:
    gateway = kind(str(client.make_url("")), ("admin", "s3cret"))
    return asyncio.get_running_loop().run_in_executor(None, work, gateway)


@pytest.mark.parametrize(
    ("owner", "stays"), [("7", False), ("8", True)], ids=["the same repository", "another"]
)
def test_garbage_collect_deletes_what_it_listed_and_looks_again_if_that_was_changed(
    settings: Settings, owner: str, stays: bool
) -> None:
    def labels(repo_id: str) -> dict[str, str]:
        ids = {"git-cloud": "1", "git-scm": "github", "git-repo-id": repo_id}
        return {CLOUD + name: text for name, text in ids.items()}

    async def deletes(client: Client, listed: CollectStatus) -> bool:
        deleted = said(client, lambda gateway: handler.delete(gateway, listed, REQUEST), CollectGateway)
        return bool(await deleted)

    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client, V1, labels=labels("7"))
        (listed,) = await said(client, lambda gateway: gateway.list(), CollectGateway)
        assert listed.etag == (await tag(client)).strip('"')
        await deployed(client, V2, labels=labels(owner))
        assert await deletes(client, listed) is not stays
        assert bool(await status(client)) is stays
        assert await deletes(client, listed) is not stays, "gone already, perhaps by a call of this very one"

    run(settings, test)


def test_our_client_says_what_it_looked_at(settings: Settings) -> None:
    async def test(client: Client, swarm: FakeSwarm) -> None:
        await deployed(client, V1)
        looked: Status = await said(client, lambda gateway: gateway.get("hello"))
        assert looked.etag
        await deployed(client, V2)
        with pytest.raises(Superseded, match="changed meanwhile"):
            await said(client, lambda gateway: gateway.deploy(spec(V3), over=looked))
        with pytest.raises(Superseded, match="changed meanwhile"):
            await said(client, lambda gateway: gateway.delete("hello", over=looked))
        now: Status = await said(client, lambda gateway: gateway.get("hello"))
        await said(client, lambda gateway: gateway.deploy(spec(V3), over=now))
        assert (await status(client))["image"] == V3

    run(settings, test)
