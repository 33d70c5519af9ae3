"""JSON schemas of types, as engines take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callboard.infra.errors import InvalidArguments


def json_schema(schema: Any) -> tuple[Any, dict[str, Any] | None]:
    """The type of ``parsed``, and the JSON schema for it.

    Raises:
        InvalidArguments: a type has none.
    """
    if schema is None or isinstance(schema, Mapping):
        return Any, None if schema is None else dict(schema)
    try:
        made = msgspec.json.schema(schema)
    except TypeError as error:
        raise InvalidArguments(f"schema={schema!r}: it has no JSON schema: {error}") from error
    return schema, opened(made)


def opened(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema without a reference at its top: engines want an object there."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if not name:
        return schema
    known = schema["$defs"]
    found = {**known[name], "$defs": known}
    others = {key: one for key, one in known.items() if key != name}
    if f"#/$defs/{name}" not in str({**known[name], "$defs": others}):  # it does not hold itself
        found["$defs"] = others
    if not found["$defs"]:
        del found["$defs"]
    return found
