"""A program: whether a value matches a JSON Schema that, like the value, may come out of a worker.

It runs in a process of its own (`conforming.py`), because a schema can ask for any amount of work: references that
multiply, regular expressions that never end. Nothing that a schema refers to is fetched or opened.
"""

import json
import resource
import sys
from typing import Any

__all__ = ["main", "mismatch"]

_CPU_S = 5
_SHOWN = 2000
_MEMORY = 2 << 30


def mismatch(schema: Any, value: Any) -> dict[str, str] | None:
    """Return where and how a value does not match, or what is wrong with the schema; None if it matches."""
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
    from referencing.exceptions import Unresolvable

    try:
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema, registry=REGISTRY)
        error = next(iter(validator.iter_errors(value)), None)
    except SchemaError as wrong:
        return {"wrong": wrong.message[:_SHOWN]}
    except Unresolvable as wrong:
        return {"wrong": f"its reference leads nowhere: {wrong}"}
    except RecursionError:
        return {"wrong": "it is nested too deeply, or refers to itself without end"}
    return None if error is None else {"path": error.json_path[:_SHOWN], "message": error.message[:_SHOWN]}


def main() -> None:
    """Read schema and value from stdin, write what `mismatch` returns to stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    schema, value = json.loads(sys.stdin.buffer.read())
    sys.stdout.write(json.dumps(mismatch(schema, value)))


if __name__ == "__main__":
    main()
