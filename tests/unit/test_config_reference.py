import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.config.reference import check_references, expand, is_reference, referenced_names
from agentforge.errors.config import InvalidReferenceError, MissingVariableError

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)


def test_a_reference_stands_for_the_variable():
    assert expand("${env:A}/x/${env:B}", {"A": "1", "B": "2"}) == "1/x/2"
    assert expand("a $ sign and ${env:A}", {"A": "1"}) == "a $ sign and 1"


@given(NAMES, st.text())
def test_what_a_variable_holds_is_not_expanded_again(name, inner):
    assert expand("${env:" + name + "}", {name: inner + "${env:OTHER}"}) == inner + "${env:OTHER}"


@given(st.text(st.sampled_from("${}env:A b"), max_size=20))
def test_any_text_is_expanded_or_refused(text):
    if check_references(text):
        with pytest.raises(InvalidReferenceError):
            expand(text, {})
    elif referenced_names(text):
        with pytest.raises(MissingVariableError):
            expand(text, {})
    else:
        assert expand(text, {}) == text


@pytest.mark.parametrize(
    "text", ["${env:}", "${env:A", "${ENV:A}", "${A}", "${vault:A}", "${env:A B}", "${env:1A}", "${}"]
)
def test_other_forms_are_refused(text):
    assert not is_reference(text)
    with pytest.raises(InvalidReferenceError):
        expand(text, {"A": "1"})


def test_an_empty_variable_is_missing():
    with pytest.raises(MissingVariableError):
        expand("${env:A}", {"A": ""})


def test_only_a_whole_reference_is_one():
    assert is_reference("${env:A}")
    assert not is_reference("Bearer ${env:A}")
    assert not is_reference("${env:A}${env:B}")
