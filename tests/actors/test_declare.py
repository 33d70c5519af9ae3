"""Declaring actors: what is accepted, what is refused, and with which words."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import numbers
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pytest

from callboard import agent, batchable, method, tool, workflow
from callboard.actors.declared import AgentClass, Tool, Workflow, code_version, declaration
from callboard.actors.directives import Directives
from callboard.infra.errors import DeclarationInvalid, InvalidArguments, InvalidResult

if TYPE_CHECKING:
    from fractions import Fraction


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"
    BLUE = "blue"


class Point(msgspec.Struct):
    """A struct."""

    x: int
    y: int = 0


@dataclasses.dataclass
class Pair:
    """A dataclass."""

    one: str
    two: list[Point]


# -- directives -------------------------------------------------------------------------------


def declare_tool(**directives: Any) -> Directives:
    """The directives of a tool declared with these."""

    @tool(**directives)
    def work() -> None:
        """Do nothing."""

    return work.directives


@pytest.mark.parametrize(
    ("directives", "text"),
    [
        ({"retires": 3}, "unknown directive retires: did you mean 'retries'?"),
        ({"odd": 3, "x": 1}, "unknown directives odd, x; there are .*retries"),
        ({"retries": "3"}, "Expected `int`, got `str`.*retries"),
        ({"retries": -1}, "retries"),
        ({"timeout": 0}, "timeout must be above 0, not 0"),
        ({"timeout": -1.5}, "timeout must be above 0"),
        ({"timeout": "1s"}, "timeout"),
        ({"concurrency": 0}, "concurrency must be above 0"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"max_instances": 0}, "max_instances must be above 0"),
        ({"min_instances": -1}, "min_instances"),
        ({"min_instances": 3, "max_instances": 2}, "min_instances"),
        ({"max_queue": 0}, "max_queue must be above 0"),
        ({"max_batch": 0}, "max_batch must be above 0"),
        ({"max_wait": -0.1}, "max_wait"),
        ({"backoff": -1}, "backoff"),
        ({"backoff_max": -1}, "backoff_max"),
        ({"resources": {"cpu": "two"}}, "resources"),
        ({"retry_on": "ValueError"}, "retry_on"),
        ({"retry_on": ValueError}, "retry_on"),
        ({"retry_on": [ValueError()]}, "retry_on"),
        ({"timeout": math.nan}, "timeout must be above 0, not nan"),
        ({"backoff": math.nan}, "backoff must be 0 or more, not nan"),
        ({"resources": {"gpu": math.nan}}, "resources must be 0 or more: gpu"),
        ({"stateful": 1}, "stateful"),
        ({"stateful": True, "max_instances": 2}, "stateful"),
    ],
)
def test_a_directive_that_cannot_be_used(directives: dict[str, Any], text: str) -> None:
    """The error names the actor, the directive and what is wrong with it."""
    with pytest.raises(DeclarationInvalid, match=f"work: .*{text}"):
        declare_tool(**directives)


def test_directives_are_what_was_given() -> None:
    """All others have their defaults; exception classes are kept by name; what was given is left alone."""
    errors: list[Any] = [ValueError, "OSError"]
    given = {"retries": 3, "timeout": 2, "retry_on": errors}
    found = declare_tool(**given)
    assert found == Directives(retries=3, timeout=2.0, retry_on=("ValueError", "OSError"))
    assert errors == [ValueError, "OSError"]


def test_a_methods_directives_override_its_agents() -> None:
    """What the agent says holds for all its methods, unless one says otherwise."""

    @agent(retries=2, timeout=5.0, concurrency=3)
    class Worker:
        async def plain(self) -> None:
            """As the agent says."""

        @method(retries=0, idempotent=True)
        async def special(self) -> None:
            """Has its own."""

    methods = declaration(Worker).methods  # type: ignore[union-attr]
    assert methods["plain"].directives == Directives(retries=2, timeout=5.0, concurrency=3)
    assert methods["special"].directives == Directives(retries=0, timeout=5.0, concurrency=3, idempotent=True)


@pytest.mark.parametrize(
    "directive",
    [
        {"stateful": True},
        {"min_instances": 1},
        {"max_instances": 1},
        {"resources": {}},
        {"concurrency": 1},
        {"max_queue": 1},
    ],
    ids=lambda d: next(iter(d)),
)
def test_what_belongs_to_the_whole_agent(directive: dict[str, Any]) -> None:
    """A method cannot have it for itself."""
    with pytest.raises(DeclarationInvalid, match=f"Worker.work: {next(iter(directive))}.*@agent"):

        @agent
        class Worker:
            @method(**directive)
            async def work(self) -> None:
                """Do nothing."""


@pytest.mark.parametrize("directive", ["retries", "batchable", "cpu", "stateful", "max_queue", "idempotent"])
def test_what_means_nothing_for_a_workflow(directive: str) -> None:
    """A run is not a call: the error says so."""

    async def flow() -> None:
        """Do nothing."""

    directives: dict[str, Any] = {directive: 1}
    with pytest.raises(DeclarationInvalid, match=f"workflow flow: {directive} mean nothing"):
        workflow(name="flow", **directives)(flow)


def test_a_cpu_handler_is_a_plain_function() -> None:
    """It runs in a process without an event loop."""
    with pytest.raises(DeclarationInvalid, match=r"work\.call: a cpu handler .* plain 'def'"):

        @tool(cpu=True)
        async def work() -> None:
            """Do nothing."""


def test_a_cpu_handler_cannot_be_batchable() -> None:
    """What makes no sense together is refused when it is declared, not when it is called."""
    with pytest.raises(DeclarationInvalid, match="a cpu handler cannot be batchable"):

        @agent
        class Worker:
            @batchable(cpu=True)
            def work(self, items: list[int]) -> list[int]:
                """Do nothing."""
                return items


# -- names and classes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.b", "a b", "*", ">", "ä", "x" * 129])
def test_a_name_that_is_no_token(name: str) -> None:
    """The error says how to give another."""

    async def work() -> None:
        """Do nothing."""

    declare: Callable[..., Any]
    for declare in (tool, workflow):
        with pytest.raises(DeclarationInvalid, match="set another with name="):
            declare(name=name)(work)
    with pytest.raises(DeclarationInvalid, match="set another with name="):
        agent(name=name)(type("Worker", (), {"work": work}))


def test_an_agent_without_a_public_method() -> None:
    """There would be nothing to call."""
    with pytest.raises(DeclarationInvalid, match="Worker has no public method"):

        @agent
        class Worker:
            def _hidden(self) -> None:
                """Not callable from outside."""


def test_what_is_declared_is_found() -> None:
    """By kind, name and methods; anything else is no declaration."""

    @agent(name="clerk")
    class Worker:
        async def one(self) -> None:
            """Callable."""

        def two(self) -> None:
            """Callable, too."""

        def _three(self) -> None:
            """Not callable."""

    @tool
    async def fetch() -> None:
        """Do nothing."""

    @workflow(name="flow-2")
    async def flow() -> None:
        """Do nothing."""

    found = declaration(Worker)
    assert isinstance(found, AgentClass)
    assert (found.kind, found.name, sorted(found.methods)) == ("agent", "clerk", ["one", "two"])
    assert isinstance(declaration(fetch), Tool)
    assert isinstance(declaration(flow), Workflow)
    assert [d.name for d in (declaration(fetch), declaration(flow)) if d] == ["fetch", "flow-2"]
    for thing in (None, 1, object, Worker(), type("Derived", (Worker,), {}), flow.function):
        assert declaration(thing) is None


def test_declaring_changes_neither_instances_nor_helpers() -> None:
    """An instance's methods are the plain functions; class methods and static ones stay what they are."""

    @agent
    class Worker:
        @staticmethod
        def double(number: int) -> int:
            """A helper."""
            return 2 * number

        @classmethod
        def make(cls) -> Worker:
            """A constructor."""
            return cls()

        def work(self, number: int) -> int:
            """Callable."""
            return self.double(number)

    worker = Worker.make()
    assert worker.work(4) == 8
    assert Worker.double(4) == 8
    found = declaration(Worker)
    assert found is not None
    assert list(found.methods) == ["work"]


