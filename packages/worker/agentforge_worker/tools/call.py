"""Describe functions to models, and call them with what models answer."""

import asyncio
import contextvars
import functools
import inspect
from typing import Any, Awaitable, Callable, Dict, List, Mapping, NamedTuple, Tuple

from .annotations import described, hints_of, type_of, with_null
from .docstring import parse_docstring
from .errors import ArgumentsError, SignatureError
from .result import to_json
from .types import Mismatch, Schemas, Type

__all__ = ["ToolContext", "bind", "call", "describe"]

Json = Any
_CONTEXT = "ctx"
_KEY = "idempotency_key"


class ToolContext:
    """What a tool may know about the call: a parameter called `ctx`, or annotated with this class, is given it.

    Attributes are the call's facts by name, `run_id` and `idempotency_key` among them; unknown ones raise
    AttributeError.
    """

    def __init__(self, facts: Mapping[str, Json]) -> None:
        self._facts = dict(facts)

    def __getattr__(self, name: str) -> Json:
        try:
            return self.__dict__["_facts"][name]
        except KeyError:
            raise AttributeError(name) from None


class _Parameter(NamedTuple):
    name: str
    kind: Any
    type: Type
    default: Any
    description: str
    injected: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


class _Signature(NamedTuple):
    name: str
    description: str
    parameters: List[_Parameter]


def describe(function: Callable[..., Any]) -> Dict[str, Json]:
    """Return a function for a model: `{"name", "description", "parameters"}`, the last a JSON Schema.

    Built from type hints, defaults and the docstring. Raises SignatureError.
    """
    signature = _signature(function)
    schemas = Schemas()
    properties: Dict[str, Json] = {}
    required: List[str] = []
    for parameter in signature.parameters:
        if parameter.injected:
            continue
        properties[parameter.name] = _property(parameter, schemas)
        if parameter.required:
            required.append(parameter.name)
    schema: Dict[str, Json] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if schemas.definitions:
        schema["$defs"] = schemas.definitions
    return {"name": signature.name, "description": signature.description, "parameters": schema}


def bind(
    function: Callable[..., Any], arguments: Mapping[str, Json], extras: Mapping[str, Json]
) -> Tuple[Callable[[], Any], bool]:
    """Return a call without arguments that is ready to be made, and whether it is to be awaited.

    `arguments` are checked and turned into what the annotations say; `extras` are the call's facts, for parameters
    that ask for them (`idempotency_key`, `ctx`). A call that is not awaited may block: give it a thread. Its value is
    the function's own; `to_json` makes it JSON. Raises ArgumentsError, whose text a model may be told.
    """
    signature = _signature(function)
    values = _values(signature, arguments, extras)
    ready = functools.partial(function, *_positional(signature, values), **values)
    if _is_async(function):
        return ready, True
    return functools.partial(_finished, ready), False


async def call(function: Callable[..., Any], arguments: Mapping[str, Json], extras: Mapping[str, Json]) -> Json:
    """Call a function and return its result as JSON; one that is not a coroutine function runs in a thread."""
    ready, is_async = bind(function, arguments, extras)
    if is_async:
        return to_json(await ready())
    run = contextvars.copy_context().run
    return to_json(await asyncio.get_running_loop().run_in_executor(None, run, ready))


def _property(parameter: _Parameter, schemas: Schemas) -> Dict[str, Json]:
    schema = dict(parameter.type.schema(schemas))
    if not parameter.required:
        try:
            schema["default"] = to_json(parameter.default)
        except Exception:  # a default that JSON can't hold is simply not told
            schema.pop("default", None)
    if parameter.description:
        schema["description"] = parameter.description
    return schema


def _signature(function: Callable[..., Any]) -> _Signature:
    try:
        return _known_signature(function)
    except TypeError:
        if getattr(type(function), "__hash__", None) is None:
            return _read_signature(function)
        raise


