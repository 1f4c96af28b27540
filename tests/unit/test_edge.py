from __future__ import annotations

import json
from typing import Any

import pytest

from sdk import errors
from sdk.edge import Answer, Event, answer, function
from sdk.errors import CloudError, Refused, Unavailable
from tests.contract.fakes import Event as Call


def handler_that(raises: Exception | None = None) -> Any:
    @function("some-function", takes="a test")
    def handle(event: Event, context: Any) -> Answer:
        if raises:
            raise raises
        return answer(201, {"done": "ü"})

    return handle


def kinds(base: type[CloudError] = CloudError) -> list[type[CloudError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


def test_an_answer_is_json() -> None:
    got = handler_that()(Call(), None)
    assert (got["statusCode"], json.loads(got["body"])) == (201, {"done": "ü"})
    assert got["headers"]["Content-Type"] == "application/json"


@pytest.mark.parametrize("kind", kinds())
def test_every_error_is_its_status_and_one_shape_and_never_200(kind: type[CloudError]) -> None:
    """Flaw 11: errors were answered with HTTP 200."""
    got = handler_that(kind("why", details={"log": ["x"]}))(Call(), None)
    assert got["statusCode"] == kind.status >= 400
    assert json.loads(got["body"]) == {"error": {"code": kind.code, "message": "why", "log": ["x"]}}


def test_codes_and_statuses_tell_errors_apart() -> None:
    found = kinds()
    assert len({kind.code for kind in found}) == len(found)
    assert all(f"{kind.__name__} " in (errors.__doc__ or "") for kind in found)


def test_what_may_work_later_says_when() -> None:
    assert handler_that(Unavailable("busy", retry_after=7))(Call(), None)["headers"]["Retry-After"] == "7"


def test_an_unexpected_error_is_500_and_shows_nothing_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    got = handler_that(RuntimeError("hunter2"))(Call(), None)
    assert got["statusCode"] == 500
    assert "hunter2" not in got["body"]
    assert "see the log of some-function" in got["body"]
    assert "hunter2" in capsys.readouterr().err, "the operator sees the trace"


def test_get_tells_what_the_function_is() -> None:
    got = json.loads(handler_that()(Call(method="GET"), None)["body"])
    assert (got["name"], got["takes"]) == ("some-function", "a test")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 418, 422, 429, 500, 502, 503, 504])
@pytest.mark.parametrize(
    "body", [b"", b"plain", b'{"error": {"message": "why", "log": ["l"]}}', b'{"error": 5}']
)
def test_a_neighbours_answer_becomes_an_error_that_keeps_its_message(status: int, body: bytes) -> None:
    error = errors.received("of-builder", status, body)
    assert error.status >= 400
    assert isinstance(error, Unavailable) == (status in errors.RETRIED)
    if b"why" in body:
        assert error.message.startswith("why")
        assert error.details == {"log": ["l"]} or status == 401


def test_an_error_is_one_line_of_the_log_whatever_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    handler_that(Refused('x\n{"a": "line of its own"}\n\u2028y'))(Call(), None)
    assert len(capsys.readouterr().err.splitlines()) == 1
