"""Requests held against what workflows have announced, before they are sent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import registry
from callboard.actors.fits import misfit
from callboard.actors.hints import KEYWORD
from callboard.actors.shared import Shared
from callboard.infra.errors import CallboardError, InvalidArguments, UnknownActor
from callboard.infra.messages.registry import ActorInfo

if TYPE_CHECKING:
    from callboard.actors.node import Node

_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_MERE = {"type", "default"}
_SPECIAL = frozenset({"format", "contentEncoding", KEYWORD})
"""What in a schema means that several kinds of values may be read as its type."""


class _Takes(msgspec.Struct):
    """The schema of an object, as far as it counts here."""

    properties: dict[str, dict[str, Any]] = {}
    required: list[str] = []


class Announced:
    """What workflows have announced, each read once and again before anything is refused."""

    def __init__(self) -> None:
        self._known: dict[str, Form] = {}
        self._reads: dict[str, Shared[ActorInfo | None]] = {}

    async def check(self, node: Node, workflow: str, arguments: Mapping[str, Any]) -> None:
        """See that a workflow takes such arguments, as far as that is certain here; its driver sees the rest.

        What nobody has announced yet, or cannot be asked for just now, is let through.

        Args:
            node: that reads, the same each time.
            workflow: its name; arguments: by name.

        Raises:
            InvalidArguments: one is unknown or missing, or a plain value of another type.
            UnknownActor: it is no workflow.
        """
        known = self._known.get(workflow)
        if known is not None and known.refusal(arguments) is None:
            return
        read = self._reads.setdefault(workflow, Shared(lambda: registry.actor(node, workflow)))
        try:
            found = await read()
        except CallboardError:
            return  # it is the storing that tells of a server that does not answer, or waits for it
        if found is None:
            return
        known = self._known[workflow] = Form(found)
        if (problem := known.refusal(arguments)) is not None:
            raise problem


class Form:
    """What arguments a workflow takes, as it has announced it.

    Args:
        workflow: as it stands in the registry.
    """

    def __init__(self, workflow: ActorInfo) -> None:
        self._name = workflow.name
        self._kind = workflow.kind
        self._takes = _takes(workflow)

    def refusal(self, arguments: Mapping[str, Any]) -> CallboardError | None:
        """Why it cannot be run with these arguments; None if it can, as far as that is certain."""
        name = self._name
        if self._kind != "workflow":
            text = f"{name} is no workflow, but of kind {self._kind}: workflows are run, and call it"
            return UnknownActor(text, actor=name)
        if self._takes is None:
            return None
        takes = self._takes.properties
        missing = [parameter for parameter in self._takes.required if parameter not in arguments]
        problem = _problem(takes, missing, arguments)
        if not problem:
            return None
        listed = f"it takes {', '.join(takes)}" if takes else "it takes no arguments"
        return InvalidArguments(
            f"{name}: {problem}; {listed}", actor=name, method="run", missing=missing, takes=list(takes)
        )


def _takes(workflow: ActorInfo) -> _Takes | None:
    """What stands in the registry of a workflow's arguments; None if that is no schema of them."""
    schema = workflow.methods[0].arguments if workflow.methods else {}
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    try:
        return msgspec.convert(schema.get("$defs"), dict[str, _Takes]).get(name)
    except msgspec.ValidationError:  # anybody can publish there
        return None


def _problem(takes: Mapping[str, dict[str, Any]], missing: list[str], arguments: Mapping[str, Any]) -> str:
    for name in arguments:
        if name not in takes:
            return f"there is no parameter {name!r}"
    if missing:
        return f"{', '.join(missing)} missing"
    for name, value in arguments.items():
        if _questionable(value, takes[name]) and (problem := misfit(value, takes[name], name)):
            return problem
    return ""


def _questionable(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether the schema says by itself that a value may not fit: both are plain."""
    kind = _PLAIN.get(type(value))
    if kind is None or (isinstance(value, float) and not math.isfinite(value)):
        return False
    if schema.get("type") == kind and schema.keys() <= _MERE:
        return False  # as most do: the quick way to see that it fits
    return ("type" in schema or "enum" in schema) and not _SPECIAL & schema.keys()
