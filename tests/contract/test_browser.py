"""The pages of list-functions in a real Chromium, in which no script runs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from . import browser, pages
from .browser import Tab
from .fakes import FakeBuilder, FakeGateway

pytestmark = pytest.mark.skipif(not browser.PROGRAM, reason="Chromium is not there: apt-get install chromium")

PAGES = {
    "overview": {},
    "building": {"push": "d-5", "function": "resize-image"},
    "failed": {"push": "d-3", "function": "worker"},
    "refused": {"key": "no"},
}
WIDE, NARROW = 1100, 360


@pytest.fixture
def served(gateway: FakeGateway, builder: FakeBuilder, secret_folder: Path, tmp_path: Path) -> Iterator[str]:
    pages.furnish(gateway, builder, time.time())
    environment = {
        "gateway_url": gateway.url,
        "builder_url": builder.url,
        "secret_mount_path": str(secret_folder),
    }
    (tmp_path / "served").mkdir()
    with pages.served(tmp_path / "served", environment) as url:
        yield url


def at(served: str, **query: str) -> str:
    return f"{served}?{urlencode({**pages.link(), **query})}"


def see(folder: Path, look: Callable[[Tab], Awaitable[None]]) -> None:
    async def run() -> None:
        async with browser.tab(folder / "browser") as tab:
            await look(tab)

    asyncio.run(run())


def test_every_page_fits_wide_and_narrow_light_and_dark(served: str, tmp_path: Path) -> None:
    """With PICTURES=FOLDER in the environment it leaves a picture of each."""
    pictures = Path(os.environ.get("PICTURES") or tmp_path)

    async def look(tab: Tab) -> None:
        papers = set()
        for name, query in PAGES.items():
            for scheme in ("light", "dark"):
                for width in (WIDE, NARROW):
                    await tab.open(at(served, **query, still="1"), width=width, scheme=scheme)
                    await tab.picture(pictures / f"{name}-{scheme}-{width}.png")
                    assert await tab.value("document.documentElement.scrollWidth") <= width, (name, width)
                    assert await tab.value("document.querySelector('h1').offsetHeight") > 0
                    papers.add((scheme, await tab.value("getComputedStyle(document.body).backgroundColor")))
        assert {scheme for scheme, _ in papers} == {"light", "dark"}
        assert len({paper for _, paper in papers}) == len(papers) == 2
        assert [told for told in tab.told if "401" not in told] == [], (
            "nothing is blocked, nothing is missing"
        )

    see(tmp_path, look)


def test_what_a_build_prints_makes_no_element_and_runs_not(served: str, tmp_path: Path) -> None:
    async def look(tab: Tab) -> None:
        await tab.do("Emulation.setScriptExecutionDisabled", value=False)  # as browsers usually are
        for query in ({}, PAGES["failed"]):
            await tab.open(at(served, **query, still="1"))
            assert await tab.value("document.title") != "owned"
            assert await tab.value("document.querySelectorAll('pre *, script, img').length") == 0
            text = await tab.value("document.querySelector('pre').textContent")
            assert "<script>document.title='owned'</script>" in text
            assert "red &amp;" in text, "as it was printed, without the colours"

    see(tmp_path, look)


def test_a_build_is_followed_without_a_script(
    served: str, builder: FakeBuilder, tmp_path: Path, gateway: FakeGateway
) -> None:
    image = f"registry:5000/github/3/8/resize-image:{'e' * 40}"

    async def look(tab: Tab) -> None:
        await tab.open(at(served, **PAGES["building"]))
        text = "document.querySelector('.log pre').textContent"
        assert "package-8" in await tab.value(text)
        many = "".join(f"#9 line {number}\n" for number in range(400))
        builder.logs[image] = (many, False)
        await tab.until(f"{text}.includes('line 399')")
        box = "document.querySelector('.log')"
        assert await tab.value(f"{box}.scrollHeight > {box}.clientHeight")
        assert await tab.value(f"{box}.scrollTop") == 0, "of such a box this is its end"
        last = "(() => { const r = document.createRange(), p = document.querySelector('.log pre').firstChild;"
        last += "r.setStart(p, p.length - 4); r.setEnd(p, p.length - 1);"
        last += f"return r.getBoundingClientRect().bottom <= {box}.getBoundingClientRect().bottom }})()"
        assert await tab.value(last)
        builder.logs[image] = (many + "done\n", True)
        story = pages.Story("d-5", sha="e" * 40, path="github/3/8", at=time.time() - 5)
        story.built("resize-image", 4).live("resize-image", 5).into(gateway)
        await tab.until("!document.querySelector('meta[http-equiv=refresh]')")
        assert "done" in await tab.value(text)

    see(tmp_path, look)


def test_a_link_leads_to_a_builds_log_and_back(served: str, tmp_path: Path) -> None:
    async def look(tab: Tab) -> None:
        await tab.open(at(served, still="1"))
        address = await tab.value("[...document.querySelectorAll('.parts a')].find(a => a.search).href")
        await tab.open(address)
        assert "package-8" in await tab.value("document.querySelector('.log').textContent")
        await tab.open(await tab.value("document.querySelector('header a').href"))
        assert await tab.value("document.querySelectorAll('.push').length") == 5

    see(tmp_path, look)
