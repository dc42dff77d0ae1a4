"""A value that fits a JSON Schema: the arguments of the default script's tool calls."""

from collections.abc import Mapping

from agentforge_conformance.scripted_model.steps import Json

__all__ = ["example"]

_DEEPEST = 12
_BY_TYPE: dict[str, Json] = {"integer": 2, "number": 2.0, "boolean": True, "null": None}
_BY_FORMAT = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "uuid": "12345678-1234-4234-8234-123456789abc",
    "email": "someone@example.com",
    "uri": "https://example.com/",
}


def example(schema: Json, text: str = "x") -> Json:
    """Return a value for a schema (enum, const, default, anyOf, allOf, $ref, limits); `text` where text is free."""
    return _fill(schema, schema if isinstance(schema, dict) else {}, text, 0)


def _fill(schema: Json, root: Mapping[str, Json], text: str, depth: int) -> Json:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return text if schema is True else None
    if "$ref" in schema:
        return _fill(_resolve(schema["$ref"], root), root, text, depth + 1)
    for name in ("const", "default"):
        if name in schema:
            return schema[name]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            return _fill(_first_meaningful(schema[name]), root, text, depth + 1)
    if schema.get("allOf"):
        merged = {k: v for k, v in schema.items() if k != "allOf"}
        for part in schema["allOf"]:
            merged.update(_resolve(part["$ref"], root) if "$ref" in part else part)
        return _fill(merged, root, text, depth + 1)
    return _by_type(schema, root, text, depth)


def _by_type(schema: Mapping[str, Json], root: Mapping[str, Json], text: str, depth: int) -> Json:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        # Past a depth only what must be there: recursive models would not end.
        names = properties if depth < _DEEPEST // 2 else schema.get("required", [])
        return {name: _fill(properties.get(name, {}), root, text, depth + 1) for name in names}
    if kind == "array":
        count = schema.get("minItems", 0)
        return [_fill(schema.get("items", {}), root, text, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        return _number(schema, kind)
    if kind in _BY_TYPE:
        return _BY_TYPE[kind]
    return _text(schema, text)


def _number(schema: Mapping[str, Json], kind: str) -> Json:
    number = _BY_TYPE[kind]
    if (least := schema.get("minimum", schema.get("exclusiveMinimum"))) is not None and number <= least:
        number = least if "minimum" in schema else least + 1
    if (most := schema.get("maximum", schema.get("exclusiveMaximum"))) is not None and number >= most:
        number = most if "maximum" in schema else most - 1
    return number


def _text(schema: Mapping[str, Json], text: str) -> str:
    text = _BY_FORMAT.get(schema.get("format", ""), text)
    text += "x" * (schema.get("minLength", 0) - len(text))
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def _first_meaningful(choices: Json) -> Json:
    return next((c for c in choices if not (isinstance(c, dict) and c.get("type") == "null")), choices[0])


def _resolve(reference: str, root: Mapping[str, Json]) -> Json:
    """Follow a reference inside the same document (`#/$defs/Name`)."""
    found: Json = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if part:
            found = found.get(part, {}) if isinstance(found, dict) else {}
    return found
