"""A whole module of stubs, from what the registry tells of some actors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from callboard.actors.hints import hint_of
from callboard.actors.stubs.classes import is_enum, write_class
from callboard.actors.stubs.expressions import Expressions, Schema, name_in
from callboard.actors.stubs.kinds import Document, collect, members
from callboard.actors.stubs.layout import INDENT, bracketed
from callboard.actors.stubs.words import Imports, docstring, identifier, is_identifier, quoted, unique
from callboard.infra.messages.registry import ActorInfo, MethodInfo

_REMOTE = "callboard.actors.stubs.remote"
_HEAD = """\
Typed stubs of actors on a board. Written by 'callboard stubs': do not edit.

Calling one in a workflow makes a call, as if the actor were declared here, and gives a future. Every
argument may be a future itself.
"""


@dataclass
class _Method:
    """A method to be written, and the documents of its schemas."""

    info: MethodInfo
    arguments: Document
    result: Document

    @property
    def parameters(self) -> Schema:
        """The schema of the argument object."""
        found: Schema = self.arguments.definitions[self.arguments.root]
        return found

    def why_not(self) -> str:
        """Why no stub can be written; empty if one can."""
        if not self.arguments.root:
            return "it takes what no JSON schema describes"
        odd = [name for name in self.parameters.get("properties", {}) if not is_identifier(name)]
        return f"Python has no parameters named {', '.join(odd)}" if odd else ""


def write(actors: Sequence[ActorInfo], *, everything: bool) -> str:
    """The text of the module.

    Args:
        actors: in the order of their names.
        everything: they are all there are; for the words that tell how to write the module again.
    """
    methods = {actor.name: [_method(actor, info) for info in actor.methods] for actor in actors}
    names = _names(actors)
    callables = {identifier(info.name) for actor in actors for info in actor.methods if actor.kind != "tool"}
    documents = [d for of_actor in methods.values() for m in of_actor for d in (m.arguments, m.result)]
    kinds = sorted(collect(documents, {*names.values(), *callables}), key=lambda k: (not is_enum(k), k.name))
    attributes = {one for kind in kinds for one in _attributes(kind.schema)}
    imports = Imports({*names.values(), *callables, *attributes, *(kind.name for kind in kinds)})
    blocks = [write_class(kind, imports) for kind in kinds]
    for actor in sorted(actors, key=lambda a: (a.kind == "tool", a.name)):
        writer = _tool if actor.kind == "tool" else _agent
        blocks.append(list(writer(actor, names[actor.name], methods[actor.name], imports)))
    return _joined(_head(actors, everything=everything), imports.lines(), blocks)


def _attributes(schema: Schema) -> Iterator[str]:
    yield from (attribute for attribute, _, _ in members(schema))
    yield from hint_of(schema).members


def _names(actors: Sequence[ActorInfo]) -> dict[str, str]:
    names: dict[str, str] = {}
    for actor in actors:
        names[actor.name] = unique(identifier(actor.name), names.values())
    return names


def _method(actor: ActorInfo, info: MethodInfo) -> _Method:
    root = name_in(info.arguments.get("$ref", ""))
    arguments = Document(actor.name, info.arguments, root)
    if root not in arguments.definitions:
        arguments = Document(actor.name, {})
    return _Method(info, arguments, Document(actor.name, info.result))


def _head(actors: Sequence[ActorInfo], *, everything: bool) -> list[str]:
    width = max((len(actor.name) for actor in actors), default=0)
    table = "".join(f"    {a.kind:5} {a.name:{width}} version {a.version}\n" for a in actors)
    again = " ".join(["callboard stubs", *([] if everything else [actor.name for actor in actors])])
    return docstring(f"{_HEAD}\n{table}\nTo write it again: {again}\n", "")


def _joined(head: Sequence[str], imports: Sequence[str], blocks: Sequence[Sequence[str]]) -> str:
    lines = ["# ruff: noqa", "# fmt: off", *head, "", "from __future__ import annotations", ""]
    lines += [*imports, ""] if imports else []
    for block in blocks:
        lines += ["", *block, ""]
    return "\n".join(lines).rstrip("\n") + "\n"


# -- actors --------------------------------------------------------------------------------------


def _agent(actor: ActorInfo, name: str, methods: Sequence[_Method], imports: Imports) -> Iterator[str]:
    yield f"class {name}:"
    body = docstring(actor.doc, INDENT)
    if not body and all(method.why_not() for method in methods):
        yield f"{INDENT}pass"
    used: list[str] = []
    for method in methods:
        own = unique(identifier(method.info.name), used)
        used.append(own)
        body += [""] if body else []
        body += _left_out(actor, method, INDENT) or [
            f"{INDENT}@{imports.builtin('staticmethod')}",
            *_function(actor, own, method, imports, INDENT),
        ]
    yield from body


def _tool(actor: ActorInfo, name: str, methods: Sequence[_Method], imports: Imports) -> Iterator[str]:
    for method in methods:
        yield from _left_out(actor, method, "") or _function(actor, name, method, imports, "")


def _left_out(actor: ActorInfo, method: _Method, indent: str) -> list[str]:
    why = method.why_not()
    text = f"{actor.name}.{method.info.name} is left out: {why}"
    return [f"{indent}# {''.join(c if c.isprintable() else '?' for c in text)}"] if why else []


def _function(actor: ActorInfo, name: str, method: _Method, imports: Imports, indent: str) -> list[str]:
    definitions = method.result.definitions
    result = Expressions(imports, method.result.classes, definitions).plain(method.result.schema)
    options = [quoted(actor.name), quoted(method.info.name)]
    most = method.info.directives.get("max_queue")
    options += [f"max_queue={most}"] if isinstance(most, int) else []
    options += ["managed=True"] if method.info.directives.get("managed") is True else []
    return [
        *bracketed(f"{indent}@{imports.name(_REMOTE, 'remote')}", options, ""),
        *bracketed(
            f"{indent}def {name}",
            list(_parameters(method, imports)),
            f" -> {imports.name('callboard', 'Future')}[{result}]:",
        ),
        *docstring(method.info.doc or (actor.doc if actor.kind == "tool" else ""), f"{indent}{INDENT}"),
        f"{indent}{INDENT}raise {imports.builtin('NotImplementedError')}",
    ]


def _parameters(method: _Method, imports: Imports) -> Iterator[str]:
    schema = method.parameters
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    named = set(hint_of(schema).keyword_only)
    expressions = Expressions(imports, method.arguments.classes, method.arguments.definitions)
    by_name = optional = False
    for name, one in sorted(properties.items(), key=lambda item: item[0] in named):
        if not by_name and (name in named or (optional and name in required)):
            by_name = True
            yield "*"
        default = ""
        if name not in required:
            optional = True
            default = f" = {expressions.default(one) or imports.name(_REMOTE, 'DEFAULT')}"
        yield f"{name}: {expressions.argument(one)}{default}"
