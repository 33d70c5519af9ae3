"""What a generated module of stubs stands on: how its functions are typed, and what they do when called."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast

from callboard.actors.declared import Method, Stub
from callboard.actors.directives import Directives
from callboard.actors.local_maker import LocalMaker
from callboard.actors.schema import Signature
from callboard.actors.scope import current
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.future import FutureInfo

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class NoHandlerHere(CallboardError):
    """A stub was called where no host could answer. Fields: actor, method."""

    code = "no_handler_here"


# -- how arguments are typed ----------------------------------------------------------------------

if TYPE_CHECKING:

    class Unresolved(Protocol[T_co]):
        """A future, as an argument sees it: one of a narrower type will do, which ``Future`` cannot say."""

        @property
        def arg(self) -> T_co:
            """The future, typed as its value."""
            ...

        @property
        def metadata(self) -> FutureInfo:
            """What is known of it."""
            ...

    class Items(Protocol[T_co]):
        """A list or tuple of these; unlike ``Sequence`` no string, which is one of strings too."""

        def __contains__(self, item: object, /) -> bool: ...
        def __getitem__(self, index: int, /) -> T_co: ...
        def __iter__(self) -> Iterator[T_co]: ...
        def __len__(self) -> int: ...

    Arg: TypeAlias = T | Unresolved[T]
    """A value, or the future of one."""
else:

    class Arg:
        """``Arg[T]`` is checked as ``T``: who encodes arguments knows of futures."""

        def __class_getitem__(cls, kind: Any) -> Any:
            return kind

    class Items:
        """``Items[T]`` is checked as ``list[T]``."""

        def __class_getitem__(cls, kind: Any) -> Any:
            return list[kind]


class _Default:
    """The default of a parameter that its actor fills in."""

    def __repr__(self) -> str:
        return "<the actor's default>"


DEFAULT: Any = _Default()
"""Stands in a signature for a default that cannot be written there. Defaults never travel."""


# -- what a stub does --------------------------------------------------------------------------------


class RemoteMethod(Method):
    """A method whose handler is somewhere else; ``function`` has its types and no more."""

    @functools.cached_property
    def signature(self) -> Signature:
        """The codecs, made from what the annotations of the generated function say inside of ``Future``."""
        annotations = typing.get_type_hints(self.function, include_extras=True)
        (annotations["return"],) = typing.get_args(annotations["return"])

        def plain() -> None: ...

        plain.__signature__ = inspect.signature(self.function)  # type: ignore[attr-defined]
        plain.__annotations__ = annotations
        return Signature(self.where, plain, skip_self=False, batched=False)

    def invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call from a run that a host drives.

        Raises:
            NoHandlerHere: it is called from anywhere else.
        """
        scope = current.get()
        if scope is None or isinstance(scope.maker, LocalMaker):
            raise NoHandlerHere(
                f"{self.where} was called where nothing can answer: this is a stub, its handler runs on a "
                "host. Call it in a workflow that a host drives ('callboard host', 'callboard run'); to run "
                "the workflow without NATS, put a declared actor in its place",
                actor=self.actor,
                method=self.name,
            )
        return super().invoke(args, kwargs)


def remote(
    actor: str, method: str, /, *, max_queue: int | None = None, managed: bool = False
) -> Callable[[F], F]:
    """Make a call of an actor's method out of a function that is all signature.

    Args:
        actor: its name; method: of it, ``call`` for a tool.
        max_queue: the actor refuses calls above this; refused ones are sent again later.
        managed: the actor keeps managed state: a session's calls go one after the other.
    """

    def stub(function: F) -> F:
        directives = Directives(max_queue=max_queue)
        made = RemoteMethod(actor, method, function, directives, None)
        made.managed = managed
        return cast("F", Stub(made))

    return stub
