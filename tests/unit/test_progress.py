"""buildx's output: as log lines, and whose fault a failure is."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from of_builder.progress import Failure, Progress
from sdk.builder import Step

VERTEX = {"digest": "sha256:1", "name": "[2/4] RUN make"}


def log(text: str) -> dict[str, Any]:
    return {"vertex": "sha256:1", "stream": 1, "data": base64.b64encode(text.encode()).decode()}


STATUSES = [
    {"vertexes": [{**VERTEX, "started": "2026-11-22T12:00:00Z"}]},
    {"logs": [log("compiling\nlinking\n")]},
    {"vertexes": [{**VERTEX, "started": "x", "completed": "y"}]},
    {"vertexes": [{"digest": "sha256:2", "name": "[3/4] COPY", "completed": "y", "cached": True}]},
]
LINES = ["#1 [2/4] RUN make", "#1 compiling", "#1 linking", "#1 DONE 0.0s", "#2 [3/4] COPY", "#2 CACHED"]


@pytest.mark.parametrize("indent", [None, 1, 4], ids=["one line", "several lines", "indented"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_objects_over_one_line_or_several_in_any_pieces_are_read(indent: int | None, size: int) -> None:
    text = "\n".join(json.dumps(status, indent=indent) for status in STATUSES) + "\n"
    progress = Progress()
    found = [line for at in range(0, len(text), size) for line in progress.feed(text[at : at + size])]
    assert [*found, *progress.close()] == LINES


FAILURE = """\
------
 > [2/2] RUN make:
0.1 make: *** no rule
------
Dockerfile:2
--------------------
   2 | >>> RUN make
--------------------
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2
"""


def test_a_failure_keeps_the_dockerfiles_own_lines_and_says_why() -> None:
    progress = Progress()
    failed = {"vertexes": [{**VERTEX, "completed": "y", "error": "exit code: 2"}]}
    lines = [*progress.feed(json.dumps(failed) + "\n" + FAILURE), *progress.close()]
    assert lines[:2] == ["#1 [2/4] RUN make", "#1 ERROR: exit code: 2"]
    assert "   2 | >>> RUN make" in lines
    said = 'Dockerfile line 2: process "/bin/sh -c make" did not complete successfully: exit code: 2'
    assert progress.failure() == Failure(said, "step")


def test_a_failed_step_gives_its_reason_in_its_own_words() -> None:
    progress = Progress()
    said = log("ERROR: No matching distribution found for nothing\n[notice] a new release of pip\n")
    other = {
        "vertexes": [{"digest": "sha256:2", "name": "RUN x"}],
        "logs": [{**log("Error: x"), "vertex": "2"}],
    }
    failed = {"vertexes": [{**VERTEX, "completed": "y", "error": "exit code: 1"}]}
    text = "".join(json.dumps(status) + "\n" for status in (*STATUSES[:2], {"logs": [said]}, other, failed))
    list(progress.feed(text + FAILURE))
    own = "ERROR: No matching distribution found for nothing (Dockerfile line 2: process"
    assert progress.failure().error.startswith(own)


@pytest.mark.parametrize(
    ("text", "reason", "code"),
    [
        ("failed to solve: dockerfile parse error on line 2: unknown instruction: FRM", "syntax", "failed"),
        (
            'failed to compute cache key: failed to calculate checksum of ref a::b: "/x": not found',
            "copy",
            "failed",
        ),
        ('process "/bin/sh -c x" did not complete successfully: exit code: 7', "step", "failed"),
        ('process "/bin/sh -c x" did not complete successfully: exit code: 137', "memory", "failed"),
        ('process "/bin/sh -c x" did not complete successfully: exit code: 153', "file_size", "failed"),
        ('process "curl" did not complete successfully: connection refused', "step", "failed"),
        (
            "a:1: failed to resolve source metadata for a:1: dial tcp: lookup a: no such host",
            "base",
            "failed",
        ),
        ("a:1: failed to resolve source metadata for a:1: a:1: not found", "base", "failed"),
        ("a:1: failed to resolve source metadata for a:1: dial tcp: i/o timeout", "base", "unavailable"),
        ("a:1: failed to resolve source metadata for a:1: toomanyrequests: slow down", "base", "unavailable"),
        (
            "a: failed to resolve source metadata for a: could not resolve image due to policy: source "
            '"docker-image://a" denied by policy: source denied by policy',
            "policy",
            "failed",
        ),
        ("failed to solve: failed to load LLB: network.host is not allowed", "policy", "failed"),
        (
            "failed to solve: failed to push 127.0.0.1:5000/a: connect: connection refused",
            "registry",
            "unavailable",
        ),
        ("failed to push 127.0.0.1:5000/a: unexpected status: 401 Unauthorized", "registry", "misconfigured"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "buildkit", "unavailable"),
        ("failed to solve: Unavailable: connection error", "buildkit", "unavailable"),
        (
            "failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF",
            "buildkit",
            "unavailable",
        ),
        ("context deadline exceeded", "buildkit", "unavailable"),
        (
            'failed to do request: Head "https://r/v2/": http: server gave HTTP response',
            "registry",
            "unavailable",
        ),
        ("failed to solve: write /x: no space left on device", "disk", "unavailable"),
        ("failed to solve: something new", "build", "failed"),
    ],
)
def test_the_authors_failures_are_told_from_ours(text: str, reason: str, code: str) -> None:
    progress = Progress()
    list(progress.feed(f"ERROR: {text}\n"))
    failure = progress.failure()
    assert (failure.reason, failure.code) == (reason, code)


def test_steps_have_their_seconds_and_whether_they_were_cached() -> None:
    progress = Progress()
    times = {"started": "2026-11-22T12:00:00.5Z", "completed": "2026-11-22T12:00:02.250000001Z"}
    for status in ({"vertexes": [{**VERTEX, **times}]}, STATUSES[3], {"vertexes": [{**VERTEX, **times}]}):
        list(progress.feed(json.dumps(status)))
    assert progress.steps() == [Step("[2/4] RUN make", 1.75), Step("[3/4] COPY", 0.0, cached=True)]


def test_a_long_failure_keeps_its_end_and_whose_fault_it_is() -> None:
    progress = Progress()
    long = f'ERROR: failed to solve: process "{"x" * 100_000}" did not complete successfully: exit code: 7'
    status = {"vertexes": [{**VERTEX, "name": "y" * 100_000, "completed": "y", "error": long}]}
    lines = [*progress.feed(f"{json.dumps(status)}\n{long}\n"), *progress.close()]
    text = progress.failure().error
    assert (text[:12], text[-12:], progress.failure().code) == ('process "xxx', "exit code: 7", "failed")
    assert [len(line) < 500 for line in (*lines, text)] == [True] * 4


def test_a_failure_without_a_word_says_so() -> None:
    assert "without a word" in Progress().failure().error


@given(st.lists(st.one_of(st.text(), st.builds(str.__mul__, st.text(max_size=3), st.just(20_000)))))
def test_any_output_is_lines_that_are_short_as_json(pieces: list[str]) -> None:
    progress = Progress()
    lines = [line for piece in pieces for line in progress.feed(piece)]
    assert all(line.strip() for line in lines)
    for text in (*lines, *progress.close(), progress.failure().error):
        assert len(msgspec.json.encode(text)) < 4096
