"""The secrets of tools are in nothing that a tool worker sends, whatever it puts them into."""

from agentforge.engine.redaction import Redaction
from agentforge.gateway import Secret

KEY = "sk-0123456789"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nshort\n-----END PRIVATE KEY-----\n"


def test_a_secret_is_replaced_in_texts_keys_and_whatever_holds_them() -> None:
    redaction = Redaction([Secret(KEY)])
    value = {"a": [f"x{KEY}y", 1, None, True, 2.5], KEY: {"deep": (KEY,)}}
    assert redaction.value(value) == {
        "a": ["x[redacted]y", 1, None, True, 2.5],
        "[redacted]": {"deep": ["[redacted]"]},
    }


def test_of_two_secrets_the_one_that_holds_the_other_goes_first() -> None:
    redaction = Redaction([Secret(KEY), Secret(f"{KEY}-and-more")])
    assert redaction.text(f"{KEY}-and-more {KEY}") == "[redacted] [redacted]"


def test_of_a_secret_with_several_lines_each_long_one_is_a_secret() -> None:
    redaction = Redaction([Secret(PEM)])
    assert redaction.text(PEM) == "[redacted]"
    assert redaction.text("  MIIEvQIBADANBgkqhkiG9w0B") == "  [redacted]"
    assert redaction.text("short") == "short"


def test_placeholders_are_no_secrets() -> None:
    redaction = Redaction([Secret("none"), Secret("")])
    assert redaction.text("none of it") == "none of it"


def test_without_secrets_a_value_is_given_on_as_it_is() -> None:
    value = {"a": [KEY]}
    assert Redaction().value(value) is value
    assert not Redaction()


def test_a_redaction_shows_no_secret_itself() -> None:
    assert KEY not in repr(vars(Redaction([Secret(KEY)])))