def test_stubs_look_like_what_they_stand_for() -> None:
    """Name, documentation and place are the function's."""

    @tool
    def fetch(number: int) -> int:
        """Fetch a number."""
        return number

    assert fetch.__doc__ == "Fetch a number."
    assert fetch.__name__ == "fetch"  # type: ignore[attr-defined]
    assert "fetch.call" in repr(fetch)
    assert fetch.function(3) == 3


def test_the_version_of_the_code() -> None:
    """Twelve hex digits of the source, so that another body has another version."""

    def declared(text: str) -> str:
        namespace: dict[str, Any] = {"tool": tool}
        exec(text, namespace)  # noqa: S102 - code without a source file
        return code_version(namespace["work"])

    @tool
    def one() -> int:
        """One."""
        return 1

    @tool
    def two() -> int:
        """Two."""
        return 2

    versions = {code_version(one), code_version(two), declared("@tool\ndef work() -> int: return 1")}
    assert len(versions) == 3
    assert all(len(version) == 12 for version in versions)


# -- types ------------------------------------------------------------------------------------


def test_annotations_are_resolved_when_first_needed() -> None:
    """They may name what is declared later in the module, so declaring alone raises nothing."""

    @tool
    async def work(number: Fraction) -> None:
        """Has an annotation that is there for type checkers only."""

    with pytest.raises(DeclarationInvalid, match=r"work\.call: .*Fraction.*TYPE_CHECKING"):
        _ = work.method.signature


