"""Declaring actors in plain Python: ``@agent``, ``@tool``, ``@workflow`` and ``@method``.

Declaring has no side effects. The declaration is also the stub: calling it inside a workflow, or
inside another agent, makes a call and gives a future.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
    overload,
)

import msgspec

from callboard.actors import local, snapshots
from callboard.actors.directives import PER_ACTOR, Directives, directives_from
from callboard.actors.effects import RECONCILES, Key, effect_of, mark
from callboard.actors.future import Future, LazyValue
from callboard.actors.schema import Signature
from callboard.actors.scope import current
from callboard.infra.errors import DeclarationInvalid
from callboard.infra.subjects import WAKER, NameInvalid, token

if TYPE_CHECKING:
    from callboard.actors.instance import Instance
    from callboard.state.session import Rules

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Self_ = TypeVar("Self_")
_MARK = "__callboard_method__"


class Method:
    """One callable of an actor: its handler, its signature and its directives.

    Attributes:
        actor: name of the actor; name: of the method; where: ``actor.method``.
        function: the handler as declared; is_async: it is a coroutine function.
        effect: what is said of its effect; None if it has none.
        original: what it is called where it comes from, if that can be no method's name.
    """

    original = ""
    signature_known = True
    """Whether its parameters are known here."""

    def __init__(
        self,
        actor: str,
        name: str,
        function: Callable[..., Any],
        directives: Directives,
        owner: AgentClass[Any] | None,
        key: Key | None = None,
    ) -> None:
        self.actor = actor
        self.name = name
        self.where = f"{actor}.{name}"
        self.function = function
        self.directives = directives
        self.owner = owner
        self.is_async = inspect.iscoroutinefunction(function)
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            hint = "; a method that no call is for begins with '_'" if owner is not None else ""
            raise DeclarationInvalid(f"{self.where} yields: return a list, since a call has one result{hint}")
        self.effect = effect_of(self.where, function, key, declared=directives.effect)
        if directives.cpu and self.is_async:
            raise DeclarationInvalid(
                f"{self.where}: a cpu handler runs in a process of its own, so it must be a plain 'def'"
            )

    @functools.cached_property
    def signature(self) -> Signature:
        """Its codecs; made when first needed, since annotations may name what is declared later."""
        return Signature(
            self.where,
            self.function,
            skip_self=self.owner is not None,
            batched=self.directives.batchable,
        )

    @functools.cached_property
    def managed(self) -> bool:
        """Whether its actor keeps managed state, so that a session's calls go one after the other."""
        return self.owner is not None and self.owner.rules is not None

    @functools.cached_property
    def reconcile(self) -> Method | None:
        """What tells whether its effect has happened, to be run as it is; None if there is no such thing."""
        function = self.effect.reconcile if self.effect else None
        if function is None:
            return None
        plain = self.directives.__class__(timeout=self.directives.timeout)
        return Method(self.actor, f"{self.name}.reconcile", function, plain, self.owner)

    def invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call from wherever this code runs; a future, or in sync code a lazy value."""
        scope = current.get()
        if scope is None:
            return local.call(self, args, kwargs)
        scope.checkpoint()
        future = scope.maker.call(scope.next_id(), self, args, kwargs)
        return LazyValue(future) if scope.sync else future


class Stub(Generic[P, R]):
    """A method as it is called: with its parameters, giving a future of its result."""

    def __init__(self, method: Method) -> None:
        self.method = method
        functools.update_wrapper(self, method.function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Make the call; returns at once."""
        return cast("Future[R]", self.method.invoke(args, kwargs))

    def __repr__(self) -> str:
        return f"<stub {self.method.where}>"


