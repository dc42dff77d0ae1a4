import asyncio
import contextvars
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import threading
import uuid
from typing import Any, Literal, TypedDict

import jsonschema
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge_worker.tools import ArgumentsError, ResultError, ToolContext, bind, call, describe, to_json


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.0
    color: Color = Color.RED

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x is negative")


@dataclasses.dataclass
class Tree:
    name: str
    children: "list[Tree]" = dataclasses.field(default_factory=list)


class Row(TypedDict, total=False):
    id: int


class Model(pydantic.BaseModel):
    title: str
    size: int = 1


def read(annotation, value):
    """What a parameter of a type gets for a JSON value."""

    def function(x):
        return x

    function.__annotations__["x"] = annotation
    return bind(function, {"x": value}, {})[0]()


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (str, "a", "a"),
        (int, 3, 3),
        (int, 3.0, 3),
        (int, "3", 3),
        (float, 3, 3.0),
        (float, "1e3", 1000.0),
        (bool, True, True),
        (bool, "False", False),
        (Any, {"a": [1]}, {"a": [1]}),
        (list[int], ["1", 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[str], ["a", "a"], {"a"}),
        (frozenset[int], [1], frozenset({1})),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (int | None, None, None),
        (int | str, "3", "3"),
        (int | float, 2.5, 2.5),
        (float | int, 3, 3),
        (list[int] | int, "3", 3),
        (Literal["a", 1], 1, 1),
        (Literal[1, 2], "2", 2),
        (Literal[1, True], True, True),
        (Color, "red", Color.RED),
        (Color, "BLUE", Color.BLUE),
        (Literal[Color.RED], "red", Color.RED),
        (datetime.date, "2026-01-31", datetime.date(2026, 1, 31)),
        (
            datetime.datetime,
            "2026-01-31T09:30:00Z",
            datetime.datetime(2026, 1, 31, 9, 30, tzinfo=datetime.UTC),
        ),
        (datetime.time, "09:30:00", datetime.time(9, 30)),
        (uuid.UUID, "12345678123456781234567812345678", uuid.UUID("12345678123456781234567812345678")),
        (pathlib.Path, "a/b", pathlib.Path("a/b")),
        (decimal.Decimal, 0.1, decimal.Decimal("0.1")),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (Point, {"x": 1, "color": "blue"}, Point(1.0, 0.0, Color.BLUE)),
        (list[Point], [{"x": "2"}], [Point(2.0)]),
        (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree("a", [Tree("b")])),
        (Row, {"id": 1}, {"id": 1}),
        (Model, {"title": "t"}, Model(title="t")),
    ],
    ids=str,
)
def test_a_value_becomes_what_the_annotation_says(annotation, value, expected):
    found = read(annotation, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (str, 3, "`x`: expected a string, got 3"),
        (int, "three", "`x`: expected an integer, got 'three'"),
        (int, 2.5, "`x`: expected an integer, got 2.5"),
        (int, True, "`x`: expected an integer, got True"),
        (float, "nan", "`x`: expected a number, got 'nan'"),
        (bool, 1, "`x`: expected true or false, got 1"),
        (list[int], [1, "b"], "`x[1]`: expected an integer, got 'b'"),
        (list[int], "[1]", "`x`: expected a list, got '[1]'"),
        (tuple[int, str], [1], "`x`: expected a list of 2, got [1]"),
        (set[list], [[1]], "`x`: expected a list of plain values, got [[1]]"),
        (dict[str, int], {"a": "b"}, "`x.a`: expected an integer, got 'b'"),
        (int | None, "b", "`x`: expected an integer or null, got 'b'"),
        (list[int] | None, ["b"], "`x[0]`: expected an integer, got 'b'"),
        (Literal["a", "b"], "c", "`x`: expected one of 'a', 'b', got 'c'"),
        (Color, "green", "`x`: expected one of 'red', 'blue', got 'green'"),
        (datetime.date, "tomorrow", "`x`: expected a date such as 2026-01-31, got 'tomorrow'"),
        (decimal.Decimal, "x", "`x`: expected a number, or a decimal number as text, got 'x'"),
        (Point, {"y": 1}, "`x`: expected an object with the key `x`, got {'y': 1}"),
        (Point, {"x": 1, "z": 1}, "`x.z`: expected no such key (known: x, y, color), got 1"),
        (Point, {"x": -1}, "`x`: expected a valid Point (x is negative), got {'x': -1}"),
        (
            Model,
            {"title": 1},
            "`x`: expected a valid Model (title: Input should be a valid string), got {'title': 1}",
        ),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_told_so_that_a_model_can_correct_it(annotation, value, text):
    with pytest.raises(ArgumentsError) as caught:
        read(annotation, value)
    assert str(caught.value) == text


def test_everything_that_is_wrong_with_a_call_is_told_at_once():
    def total_for(category: str, year: int, month: int = 1): ...

    with pytest.raises(ArgumentsError) as caught:
        bind(total_for, {"category": 1, "moth": 2}, {})
    assert caught.value.problems == [
        "`total_for` has no parameter `moth` (it has: `category`, `year`, `month`)",
        "`category`: expected a string, got 1",
        "`year` is missing: expected an integer",
    ]


def test_arguments_that_are_not_an_object_are_told():
    def f(): ...

    with pytest.raises(ArgumentsError, match="are not an object"):
        bind(f, [1], {})  # type: ignore[arg-type]


def test_defaults_are_the_functions_own():
    default = object()

    def f(a: int = 1, b: Any = default, c: str = None):  # type: ignore[assignment]  # noqa: RUF013
        return a, b, c

    assert bind(f, {}, {})[0]() == (1, default, None)
    assert bind(f, {"c": None}, {})[0]() == (1, default, None)


def test_all_kinds_of_parameters_are_given():
    def f(a: int = 1, b: int = 2, /, c: int = 3, *, d: int = 4):
        return a, b, c, d

    assert bind(f, {}, {})[0]() == (1, 2, 3, 4)
    assert bind(f, {"b": 9, "d": 8}, {})[0]() == (1, 9, 3, 8)
    assert bind(f, {"a": 7, "c": 6}, {})[0]() == (7, 2, 6, 4)


def test_facts_of_the_call_are_injected_and_the_model_can_not_set_them():
    def f(a: int, ctx, idempotency_key: str, why: ToolContext | None = None):
        return a, ctx.run_id, idempotency_key, why.run_id if why else None

    extras = {"run_id": "r1", "idempotency_key": "k1"}
    assert bind(f, {"a": 1}, extras)[0]() == (1, "r1", "k1", "r1")
    with pytest.raises(ArgumentsError):
        bind(f, {"a": 1, "idempotency_key": "mine"}, extras)
    with pytest.raises(AttributeError):
        ToolContext({}).run_id  # noqa: B018


def test_a_key_that_the_call_has_not_leaves_the_default():
    def f(idempotency_key: str = "none"):
        return idempotency_key

    assert bind(f, {}, {})[0]() == "none"


async def test_coroutine_functions_are_awaited_and_others_get_a_thread():
    here = threading.get_ident()

    async def awaited(a: int) -> int:
        await asyncio.sleep(0)
        assert threading.get_ident() == here
        return a + 1

    def blocking(a: int) -> int:
        assert threading.get_ident() != here
        return a + variable.get()

    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(10)
    assert bind(awaited, {"a": 1}, {})[1] is True
    assert bind(functools.partial(awaited), {"a": 1}, {})[1] is True
    assert bind(blocking, {"a": 1}, {})[1] is False
    assert await call(awaited, {"a": "1"}, {}) == 2
    assert await call(blocking, {"a": 1}, {}) == 11


async def test_a_coroutine_function_behind_a_plain_decorator_is_run_too():
    async def inner(a: int) -> int:
        return a + 1

    @functools.wraps(inner)
    def outer(*args, **kwargs):
        return inner(*args, **kwargs)

    assert await call(outer, {"a": 1}, {}) == 2


async def test_what_a_tool_raises_comes_out_as_it_is():
    def f():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await call(f, {}, {})


class FakeArray:
    def tolist(self):
        return [1, 2.5]


Pair = __import__("collections").namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ((1, "a", [2.5]), [1, "a", [2.5]]),
        ({3, 1, 2}, [1, 2, 3]),
        ({"b", "a"}, ["a", "b"]),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}),
        ({Color.RED: Color.BLUE}, {"red": "blue"}),
        (Point(1.5), {"x": 1.5, "y": 0.0, "color": "red"}),
        (Model(title="t"), {"title": "t", "size": 1}),
        (Pair(1, 2), {"a": 1, "b": 2}),
        (datetime.date(2026, 1, 31), "2026-01-31"),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (FakeArray(), [1, 2.5]),
        ({datetime.date(2026, 1, 1): 1}, {"2026-01-01": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_becomes_json(value, expected):
    assert to_json(value) == expected


class Table:
    def to_dict(self): ...


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"a": [b"x"]},
            "the result['a'][0] is bytes, which JSON does not have: return text, for example base64",
        ),
        (memoryview(b"x"), "the result is bytes, which JSON does not have: return text, for example base64"),
        (float("nan"), "the result is nan, which JSON does not have: return None instead"),
        (LOOP, "the result" + "[0]" * 101 + " is nested more than 100 deep, or holds itself"),
        (Table(), 'the result is a table: return its rows, for example `.to_dict("records")`'),
        (object(), "the result is of type `object`: return text, numbers, lists, dicts or dataclasses"),
        ((i for i in ()), "the result is of type `generator`: return text, numbers, lists, dicts or dataclasses"),
        ({(1, 2): 3}, "the result has the key (1, 2), and keys must be text"),
        ({1: 2, "1": 3}, "the result has the key '1' twice once keys are text"),
        ("\ud800", "the result has characters that are not Unicode text: decode it properly"),
        (Point, "the result is of type `type`: return text, numbers, lists, dicts or dataclasses"),
    ],
)
def test_a_result_that_is_not_json_says_what_to_return_instead(value, text):
    with pytest.raises(ResultError) as caught:
        to_json(value)
    assert str(caught.value) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_comes_back_as_it_is(value):
    assert repr(to_json(value)) == repr(value)


TYPES: list[Any] = [
    int,
    bool,
    str,
    list[int],
    tuple[int, str],
    dict[str, bool],
    int | None,
    Literal["a", 1],
    Color,
    Point,
    Tree,
    list[Row],
]


def closed(schema: Any) -> Any:
    """A schema that refuses unknown keys, as reading does so that a slip of the model is not lost silently."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(each) for key, each in schema.items()}
    return {**inner, "additionalProperties": False} if "properties" in schema else inner


@given(st.sampled_from(TYPES), JSON)
def test_what_fits_the_schema_is_taken_whatever_it_is(annotation, value):
    def function(x): ...

    function.__annotations__["x"] = annotation
    schema = closed(describe(function)["parameters"])
    fits = jsonschema.Draft202012Validator(schema).is_valid({"x": value})
    try:
        bind(function, {"x": value}, {})
    except ArgumentsError:
        assert not fits or annotation is Point  # whose own check refuses more
