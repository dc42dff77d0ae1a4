"""The reference of the HTTP API, out of the application's OpenAPI document."""

import json
from typing import Any, cast

from agentforge.api.app import make_app
from agentforge.engine import Engine
from agentforge.lifecycle import Health
from generators.markdown import table

__all__ = ["api", "openapi"]


def _openapi() -> dict[str, Any]:
    # Only requests would need the engine and what it knows of health.
    app = make_app(cast("Engine", None), dict, lambda: None, health=cast("Health", None))
    return app.openapi()


def openapi() -> str:
    """The OpenAPI document of a host."""
    return json.dumps(_openapi(), indent=2, ensure_ascii=False) + "\n"


def api() -> str:
    """Every route."""
    rows = []
    for path, methods in _openapi()["paths"].items():
        for method, route in methods.items():
            rows.append((f"`{method.upper()} {path}`", route["summary"], _parameters(route)))
    return table(("request", "answer", "parameters"), rows)


def _parameters(route: dict[str, Any]) -> str:
    found = [f"`{each['name']}`" for each in route.get("parameters", []) if each["in"] != "path"]
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if "$ref" in body:
        found.insert(0, f"body `{body['$ref'].rpartition('/')[2]}`")
    return ", ".join(found)
