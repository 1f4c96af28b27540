"""The recorded rows run with those of stack.yml (test_stack.py); here is what they leave out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk.errors import Malformed
from sdk.substitution import substitute

ENVIRONMENT = {"A": "alpha", "P": "a/b/c.tar.gz", "U": "äöü"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A:1:3}", "lph"),
        ("${A:9}", ""),
        ("${A:-2}", "alpha"),  # a default, not an offset
        ("${P%%.*}-${P##*/}", "a/b/c-c.tar.gz"),
        ("${P#*/}", "b/c.tar.gz"),
        ("${A/a/}", "lpha"),
        ("${A/#al/AL}", "ALpha"),
        ("${A/x/y}", "alpha"),
        ("${#U}", "6"),
        ("${U^^}", "ÄÖÜ"),
        ("${X:-${Y:-${A}}}", "alpha"),
        ("$$A $B $", "$A $B $"),
        (r"a\\b\/c\d", r"a\b/c\d"),
        ("${A%[gh]a}", "alpha"),
        ("${A%ha}", "alp"),
    ],
)
def test_it_substitutes_as_faas_cli_does(text: str, expected: str) -> None:
    assert substitute(text, ENVIRONMENT) == expected


@pytest.mark.parametrize(
    "text", ["${", "${A", "${}", "${A-d}", "${{ x }}", "${A:}", "${A:-x", "${A/x}", "${#}"]
)
def test_what_is_no_expression_names_its_line(text: str) -> None:
    with pytest.raises(Malformed, match="line 3: substitution: "):
        substitute(f"one\ntwo\n{text}", ENVIRONMENT)


def test_nesting_is_bounded() -> None:
    with pytest.raises(Malformed, match="levels"):
        substitute("${A:-" * 5_000, {})


@given(st.text(alphabet="${}A:-=?+^,/#%*[]\\ x\n", max_size=40), st.dictionaries(st.just("A"), st.text()))
def test_any_text_is_substituted_or_malformed(text: str, environment: dict[str, str]) -> None:
    try:
        substitute(text, environment)
    except Malformed:
        return


@given(st.text(alphabet=st.characters(exclude_characters="$\\")))
def test_text_without_expressions_stays(text: str) -> None:
    assert substitute(text, {}) == text
