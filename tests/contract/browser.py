"""Chromium without a window, by its own protocol: https://chromedevtools.github.io/devtools-protocol/"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
SECONDS = 30


class Tab:
    """One page, in which no script runs; `told` are the browser's own complaints."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.told: list[str] = []

    async def do(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=SECONDS)
            if answer.get("method") == "Log.entryAdded":
                self.told.append(str(answer["params"]["entry"]["text"]))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    async def open(self, url: str, *, width: int = 1100, scheme: str = "light") -> None:
        await self.do(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await self.do("Emulation.setScrollbarsHidden", hidden=True)
        await self.do(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        await self.do("Page.navigate", url=url)
        await self.until("location.href != 'about:blank' && document.readyState == 'complete'")

    async def value(self, expression: str) -> Any:
        """Our own script, not the page's."""
        answer = await self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until it is so; the page may be loading anew meanwhile."""
        deadline = asyncio.get_running_loop().time() + SECONDS
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(AssertionError):  # between two pages there is nothing to ask
                if await self.value(expression):
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"it never came to: {expression}")

    async def picture(self, file: Path) -> None:
        answer = await self.do("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(answer["data"]))


@asynccontextmanager
async def tab(folder: Path) -> AsyncIterator[Tab]:
    """A browser of its own, with nothing kept from an earlier one."""
    assert PROGRAM
    process = subprocess.Popen(
        (PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(folder / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                [page] = [row for row in await answer.json() if row["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                opened = Tab(socket)
                for domain in ("Page", "Log", "Runtime"):
                    await opened.do(f"{domain}.enable")
                await opened.do("Emulation.setScriptExecutionDisabled", value=True)
                yield opened
    finally:
        process.terminate()
        process.wait(SECONDS)


async def _port(file: Path) -> int:
    for _ in range(SECONDS * 20):
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        await asyncio.sleep(0.05)
    raise AssertionError("the browser does not start")
