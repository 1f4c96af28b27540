"""list-functions with a gateway and an of-builder: who sees what, and what a browser makes of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from list_functions import handler, page
from list_functions.cluster import Stream
from list_functions.handler import handle
from tests.conftest import ROOT

from . import pages
from .fakes import Event, FakeBuilder, FakeGateway
from .pages import CLOUD, Story, deployed, furnish, link

PAGE = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(autouse=True)
def stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "STREAM", Stream())
    monkeypatch.setattr("list_functions.cluster.FRESH_SECONDS", 0)


def get(headers: Mapping[str, str] = PAGE, /, **query: str) -> tuple[int, str]:
    answer = handle(Event(method="GET", headers=headers, query={**link(), **query}), None)
    return answer["statusCode"], answer["body"]


def test_a_bare_get_describes_it_and_a_post_is_refused() -> None:
    answer = handle(Event(method="GET"), None)
    assert json.loads(answer["body"])["name"] == "list-functions"
    assert handle(Event(method="POST", body=b"{}", query=link()), None)["statusCode"] == 400


def test_the_functions_as_json_are_the_owners(gateway: FakeGateway, builder: FakeBuilder) -> None:
    now = time.time()
    furnish(gateway, builder, now)
    gateway.functions["alice-hello"]["invocationCount"] = 12
    status, body = get({"Accept": "*/*"})
    assert status == 200
    rows = json.loads(body)
    assert [row["name"] for row in rows] == ["alice-hello", "alice-resize-image", "alice-worker"]
    first = rows[0]
    assert first["ageSeconds"] in range(249, 260)
    assert (first["invocationCount"], first["replicas"]) == (12, 1)
    assert {name: first[name] for name in ("owner", "repo", "branch", "commit", "digest", "url")} == {
        "owner": "alice",
        "repo": "hello",
        "branch": "master",
        "commit": "a" * 40,
        "digest": "sha256:" + "0f1e2d3c" * 8,
        "url": f"{gateway.url}/function/alice-hello",
    }
    assert rows[2]["failure"] == "exit status 1"
    assert get(PAGE, **{"as": "json"})[1][0] == "["


def test_values_of_the_environment_are_not_shown(gateway: FakeGateway, builder: FakeBuilder) -> None:
    furnish(gateway, builder, time.time())
    for body in (get({})[1], get()[1]):
        assert "hunter2" not in body
        assert "what-a-rollback-needs" not in body, "it holds the environment"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"key": "0" * 64}, "not one of this cloud"),
        ({"owner": "github/4"}, "not one of this cloud"),
        ({"until": "1"}, "not one of this cloud"),
        (link(seconds=-1), "has expired"),
        ({"until": ""}, "new link"),
    ],
)
@pytest.mark.parametrize("headers", [PAGE, {}], ids=["page", "json"])
def test_without_a_link_nothing_is_read(
    query: Mapping[str, str], said: str, headers: Mapping[str, str], gateway: FakeGateway
) -> None:
    status, body = get(headers, **query)
    assert status == 401
    assert said in body
    assert body.startswith("<!doctype" if headers else '{"error"')
    assert not gateway.calls


def test_the_gateways_password_is_never_asked_for(gateway: FakeGateway) -> None:
    """A browser would send it to every author's function, too."""
    answer = handle(Event(method="GET", headers=PAGE, query={"user": "alice"}), None)
    assert answer["statusCode"] == 401
    assert "WWW-Authenticate" not in answer["headers"]


def test_without_the_secret_nobody_gets_in(gateway: FakeGateway, secret_folder: Path) -> None:
    (secret_folder / "link-secret").unlink()
    assert get()[0] == 500


def test_one_owner_never_sees_anothers(gateway: FakeGateway, builder: FakeBuilder) -> None:
    furnish(gateway, builder, time.time())
    renamed = deployed("alice", "squatter", owner_id=4, repo_id=9)  # the name is bob's now, the id decides
    gateway.functions["alice-squatter"] = renamed
    gateway.functions["bobby-x"] = deployed("bobby", "x", owner_id=33)
    for headers in (PAGE, {}):
        status, body = get(headers)
        assert status == 200
        assert not re.search("bob|secrets|squatter|" + "f" * 7, body)
    for query in (
        {"push": "d-bob", "function": "secret"},
        {"function": "bob-secret"},
        {"function": "alice-squatter"},
        {"function": "git-tar"},
        {"push": "d-4", "function": "../../../4/9/secret"},
    ):
        status, body = get(PAGE, **query)
        assert status in (400, 404)
        assert "bob&#39;s log" not in body
    assert not builder.calls


