"""What a board offers to MCP clients, read from the registry."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types

from callboard.actors.app import unknown
from callboard.actors.mcp.calls import NAME
from callboard.infra.messages.registry import ActorInfo, MethodInfo

_NAME_LIMIT = 64
_DIGITS = 8
_WHOLE = frozenset({"tool", "workflow"})
"""Kinds of actors with one method, which has their name."""


@dataclass(frozen=True)
class Offer:
    """A tool as an MCP client sees it, and what it stands for.

    Attributes:
        tool: as it is listed.
        workflow: that runs when it is called; actor, method: what that workflow calls, or empty.
    """

    tool: types.Tool
    workflow: str
    actor: str = ""
    method: str = ""

    def request(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the workflow."""
        if not self.actor:
            return arguments
        return {"actor": self.actor, "method": self.method, "arguments": arguments}


def offers(actors: Iterable[ActorInfo], chosen: Collection[str]) -> dict[str, Offer]:
    """What is offered, by name: all tools and workflows, or what was chosen.

    Methods of agents (and of adopted MCP servers and models) are offered where the agent was chosen, as
    ``agent__method``.

    Args:
        chosen: names of actors and workflows; none for all tools and workflows.

    Raises:
        UnknownActor: the registry has none of a chosen name.
    """
    known = {actor.name: actor for actor in actors if actor.name != NAME}
    for name in chosen:
        if name not in known:
            raise unknown("actor", name, known, "on this board")
    wanted = [a for a in known.values() if a.name in chosen or (not chosen and a.kind in _WHOLE)]
    return {offer.tool.name: offer for actor in wanted for offer in _offered(actor)}


def _offered(actor: ActorInfo) -> Iterator[Offer]:
    for method in actor.methods:
        name = actor.name if actor.kind in _WHOLE else f"{actor.name}__{method.name}"
        tool = types.Tool(
            name=_short(name),
            description=method.doc or actor.doc or None,
            input_schema=flat(method.arguments) or {"type": "object"},
            output_schema=flat(method.result),
            annotations=_annotations(method),
        )
        if actor.kind == "workflow":
            yield Offer(tool, actor.name)
        else:
            yield Offer(tool, NAME, actor.name, method.name)


def _short(name: str) -> str:
    """A name that clients take; one that is cut ends with what tells it from others that begin alike."""
    if len(name) <= _NAME_LIMIT:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
    return f"{name[: _NAME_LIMIT - _DIGITS - 1]}_{digest}"


def _annotations(method: MethodInfo) -> types.ToolAnnotations | None:
    said = bool(method.directives.get("idempotent"))
    return types.ToolAnnotations(idempotent_hint=True) if said else None


def flat(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A schema of the registry as MCP wants it, the object itself at the top; None if it is of no object."""
    definitions = dict(schema.get("$defs", {}))
    body = dict(schema)
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        body = {key: value for key, value in schema.items() if key not in {"$ref", "$defs"}}
        body |= definitions.get(name, {})
    if body.get("type") != "object":
        return None
    return {**body, "$defs": definitions} if definitions else body
