"""The local cloud's play of GitHub's checks has GitHub's rules, and shows what it was told as text alone."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cachetools import TTLCache

from local import checks
from local.github.store import Commit, Store
from local.github.tokens import Grant, Tokens
from tests.repositories import Origin

from .played import Played

RUNS = "/repos/alice/hello/check-runs"
OUTPUT = {"title": "is live", "summary": "| stage |"}
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    made = Played(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def sha(played: Played, origin: Origin) -> str:
    return played.commit(origin)


def made(played: Played, sha: str, **change: Any) -> int:
    answer = played.call("POST", RUNS, played.token(), {"name": "one", "head_sha": sha, **change})
    assert answer.status_code == 201, answer.text
    return int(answer.json["id"])


def listed(played: Played, sha: str, query: str = "") -> list[int]:
    path = f"/repos/alice/hello/commits/{sha}/check-runs{query}"
    answer = played.call("GET", path, played.token("checks: read"))
    assert answer.status_code == 200, answer.text
    return [run["id"] for run in answer.json["check_runs"]]


def test_the_app_finds_its_installation_by_the_repositorys_id(played: Played, sha: str) -> None:
    found = played.call("GET", f"/repositories/{played.repository.id}/installation", played.signed())
    assert (found.status_code, found.json["account"]["login"]) == (200, "alice")
    assert found.json["id"] == played.repository.owner_id
    assert played.call("GET", "/repositories/1/installation", played.signed()).status_code == 404


REFUSED: dict[str, Callable[[Played], str]] = {
    "nothing": lambda played: "",
    "another key": lambda played: played.signed(checks.made_key()),
    "another App": lambda played: played.signed(iss="2"),
    "an old one": lambda played: played.signed(exp=int(time.time()) - 120),
    "one that never ends": lambda played: played.signed(exp=int(time.time()) + 3600),
    "one of the future": lambda played: played.signed(iat=int(time.time()) + 300),
    "an installation's": lambda played: played.token(),
    "no such thing": lambda played: "x.y.z",
}


@pytest.mark.parametrize("given", REFUSED)
def test_only_what_the_app_signed_now_is_taken_for_the_app(given: str, played: Played, sha: str) -> None:
    token = REFUSED[given](played)
    wanted = {"repository_ids": [played.repository.id], "permissions": {"checks": "write"}}
    tokens = f"/app/installations/{played.repository.owner_id}/access_tokens"
    for method, path in (
        ("GET", f"/repositories/{played.repository.id}/installation"),
        ("POST", tokens),
    ):
        assert played.call(method, path, token, wanted).status_code == 401


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"repository_ids": [1]}, 422, "does not exist or is not accessible"),
        ({"permissions": {"contents": "write"}}, 422, "not granted"),
        ({"permissions": {"metadata": "write"}}, 422, "not granted"),
        ({"permissions": {"checks": "admin"}}, 422, "Invalid request"),
        ({"repository_ids": []}, 422, "Invalid request"),
        ({"repositories": ["hello"]}, 422, "Invalid request"),
    ],
)
def test_a_token_is_for_what_was_granted(
    change: dict[str, Any], status: int, says: str, played: Played, sha: str
) -> None:
    path = f"/app/installations/{played.repository.owner_id}/access_tokens"
    wanted = {"repository_ids": [played.repository.id], "permissions": {"checks": "write"}, **change}
    answer = played.call("POST", path, played.signed(), wanted)
    assert answer.status_code == status
    assert says in answer.json["message"]
    assert (
        played.call("POST", "/app/installations/1/access_tokens", played.signed(), wanted).status_code == 404
    )


def test_a_token_ends_and_is_kept_as_a_digest() -> None:
    tokens = Tokens(TTLCache(10, 0.05))
    token = tokens.mint(Grant("alice/hello", {"checks": "write"}))
    assert tokens.grant(token)
    assert token not in str(vars(tokens))
    time.sleep(0.06)
    assert not tokens.grant(token)


def test_a_token_is_of_use_in_its_repository_for_its_permission_alone(
    played: Played, origin: Origin, sha: str
) -> None:
    played.commit(origin, "other")
    runs, body = f"/repos/alice/hello/commits/{sha}/check-runs", {"name": "one", "head_sha": sha}
    assert played.call("GET", runs).status_code == 401
    assert played.call("GET", runs, played.signed()).status_code == 401
    assert played.call("GET", runs, played.token("metadata: read")).status_code == 403
    assert played.call("GET", runs, played.token("checks: read")).status_code == 200
    assert played.call("POST", RUNS, played.token("checks: read"), body).status_code == 403
    for repository in ("alice/other", "alice/none", "bob/hello", "openfaas-cloud/templates"):
        path = f"/repos/{repository}/check-runs"
        assert played.call("POST", path, played.token(), body).status_code == 404


WRONG: tuple[dict[str, Any], ...] = (
    {"name": ""},
    {"name": 1},
    {"head_sha": "a" * 39},
    {"status": "done"},
    {"status": "completed"},
    {"conclusion": "success"},
    {"status": "completed", "conclusion": "fine"},
    {"details_url": "javascript:alert(1)"},
    {"started_at": "now"},
    {"output": {"title": "t"}},
    {"output": {"title": "t", "summary": ""}},
    {"output": {"title": "t" * 256, "summary": "s"}},
    {"output": {"title": "t", "summary": "s" * 65_536}},
    {"output": {"title": "t", "summary": "s", "text": "t" * 65_536}},
    {"more": "x"},
)


@pytest.mark.parametrize("change", WRONG, ids=lambda change: str(change)[:40])
def test_what_is_no_check_run_is_refused(change: dict[str, Any], played: Played, sha: str) -> None:
    body = {"name": "one", "head_sha": sha, **change}
    answer = played.call("POST", RUNS, played.token(), body)
    assert (answer.status_code, answer.json["message"][:15]) == (422, "Invalid request")
    if "head_sha" not in change:
        number = made(played, sha)
        assert played.call("PATCH", f"{RUNS}/{number}", played.token(), change).status_code == 422
    assert played.shown("alice/hello", sha).get("one", "queued") == "queued"


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b"[]", b'"x"'])
def test_what_is_no_json_object_is_refused(body: bytes, played: Played, sha: str) -> None:
    headers = {"Authorization": f"Bearer {played.token()}", "Content-Type": "application/json"}
    answer = played.app.test_client().post(RUNS, data=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert '"message":"' in answer.text


def test_a_body_is_bounded(played: Played, sha: str) -> None:
    assert played.call("POST", RUNS, played.token(), {"name": "x" * 2 * 1024**2}).status_code == 413


def test_the_longest_texts_are_kept_whole(played: Played, sha: str) -> None:
    text = "ä" * 65_535
    number = made(played, sha, output={"title": "t", "summary": text, "text": text})
    path = f"/repos/alice/hello/commits/{sha}/check-runs"
    [run] = played.call("GET", path, played.token()).json["check_runs"]
    assert (run["id"], run["output"]["summary"], run["output"]["text"]) == (number, text, text)


def test_a_commit_that_was_not_pushed_has_no_checks(played: Played, origin: Origin, sha: str) -> None:
    elsewhere = played.commit(origin, "other")
    for unknown in ("f" * 40, elsewhere, played.repository.git("rev-parse", f"{sha}^{{tree}}")):
        answer = played.call("POST", RUNS, played.token(), {"name": "one", "head_sha": unknown})
        assert (answer.status_code, answer.json["message"]) == (422, f"No commit found for SHA: {unknown}")
        path = f"/repos/alice/hello/commits/{unknown}/check-runs"
        assert played.call("GET", path, played.token()).status_code == 422


def test_a_run_goes_on_until_it_is_completed_and_then_stays(played: Played, sha: str) -> None:
    number = made(played, sha, external_id="x")
    path, token = f"{RUNS}/{number}", played.token()
    run = played.call("PATCH", path, token, {"status": "in_progress"}).json
    assert (run["id"], run["status"], run["conclusion"], run["external_id"]) == (
        number,
        "in_progress",
        None,
        "x",
    )
    done = {"status": "completed", "conclusion": "success", "output": OUTPUT}
    run = played.call("PATCH", path, token, done).json
    assert (run["conclusion"], run["output"]["title"], bool(run["completed_at"])) == (
        "success",
        "is live",
        True,
    )
    for rows in (done, {"status": "queued"}, {}):
        assert played.call("PATCH", path, token, rows).status_code == 422
    assert played.shown("alice/hello", sha) == {"one": "success"}


def test_a_run_that_is_not_there_or_anothers_is_not_found(played: Played, origin: Origin, sha: str) -> None:
    other = played.commit(origin, "other")
    number = played.store.make(Commit("alice/other", other), {"name": "x", "status": "queued"})["id"]
    for unknown in (number, 99, 2**63 - 1, 2**63, 2**200):
        answer = played.call("PATCH", f"{RUNS}/{unknown}", played.token(), {"status": "in_progress"})
        assert answer.status_code == 404, unknown
    assert played.shown("alice/other", other) == {"x": "queued"}


def test_runs_are_listed_by_pages_the_newest_first(played: Played, sha: str) -> None:
    commit = Commit("alice/hello", sha)
    rows = [{"name": f"n{number}", "status": "queued"} for number in range(103)]
    numbers = [played.store.make(commit, row)["id"] for row in rows][::-1]
    assert listed(played, sha) == numbers[:30]
    assert listed(played, sha, "?per_page=100&page=1") == numbers[:100]
    assert listed(played, sha, "?per_page=1000&page=2") == numbers[100:]
    assert listed(played, sha, "?per_page=10&page=4") == numbers[30:40]
    assert listed(played, sha, "?page=99") == []
    assert listed(played, sha, f"?per_page=0&page={10**30}") == []
    assert listed(played, sha, "?per_page=x&page=y") == numbers[:30]


def test_all_runs_of_a_name_are_listed_if_asked_for_else_the_newest(played: Played, sha: str) -> None:
    numbers = [made(played, sha) for _ in range(3)]
    assert listed(played, sha) == numbers[-1:]
    assert listed(played, sha, "?filter=all") == numbers[::-1]


def test_the_newest_runs_are_kept_over_restarts_and_no_number_comes_again(tmp_path: Path) -> None:
    file, commit = tmp_path / "checks.db", Commit("alice/hello", "a" * 40)
    store = Store(file, limit=3)
    for _ in range(5):
        store.make(commit, {"name": "one", "status": "queued"})
    store.close()
    again = Store(file, limit=3)
    assert [run["id"] for run in again.runs(commit)] == [5, 4, 3]
    assert again.make(commit, {"name": "one", "status": "queued"})["id"] == 6
    assert [run["id"] for run in again.runs(commit)] == [6, 5, 4]
    again.close()


def test_a_page_shows_the_newest_run_of_each_name_as_text(played: Played, sha: str) -> None:
    made(
        played,
        sha,
        name="two",
        status="completed",
        conclusion="failure",
        output={"title": "old", "summary": "s"},
    )
    times = {"started_at": "2026-01-01T00:00:00Z", "completed_at": "2026-01-01T00:01:05Z"}
    output = {"title": EVIL, "summary": f"| a |\n```\n{EVIL}\n```", "text": f"**no** {EVIL}\nlast line"}
    done = {"status": "completed", "conclusion": "failure", "output": output, **times}
    made(played, sha, name=f"two {EVIL}", **done)
    made(played, sha, name="two", **done, details_url='http://x/"onclick="alert(1)')
    made(played, sha, name="three", status="in_progress", output=OUTPUT)
    html = played.page(f"/alice/hello/commit/{sha}")
    assert "old" not in html
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 9
    assert "onclick=" in html
    assert '"onclick=' not in html
    assert "<strong>" not in html
    assert "last line</pre>" in html
    assert "65 s" in html
    assert html.count('<section class="failure">') == 2
    assert '<section class="in_progress">' in html
    assert '<meta http-equiv="refresh"' in html, "something goes on"


def test_what_is_over_does_not_look_again(played: Played, sha: str) -> None:
    made(played, sha, status="completed", conclusion="success", started_at="2026-99-99T99:99:99Z")
    assert "http-equiv" not in played.page(f"/alice/hello/commit/{sha}")
    assert "http-equiv" not in played.page("/alice/hello")


def test_pages_run_nothing_and_are_for_light_and_dark(played: Played, sha: str) -> None:
    for path, status in (("/", 200), ("/alice/hello", 200), (f"/alice/hello/commit/{sha}", 200), ("/x", 404)):
        answer = played.call("GET", path)
        assert answer.status_code == status
        [style] = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "prefers-color-scheme: dark" in style


def test_a_commit_is_named_by_a_beginning_that_no_other_has(played: Played, origin: Origin, sha: str) -> None:
    made(played, sha)
    assert sha in played.page(f"/alice/hello/commit/{sha[:7]}")
    for unknown in (sha[:6], "f" * 40, "master", "HEAD", sha.upper(), f"{sha}~1"):
        played.page(f"/alice/hello/commit/{unknown}", 404)
    newer = played.commit(origin)
    played.repository.git("update-ref", f"refs/heads/{sha[:8]}", newer)
    assert newer not in played.page(f"/alice/hello/commit/{sha[:8]}", 404)


@pytest.mark.parametrize(
    "path",
    ["/alice/none", "/../etc", "/alice/..", "/%2e%2e/hello", "/openfaas-cloud/templates", "/alice/hello.git"],
)
def test_only_what_an_author_pushed_has_a_page(path: str, played: Played, sha: str) -> None:
    assert "no such repository" in played.page(path, 404) or "Not Found" in played.page(path, 404)


def test_the_commits_with_checks_are_listed_the_newest_first(
    played: Played, origin: Origin, sha: str
) -> None:
    newer, other = played.commit(origin), played.commit(origin, "other")
    made(played, newer, status="completed", conclusion="success", output=OUTPUT)
    made(played, sha, status="completed", conclusion="success", output=OUTPUT)
    made(played, sha, name="two", status="completed", conclusion="failure", output=OUTPUT)
    played.store.make(Commit("alice/other", other), {"name": "x", "status": "queued"})

    def links(path: str) -> list[str]:
        return re.findall(r'href="/([^"]+/commit/[^"]+)"', played.page(path))

    assert links("/alice/hello") == [f"alice/hello/commit/{sha}", f"alice/hello/commit/{newer}"]
    assert links("/") == [f"alice/other/commit/{other}", *links("/alice/hello")]
    classes = re.findall(r'<li class="(\w+)">', played.page("/"))
    assert classes == ["queued", "failure", "success"]


def test_halves_of_characters_are_no_reason_to_fail(played: Played, sha: str) -> None:
    made(played, sha, name="\ud800", output={"title": "\udfff", "summary": "\x00\ud83d"})
    assert "?" in played.page(f"/alice/hello/commit/{sha}")
    assert len(listed(played, sha)) == 1


@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com", "127.0.0.2:8083"])
def test_a_name_that_the_world_gives_this_address_shows_nothing(host: str, played: Played, sha: str) -> None:
    for path in ("/", f"/alice/hello/commit/{sha}", "/repositories/1/installation"):
        answer = played.app.test_client().get(path, headers={"Host": host})
        assert answer.status_code == 400
        assert "alice" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8083", "localhost:9083", "github:8080"])
def test_it_answers_by_the_names_that_it_has(host: str, played: Played) -> None:
    assert played.app.test_client().get("/healthz", headers={"Host": host}).text == "ok"