def test_an_operators_link_shows_everybodys(gateway: FakeGateway, builder: FakeBuilder) -> None:
    furnish(gateway, builder, time.time())
    status, body = get(**link("*", ""))
    assert (status, "bob/" in body, "alice/" in body) == (200, True, True)
    assert "bob&#39;s log" in get(**link("*", ""), push="d-bob", function="secret")[1]


def test_logs_come_with_a_secret_that_can_do_nothing_else(
    gateway: FakeGateway, builder: FakeBuilder, secret_folder: Path
) -> None:
    furnish(gateway, builder, time.time())
    (secret_folder / "builder-secret").unlink()
    (secret_folder / "payload-secret").unlink()
    status, body = get(push="d-5", function="resize-image")
    assert (status, "package-8" in body) == (200, True)
    assert {(call[0], call[1].partition("?")[0]) for call in builder.calls} == {("GET", "/log")}


def test_the_log_of_what_is_live_is_found_by_its_context(gateway: FakeGateway, builder: FakeBuilder) -> None:
    furnish(gateway, builder, time.time())
    assert "package-8" in get(function="alice-hello")[1]


def test_without_a_kept_log_the_records_own_lines_are_shown(
    gateway: FakeGateway, builder: FakeBuilder
) -> None:
    furnish(gateway, builder, time.time())
    builder.logs.clear()
    assert "No rule to make target" in get(push="d-3", function="worker")[1]
    assert "No log is kept" in get(push="d-4", function="hello")[1]


def test_a_page_looks_again_while_something_goes_on_unless_it_is_paused(
    gateway: FakeGateway, builder: FakeBuilder
) -> None:
    furnish(gateway, builder, time.time())
    refresh = 'http-equiv="refresh"'
    assert refresh in get()[1]
    assert refresh not in get(still="1")[1]
    assert refresh in get(push="d-5", function="resize-image")[1]
    assert refresh not in get(push="d-3", function="worker")[1]
    gateway.logs = {}
    assert refresh not in get()[1]


def test_reconciles_looks_do_not_push_the_pushes_off_the_page(
    gateway: FakeGateway, builder: FakeBuilder
) -> None:
    now = time.time()
    furnish(gateway, builder, now)
    before = get()[1].count('class="push ')
    for number in range(100):
        Story(f"reconcile-{number}", at=now - number).done(1).into(gateway)
    assert get()[1].count('class="push ') == before
    assert "by reconcile" not in get()[1]
    Story("reconcile-x", at=now).live("hello", 1).done(2).into(gateway)
    gone = ["removed alice-gone"]
    story = Story("reconcile-y", at=now).tell("garbage-collect", "collect", 1, log=gone)
    story.tell("git-tar", "push", 2).into(gateway)
    body = get()[1]
    assert body.count('class="push ') == before + 2
    assert (body.count("by reconcile"), "removed alice-gone" in body) == (2, True)


def test_the_steps_say_what_holds_for_the_functions_below_them(
    gateway: FakeGateway, builder: FakeBuilder
) -> None:
    push = Story(at=time.time() - 60).queued().fetched("pay")
    push.tell("git-tar", "shrinkwrap", 0.6, "refused", "shop", error="no")
    push.built("pay", 2).live("pay", 3).done(4, "failed", "1 of 2 functions failed: shop").into(gateway)
    body = get()[1]
    assert "not reached" not in body
    assert body.count('<span class="note">1 of 2</span>') == 2


def test_what_a_build_prints_is_text_and_nothing_else(gateway: FakeGateway, builder: FakeBuilder) -> None:
    furnish(gateway, builder, time.time())
    for body in (get()[1], get(push="d-3", function="worker")[1]):
        assert "&lt;script&gt;" in body
        assert not re.search(r"<(script|img)|\x1b", body)


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("\x1b[31mred\x1b[0m\n", "red\n"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
        ("10%\r50%\r100%\r\ndone", "100%\ndone"),
        ("a\x00\x08\x7fb\tc", "ab\tc"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("\x1b[" * 1000, ""),
    ],
)
def test_what_is_no_text_is_left_out(log: str, shown: str) -> None:
    assert page.as_text(log) == shown


