"""Texts as tokens, and what an emulated engine says: words that can be counted, values that fit a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_TOKEN: Final = re.compile(r"\s?\w{1,8}|\s?[^\w\s]|\s")
_DEEP: Final = 16


def tokens(text: str) -> list[str]:
    """A text cut into tokens, which together are the text. About as many as a real tokenizer makes."""
    return _TOKEN.findall(text)


def conversation(messages: Sequence[Mapping[str, Any]], *, goes_on: bool = False) -> list[str]:
    """The tokens of a chat, up to where the answer begins; a chat that goes on begins with the same ones.

    Args:
        goes_on: the last message is to be gone on with, so it has no end.
    """
    found: list[str] = []
    for message in messages:
        found.append(f"<|{message.get('role', 'user')}|>")
        content = message.get("content")
        if isinstance(content, str):
            found += tokens(content)
        elif content is not None:
            found += tokens(json.dumps(content))
        for call in message.get("tool_calls") or ():
            found += tokens(json.dumps(call))
        found.append("<|end|>")
    return found[:-1] if goes_on else [*found, "<|assistant|>"]


def counting(count: int) -> list[str]:
    """So many tokens: ``emulated 1 2 3 ...``, so that nobody takes it for an answer, and gaps are seen."""
    return ["emulated", *(f" {number}" for number in range(1, count))]


def counted(prompt: Sequence[Any]) -> int:
    """How many tokens at the end of a prompt are the beginning of such an answer."""
    for count in range(1, len(prompt) + 1):
        first = str(prompt[-count]).strip()
        if first == "emulated":
            return count if list(prompt[-count:])[1:] == counting(count)[1:] else 0
        if not first.isdecimal():
            break
    return 0


def fitting(schema: Any, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """The smallest value of a JSON schema, as far as types, required fields, choices and bounds go."""
    if not isinstance(schema, Mapping):
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        return fitting(_referred(root, str(schema["$ref"])), root, depth + 1) if depth < _DEEP else None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return fitting(schema[key][0], root, depth)
    return _of_type(schema, root, depth)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        known = schema.get("properties", {})
        return {name: fitting(known.get(name, {}), root, depth) for name in schema.get("required", ())}
    if kind == "array":
        return [fitting(schema.get("items", {}), root, depth) for _ in range(schema.get("minItems", 0))]
    if kind == "string":
        return "emulated".ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
    if kind in {"integer", "number"}:
        return schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    return False if kind == "boolean" else None


def _referred(root: Mapping[str, Any], reference: str) -> Any:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
