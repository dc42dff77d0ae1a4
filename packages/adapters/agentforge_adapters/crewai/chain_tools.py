"""Tools that live outside the framework, as LangChain tools, which CrewAI's first releases take."""

import inspect
import json
from typing import Any, Dict, Type

from langchain_core.pydantic_v1 import BaseModel, create_model
from langchain_core.tools import BaseTool, Tool

from agentforge_worker.adapter import ToolSpec

from .annotations import Form, form_of, type_of
from .stopped import call_tool
from .transcript import transcript

__all__ = ["make_text_tool", "make_tool"]


class HostTool(BaseTool):
    """A tool whose body is a call of the host."""

    form: Type[Form]

    def _run(self, **arguments: Any) -> Any:
        return call_tool(self.name, self.form.model_validate(arguments).model_dump())


def make_tool(spec: ToolSpec) -> BaseTool:
    """Return the native tool. Of its arguments the model knows what the signature in the description says."""
    properties = spec.parameters.get("properties", {})
    kinds = {name: type_of(schema, spec.parameters) for name, schema in properties.items()}
    required = spec.parameters.get("required", ())
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=kind,
            default=inspect.Parameter.empty if name in required else properties[name].get("default"),
        )
        for name, kind in kinds.items()
        if name.isidentifier()
    ]
    signature = ", ".join(str(parameter) for parameter in parameters)
    # CrewAI looks up nothing but the names of the arguments here.
    names: Type[BaseModel] = create_model(spec.name, **dict.fromkeys(kinds, (Any, None)))  # type: ignore[call-overload]
    return HostTool(
        name=spec.name,
        description="%s(%s) - %s" % (spec.name, signature, spec.description),
        args_schema=names,
        form=form_of(spec.parameters, spec.name),
    )


def make_text_tool(spec: ToolSpec) -> BaseTool:
    """Return the native tool of a release whose tools take one string: a JSON object, or the only argument as it is."""
    properties: Dict[str, Any] = spec.parameters.get("properties", {})
    names = list(properties)
    if len(names) == 1 and properties[names[0]].get("type") == "string" and "enum" not in properties[names[0]]:
        return Tool(name=spec.name, description=spec.description, func=lambda text: _call(spec, {names[0]: text}, text))
    schema = json.dumps({"properties": properties, "required": spec.parameters.get("required", [])}, ensure_ascii=False)
    form = form_of(spec.parameters, spec.name)
    return Tool(
        name=spec.name,
        description="%s The input is a JSON object: %s" % (" ".join(spec.description.split()), schema),
        func=lambda text: _call_with(spec, form, text),
    )


def _call_with(spec: ToolSpec, form: Type[Form], text: str) -> Any:
    try:
        arguments = form.model_validate_json(text).model_dump()
    except ValueError as error:  # the model's own mistake; raised it would end the run
        return "Error: the Action Input is not a JSON object that fits: %s" % error
    return _call(spec, arguments, text)


def _call(spec: ToolSpec, arguments: Dict[str, Any], text: str) -> Any:
    value = call_tool(spec.name, arguments)
    transcript.get().acted(spec.name, text, str(value))
    return str(value)