def test_the_headers_let_a_browser_run_nothing_and_tell_nobody(
    gateway: FakeGateway, builder: FakeBuilder
) -> None:
    furnish(gateway, builder, time.time())
    headers = handle(Event(method="GET", headers=PAGE, query=link()), None)["headers"]
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert handle(Event(method="GET", query=link()), None)["headers"]["Cache-Control"] == "no-store"


def test_the_push_list_is_bounded_and_leads_to_older_ones(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("pushes_limit", "4")
    now = time.time()
    for number in range(10):
        Story(f"d-{number}", at=now - 1000 + number, sha=f"{number}" * 40).queued().done(2).into(gateway)
    seen: list[str] = []
    query: dict[str, str] = {}
    while True:
        body = get(**query)[1]
        seen += re.findall(r'<code title="(\d)\1{39}">', body)
        older = re.search(r"before=([0-9.]+)", body)
        if not older:
            break
        query = {"before": older[1]}
    assert seen == list("9876543210")


def test_a_thousand_functions_are_listed_in_pages(gateway: FakeGateway) -> None:
    for number in range(1000):
        rows = deployed("alice", f"f{number}", at=1_000_000 + number)
        gateway.functions[rows["service"]] = rows
    assert len(json.loads(get({})[1])) == 1000
    body = get()[1]
    assert body.count("<li class=") == 100
    assert "1,000 functions live" in body
    assert ">alice-f999<" in body
    body = get(skip="900")[1]
    assert ">alice-f0<" in body
    assert "Older functions" not in body


def test_a_log_that_cannot_be_read_is_told_and_hides_no_other(
    gateway: FakeGateway, builder: FakeBuilder
) -> None:
    furnish(gateway, builder, time.time())

    def away(method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        return (500, b"the provider has no logs") if path == "/system/logs" else None

    gateway.overrides.append(away)
    status, body = get()
    assert (status, "alice-hello" in body) == (200, True)
    assert "Not all that happened can be shown" in body
    gateway.overrides.clear()
    gateway.overrides.append(lambda *_: (503, b""))
    status, body = get()
    assert status == 503
    assert 'http-equiv="refresh"' in body, "what may work later is looked at again"


@pytest.mark.parametrize("query", [{"before": "x"}, {"before": "nan"}, {"skip": "-1"}, {"function": "<x>"}])
def test_odd_queries_are_400(query: dict[str, str], gateway: FakeGateway) -> None:
    assert get(**query)[0] == 400


def test_a_link_to_a_repository_is_a_link_to_nothing_else(gateway: FakeGateway) -> None:
    rows = deployed("alice", "hello")
    rows["annotations"][f"{CLOUD}git-repo-url"] = "javascript:alert(1)"
    gateway.functions["alice-hello"] = rows
    assert "javascript:" not in get()[1]


def test_many_readers_share_one_reading(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("list_functions.cluster.FRESH_SECONDS", 60)
    for _ in range(3):
        assert get()[0] == 200
    assert len(gateway.made("GET", "/system/logs")) == 4


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (ROOT / "list-functions" / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme]))
    pairs = [(ink, paper) for ink in ("ink", "soft", "link") for paper in ("page", "card")]
    pairs += [(ink, "card") for ink in ("good", "bad", "busy")]
    pairs += [("good", "good-soft"), ("bad", "bad-soft"), ("busy", "busy-soft"), ("soft", "idle-soft")]
    pairs += [("ink", "code"), ("soft", "code"), ("busy", "page")]
    for ink, paper in pairs:
        light, dark = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


@pytest.fixture
def served(gateway: FakeGateway, builder: FakeBuilder, secret_folder: Path, tmp_path: Path) -> Iterator[str]:
    furnish(gateway, builder, time.time())
    environment = {
        "gateway_url": gateway.url,
        "builder_url": builder.url,
        "secret_mount_path": str(secret_folder),
    }
    (tmp_path / "served").mkdir()
    with pages.served(tmp_path / "served", environment) as url:
        yield url


def test_the_template_serves_it_as_it_is(served: str) -> None:
    answer = requests.get(served, params=link(), headers=PAGE, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "alice-hello" in answer.text
    rows: list[Any] = requests.get(served, params=link(), timeout=10).json()
    assert len(rows) == 3
    assert requests.get(served, timeout=10).json()["name"] == "list-functions"
