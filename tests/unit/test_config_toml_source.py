import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from agentforge.config.source import Mark
from agentforge.config.toml_source import parse_toml
from agentforge.errors.config import FileSyntaxError

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
PLAIN = (
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.dates()
    | st.text(st.characters(codec="utf-8"), max_size=20)
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def paths(value, path=()):
    """Every key's path in a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*path, index))


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_every_key_of_any_document_has_its_place(data, multiline):
    text = tomli_w.dumps(data, multiline_strings=multiline)
    source = parse_toml(text, "x.toml")
    assert source.data == tomllib.loads(text)
    assert set(source.keys) == set(paths(source.data))
    lines = text.replace("\r\n", "\n").split("\n")
    for path, mark in source.keys.items():
        rest = lines[mark.line - 1][mark.column - 1 :]
        key = str(path[-1])
        assert rest.startswith((key, "'" + key, '"')), (path, rest)


def test_places_of_all_forms_that_a_writer_does_not_write():
    text = """\
# a comment with [brackets] and = signs
title = "a # b" # not = here
a.b . "c d" = 1
[t.u]   # header
x = [ 1, # one
  { y = 2, z = [3] }, ]
[[l]]
k = 1
[l.sub]
m = 1979-05-27 07:32:00
[[l]]
k = '''
k = "no"
'''
n = { o.p = 1 }
"""
    source = parse_toml(text, "x.toml")
    assert set(source.keys) == set(paths(source.data))
    assert source.keys[("a", "b", "c d")] == Mark(3, 7)
    assert source.keys[("t", "u", "x", 1, "z")] == Mark(6, 12)
    assert source.values[("t", "u", "x", 1, "z", 0)] == Mark(6, 17)
    assert source.keys[("l", 0, "sub", "m")] == Mark(10, 1)
    assert source.keys[("l", 1, "k")] == Mark(12, 1)
    assert source.keys[("l", 1, "n", "o", "p")] == Mark(15, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[sandbox]\nlevel = standard\n",
            "`p.toml:2:9`: not valid TOML: invalid value, at `level = standard`",
        ),
        ("a = 1\na = 2\n", "`p.toml:2:6`: not valid TOML: cannot overwrite a value, at `a = 2`"),
        ("[models", "`p.toml:1:8`: not valid TOML: expected ']' at the end of a table declaration, at `[models`"),
        ("api_key = sk-12345", "`p.toml:1:11`: not valid TOML: invalid value"),
    ],
)
def test_a_syntax_error_names_the_place_and_never_shows_a_secret(text, message):
    with pytest.raises(FileSyntaxError) as caught:
        parse_toml(text, "p.toml")
    assert caught.value.message == message
    assert "quotes" in caught.value.hint


def test_a_document_nested_too_deeply_is_an_error_of_ours():
    with pytest.raises(FileSyntaxError):
        parse_toml("a = " + "[" * 100_000, "p.toml")
