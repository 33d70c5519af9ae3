"""Declaring actors in plain Python: ``@agent``, ``@tool``, ``@workflow`` and ``@method``.

Declaring has no side effects. The declaration is also the stub: calling it inside a workflow, or
inside another agent, makes a call and gives a future.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import (
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    overload,
)

import msgspec

from callboard.actors import snapshots
from callboard.actors.declared import AgentClass, Method, Stub, Tool, Workflow
from callboard.actors.directives import PER_ACTOR, Directives, directives_from
from callboard.actors.effects import RECONCILES, mark
from callboard.infra.errors import DeclarationInvalid
from callboard.infra.subjects import WAKER, NameInvalid, token

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Self_ = TypeVar("Self_")
_MARK = "__callboard_method__"


class _BoundStub:
    """What stands in the class: a stub on the class, the plain method on an instance."""

    def __init__(self, method: Method) -> None:
        self._stub: Stub[Any, Any] = Stub(method)
        self._function = method.function

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._stub if instance is None else self._function.__get__(instance, owner)


class TypedMethod(Generic[Self_, P, R]):
    """How a type checker sees a ``@method``: a stub on the class, itself on an instance."""

    def reconcile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """As :meth:`Tool.reconcile`, for a method with an effect; the function is no method to be called."""
        raise AttributeError("only a @method(effect=True) has reconcile")

    @overload
    def __get__(self, instance: None, owner: type[Self_]) -> Stub[P, R]: ...
    @overload
    def __get__(self, instance: Self_, owner: type[Self_]) -> Callable[P, Awaitable[R]]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """Never called: ``@agent`` puts its own descriptor in place."""
        raise AttributeError("the class of a @method must be an @agent")


# -- the decorators --------------------------------------------------------------------------------


@overload
def method(
    function: Callable[Concatenate[Self_, P], Coroutine[Any, Any, R]], /
) -> TypedMethod[Self_, P, R]: ...
@overload
def method(function: Callable[Concatenate[Self_, P], R], /) -> TypedMethod[Self_, P, R]: ...
@overload
def method(**directives: Any) -> _MethodDecorator: ...
def method(function: Any = None, /, **directives: Any) -> Any:
    """Declare a method of an agent: gives it directives of its own, and types to call it through the class.

    Every public method of an agent is callable without it.

    Args:
        directives: see :class:`Directives`; they override the agent's.
    """
    if function is None:
        return _MethodDecorator(directives)
    setattr(function, _MARK, directives)
    return function


class _MethodDecorator:
    def __init__(self, directives: dict[str, Any]) -> None:
        self._directives = directives

    @overload
    def __call__(
        self, function: Callable[Concatenate[Self_, P], Coroutine[Any, Any, R]]
    ) -> TypedMethod[Self_, P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Self_, P], R]) -> TypedMethod[Self_, P, R]: ...
    def __call__(self, function: Any) -> Any:
        setattr(function, _MARK, self._directives)
        return mark(function, self._directives)


@overload
def batchable(
    function: Callable[[Self_, list[T]], Coroutine[Any, Any, list[R]]], /
) -> TypedMethod[Self_, [T], R]: ...
@overload
def batchable(*, max_batch: int = ..., max_wait: float = ..., **directives: Any) -> _BatchDecorator: ...
def batchable(function: Any = None, /, **directives: Any) -> Any:
    """Declare a method that takes a list, one item for each of the calls that wait.

    Callers call it with one item. It returns a list of as many results; an exception in the list is
    the error of that caller alone. Managed state is reached inside of :func:`callboard.each` and
    :func:`callboard.item`, which say whose.

    Args:
        max_batch: most items at once.
        max_wait: seconds that the first of them waits for more.
    """
    decorator = _BatchDecorator(directives)
    return decorator if function is None else decorator(function)


class _BatchDecorator:
    def __init__(self, directives: dict[str, Any]) -> None:
        self._directives = {**directives, "batchable": True}

    @overload
    def __call__(
        self, function: Callable[[Self_, list[T]], Coroutine[Any, Any, list[R]]]
    ) -> TypedMethod[Self_, [T], R]: ...
    @overload
    def __call__(self, function: Callable[[Self_, list[T]], list[R]]) -> TypedMethod[Self_, [T], R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Self_, P], Any]) -> TypedMethod[Self_, ..., Any]: ...
    def __call__(self, function: Any) -> Any:
        setattr(function, _MARK, self._directives)
        return function


@overload
def agent(cls: type[T], /) -> type[T]: ...
@overload
def agent(*, name: str | None = ..., **directives: Any) -> Callable[[type[T]], type[T]]: ...
def agent(cls: Any = None, /, *, name: str | None = None, **directives: Any) -> Any:
    """Declare a class as an agent: its public methods can be called through the class.

    Args:
        name: of the actor; the class's by default.
        directives: see :class:`Directives`.

    Raises:
        DeclarationInvalid: the class has no public method, or its name cannot be a subject token.
    """
    if cls is None:
        return functools.partial(_declare_agent, name=name, options=directives)
    return _declare_agent(cls, name, directives)


def _declare_agent(cls: type[T], name: str | None, options: dict[str, Any]) -> type[T]:
    if not isinstance(cls, type):
        raise _misplaced("agent", cls)
    actor = _name("agent", name or cls.__name__)
    base = directives_from(Directives(), options, actor)
    if snapshots.declared(cls, base):
        snapshots.check(cls, actor)
        base = msgspec.structs.replace(base, max_instances=None)  # each session has an instance of its own
    declared = AgentClass(cls, actor, base)
    for key, function in inspect.getmembers(cls, inspect.isfunction):
        if (
            key.startswith("_")
            or (declared.movable and key in snapshots.METHODS)
            or hasattr(function, RECONCILES)
            or isinstance(inspect.getattr_static(cls, key), staticmethod)
        ):
            continue
        own = dict(getattr(function, _MARK, {}))
        misplaced = PER_ACTOR & set(own)
        if misplaced:
            raise DeclarationInvalid(
                f"{actor}.{key}: {', '.join(sorted(misplaced))} are the whole agent's: give them to @agent"
            )
        named = own.pop("key", None)
        directives = directives_from(base, own, f"{actor}.{key}")
        declared.methods[key] = Method(actor, key, function, directives, declared, named)
    _reconciled(declared)
    if not declared.methods:
        raise DeclarationInvalid(f"agent {actor} has no public method that could be called")
    _check_constructor(cls, actor)
    for key, found in declared.methods.items():
        setattr(cls, key, _BoundStub(found))
    cls.__callboard__ = declared  # type: ignore[attr-defined]
    return cls


def _reconciled(declared: AgentClass[Any]) -> None:
    """Give the effects among the methods what tells whether they have happened."""
    effects: dict[Any, Any] = {found.function: found.effect for found in declared.methods.values()}
    for _, function in inspect.getmembers(declared.cls, inspect.isfunction):
        effect = effects.get(getattr(function, RECONCILES, None))
        if effect is not None:
            effect.reconciled_by(function)


@overload
def tool(function: Callable[P, Coroutine[Any, Any, R]], /) -> Tool[P, R]: ...
@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(*, name: str | None = ..., **directives: Any) -> _ToolDecorator: ...
def tool(function: Any = None, /, *, name: str | None = None, **directives: Any) -> Any:
    """Declare a function as a tool.

    Args:
        name: of the actor; the function's by default.
        directives: see :class:`Directives`; of an effect also ``key``, the name of a parameter or a function
            of the arguments: in one run the effect happens once for each key.
    """
    decorator = _ToolDecorator(name, directives)
    return decorator if function is None else decorator(function)


class _ToolDecorator:
    def __init__(self, name: str | None, directives: dict[str, Any]) -> None:
        self._name = name
        self._key = directives.pop("key", None)
        self._directives = directives

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Tool[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Tool[P, R]: ...
    def __call__(self, function: Any) -> Any:
        if isinstance(function, type) or not callable(function):
            raise _misplaced("tool", function)
        name = _name("tool", self._name or function.__name__)
        return Tool(function, name, directives_from(Directives(), self._directives, name), self._key)


@overload
def workflow(function: Callable[P, T], /) -> Workflow[P, T]: ...
@overload
def workflow(*, name: str | None = ..., **directives: Any) -> Callable[[Callable[P, T]], Workflow[P, T]]: ...
def workflow(function: Any = None, /, *, name: str | None = None, **directives: Any) -> Any:
    """Declare a function as a workflow: what a request to ``cb.request.<name>`` runs.

    An async one awaits futures; a plain one runs in a thread, where touching a value waits for it.

    Args:
        name: of the workflow; the function's by default.
        directives: ``timeout`` (of a run), ``concurrency`` (runs that a host drives at once),
            ``min_instances``, ``max_instances`` and ``resources``.
    """

    def declare(function: Callable[..., Any]) -> Workflow[Any, Any]:
        if isinstance(function, type) or not callable(function):
            raise _misplaced("workflow", function)
        own = _name("workflow", name or function.__name__)
        unfit = set(directives) - {"timeout", "concurrency", "min_instances", "max_instances", "resources"}
        if unfit:
            raise DeclarationInvalid(
                f"workflow {own}: {', '.join(sorted(unfit))} mean nothing for a workflow"
            )
        return Workflow(function, own, directives_from(Directives(), directives, own))

    return declare if function is None else declare(function)


def _misplaced(kind: str, thing: Any) -> DeclarationInvalid:
    """The error over a decorator on what it is not for."""
    if isinstance(thing, type):
        return DeclarationInvalid(f"{kind} {thing.__name__} is a class: declare it with @agent")
    if callable(thing):
        name = getattr(thing, "__name__", repr(thing))
        return DeclarationInvalid(f"{kind} {name} is a function: declare it with @tool or @workflow")
    wanted = "class" if kind == "agent" else "function"
    return DeclarationInvalid(
        f"@{kind}: {thing!r} is no {wanted}: options have names, as in @{kind}(name={thing!r})"
    )


def _check_constructor(cls: type, actor: str) -> None:
    """An agent's instances are made by hosts, which have nothing to give."""
    demanded = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    ]
    if demanded:
        raise DeclarationInvalid(
            f"agent {actor}: hosts call its __init__ without arguments, but it demands "
            f"{', '.join(demanded)}: give defaults, or read what it needs there"
        )


def _name(kind: str, name: str) -> str:
    if name == WAKER:
        raise DeclarationInvalid(f"{kind} {name!r}: that name is taken (set another with name=)")
    try:
        return token(f"the name of {kind}", name)
    except NameInvalid as error:
        raise DeclarationInvalid(f"{error.message} (set another with name=)") from error
