"""Whether values of a type can travel, as far as annotations tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import inspect as mi

from callboard.infra.errors import DeclarationInvalid

_DATA: tuple[Any, ...] = (None, False, 0, 0.0, "", b"", [], {})
"""One of each kind that is decoded where a type says nothing of how."""


def check(kind: Any, what: str, hint: str = "") -> None:
    """Refuse a type that no value that travels can have.

    Args:
        what: has the type; begins the error's text; hint: ends it.

    Raises:
        DeclarationInvalid: it, or a part of it, is a class that is made neither from data nor by msgspec.
    """
    for part in _parts(mi.type_info(kind), set()):
        if isinstance(part, mi.CustomType) and not _is_data(part.cls):
            name = part.cls.__qualname__
            module = "" if part.cls.__module__ == "builtins" else f"{part.cls.__module__}."
            raise DeclarationInvalid(
                f"{what} cannot travel: a {module}{name} is neither a msgspec struct, nor a dataclass, "
                f"nor one of the standard types{hint}"
            )


def _parts(info: Any, seen: set[int]) -> Iterator[mi.Type]:
    """A type and all within it; each once, since types may hold themselves."""
    if isinstance(info, tuple):
        for one in info:
            yield from _parts(one, seen)
    elif isinstance(info, mi.Type | mi.Field) and id(info) not in seen:
        seen.add(id(info))
        if isinstance(info, mi.Type):
            yield info
        for name in info.__struct_fields__:
            yield from _parts(getattr(info, name), seen)


def _is_data(cls: type) -> bool:
    """Whether something that is decoded without a type is one of these: an ``object``, a ``Number``."""
    try:
        return any(isinstance(one, cls) for one in _DATA)
    except TypeError:  # a protocol that cannot be asked
        return True
