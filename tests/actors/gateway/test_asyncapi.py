"""The AsyncAPI document: whole, and true of what goes over the wire."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from tests.actors.gateway.support import Asker

from callboard.actors.gateway import Gateway
from callboard.actors.gateway.document import VERBS
from callboard.infra import headers as H

_KEY = re.compile(r"^[\w\d.\-_]+$")


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """The document; it needs no server."""
    return Gateway("nats://me:secret@board.example:4222").asyncapi()


def references(part: Any) -> Iterator[str]:
    """Every reference in a part of the document."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolve(told: dict[str, Any], reference: str) -> Any:
    """What a reference stands for, through other references."""
    found: Any = told
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return resolve(told, found["$ref"]) if isinstance(found, dict) and "$ref" in found else found


def test_is_asyncapi(told: dict[str, Any]) -> None:
    """Version 3.0, plain JSON, keys as the specification wants them, no reference that leads nowhere."""
    assert told["asyncapi"] == "3.0.0"
    assert json.loads(json.dumps(told)) == told
    ApplicationSchema.model_validate(told)
    for part in (told["channels"], told["operations"], *told["components"].values()):
        assert all(_KEY.match(key) for key in part)
    found = list(references(told))
    assert len(found) > 40
    for reference in found:
        assert resolve(told, reference)


def test_tells_no_secrets(told: dict[str, Any]) -> None:
    """The server's address, without what opens it."""
    assert [server["host"] for server in told["servers"].values()] == ["board.example:4222"]
    assert "secret" not in json.dumps(told)


def test_describes_every_verb(told: dict[str, Any]) -> None:
    """Address, parameters, queue group, what is asked, and what is answered."""
    assert set(told["operations"]) == set(VERBS)
    for verb, one in VERBS.items():
        channel, operation = told["channels"][verb], told["operations"][verb]
        assert channel["address"] == f"cb.api.{verb}.{one.name}"
        assert channel["description"]
        assert operation["summary"]
        assert [f"{{{name}}}" for name in channel.get("parameters", {})] == [
            n for n in [one.name] if "{" in n
        ]
        assert (operation["action"], operation["bindings"]) == ("receive", {"nats": {"queue": "gateway"}})
        assert resolve(told, operation["channel"]["$ref"]) == channel
        replies = [resolve(told, reply["$ref"]) for reply in operation["reply"]["messages"]]
        assert [reply["payload"]["$ref"].rpartition("/")[2] for reply in replies][1:] == ["Failure"]
    options = resolve(told, told["channels"]["run"]["messages"]["request"]["$ref"])["headers"]["properties"]
    assert {H.RUN, H.SESSION, H.PRIORITY, H.DEADLINE, H.CONTENT_TYPE} <= set(options)


def fields(told: dict[str, Any], schema: str) -> tuple[set[str], set[str]]:
    """All properties of a schema, and the required ones."""
    found = told["components"]["schemas"][schema]
    return set(found["properties"]), set(found.get("required", ()))


@pytest.mark.usefixtures("gateway")
async def test_is_true(told: dict[str, Any], ask: Asker) -> None:
    """Answers have the properties that the document says, and all that it requires."""
    run = (await ask("submit", "greet", {"name": "Ada"})).body["run"]
    names = {"{workflow}": "greet", "{run}": run, "all": "all"}
    for verb, one in VERBS.items():
        body = (await ask(verb, names[one.name], {"name": "Ada"})).body
        reply = resolve(told, told["operations"][verb]["reply"]["messages"][0]["$ref"])
        every, required = fields(told, reply["payload"]["$ref"].rpartition("/")[2])
        assert required <= set(body) <= every
    failed = (await ask("run", "gret")).body
    every, required = fields(told, "Failure")
    assert required <= set(failed) <= every
    every, required = fields(told, "Error")
    assert required <= set(failed["error"]) <= every