def _read_signature(function: Callable[..., Any]) -> _Signature:
    inner = _annotated(function)
    name = str(getattr(function, "__name__", None) or getattr(inner, "__name__", type(function).__name__))
    docstring = parse_docstring(inspect.getdoc(function if hasattr(function, "__name__") else inner))
    hints = hints_of(inner)
    try:
        declared = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise SignatureError("`%s` does not tell its parameters: wrap it in a function of your own" % name) from None
    parameters = [_parameter(name, each, hints, docstring.parameters) for each in declared]
    return _Signature(name, docstring.text, parameters)


_known_signature = functools.lru_cache(maxsize=256)(_read_signature)


def _annotated(function: Any) -> Any:
    """Return the function that has the annotations: inside decorators, partials and callable objects."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    return function if inspect.isroutine(function) else type(function).__call__


def _parameter(
    owner: str, declared: inspect.Parameter, hints: Dict[str, Any], documented: Dict[str, str]
) -> _Parameter:
    name = declared.name
    hint = hints.get(name, declared.annotation)
    if declared.kind in (declared.VAR_POSITIONAL, declared.VAR_KEYWORD):
        stars = "*" if declared.kind is declared.VAR_POSITIONAL else "**"
        raise SignatureError("`%s` takes `%s%s`: name its parameters one by one" % (owner, stars, name))
    injected = _injected(name, hint)
    if injected:
        return _Parameter(name, declared.kind, Type(), declared.default, "", injected)
    if hint is declared.empty:
        raise SignatureError(
            "the parameter `%s` of `%s` has no type: write `%s: str`, or whatever it is" % (name, owner, name)
        )
    try:
        found = type_of(hint)
    except SignatureError as error:
        raise SignatureError("the parameter `%s` of `%s`: %s" % (name, owner, error)) from error
    if declared.default is None:
        found = with_null(found)
    description = described(hint) or documented.get(name, "")
    return _Parameter(name, declared.kind, found, declared.default, description, "")


def _injected(name: str, hint: Any) -> str:
    """Return which fact of the call a parameter is given, nothing if it is the model's to fill."""
    if name == _KEY:
        return _KEY
    members = [hint, *getattr(hint, "__args__", ())]
    return _CONTEXT if name == _CONTEXT or ToolContext in members else ""


def _values(signature: _Signature, arguments: Mapping[str, Json], extras: Mapping[str, Json]) -> Dict[str, Any]:
    """Return the values of all parameters that get one. Raises ArgumentsError with everything that is wrong."""
    problems: List[str] = []
    values: Dict[str, Any] = {}
    visible = [each for each in signature.parameters if not each.injected]
    if not isinstance(arguments, Mapping):
        raise ArgumentsError(["the arguments of `%s` are not an object" % signature.name])
    for name in arguments:
        if name not in [each.name for each in visible]:
            known = ", ".join("`%s`" % each.name for each in visible) or "none"
            problems.append("`%s` has no parameter `%s` (it has: %s)" % (signature.name, name, known))
    for parameter in visible:
        try:
            if parameter.name in arguments:
                values[parameter.name] = parameter.type.read(arguments[parameter.name], parameter.name)
            elif parameter.required:
                problems.append("`%s` is missing: expected %s" % (parameter.name, parameter.type.expected))
        except Mismatch as mismatch:
            problems.append(str(mismatch))
    if problems:
        raise ArgumentsError(problems)
    for parameter in signature.parameters:
        if parameter.injected == _CONTEXT:
            values[parameter.name] = ToolContext(extras)
        elif parameter.injected and (_KEY in extras or parameter.required):
            values[parameter.name] = extras.get(_KEY, "")
    return values


def _positional(signature: _Signature, values: Dict[str, Any]) -> List[Any]:
    """Take the values out that can't be given by name; defaults fill the places before the last one given."""
    only = [each for each in signature.parameters if each.kind is inspect.Parameter.POSITIONAL_ONLY]
    while only and only[-1].name not in values:
        only.pop()
    return [values.pop(each.name, each.default) for each in only]


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call_method = getattr(type(function), "__call__", None)  # noqa: B004  the method itself, not whether it is there
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call_method)


def _finished(ready: Callable[[], Any]) -> Any:
    """Make a call in this thread; a decorator may have hidden that it returns something to be awaited."""
    value = ready()
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


async def _awaited(value: "Awaitable[Any]") -> Any:
    return await value
