"""Structured answers: a JSON Schema as the class that LlamaIndex 0.12 and later want for them."""

from typing import Any, Dict, Optional, Type

from llama_index.core.bridge.pydantic import BaseModel, ConfigDict

from .schema import Schema, as_object, titled

__all__ = ["output_class"]

_NAME = "answer"


class Answer(BaseModel):
    """Holds any object. The host checks it against the schema."""

    model_config = ConfigDict(extra="allow")


def output_class(schema: Optional[Schema]) -> Optional[Type[BaseModel]]:
    """Return what an agent takes as its output class."""
    if schema is None:
        return None
    shown = {"title": _NAME, **titled(as_object(schema))}

    def declared(cls: Any, core_schema: Any, handler: Any) -> Dict[str, Any]:
        return dict(shown)

    return type(_NAME, (Answer,), {"__get_pydantic_json_schema__": classmethod(declared), "__module__": __name__})
