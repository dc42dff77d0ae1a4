"""What a later host may send."""

import dataclasses
from typing import Any, Dict, Mapping

__all__ = ["known"]


def known(form: type, data: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the fields of a dataclass that this version knows: a later host may send more."""
    return {field.name: data[field.name] for field in dataclasses.fields(form) if field.name in data}
