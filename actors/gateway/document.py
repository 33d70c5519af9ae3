"""The verbs as FastStream is told of them, and the AsyncAPI document that it makes of that.

FastStream writes servers, addresses, operations and what is asked; it has no words for answers, for the
parts of an address, or for headers, so those are added here.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, NamedTuple, get_type_hints

import msgspec
from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI

from callboard.actors.gateway.exchange import Request
from callboard.actors.gateway.messages import ALL, GROUP, Answer, Failure
from callboard.actors.gateway.verbs import Verbs
from callboard.infra import headers as H

_SCHEMAS = "#/components/schemas/"
_OF = {"workflow": "Name of a workflow", "run": "Id of a run"}
_ABOUT = """Runs Callboard workflows by request and reply on core NATS.

Bodies are JSON, or msgpack with header Content-Type: application/msgpack; an answer has the encoding of \
its request. Every failure is an answer with an `error`, and carries header Nats-Service-Error."""


class Verb(NamedTuple):
    """One verb.

    Attributes:
        name: the last token of its subject: ``{workflow}``, ``{run}`` or ``all``.
        method: what it does.
        options: it takes the headers of a request.
    """

    name: str
    method: Callable[[Verbs, Request], Awaitable[Answer]]
    options: bool = False

    @property
    def text(self) -> str:
        """What it does, in words."""
        return inspect.cleandoc(self.method.__doc__ or "")


VERBS = {
    "run": Verb("{workflow}", Verbs.run, options=True),
    "submit": Verb("{workflow}", Verbs.submit, options=True),
    "result": Verb("{run}", Verbs.result),
    "status": Verb("{run}", Verbs.status),
    "cancel": Verb("{run}", Verbs.cancel),
    "actors": Verb(ALL, Verbs.actors),
    "health": Verb(ALL, Verbs.health),
}

_HEADERS = {
    H.CONTENT_TYPE: {"type": "string", "enum": [H.JSON, H.MSGPACK], "description": "Encoding of the body"},
    H.DEADLINE: {"type": "string", "description": "Unix seconds when the run, and the waiting for it, end"},
    H.RUN: {"type": "string", "description": "An id of your own; the same id again is the same run"},
    H.SESSION: {"type": "string", "description": "Whose run it is"},
    H.PRIORITY: {"type": "string", "description": "Above 0 is urgent, below 0 can wait"},
    H.BUDGET: {"type": "string", "description": "Budgets that models charge: run, or key. and a token"},
    H.TRACEPARENT: {"type": "string", "description": "W3C trace context"},
}
_WITHOUT_OPTIONS = (H.CONTENT_TYPE, H.DEADLINE)


def asyncapi(broker: NatsBroker) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of a broker that serves the verbs."""
    made = AsyncAPI(
        broker,
        title="Callboard gateway",
        version=version("callboard"),
        description=_ABOUT,
        schema_version="3.0.0",
    )
    told: dict[str, Any] = made.to_specification().to_jsonable()
    answers = {verb: get_type_hints(one.method)["return"] for verb, one in VERBS.items()}
    _, schemas = msgspec.json.schema_components(
        [*answers.values(), Failure], ref_template=_SCHEMAS + "{name}"
    )
    components = {"schemas": schemas, "messages": {"Failure": _message("Failure", "Failure")}}
    for verb, one in VERBS.items():
        asked = told["components"]["schemas"][f"{verb}:Message:Payload"]
        schemas[f"{verb}.request"] = asked | {"title": f"{verb}.request"}
        components["messages"][f"{verb}.request"] = _message(verb, f"{verb}.request") | _headers(one)
        components["messages"][f"{verb}.reply"] = _message(verb, answers[verb].__name__)
        _complete(told, verb, one)
    told["components"] = components
    return told


def _message(title: str, schema: str) -> dict[str, Any]:
    return {"title": title, "payload": {"$ref": _SCHEMAS + schema}}


def _headers(verb: Verb) -> dict[str, Any]:
    taken = _HEADERS if verb.options else {name: _HEADERS[name] for name in _WITHOUT_OPTIONS}
    return {"headers": {"type": "object", "properties": taken}}


def _complete(told: dict[str, Any], verb: str, one: Verb) -> None:
    """Add to a channel and its operation what FastStream leaves out."""
    messages = {name: _ref("components", "messages", f"{verb}.{name}") for name in ("request", "reply")}
    messages["failure"] = _ref("components", "messages", "Failure")
    channel = told["channels"][verb]
    channel["messages"] = {"request": messages.pop("request")}
    del channel["bindings"]  # of a make of its own; the queue belongs to the operation
    name = one.name.strip("{}")
    if name in _OF:
        channel["parameters"] = {name: {"description": _OF[name]}}
    replies = f"{verb}.replies"
    told["channels"][replies] = {"address": None, "messages": messages}
    operation = told["operations"][verb]
    operation["messages"] = [_ref("channels", verb, "messages", "request")]
    operation["bindings"] = {"nats": {"queue": GROUP}}
    operation["summary"] = one.text.partition("\n")[0]
    operation["reply"] = {
        "channel": _ref("channels", replies),
        "messages": [_ref("channels", replies, "messages", name) for name in messages],
    }


def _ref(*parts: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(parts)}
