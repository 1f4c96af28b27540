from __future__ import annotations

import contextlib
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.gateway.settings import Settings as GatewaySettings
from local.state import Ports
from of_builder.settings import Settings as BuilderSettings
from registry.settings import Settings as RegistrySettings
from sdk.errors import Misconfigured
from sdk.settings import Settings, read
from tests.conftest import ROOT

TABLES = (Settings, BuilderSettings, GatewaySettings, RegistrySettings, Ports)


def test_the_environment_is_read_at_call_time_and_empty_means_default() -> None:
    assert Settings.read({}).build_branch == "master"
    assert Settings.read({"build_branch": " "}).build_branch == "master"
    assert Settings.read({"build_branch": "main"}).build_branch == "main"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1m30s", 90), ("15m", 900), ("2h", 7200), ("500ms", 0.5), ("1.5s", 1.5)],
)
def test_durations_are_written_as_in_go(text: str, seconds: float) -> None:
    assert Settings.read({"deploy_timeout": text}).deploy_timeout == seconds


def test_lists_and_pairs_are_comma_separated() -> None:
    settings = Settings.read({"custom_templates": "https://a/b.git#v1, /c", "build_args": "A=1, B=x=y"})
    assert settings.custom_templates == ("https://a/b.git#v1", "/c")
    assert dict(settings.build_args) == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("deploy_timeout", "soon"),
        ("functions_limit", "many"),
        ("functions_limit", "-1"),
        ("basic_auth", "perhaps"),
        ("build_args", "A"),
        ("build_args", "=1"),
    ],
)
def test_a_value_that_is_none_names_its_setting(name: str, text: str) -> None:
    with pytest.raises(Misconfigured, match=name):
        Settings.read({name: text})


@given(st.sampled_from([row.name for row in fields(Settings)]), st.text())
def test_any_text_is_a_value_or_misconfigured(name: str, text: str) -> None:
    with contextlib.suppress(Misconfigured):
        Settings.read({name: text})


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_has_a_meaning_and_is_in_the_docs(table: type) -> None:
    docs = (ROOT / "docs" / "settings.md").read_text()
    for row in fields(table):
        assert row.metadata["meaning"]
        assert f"| `{row.name}` |" in docs, f"docs/settings.md lacks {row.name} of {table}"


def test_gateway_config_yml_names_only_settings_that_exist() -> None:
    from sdk.stack import parse_environment_file

    given_ = parse_environment_file((ROOT / "gateway_config.yml").read_bytes())
    assert set(given_) <= {row.name for row in fields(Settings)}
    assert Settings.read(given_) == read(Settings, given_)