def signature_of(function: Callable[..., Any], **directives: Any) -> Any:
    """The signature of a tool made of this function."""
    return tool(**directives)(function).method.signature


def variadic(*numbers: int) -> None:
    """Takes any number."""


def keywords(**numbers: int) -> None:
    """Takes any name."""


def by_place(number: int, /) -> None:
    """Takes it by its place only."""


def odd(number: type) -> None:
    """Takes what cannot be sent."""


class Plain:
    """A class that nobody can make from data."""


@dataclasses.dataclass
class Holder:
    """Holds one, deep inside, and itself."""

    plain: dict[str, list[Plain]]
    more: list[Holder] = dataclasses.field(default_factory=list)


def deep(holders: list[Holder]) -> None:
    """Takes what holds what cannot be sent."""


def gives() -> Callable[[], int]:
    """Gives what cannot be sent."""
    return lambda: 1


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (odd, "odd.call: parameter 'number' cannot travel: a type is neither"),
        (deep, "deep.call: parameter 'holders' cannot travel: a .*test_declare.Plain is neither"),
        (gives, "gives.call: its result cannot travel: a collections.abc.Callable is neither"),
    ],
)
def test_types_that_cannot_travel(function: Callable[..., Any], text: str) -> None:
    """They are told when a host starts, or a call is made, and not only when a value comes along."""
    with pytest.raises(DeclarationInvalid, match=text):
        signature_of(function)


def test_an_annotation_that_is_wider_than_data_is_none_that_cannot_travel() -> None:
    """Whatever travels is an object; lists can be iterated over."""

    def looks(anything: object, number: numbers.Number, items: Iterable[int] | None = None) -> object:
        return anything

    assert signature_of(looks).names == ("anything", "number", "items")


def yields(number: int) -> Iterator[int]:
    """Gives one after the other."""
    yield number


async def yields_async(number: int) -> AsyncIterator[int]:
    """Gives one after the other, while others run."""
    yield number


@pytest.mark.parametrize("function", [yields, yields_async])
@pytest.mark.parametrize("declare", [tool, workflow])
def test_a_generator_cannot_be_declared(declare: Any, function: Callable[..., Any]) -> None:
    """A call has one result."""
    with pytest.raises(DeclarationInvalid, match=r"yields.* yields: return a list"):
        declare(function)


