"""The answer that an LlmAgent is to give: text, or JSON that fits a type."""

from __future__ import annotations

from typing import Any

import msgspec

from callboard.actors.models.schemas import json_schema
from callboard.actors.models.structured import unfenced
from callboard.infra.errors import DeclarationInvalid, InvalidArguments

_PLEASE = "Answer now, with JSON only that fits this schema: "


class Answers:
    """What is an answer of one agent.

    Args:
        agent: its name; output: the type.

    Raises:
        DeclarationInvalid: the type has no JSON schema.
    """

    def __init__(self, agent: str, output: Any) -> None:
        self.output = output
        self.schema: dict[str, Any] | None = None
        if output is str:
            return
        try:
            _, self.schema = json_schema(output)
        except InvalidArguments as error:
            raise DeclarationInvalid(f"agent {agent}: output: {error.message}") from error

    @property
    def please(self) -> str:
        """What tells a model to give the answer as JSON; empty where text will do."""
        return _PLEASE + msgspec.json.encode(self.schema).decode() if self.schema else ""

    def read(self, text: str) -> Any:
        """The answer.

        Raises:
            ValueError: the text is none.
        """
        if self.schema is None:
            return text
        try:
            return msgspec.json.decode(unfenced(text), type=self.output)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
