"""What goes to a model and comes back: the shapes of the OpenAI chat API, as structs."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class FunctionCall(msgspec.Struct):
    """The function that a model wants to have called.

    Attributes:
        arguments: a JSON object, as the model wrote it: it may be invalid.
    """

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct):
    """A call that a model asks for; answer it with a message of role ``tool`` and this ``id``."""

    id: str
    function: FunctionCall
    type: str = "function"


class Message(msgspec.Struct, omit_defaults=True):
    """One message of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: its text; or a list of parts, as the API takes for images; None beside tool calls.
        name: of the speaker.
        tool_calls: that the assistant asks for.
        tool_call_id: of a ``tool`` message: which call it answers.
    """

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """Its content as text; of parts, the texts among them."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class Usage(msgspec.Struct, omit_defaults=True):
    """Tokens, as the engine has counted them; 0 where it does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum of two requests."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
        )


class ChatResult(msgspec.Struct, Generic[T], omit_defaults=True):
    """A model's answer.

    Attributes:
        message: of role ``assistant``.
        finish_reason: ``stop``, ``length`` (cut off at ``max_tokens``), ``tool_calls`` or ``content_filter``.
        usage: of all requests that it took; model: as the engine calls it; id: the engine's.
        parsed: the answer as the schema's type; None without a schema, and beside tool calls.
    """

    message: Message
    finish_reason: str = "stop"
    usage: Usage = msgspec.field(default_factory=Usage)
    model: str = ""
    id: str = ""
    parsed: T | None = None

    @property
    def text(self) -> str:
        """What it says."""
        return self.message.text

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls that it asks for."""
        return self.message.tool_calls


class Completion(msgspec.Struct, omit_defaults=True):
    """How a model continues a prompt; fields as in :class:`ChatResult`."""

    text: str
    finish_reason: str = "stop"
    usage: Usage = msgspec.field(default_factory=Usage)
    model: str = ""
    id: str = ""


class Embeddings(msgspec.Struct, omit_defaults=True):
    """Vectors of texts, in their order."""

    vectors: list[list[float]]
    usage: Usage = msgspec.field(default_factory=Usage)
    model: str = ""


class Price(msgspec.Struct, frozen=True):
    """What a model costs, in US dollars for a million tokens.

    Attributes:
        input: of prompts; output: of answers.
    """

    input: float = 0.0
    output: float = 0.0


class Sampling(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How a model is to answer; None leaves it to the engine.

    Attributes:
        max_tokens: of the answer at most.
        stop: texts that end the answer.
        extra: further fields of the request's body, as the engine takes them.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: list[str] | None = None
    seed: int | None = None
    extra: dict[str, Any] = {}


class ChatRequest(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A conversation to go on with.

    Attributes:
        tools: in the OpenAI shape; tool_choice: ``auto``, ``none``, ``required`` or one function.
        schema: JSON schema of the answer; None: free text.
        priority: among the requests that the engine has: the smallest goes first; None: it has none.
        said: how the answer begins: another attempt has said that, and only what follows is to be said.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None
    schema: dict[str, Any] | None = None
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    priority: int | None = None
    said: str = ""


class CompletionRequest(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A prompt to continue; priority and said as in :class:`ChatRequest`."""

    prompt: str
    sampling: Sampling = msgspec.field(default_factory=Sampling)
    priority: int | None = None
    said: str = ""