def test_a_helper_of_an_agent_that_no_call_can_be_for() -> None:
    """The error says how to keep it out of what can be called."""
    with pytest.raises(DeclarationInvalid, match=r"Reader\.lines yields.*begins with '_'"):

        @agent
        class Reader:
            def lines(self) -> Iterator[str]:
                yield ""

    @agent
    class Walker:
        def walk(self, step: Callable[[], int]) -> int:
            return step()

    declared = declaration(Walker)
    assert declared is not None
    with pytest.raises(DeclarationInvalid, match=r"Walker\.walk: parameter 'step'.*begins with '_'"):
        _ = declared.methods["walk"].signature


def test_what_is_declared_must_be_of_its_kind() -> None:
    """A class is an agent, a function is a tool or a workflow, and names are given by ``name=``."""
    declare: Any
    for declare in (tool, workflow):
        with pytest.raises(DeclarationInvalid, match=r"Plain is a class: declare it with @agent"):
            declare(Plain)
        with pytest.raises(DeclarationInvalid, match=r"'search' is no function: .*name='search'"):
            declare("search")
    declare = agent
    with pytest.raises(
        DeclarationInvalid, match=r"variadic is a function: declare it with @tool or @workflow"
    ):
        declare(variadic)
    with pytest.raises(DeclarationInvalid, match=r"'Writer' is no class: .*name='Writer'"):
        declare("Writer")


def test_an_agent_that_nobody_can_make() -> None:
    """Its constructor is called without arguments; those with defaults are fine."""
    with pytest.raises(DeclarationInvalid, match=r"agent Needy: .*__init__.* demands size"):

        @agent
        class Needy:
            def __init__(self, name: str = "", *, size: int) -> None: ...
            async def work(self) -> None: ...

    @agent
    class Modest:
        def __init__(self, name: str = "", *args: int, size: int = 1, **more: int) -> None: ...
        async def work(self) -> None: ...

    assert declaration(Modest)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (variadic, r"variadic\.call: \*args cannot be declared"),
        (keywords, r"keywords\.call: \*\*kwargs cannot be declared"),
        (by_place, r"by_place\.call: .*positional-only"),
    ],
)
def test_parameters_that_cannot_be_declared(function: Callable[..., Any], text: str) -> None:
    """Every argument travels under its name."""
    with pytest.raises(DeclarationInvalid, match=text):
        signature_of(function)


def test_a_batchable_method_takes_and_gives_lists() -> None:
    """The error says which annotation is not one."""
    careless: Any = batchable

    @agent
    class Worker:
        @careless  # type: ignore[untyped-decorator]
        def takes(self, items: int) -> list[int]:
            """Takes no list."""
            return [items]

        @careless  # type: ignore[untyped-decorator]
        def gives(self, items: list[int]) -> int:
            """Gives no list."""
            return len(items)

    methods = declaration(Worker).methods  # type: ignore[union-attr]
    with pytest.raises(DeclarationInvalid, match=r"Worker\.takes is batchable, so parameter 'items'"):
        _ = methods["takes"].signature
    with pytest.raises(DeclarationInvalid, match=r"Worker\.gives is batchable, so the result"):
        _ = methods["gives"].signature


def everything(  # type: ignore[no-untyped-def]  # noqa: PLR0917 - one of each
    flag: bool,  # noqa: FBT001 - a case
    number: int,
    ratio: float,
    text: str,
    raw: bytes,
    when: dt.datetime,
    day: dt.date,
    span: dt.timedelta,
    money: decimal.Decimal,
    key: uuid.UUID,
    colour: Colour,
    point: Point,
    pair: Pair,
    items: list[Point],
    table: dict[str, tuple[int, ...]],
    unique: set[int],
    either: int | str | None,
    one_of: Literal["a", "b"],
    small: Annotated[int, msgspec.Meta(lt=10)],
    anything: Any,
    untyped,  # noqa: ANN001 - a case
    *,
    option: str = "default",
) -> Pair:
    """Takes all the types that travel."""
    return pair


