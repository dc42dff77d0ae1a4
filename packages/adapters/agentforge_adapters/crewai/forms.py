"""JSON Schemas as the pydantic models that CrewAI wants."""

import copy
from typing import Any, ClassVar, Dict, Type

from crewai.utilities.pydantic_schema_utils import create_model_from_schema
from pydantic import BaseModel, create_model

__all__ = ["Form", "make_form"]


class Form(BaseModel):
    """A value that fits a schema. CrewAI's own models know less than their schemas say; this one shows its own."""

    json_form: ClassVar[Dict[str, Any]]

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> Dict[str, Any]:
        """Return the schema as it was given."""
        return copy.deepcopy(cls.json_form)

    def model_dump(self, **options: Any) -> Dict[str, Any]:
        """Return what was given, as JSON values: nothing filled in."""
        return super().model_dump(**{"mode": "json", "exclude_unset": True, **options})


def make_form(schema: Dict[str, Any], name: str) -> Type[Form]:
    """Return the model of a schema of objects."""
    model = create_model(name, __base__=(Form, create_model_from_schema(schema, model_name=name)))
    model.json_form = schema
    return model