class Tool(Stub[P, R]):
    """A declared tool; calling it makes a call. ``function`` is the plain function."""

    kind = "tool"

    def __init__(
        self, function: Callable[..., Any], name: str, directives: Directives, key: Key | None = None
    ) -> None:
        self.name = name
        self.function = function
        self.directives = directives
        super().__init__(Method(name, "call", function, directives, None, key))
        self.methods = {"call": self.method}

    def reconcile(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Declare what tells whether the tool's effect has happened: it returns the tool's result then.

        It takes the same arguments, and raises :class:`NotDone` if the effect has not happened.

        Raises:
            DeclarationInvalid: the tool is no effect, or the parameters differ.
        """
        if self.method.effect is None:
            raise DeclarationInvalid(f"{self.name} is no effect: say @tool(effect=True) to reconcile it")
        self.method.effect.reconciled_by(function)
        return function


class Workflow(Generic[P, T]):
    """A declared workflow. Calling it runs it here, as the plain function that it is.

    Inside a run that is an ordinary call within the same run; outside of one its calls are
    executed in this process, without NATS.
    """

    kind = "workflow"

    def __init__(self, function: Callable[P, T], name: str, directives: Directives) -> None:
        self.name = name
        self.function = function
        self.directives = directives
        self.method = Method(name, "run", function, directives, None)
        self.methods = {"run": self.method}
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it here."""
        if current.get() is not None:
            return self.function(*args, **kwargs)
        return cast("T", local.run(self.method, args, kwargs))

    def run_local(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Run it here to its end, from sync code, and return its result."""
        return local.run_to_end(self.method, args, kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


class AgentClass(Generic[T]):
    """What ``@agent`` keeps of a class, under its attribute ``__callboard__``."""

    kind = "agent"
    version = ""
    """Of what it stands for; of its source by default."""
    as_tool = ""
    """The method that a model calls to which the agent as a whole is given as a tool; empty: it cannot be."""

    def __init__(self, cls: type[T], name: str, directives: Directives) -> None:
        self.cls = cls
        self.name = name
        self.directives = directives
        self.methods: dict[str, Method] = {}

    def create(self) -> T:
        """A new instance, made by the class's constructor without arguments."""
        _ = self.rules
        return self.cls()

    async def open(self) -> None:
        """Make ready what its instances need beside themselves: of a model its engine."""

    async def close(self) -> None:
        """Give that back, when the host ends. Idempotent."""

    async def attach(self, instance: Instance) -> None:
        """An instance is about to take calls: begin what goes on beside it."""

    def detach(self, instance: Instance) -> None:
        """It takes no more calls: end that. Idempotent."""

    @property
    def movable(self) -> bool:
        """Whether it is stateful, and says how what it keeps for a session is taken along."""
        return snapshots.declared(self.cls, self.directives)

    @functools.cached_property
    def rules(self) -> Rules | None:
        """What its managed state is, declared by annotations of the class; None if it has none.

        Raises:
            DeclarationInvalid: it cannot be stored, or a method cannot have it.
        """
        from callboard.state.managed import manage
        from callboard.state.session import Rules

        attributes = manage(self.cls, self.name)
        if not attributes and not self.movable:
            return None
        for found in self.methods.values():
            if found.directives.cpu:
                raise DeclarationInvalid(
                    f"{found.where} runs in a process of its own, where there is no managed state, and no "
                    "session that could move: make it a tool, or another agent"
                )
        kinds = {name: attribute.kind for name, attribute in attributes.items()}
        return Rules(kinds, self.directives.state_ttl, self.directives.state_max_bytes)


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


# -- finding declarations --------------------------------------------------------------------------

Declaration = AgentClass[Any] | Tool[Any, Any] | Workflow[Any, Any]


def declaration(thing: Any) -> Declaration | None:
    """What ``@agent``, ``@tool`` or ``@workflow`` made of this object, or None."""
    if isinstance(thing, Tool | Workflow | AgentClass):  # an AgentClass by itself is a model
        return thing
    found = vars(thing).get("__callboard__") if isinstance(thing, type) else None
    return found if isinstance(found, AgentClass) else None


def code_version(declared: Declaration) -> str:
    """A hash of the source that declares an actor, 12 hex digits; of its names where there is none."""
    if isinstance(declared, AgentClass) and declared.version:
        return declared.version
    subject = declared.cls if isinstance(declared, AgentClass) else declared.function
    try:
        source = inspect.getsource(subject)
    except (OSError, TypeError):
        source = f"{subject.__module__}.{subject.__qualname__}:{sorted(declared.methods)}"
    return hashlib.sha256(source.encode()).hexdigest()[:12]