def test_all_standard_types_travel() -> None:
    """Encoded and decoded again they are the same, of the same types."""
    signature = signature_of(everything)
    pair = Pair("x", [Point(1), Point(2, 3)])
    arguments = {
        "flag": True,
        "number": -5,
        "ratio": 2.5,
        "text": "ä",
        "raw": b"\x00\xff",
        "when": dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        "day": dt.date(2026, 1, 2),
        "span": dt.timedelta(days=1, microseconds=1),
        "money": decimal.Decimal("1.10"),
        "key": uuid.UUID(int=7),
        "colour": Colour.BLUE,
        "point": Point(1, 2),
        "pair": pair,
        "items": [Point(1)],
        "table": {"a": (1, 2), "b": ()},
        "unique": {1, 2},
        "either": None,
        "one_of": "b",
        "small": 9,
        "anything": {"a": [1, None]},
        "untyped": [1.5],
    }
    body = msgspec.msgpack.encode(arguments)
    assert signature.decode_arguments(body) == arguments | {"option": "default"}
    assert signature.decode_result(msgspec.msgpack.encode(pair)) == pair
    with pytest.raises(InvalidArguments, match="small"):
        signature.decode_arguments(msgspec.msgpack.encode(arguments | {"small": 10}))
    schema, result = signature.schemas()
    assert "one_of" in str(schema)
    assert "Pair" in str(result)


def add(a: int, b: int = 2, *, c: int = 3) -> int:
    """Add numbers."""
    return a + b + c


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "missing required.*`a`"),
        ((1, 2, 3), {}, "takes 2 positional arguments, 3 were given"),
        ((1,), {"a": 1}, "got parameter 'a' twice"),
        ((1,), {"d": 1}, "has no parameter 'd'; it takes a, b, c"),
        (("1",), {}, "Expected `int`, got `str`"),
        ((1.5,), {}, "Expected `int`, got `float`"),
        ((None,), {}, "Expected `int`, got `None`"),
        ((1,), {"b": [1]}, "Expected `int`, got `array`"),
        ((object(),), {}, "cannot travel"),
        ((2**70,), {}, "add.call: "),
    ],
)
def test_wrong_arguments_are_refused_where_the_call_is_made(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    """A typed error names the tool and the argument; nothing has been started."""
    ran: list[int] = []

    def work(a: int, b: int = 2, *, c: int = 3) -> int:
        ran.append(a)
        return a

    declared: Any = tool(name="add")(work)
    with pytest.raises(InvalidArguments, match=text) as caught:
        declared(*args, **kwargs)
    assert (caught.value.fields["actor"], caught.value.fields["method"]) == ("add", "call")
    assert ran == []


def test_wrong_json_and_results() -> None:
    """The same on the other side: arguments in JSON, and what a handler has returned."""
    signature = signature_of(add)
    assert msgspec.msgpack.decode(signature.from_json(b'{"a": 1}'))["a"] == 1
    for body in (b"", b"[]", b"null", b"{", b'{"a": "1"}', b"\xff", b'{"a": 1e400}', b'{"a": 1, "aa": 2}'):
        with pytest.raises(InvalidArguments):
            signature.from_json(body)
    with pytest.raises(InvalidResult, match=r"add\.call returned what its annotation does not allow"):
        signature.decode_result(msgspec.msgpack.encode("3"))
    for body in (b"", b"\xc1", b"\x91" * 100_000, b"\x81\xa1a\xa1\xff", b"\x82\xa1a\x01\xa1z\x02"):
        with pytest.raises(InvalidArguments):
            signature.decode_arguments(body)
        with pytest.raises(InvalidResult):
            signature.decode_result(body)


async def test_arguments_beside_an_unresolved_future_are_checked_at_once() -> None:
    """A mistake does not wait for a dependency to come to light: wrong, missing, unknown or too many."""

    @tool(name="add")
    async def work(a: int, b: int, c: int = 3) -> int:
        return a + b + c

    future = work(1, 2)
    for args, kwargs, text in (
        ((future, "2"), {}, "b: Expected `int`"),
        ((future,), {}, "`b`"),
        ((future,), {"x": 1}, "'x'"),
        ((future, 1, 2, 3), {}, "positional"),
    ):
        with pytest.raises(InvalidArguments, match=text):
            _ = work(*args, **kwargs)
    assert await work(future.arg, 1) == 10
