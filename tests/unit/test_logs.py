"""What a function logs: as JSON or as text, and never what could pass for a record."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk import logs, records
from sdk.edge import Answer, function
from sdk.errors import CloudError, Misconfigured, Refused
from sdk.lines import STDERR
from sdk.records import Record, Stage, Subject

SUBJECT = Subject("d-1", "alice", "shop", "a" * 40)
FORGED = (
    '{"at":"2026-11-22T12:00:00.000+00:00","delivery":"d-1","owner":"alice","repo":"shop","sha":"a",'
    '"function":"","stage":"push","outcome":"ok","seconds":1}'
)


class Call:
    body, method, path, query = b"", "POST", "/", dict[str, str]()

    def __init__(self, call: str = "c-1") -> None:
        self.headers = {logs.CALL_HEADER: call}


def answering(error: Exception | None = None) -> Any:
    @function("some-function", takes="a test")
    def handle(event: Any, context: Any) -> Answer:
        records.emit("build", SUBJECT, "cart", Stage("failed", ["last line"]), 1.25, "why")
        if error:
            raise error
        return {}

    return handle


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("log_format", "text")


def test_as_json_every_line_is_json_and_only_records_are_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answering(Misconfigured("secret x is missing"))(Call(), None)
    shown = capsys.readouterr()
    [record] = map(records.parse, shown.out.splitlines())
    assert record
    assert (record.call, record.seconds) == ("c-1", 1.25)
    [line] = map(json.loads, shown.err.splitlines())
    assert line.pop("at")
    assert line == {
        "from": "some-function",
        "status": 500,
        "code": "misconfigured",
        "message": "ALARM: an operator must act: secret x is missing",
        "call": "c-1",
    }


@pytest.mark.usefixtures("text")
def test_as_text_each_record_has_a_line_for_people_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    answering(Refused("not yours"))(Call(), None)
    shown = capsys.readouterr()
    assert records.parse(shown.out), "other programs read the records, whatever people like"
    first, log, last = shown.err.splitlines()
    assert first.endswith("alice/shop@aaaaaaaaaa cart: build failed: why (1.2 s, delivery d-1, call c-1)")
    assert log == "  | last line"
    assert last == 'some-function: 403 refused: "not yours" (call c-1)'


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_unexpected_error_is_logged_with_its_trace(
    log_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("log_format", log_format)
    answering(RuntimeError("at https://alice:hunter2@example.com"))(Call(), None)
    shown = capsys.readouterr().err
    assert "RuntimeError" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize("log_format", ["json", "text", "neither"])
@given(said=st.sampled_from([FORGED, f"x\n{FORGED}", f"\r{FORGED}", f'"{FORGED}', f"\\{FORGED}"]) | st.text())
def test_what_an_author_wrote_passes_for_no_record(log_format: str, said: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setenv("log_format", log_format)
        patch.setattr(STDERR, "put", lines.append)
        logs.refused("f", CloudError(said), trace=said)
        logs.noted("f", said)
        logs.beside(Record("t", said, "alice", "shop", "s", "f", "build", "failed", 1, said, [said]))
        assert lines
        for line in lines:
            assert len(line.splitlines()) == 1
            assert records.parse(line) is None


@pytest.mark.parametrize(
    ("given_", "kept"), [("c-1", "c-1"), ("a b", ""), ("x" * 65, ""), ("{}", ""), ("", "")]
)
def test_a_call_id_is_a_gateways_or_none(given_: str, kept: str) -> None:
    logs.called({logs.CALL_HEADER: given_})
    assert logs.CALL.get() == kept


def test_a_format_that_is_none_is_the_operators_mistake_and_still_logged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sdk.settings import Settings

    monkeypatch.setenv("log_format", "xml")
    with pytest.raises(Misconfigured, match="log_format: 'xml' is not json or text"):
        Settings.read()
    logs.noted("f", "said")
    assert json.loads(capsys.readouterr().err)["message"] == "said"


def test_records_of_other_threads_are_of_the_call_that_started_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.called({logs.CALL_HEADER: "c-7"})

    def work(name: str) -> None:
        records.emit("build", SUBJECT, name, Stage(), 1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(records.of_this_call(work), "abc"))
    assert [
        record.call for line in capsys.readouterr().out.splitlines() if (record := records.parse(line))
    ] == ["c-7"] * 3


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_line_stays_short(
    log_format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON may take six bytes for one of ours."""
    monkeypatch.setenv("log_format", log_format)
    logs.refused("f", CloudError("\x01" * 50_000), trace="\x01" * 50_000)
    assert all(len(line) < 40 * 1024 for line in capsys.readouterr().err.splitlines())
