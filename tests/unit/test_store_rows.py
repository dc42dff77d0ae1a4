"""What goes into a row comes out of it again."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentforge.errors.store import ValueNotStorable
from agentforge.store import BlobId
from agentforge.store.blobs import FileBlobs
from agentforge.store.rows import decode, encode

texts = st.text(st.characters(exclude_categories=[]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@given(values)
def test_any_json_value_survives(value) -> None:
    assert decode(encode(value)) == value


@pytest.mark.parametrize("value", [object(), {"x": object}, lambda: None, ["\ud800", object()]])
def test_what_json_cannot_hold_is_refused(value) -> None:
    with pytest.raises(ValueNotStorable):
        encode(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueNotStorable):
        encode(value)


@pytest.mark.parametrize("durable", [False, True])
def test_any_bytes_survive_as_a_blob(tmp_path: Path, durable: bool) -> None:
    blobs = FileBlobs(tmp_path / "blobs", durable=durable)
    blobs.prepare()

    @settings(max_examples=20)
    @given(st.binary())
    def survives(data: bytes) -> None:
        assert blobs.get(blobs.put(data)) == data

    survives()
    assert list(tmp_path.rglob(".*")) == []


def test_a_blob_that_was_cut_short_is_written_again(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path, durable=False)
    blob = blobs.put(b"whole")
    (tmp_path / blob[:2] / blob[2:]).write_bytes(b"who")
    assert blobs.put(b"whole") == blob
    assert blobs.get(BlobId(blob)) == b"whole"
