"""The HTTP server of an emulated engine: what of the OpenAI API, and of vLLM's own, a client needs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from callboard.actors.emulator import metrics, words
from callboard.actors.emulator.asked import (
    ANSWER_TOKENS,
    Ask,
    AskTokens,
    AskVectors,
    Plan,
    Refused,
    embedded,
    plan,
)
from callboard.actors.emulator.engine import EmulatedEngine, Generation
from callboard.actors.emulator.faults import Fault, Faults
from callboard.actors.emulator.replies import Reply, reply_to

LABEL: Final = "callboard-engine-emulator"
_HEADERS: Final = {"Server": LABEL, "X-Engine-Emulator": "true"}
_DIMENSIONS: Final = 64

_decode = msgspec.json.Decoder(Ask).decode
_decode_tokens = msgspec.json.Decoder(AskTokens).decode
_decode_vectors = msgspec.json.Decoder(AskVectors).decode
_decode_fault = msgspec.json.Decoder(Fault).decode
_encode = msgspec.json.Encoder().encode


class EmulatorApp:
    """The application, in the shape of ASGI: ``app``.

    Args:
        engine: what generates; it is started with the server.
        model: name under which it is served.
        answer_tokens: of an answer that nobody limits or prescribes.
    """

    def __init__(self, engine: EmulatedEngine, model: str, answer_tokens: int = ANSWER_TOKENS) -> None:
        self.engine = engine
        self.model = model
        self.faults = Faults()
        self._answer_tokens = answer_tokens
        self._begun = int(time.time())
        self.app = Starlette(
            routes=[
                Route("/health", self._health),
                Route("/version", self._version),
                Route("/metrics", self._metrics),
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._answer, methods=["POST"]),
                Route("/v1/completions", self._answer, methods=["POST"]),
                Route("/v1/embeddings", self._embed, methods=["POST"]),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/emulator/faults", self._add_fault, methods=["POST"]),
                Route("/emulator/faults", self._clear_faults, methods=["DELETE"]),
            ]
        )

    # -- about it ----------------------------------------------------------------------------------

    async def _health(self, _: Request) -> Response:
        return Response(headers=_HEADERS)

    async def _version(self, _: Request) -> Response:
        return _json({"version": f"{LABEL}, profile {self.engine.profile.name}"})

    async def _metrics(self, _: Request) -> Response:
        text = metrics.told(self.engine, self.model)
        return PlainTextResponse(text, headers=_HEADERS, media_type=metrics.CONTENT_TYPE)

    async def _models(self, _: Request) -> Response:
        profile = self.engine.profile
        card = {
            "id": self.model,
            "object": "model",
            "created": self._begun,
            "owned_by": LABEL,
            "root": f"emulation of {profile.model}; there is no model",
            "max_model_len": self.engine.context_tokens,
            "emulator": {"profile": profile.name, "source": profile.source, "speed": self.engine.speed},
        }
        return _json({"object": "list", "data": [card]})

    # -- faults ------------------------------------------------------------------------------------

    async def _add_fault(self, request: Request) -> Response:
        try:
            self.faults.add(_decode_fault(await request.body()))
        except msgspec.MsgspecError as error:
            return _refusal(400, str(error))
        return _json({"ok": True})

    async def _clear_faults(self, _: Request) -> Response:
        self.faults.clear()
        return _json({"ok": True})

    # -- answers -----------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Response:
        fault = self.faults.next()
        if fault is not None and fault.kind == "refuse":
            after = {"Retry-After": f"{fault.retry_after:g}"} if fault.retry_after else {}
            return _refusal(fault.status, "asked to refuse this (emulated)", after)
        try:
            ask = _decode(await request.body())
            planned = plan(ask, self.engine.context_tokens, self._answer_tokens)
        except (msgspec.MsgspecError, Refused) as error:
            return _refusal(400, str(error))
        finish = "length" if planned.finish == "length" else "stop"
        generation = await self.engine.generate(planned.prompt, planned.answer, ask.priority, finish)
        chat = request.url.path.endswith("/chat/completions")
        reply = reply_to(f"emulated-{uuid.uuid4().hex}", self.model, planned, chat=chat)
        if ask.stream:
            usage = bool((ask.stream_options or {}).get("include_usage"))
            events = self._events(reply, planned, generation, fault, usage=usage)
            return StreamingResponse(events, headers=_HEADERS, media_type="text/event-stream")
        return await self._whole(request, reply, planned, generation)

    async def _events(
        self, reply: Reply, planned: Plan, generation: Generation, fault: Fault | None, *, usage: bool
    ) -> AsyncIterator[bytes]:
        """Who reads slowly is given what has come meanwhile in one event; who leaves ends it."""
        told = 0
        try:
            while told < len(planned.answer):
                have = await generation.more(told)
                if not told and (begin := reply.begin()) is not None:
                    yield begin
                if fault is not None and have >= fault.after:
                    have = max(told, min(have, fault.after))
                    if have > told:
                        yield reply.piece("".join(planned.answer[told:have]))
                    async for event in _go_wrong(fault):
                        yield event
                    return
                yield reply.piece("".join(planned.answer[told:have]))
                told = have
            yield reply.end()
            if usage:
                yield reply.usage(generation.cached)
            yield b"data: [DONE]\n\n"
        finally:
            generation.stop()

    async def _whole(self, request: Request, reply: Reply, planned: Plan, generation: Generation) -> Response:
        leaving = asyncio.ensure_future(_gone(request))
        generating = asyncio.ensure_future(generation.more(len(planned.answer) - 1))
        try:
            await asyncio.wait((leaving, generating), return_when=asyncio.FIRST_COMPLETED)
            return Response(reply.whole(generation.cached), headers=_HEADERS, media_type="application/json")
        finally:
            leaving.cancel()
            generating.cancel()
            generation.stop()

    async def _tokenize(self, request: Request) -> Response:
        try:
            asked = _decode_tokens(await request.body())
        except msgspec.MsgspecError as error:
            return _refusal(400, str(error))
        count = len(words.tokens(asked.prompt))
        return _json({"count": count, "max_model_len": self.engine.context_tokens})

    async def _embed(self, request: Request) -> Response:
        try:
            texts = _decode_vectors(await request.body()).texts()
            read = [embedded(text, self.engine.context_tokens) for text in texts]
        except (msgspec.MsgspecError, Refused) as error:
            return _refusal(400, str(error))
        leaving = asyncio.ensure_future(_gone(request))
        try:
            for tokens in read:
                if not await self._read_whole(tokens, leaving):
                    break  # nobody waits any more
        finally:
            leaving.cancel()
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(text)}
            for index, text in enumerate(texts)
        ]
        used = sum(map(len, read))
        usage = {"prompt_tokens": used, "total_tokens": used}
        return _json({"object": "list", "data": data, "model": self.model, "usage": usage})

    async def _read_whole(self, tokens: list[str], leaving: asyncio.Future[None]) -> bool:
        """Compute a prompt; False if whoever asked has left."""
        generation = await self.engine.generate(tokens, ["."])
        reading = asyncio.ensure_future(generation.more(0))
        try:
            await asyncio.wait((leaving, reading), return_when=asyncio.FIRST_COMPLETED)
            return not leaving.done()
        finally:
            reading.cancel()
            generation.stop()


async def _go_wrong(fault: Fault) -> AsyncIterator[bytes]:
    match fault.kind:
        case "stall":
            await asyncio.Event().wait()
        case "rubbish":
            yield b"data: " + fault.text.encode() + b"\n\n"
        case "error":
            told = {
                "message": "asked to fail in the stream (emulated)",
                "type": "InternalServerError",
                "code": 500,
            }
            yield b"data: " + _encode({"error": told}) + b"\n\n"
        case "die":
            os._exit(137)
        case _:
            raise ConnectionAbortedError("asked to break off")


async def _gone(request: Request) -> None:
    """Wait until whoever asked has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _vector(text: str) -> list[float]:
    """The same for the same text, of length 1, and about nothing."""
    drawn = hashlib.shake_128(text.encode()).digest(_DIMENSIONS)
    length = sum((one - 127.5) ** 2 for one in drawn) ** 0.5
    return [(one - 127.5) / length for one in drawn]


def _json(body: Any) -> Response:
    return Response(_encode(body), headers=_HEADERS, media_type="application/json")


def _refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    kind = "RateLimitError" if status == 429 else "BadRequestError" if status < 500 else "InternalServerError"
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return Response(_encode(body), status, {**_HEADERS, **(headers or {})}, "application/json")
