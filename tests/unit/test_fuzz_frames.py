"""The corpus of the fuzzer of frames, replayed; and the same trial with what Hypothesis thinks of."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentforge_worker.wire import Method

_TESTS = Path(__file__).parents[1]
CORPUS = sorted((_TESTS / "data/fuzz/frames").iterdir())


def _fuzzer() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_frames", _TESTS / "fuzz/fuzz_frames.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fuzzer = _fuzzer()


def test_the_corpus_is_there_and_small() -> None:
    assert len(CORPUS) >= 11
    assert sum(file.stat().st_size for file in CORPUS) < 500_000


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name[:20])
def test_what_the_fuzzer_found_does_no_harm(file: Path) -> None:
    fuzzer.take(file.read_bytes())


@given(st.binary(max_size=500))
def test_no_bytes_do_harm(data: bytes) -> None:
    fuzzer.take(data)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = [value for name, value in vars(Method).items() if name.isupper()]
fields = ["run_id", "attempt", "name", "arguments", "kind", "data", "stream", "text", "id", "question", "agent"]
messages = st.fixed_dictionaries(
    {"jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0"])},
    optional={
        "id": st.integers(0, 3) | st.text(max_size=3) | values,
        "method": st.sampled_from(names) | values,
        "params": st.dictionaries(st.sampled_from(fields), values, max_size=5) | values,
        "result": values,
        "error": values | st.fixed_dictionaries({"code": st.integers()}, optional={"message": values, "data": values}),
    },
)


@settings(max_examples=300)
@given(st.lists(messages, max_size=6), st.integers(0, 255))
def test_no_messages_do_harm(sent: list[Any], flags: int) -> None:
    text = b"\0".join(json.dumps(each).encode() for each in sent)
    fuzzer.take(bytes([flags & ~1]) + text)
