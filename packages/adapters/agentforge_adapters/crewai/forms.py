"""JSON Schemas as the pydantic models that CrewAI wants."""

import copy
import re
from typing import Any, ClassVar, Dict, Type

from crewai.utilities.pydantic_schema_utils import create_model_from_schema
from pydantic import BaseModel, create_model

__all__ = ["Arguments", "Form", "arguments_form", "output_form"]


class Form(BaseModel):
    """A value that fits a schema."""

    def model_dump(self, **options: Any) -> Dict[str, Any]:
        """Return what was given, as JSON values: nothing filled in."""
        return super().model_dump(**{"mode": "json", "exclude_unset": True, **options})


class Arguments(Form):
    """The arguments of a tool. CrewAI's own models know less than their schemas say; this one shows its own."""

    json_form: ClassVar[Dict[str, Any]]

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> Dict[str, Any]:
        """Return the schema as it was given."""
        return copy.deepcopy(cls.json_form)


def arguments_form(schema: Dict[str, Any], name: str) -> Type[Arguments]:
    """Return the model of a tool's arguments."""
    model = create_model(name, __base__=(Arguments, create_model_from_schema(schema, model_name=name)))
    model.json_form = schema
    return model


def output_form(schema: Dict[str, Any]) -> Type[Form]:
    """Return the model of an output, which is shown to the model the way pydantic words it, as a user's own is."""
    name = re.sub(r"\W", "_", schema.get("title", "Answer"))
    return create_model(name, __base__=(Form, create_model_from_schema(schema, model_name=name)))
