"""The classes that the schemas of some actors define, each once and under a Python name of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from callboard.actors.hints import hint_of
from callboard.actors.stubs.expressions import Schema, name_in
from callboard.actors.stubs.words import identifier, unique


@dataclass
class Document:
    """One announced schema.

    Attributes:
        owner: the actor; schema: of the arguments or of the result of one of its methods.
        root: the definition that holds the arguments themselves, which is no class of its own.
        classes: Python names by definition; told by :func:`collect`.
    """

    owner: str
    schema: Schema
    root: str = ""
    classes: dict[str, str] = field(default_factory=dict)

    @property
    def definitions(self) -> Mapping[str, Any]:
        """All definitions."""
        found: Mapping[str, Any] = self.schema.get("$defs", {})
        return found


@dataclass(frozen=True)
class Kind:
    """A class to be written: its name, what it holds, and the document that says so."""

    name: str
    schema: Schema
    document: Document


def collect(documents: Sequence[Document], taken: Iterable[str]) -> list[Kind]:
    """Give every definition a Python name: the same one wherever the same class was meant.

    Two classes of one name that differ are called by the name of an actor that uses them, too.

    Args:
        documents: in a fixed order.
        taken: names that no class may have.
    """
    by_title: dict[str, dict[bytes, list[tuple[Document, str]]]] = {}
    for document in documents:
        for name, schema in document.definitions.items():
            if name != document.root:
                title = identifier(_short(str(schema.get("title") or name)))
                same = by_title.setdefault(title, {}).setdefault(_closure(document, name), [])
                same.append((document, name))
    used = {*taken, *_members(documents)}
    kinds = []
    for title, different in sorted(by_title.items()):
        for uses in different.values():
            document, name = uses[0]
            own = (
                title if len(different) == 1 and title not in used else f"{identifier(document.owner)}{title}"
            )
            own = unique(own, used)
            used.add(own)
            kinds.append(Kind(own, document.definitions[name], document))
            for using, its_name in uses:
                using.classes[its_name] = own
    return kinds


def members(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """The fields of a class: attribute, name on the wire (empty in an array), schema; not the tag."""
    hint = hint_of(schema)
    if "prefixItems" in schema:
        items = schema["prefixItems"][1 if hint.tag else 0 :]
        for number, item in enumerate(items):
            name = hint.names[number] if number < len(hint.names) else f"item_{number}"
            yield identifier(name), "", item
        return
    for name, one in schema.get("properties", {}).items():
        if name != hint.tag:
            yield identifier(hint_of(one).name or name), name, one


def _members(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        for name, schema in document.definitions.items():
            if name != document.root:
                yield from (attribute for attribute, _, _ in members(schema))


def _short(title: str) -> str:
    """The title of a class without modules: ``Page[app.Row]`` is ``Page_Row``."""
    parts = title.replace("[", " ").replace("]", " ").replace(",", " ").split()
    return "_".join(part.rpartition(".")[2] for part in parts)


def _closure(document: Document, name: str) -> bytes:
    """All that a definition says, with all the definitions that it refers to."""
    found = {name: document.definitions[name]}
    waiting = [name]
    while waiting:
        for reference in _references(document.definitions[waiting.pop()]):
            if reference not in found and reference in document.definitions:
                found[reference] = document.definitions[reference]
                waiting.append(reference)
    return msgspec.json.encode([name, sorted(found.items())])


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield name_in(value)
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)
