"""Answers in the shapes of the OpenAI API: of chats and completions, streamed or whole."""

from __future__ import annotations

import time
from typing import Any, Final, Protocol

import msgspec

from callboard.actors.emulator.asked import Plan

_FINGERPRINT: Final = "callboard-engine-emulator"
_encode = msgspec.json.Encoder().encode


class Reply(Protocol):
    """How one answer is written down."""

    def begin(self) -> bytes | None:
        """The event before the first piece, if there is one."""
        ...

    def piece(self, text: str) -> bytes:
        """The event of a piece."""
        ...

    def end(self) -> bytes:
        """The event with the reason."""
        ...

    def usage(self, cached: int) -> bytes:
        """The event with the tokens used."""
        ...

    def whole(self, cached: int) -> bytes:
        """The body of an answer that is not streamed."""
        ...


def reply_to(id_: str, model: str, planned: Plan, *, chat: bool) -> Reply:
    """For one answer."""
    if not chat:
        return _Completion(id_, model, planned)
    return _Call(id_, model, planned) if planned.call else _Chat(id_, model, planned)


class _Base:
    stream_kind = "chat.completion.chunk"
    whole_kind = "chat.completion"

    def __init__(self, id_: str, model: str, planned: Plan) -> None:
        self._planned = planned
        self._head = {
            "id": id_,
            "object": self.stream_kind,
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": _FINGERPRINT,
        }
        event = self._event({"index": 0, "finish_reason": None, **self.said("\x01")})
        self._before, _, self._after = event.partition(_encode("\x01"))

    def said(self, text: str) -> dict[str, Any]:
        """What a choice has for a piece."""
        return {"delta": {"content": text}}

    def nothing(self) -> dict[str, Any]:
        """What a choice has when it only ends."""
        return {"delta": {}}

    def message(self, text: str) -> dict[str, Any]:
        """What the choice of a whole answer has."""
        return {"message": {"role": "assistant", "content": text}}

    def begin(self) -> bytes | None:
        return self._event({"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": ""}})

    def piece(self, text: str) -> bytes:
        return b"".join((self._before, _encode(text), self._after))

    def end(self) -> bytes:
        return self._event({"index": 0, "finish_reason": self._planned.finish, **self.nothing()})

    def usage(self, cached: int) -> bytes:
        return b"data: " + _encode({**self._head, "choices": [], "usage": self._used(cached)}) + b"\n\n"

    def whole(self, cached: int) -> bytes:
        text = "".join(self._planned.answer)
        choice = {"index": 0, "finish_reason": self._planned.finish, **self.message(text)}
        body = {**self._head, "object": self.whole_kind, "choices": [choice], "usage": self._used(cached)}
        return _encode(body)

    def _event(self, choice: dict[str, Any]) -> bytes:
        return b"data: " + _encode({**self._head, "choices": [choice]}) + b"\n\n"

    def _used(self, cached: int) -> dict[str, Any]:
        prompt, answer = len(self._planned.prompt), len(self._planned.answer)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


class _Chat(_Base):
    pass


class _Call(_Base):
    """One that calls a function: its arguments are what is said."""

    def _calling(self, arguments: str, **more: Any) -> dict[str, Any]:
        function = {"name": self._planned.call, "arguments": arguments}
        return {
            "index": 0,
            "id": f"call-{self._head['id']}",
            "type": "function",
            "function": function,
            **more,
        }

    def said(self, text: str) -> dict[str, Any]:
        return {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}}

    def begin(self) -> bytes | None:
        delta = {"role": "assistant", "content": None, "tool_calls": [self._calling("")]}
        return self._event({"index": 0, "finish_reason": None, "delta": delta})

    def message(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": None, "tool_calls": [self._calling(text)]}}


class _Completion(_Base):
    stream_kind = whole_kind = "text_completion"

    def said(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def nothing(self) -> dict[str, Any]:
        return {"text": ""}

    def message(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def begin(self) -> bytes | None:
        return None
