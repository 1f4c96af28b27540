from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk import stack
from sdk.errors import Malformed
from sdk.stack import Function, Resources
from tests.conftest import DATA

from .differences import STACK

ROWS = json.loads((DATA / "faas-cli" / "stack-parse.json").read_text())["rows"]
PARSED = [row for row in ROWS if row["in"]["op"] == "parse" and not {"regex", "filter"} & set(row["in"])]

GO_NAMES = {
    "Language": "lang",
    "FProcess": "fprocess",
    "ReadOnlyRootFilesystem": "readonly_root_filesystem",
    "SkipBuild": "skip_build",
    "EnvironmentFile": "environment_file",
    "BuildOptions": "build_options",
    "BuildArgs": "build_args",
    "BuildSecrets": "build_secrets",
}


def as_recorded(function: Function) -> dict[str, Any]:
    """The function's fields that are set, as the recording's would be after `from_go`."""
    rows = {row.name: getattr(function, row.name) for row in fields(Function) if row.name != "name"}
    rows = {key: list(value) if isinstance(value, tuple) else value for key, value in rows.items()}
    rows = {key: vars(value) if isinstance(value, Resources) else value for key, value in rows.items()}
    return {key: value for key, value in rows.items() if value and any_set(value)}


def from_go(function: dict[str, Any]) -> dict[str, Any]:
    rows = {GO_NAMES.get(key, key.lower()): value for key, value in function.items()}
    for key in ("limits", "requests"):
        if key in rows:
            rows[key] = {name.lower(): value for name, value in rows[key].items()}
    return {key: value for key, value in rows.items() if value and any_set(value)}


def any_set(value: object) -> bool:
    return any(value.values()) if isinstance(value, dict) and set(value) == {"memory", "cpu"} else True


@pytest.mark.parametrize("row", PARSED, ids=[row["name"][:60] for row in PARSED])
def test_every_recorded_row_is_read_as_faas_cli_reads_it(row: dict[str, Any]) -> None:
    given_ = row["in"]
    try:
        found = stack.parse(given_["data"], given_.get("env"))
    except Malformed:
        assert "error" in row["out"]
        return
    if row["name"] in STACK:
        return
    services = row["out"]["services"]
    assert {function.name: as_recorded(function) for function in found.functions} == {
        name: from_go(function) for name, function in (services["Functions"] or {}).items()
    }
    assert found.version == services["Version"]
    assert found.provider.gateway == services["Provider"]["GatewayURL"]
    sources = services["Configuration"].get("TemplateConfigs") or []
    assert [(source.name, source.source) for source in found.configuration.templates] == [
        (source["Name"], source["Source"]) for source in sources
    ]
    assert list(found.configuration.copy) == (services["Configuration"].get("CopyExtraPaths") or [])


def test_all_problems_are_told_together_with_their_lines() -> None:
    text = """\
version: 2
provider:
  name: kubernetes
functions:
  one:
    image: [a]
    secrets: s
    secrets: t
  two:
    skip_build: perhaps
    environment: [a]
"""
    with pytest.raises(Malformed) as raised:
        stack.parse(text)
    lines = raised.value.message.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "line 1",
        "line 3",
        "line 6",
        "line 7",
        "line 8",
        "line 10",
        "line 11",
    ]
    assert "functions.one.image: a text is expected, not a list" in raised.value.message


def test_half_a_surrogate_pair_is_no_text() -> None:
    for text in ('environment: {A: "\\ud800"}', 'environment: {"\\ud800": A}', 'handler: "\\udfff"'):
        with pytest.raises(Malformed, match="half of a surrogate pair"):
            stack.parse(f"provider: {{name: openfaas}}\nfunctions: {{f: {{{text}}}}}")


def test_the_platforms_own_variables_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYLOAD_SECRET", "hunter2")
    text = "provider: {name: openfaas}\nfunctions: {f: {image: 'x${PAYLOAD_SECRET:-default}'}}"
    assert stack.parse(text).functions[0].image == "xdefault"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "functions: &f {f: *f}\nprovider: {name: openfaas}",
        "x: &x {<<: *x}\nprovider: {name: openfaas}\nfunctions: {f: *x}",
        "[" * 10_000,
        "a: " * 10_000,
        "\x00",
        "\ud800",
    ],
)
def test_text_that_leads_in_circles_or_too_deep_ends(text: str) -> None:
    try:
        stack.parse(text)
    except Malformed:
        return


def test_aliases_that_multiply_are_bounded() -> None:
    many = "\n".join(f"  k{number}: v" for number in range(5_000))
    functions = "\n".join(f"  f{number}: {{environment: *e}}" for number in range(500))
    with pytest.raises(Malformed, match="entries"):
        stack.parse(f"e: &e\n{many}\nprovider: {{name: openfaas}}\nfunctions:\n{functions}\n")


def test_a_file_too_large_or_no_text_is_malformed() -> None:
    with pytest.raises(Malformed, match="bytes"):
        stack.parse(b"#" * (stack.SIZE_LIMIT + 1))
    with pytest.raises(Malformed, match="UTF-8"):
        stack.parse(b"\xff\xfe")


@given(st.text() | st.binary())
def test_whatever_the_text_it_is_a_stack_or_malformed(data: str | bytes) -> None:
    try:
        stack.parse(data)
    except Malformed:
        return


YAML_PIECES = st.sampled_from(
    "provider: name openfaas functions f g : - { } [ ] , & * a b << ! !! | > ' \" # ${ } ${A:-x} \n   \t "
    "image lang skip_build yes ~ 1.0 version ---".split(" ")
)


@given(st.lists(YAML_PIECES, max_size=60))
def test_whatever_looks_like_yaml_is_a_stack_or_malformed(pieces: list[str]) -> None:
    try:
        stack.parse("provider: {name: openfaas}\n" + " ".join(pieces))
    except Malformed:
        return


@given(st.binary())
def test_an_environment_file_is_a_map_of_texts_or_malformed(data: bytes) -> None:
    try:
        found = stack.parse_environment_file(data)
    except Malformed:
        return
    assert all(isinstance(value, str) for value in found.values())
