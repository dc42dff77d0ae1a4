import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import typing
import uuid
from typing import Annotated, Any, Dict, List, Literal, NewType, Optional, TypedDict, Union  # noqa: UP035

import pydantic
import pytest

from agentforge_worker.tools import SignatureError, ToolContext, describe


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Odd(enum.Enum):
    A = (1, object)
    B = (2, object)


@dataclasses.dataclass
class Point:
    """A point.

    Attributes:
        x: From the left.
    """

    x: float
    y: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)
    hidden: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class Tree:
    name: str
    children: "list[Tree]"


class Row(TypedDict):
    id: int
    note: typing.NotRequired[Annotated[str, "What to know."]]
    later: "typing.NotRequired[int]"


class Model(pydantic.BaseModel):
    title: str = pydantic.Field(description="Its title.")
    inner: "list[Inner]"


class Inner(pydantic.BaseModel):
    n: int


Model.model_rebuild()
UserId = NewType("UserId", int)


def parameter(annotation, **default):
    """The schema of one parameter of a type."""

    def function(x): ...

    function.__annotations__["x"] = annotation
    if default:
        function.__defaults__ = (default["default"],)
    parameters = describe(function)["parameters"]
    assert parameters["type"] == "object"
    assert parameters.get("required", []) == ([] if default else ["x"])
    definitions = parameters.get("$defs")
    found = parameters["properties"]["x"]
    return (found, definitions) if definitions else found


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (list, {"type": "array", "items": {}}),
        (List, {"type": "array", "items": {}}),  # noqa: UP006
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (List[str], {"type": "array", "items": {"type": "string"}}),  # noqa: UP006
        (collections.abc.Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (typing.Iterable[str], {"type": "array", "items": {"type": "string"}}),
        (tuple, {"type": "array", "items": {}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (set[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (dict, {"type": "object", "additionalProperties": True}),
        (dict[str, Any], {"type": "object", "additionalProperties": True}),
        (Dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),  # noqa: UP006
        (typing.Mapping[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
        (Literal["a", "b"], {"enum": ["a", "b"], "type": "string"}),
        (Literal["a"], {"const": "a", "type": "string"}),
        (Literal[1, "a"], {"enum": [1, "a"]}),
        (Literal[Color.RED], {"const": "red", "type": "string"}),
        (Color, {"enum": ["red", "blue"], "type": "string"}),
        (Level, {"enum": [1, 2], "type": "integer"}),
        (Odd, {"enum": ["A", "B"], "type": "string"}),
        (datetime.date, {"type": "string", "format": "date"}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (datetime.time, {"type": "string", "format": "time"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (pathlib.Path, {"type": "string", "format": "path"}),
        (decimal.Decimal, {"anyOf": [{"type": "number"}, {"type": "string"}]}),
        (
            decimal.Decimal | None,
            {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}]},
        ),
        (Annotated[int, "How many."], {"type": "integer", "description": "How many."}),
        (
            Annotated[int, pydantic.Field(description="How many.")],
            {"type": "integer", "description": "How many."},
        ),
        (UserId, {"type": "integer"}),
        (
            Point,
            {
                "type": "object",
                "properties": {
                    "x": {"type": "number", "description": "From the left."},
                    "y": {"type": "number", "default": 0.0},
                    "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                },
                "required": ["x"],
            },
        ),
        (
            Row,
            {
                "type": "object",
                "properties": {
                    "id": {"type": "integer"},
                    "note": {"type": "string", "description": "What to know."},
                    "later": {"type": "integer"},
                },
                "required": ["id"],
            },
        ),
    ],
    ids=str,
)
def test_a_type_has_its_schema(annotation, schema):
    assert parameter(annotation) == schema


@pytest.mark.parametrize(
    "annotation",
    [str, int, float, bool, int | None, list[int], dict[str, int], Literal["a", "b"], datetime.date, tuple[int, str]],
    ids=str,
)
def test_schemas_are_those_of_pydantic_but_for_titles(annotation):
    assert parameter(annotation) == pydantic.TypeAdapter(annotation).json_schema()


def test_a_recursive_record_refers_to_itself():
    found, definitions = parameter(Tree)
    assert found == {"$ref": "#/$defs/Tree"}
    assert definitions["Tree"]["properties"]["children"] == {"type": "array", "items": {"$ref": "#/$defs/Tree"}}


def test_a_pydantic_model_makes_its_own_schema():
    found, definitions = parameter(Model)
    assert found == {
        "type": "object",
        "properties": {
            "title": {"type": "string", "description": "Its title."},
            "inner": {"type": "array", "items": {"$ref": "#/$defs/Inner"}},
        },
        "required": ["title", "inner"],
    }
    assert definitions == {"Inner": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}


@pytest.mark.parametrize(
    ("annotation", "default", "schema"),
    [
        (int, 3, {"type": "integer", "default": 3}),
        (str, None, {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
        (str | None, None, {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
        (Color, Color.RED, {"enum": ["red", "blue"], "type": "string", "default": "red"}),
        (datetime.date, datetime.date(2026, 1, 2), {"type": "string", "format": "date", "default": "2026-01-02"}),
        (Any, object(), {}),
    ],
)
def test_a_default_is_told_if_json_can_hold_it(annotation, default, schema):
    assert parameter(annotation, default=default) == schema


def test_a_description_is_all_of_it_in_the_parameters_order():
    def total_for(category: str, year: int = 2026) -> float:
        """Sum what was spent.

        Counts paid items only.

        Args:
            year: Calendar year.
            category: What it was
                spent on.

        Returns:
            The sum.
        """

    assert describe(total_for) == {
        "name": "total_for",
        "description": "Sum what was spent.\n\nCounts paid items only.",
        "parameters": {
            "type": "object",
            "properties": {
                "category": {"type": "string", "description": "What it was spent on."},
                "year": {"type": "integer", "default": 2026, "description": "Calendar year."},
            },
            "required": ["category"],
        },
    }
    assert list(describe(total_for)["parameters"]["properties"]) == ["category", "year"]


def test_a_function_without_parameters_or_docstring():
    def ping(): ...

    assert describe(ping) == {
        "name": "ping",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }


def test_what_is_injected_is_not_shown_to_the_model():
    def function(a: int, ctx, idempotency_key: str, other: ToolContext, maybe: ToolContext | None = None): ...

    assert list(describe(function)["parameters"]["properties"]) == ["a"]


def test_decorated_and_partial_functions_are_described_by_what_is_inside():
    def inner(a: int, b: str = "x"):
        """Do it."""

    @functools.wraps(inner)
    def outer(*args, **kwargs):
        return inner(*args, **kwargs)

    assert describe(outer) == describe(inner)
    partial = describe(functools.partial(inner, b="y"))
    assert partial["parameters"]["properties"]["b"]["default"] == "y"


def test_a_callable_object_is_described_by_its_call():
    class Adder:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, a: int) -> int:
            """Add one."""
            return a + 1

    found = describe(Adder())
    assert (found["name"], found["description"]) == ("__call__", "Add one.")
    assert list(found["parameters"]["properties"]) == ["a"]


def no_type(a): ...
def one_without(a: int, b=3): ...
def stars(*args: int): ...
def keywords(a: int, **kwargs: int): ...
def raw(a: bytes): ...
def numbered(a: dict[int, str]): ...
def broken(a: "NoSuchName"): ...  # type: ignore[name-defined]  # noqa: F821
def function_typed(a: collections.abc.Callable[[], None]): ...
def deep(a: "list[dict[str, bytes]]"): ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (no_type, "the parameter `a` of `no_type` has no type: write `a: str`, or whatever it is"),
        (one_without, "the parameter `b` of `one_without` has no type: write `b: str`, or whatever it is"),
        (stars, "`stars` takes `*args`: name its parameters one by one"),
        (keywords, "`keywords` takes `**kwargs`: name its parameters one by one"),
        (
            raw,
            "the parameter `a` of `raw`: `bytes` can't be written as JSON: use str, int, float, bool, lists, dicts,"
            " dataclasses, enums or dates",
        ),
        (
            numbered,
            "the parameter `a` of `numbered`: `dict[int, str]` has keys that are not text: write Dict[str, ...]",
        ),
    ],
)
def test_a_parameter_that_a_model_can_not_fill_is_named(function, text):
    with pytest.raises(SignatureError) as caught:
        describe(function)
    assert str(caught.value) == text


def test_annotations_that_can_not_be_evaluated_are_told():
    with pytest.raises(SignatureError, match=r"the annotations of `broken` can't be evaluated on Python 3\.\d+: NameE"):
        describe(broken)


@pytest.mark.parametrize("function", [function_typed, deep])
def test_what_json_can_not_hold_is_refused_wherever_it_is(function):
    with pytest.raises(SignatureError, match="can't be written as JSON"):
        describe(function)
