"""What is declared: agents, tools and workflows, with their methods. They are their own stubs."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    TypeVar,
    cast,
)

from callboard.actors import local, snapshots
from callboard.actors.directives import Directives
from callboard.actors.effects import Key, effect_of
from callboard.actors.future import Future, LazyValue
from callboard.actors.schema import Signature
from callboard.actors.scope import current
from callboard.infra.errors import DeclarationInvalid

if TYPE_CHECKING:
    from callboard.actors.instance import Instance
    from callboard.state.session import Rules

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Self_ = TypeVar("Self_")


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
    apart = ""
    """Not empty: no tool may run in a process that serves it; a hash of all that makes it what it is."""
    as_tool = ""
    """The method that a model calls to which the agent as a whole is given as a tool; empty: it cannot be."""

    def __init__(self, cls: type[T], name: str, directives: Directives) -> None:
        self.cls = cls
        self.source: type | Callable[..., Any] = cls
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
    subject = declared.source if isinstance(declared, AgentClass) else declared.function
    try:
        source = inspect.getsource(subject)
    except (OSError, TypeError):
        source = f"{subject.__module__}.{subject.__qualname__}:{sorted(declared.methods)}"
    return version_of(source)


def version_of(told: str) -> str:
    """A hash of a text that says all that matters, 12 hex digits."""
    return hashlib.sha256(told.encode()).hexdigest()[:12]
