"""JSON schemas of types, as engines take them, and answers as values of these types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from callboard.actors.models.types import ChatResult
from callboard.actors.schema import Signature
from callboard.infra.errors import InvalidArguments, OutputInvalid

_TOLD: Final = 2_000
_decode = msgspec.msgpack.Decoder(ChatResult[Any]).decode


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


class AnswerSignature(Signature):
    """Arguments of a chat, and its result with an answer of a type.

    The host has held the answer against the JSON schema, which says less than a type may: what
    ``__post_init__`` checks is found here, where the type is.
    """

    def __init__(self, where: str, function: Any, kind: Any) -> None:
        super().__init__(where, function, skip_self=False, batched=False)
        self._kind = kind

    def decode_result(self, value: bytes | msgspec.Raw) -> Any:
        """The result; ``parsed`` is read as the JSON that the model has written.

        Raises:
            OutputInvalid: the answer is none of the type. InvalidResult: this is no result of a chat.
        """
        try:
            result = _decode(value)
        except (msgspec.DecodeError, RecursionError):
            return super().decode_result(value)  # which says what is wrong
        if result.parsed is None:
            return result
        try:
            result.parsed = msgspec.convert(result.parsed, self._kind, str_keys=True)
        except (TypeError, ValueError, RecursionError) as error:
            kind = getattr(self._kind, "__name__", self._kind)
            raise OutputInvalid(
                f"the model's answer fits the schema, and is no {kind}: {error}",
                problem=str(error),
                text=result.text[:_TOLD],
                tries=1,
            ) from error
        return result
