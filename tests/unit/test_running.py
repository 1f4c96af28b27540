"""Builds that run: what is remembered of them, and who ends them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from of_builder import build, running
from of_builder.kept import Log
from of_builder.progress import Progress
from of_builder.running import Running
from of_builder.tarball import Config, Job
from sdk.builder import Line

JOB = Job(Path("/nowhere"), Config(image="registry:5000/a/b"), "digest")


async def chatter() -> AsyncGenerator[Line, None]:
    """What `yes` in many build steps makes: lines of a few letters, as many as fit into one of the answer."""
    for _ in range(500):
        yield Line([f"#5 {number % 10}" for number in range(8000)], "image", "in_progress")
    yield Line([], "image", "success")


def test_what_is_remembered_of_a_noisy_build_is_bounded() -> None:
    async def test() -> tuple[list[Line], int]:
        build = Running(JOB, {"1"}, Log(), chatter())
        await build.task
        async with build.follow(JOB.image) as lines:
            said = [line async for line in lines]
        return said, sum(sys.getsizeof(text) for line in said for text in line.log)

    said, size = asyncio.run(test())
    assert said[-1].status == "success"
    assert running.KEPT_BYTES // 2 < size < running.KEPT_BYTES


def test_a_cancellation_that_comes_with_output_is_not_lost() -> None:
    async def test() -> None:
        sleeper = await asyncio.create_subprocess_exec(
            "sh", "-c", "echo x >&2; exec sleep 30", stderr=asyncio.subprocess.PIPE
        )

        async def read() -> None:
            async for _ in build._output(sleeper, Progress(), 60):
                pass

        assert sleeper.stderr
        reading = asyncio.create_task(read())
        await asyncio.sleep(0.3)  # now it waits for more
        sleeper.stderr.feed_data(b"more\n")
        await asyncio.sleep(0)
        reading.cancel()
        done, _ = await asyncio.wait({reading}, timeout=2)
        sleeper.kill()
        await sleeper.communicate()  # closes its pipe
        assert done

    asyncio.run(test())
