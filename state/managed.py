"""Managed attributes of agents: declared by annotation, found by the session of the current call."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from callboard.infra.errors import DeclarationInvalid, NoSession
from callboard.state.dicts import ManagedDict
from callboard.state.items import Codec
from callboard.state.lists import ManagedList
from callboard.state.turn import Turn

T = TypeVar("T")

current: ContextVar[Turn | None] = ContextVar("callboard_turn", default=None)
"""The call that this code belongs to."""


class within:  # noqa: N801 - it reads as a word, and a generator in its place takes three times as long
    """Let managed attributes be those of a turn's session, for ``with``.

    Args:
        turn: the call's view of it.
    """

    __slots__ = ("_token", "_turn")

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def __enter__(self) -> None:
        self._token = current.set(self._turn)

    def __exit__(self, *_: object) -> None:
        current.reset(self._token)


class Managed(Generic[T]):
    """A value of the session of the current call. Declare it on an agent: ``profile: Managed[Profile]``.

    Reading the attribute gives the value, always the same object within a call; what is done to it is
    stored with the call. Until it is assigned it is None where the type allows that, else what the type
    makes without arguments.
    """

    # How type checkers see the attribute of an agent; :func:`manage` puts another descriptor in place.

    def __get__(self, instance: object, owner: type | None = None) -> T:
        """The value."""
        raise NotImplementedError

    def __set__(self, instance: object, value: T) -> None:
        """Assign it."""
        raise NotImplementedError

    def __delete__(self, instance: object) -> None:
        """Let it be unset again."""
        raise NotImplementedError


class ManagedCounter(Managed[int]):
    """A number of the session of the current call, 0 at first. Declare it so: ``tokens: ManagedCounter``.

    It is an ``int``: ``self.tokens += 5`` counts.
    """


class Attribute:
    """What stands on the class of an agent for a managed attribute.

    Args:
        agent: its name; name: of the attribute.
        kind: ``list``, ``dict``, ``value`` or ``counter``.
        types: of the items; of a dict first of the keys.

    Raises:
        DeclarationInvalid: a type cannot be stored.
    """

    def __init__(self, agent: str, name: str, kind: str, types: tuple[Any, ...]) -> None:
        self.name = name
        self.kind = kind
        self.codecs = [Codec(f"{agent}.{name}", one) for one in types]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """The value or the collection for the session of the current call; on the class itself this."""
        if instance is None:
            return self
        turn = self._turn()
        if self.kind in {"list", "dict"}:
            return turn.collection(self.name, lambda: self._collection(turn))
        kept = turn.attribute(self.name, self.kind)
        if kept.root is None:
            return turn.default(self.name, self.codecs[0])
        return turn.only(self.name, self.kind, self.codecs[0])

    def __set__(self, instance: object, value: Any) -> None:
        """Assign the value, or all items of the collection."""
        turn = self._turn()
        if self.kind in {"list", "dict"}:
            self.__get__(instance).replace(value)
        else:
            turn.replace(self.name, self.kind, [turn.cell(self.name, self.codecs[0], value, 0)])

    def __delete__(self, instance: object) -> None:
        """Let it be as it was at first."""
        turn = self._turn()
        if self.kind in {"list", "dict"}:
            self.__get__(instance).clear()
        else:
            turn.replace(self.name, self.kind, [])

    def _collection(self, turn: Turn) -> Any:
        if self.kind == "list":
            return ManagedList(turn, self.name, self.codecs[0])
        return ManagedDict(turn, self.name, *self.codecs)

    def _turn(self) -> Turn:
        turn = current.get()
        if turn is None:
            raise NoSession(
                f"{self.name} is managed state: it is there while a handler of the agent runs for a session, "
                "on the loop or in a thread; a batchable one serves many, and says whose it is by "
                "'for ... in callboard.each(items)' or 'with callboard.item(place)'",
                attribute=self.name,
            )
        return turn


_KINDS: dict[Any, str] = {
    ManagedList: "list",
    ManagedDict: "dict",
    Managed: "value",
    ManagedCounter: "counter",
}
_TYPES: Mapping[str, int] = {"list": 1, "dict": 2, "value": 1, "counter": 0}


def manage(cls: type, agent: str) -> dict[str, Attribute]:
    """Put descriptors in the place of a class's annotations that declare managed state.

    Args:
        agent: its name, for error texts.

    Returns:
        the managed attributes by name.

    Raises:
        DeclarationInvalid: an annotation cannot be resolved or stored.
    """
    declared = [one for base in cls.__mro__ for one in inspect.get_annotations(base).values()]
    if not any("Managed" in str(one) for one in declared):
        return {}
    try:
        annotations = typing.get_type_hints(cls)
    except Exception as error:  # whatever evaluating somebody's annotations raises
        raise DeclarationInvalid(
            f"{agent}: the annotations of its class cannot be resolved ({error}): import the types where the "
            "agent is declared, not under TYPE_CHECKING"
        ) from error
    found: dict[str, Attribute] = {}
    for name, annotation in annotations.items():
        kind = _KINDS.get(typing.get_origin(annotation) or annotation)
        if kind is not None:
            given = inspect.getattr_static(cls, name, None)
            if given is not None and not isinstance(given, Attribute):
                raise DeclarationInvalid(
                    f"{agent}.{name} is managed state and has a default, which no session would get: leave "
                    "it out, and assign it in a handler where it is empty"
                )
            found[name] = Attribute(agent, name, kind, _types(kind, annotation))
            setattr(cls, name, found[name])
    return found


def _types(kind: str, annotation: Any) -> tuple[Any, ...]:
    if kind == "counter":
        return (int,)
    return typing.get_args(annotation) or (Any,) * _TYPES[kind]
