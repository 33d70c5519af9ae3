"""The agents' side: a varied board, with a dependency that drivers do not have."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import numpy as np

from callboard import agent, batchable, method, tool, workflow

T = TypeVar("T")


class Side(enum.Enum):
    """Which way."""

    BUY = "b"
    SELL = "s"


class Grade(enum.IntEnum):
    """How good."""

    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    """One price of a series."""

    day: dt.date
    price: float
    note: str = ""


class Series(msgspec.Struct, frozen=True):
    """Prices of one ticker."""

    ticker: str
    points: tuple[Point, ...]


class Buy(msgspec.Struct, tag=True):
    """A purchase."""

    count: Annotated[int, msgspec.Meta(gt=0)]


class Sell(msgspec.Struct, tag=True):
    """A sale."""

    count: int
    urgent: bool = False


class Pair(msgspec.Struct, array_like=True, tag="pair"):
    """Two tickers; travels as an array."""

    left: str
    right: str = "SPY"


class Node(msgspec.Struct, rename="camel"):
    """A tree."""

    node_name: str
    child_nodes: list[Node] = []


class Page(msgspec.Struct, Generic[T]):
    """Some of many."""

    items: list[T]
    next_page: int | None = None


class Limits(msgspec.Struct, kw_only=True):
    """What an answer may cost."""

    calls: int = 10
    budget: decimal.Decimal = decimal.Decimal("1.50")
    days: list[int] = msgspec.field(default_factory=lambda: [1, 5])


class Options(TypedDict):
    """How to study."""

    window: int
    label: NotRequired[str]


@dataclass
class Finding:
    """What a study found."""

    ticker: str
    change: float
    grade: Grade = Grade.LOW
    tags: set[str] = field(default_factory=set)
    limits: Limits = field(default_factory=Limits)


class Everything(msgspec.Struct):
    """One field of each type."""

    text: str
    day: dt.date
    at: dt.datetime
    zoned: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    clock: dt.time
    took: dt.timedelta
    id: uuid.UUID
    price: decimal.Decimal
    raw: bytes
    buffer: bytearray
    by_number: dict[int, str]
    by_day: dict[dt.date, float]
    by_side: dict[Side, int]
    pair: tuple[int, str]
    many: tuple[int, ...]
    names: set[str]
    fixed: frozenset[int]
    anything: Any
    order: Buy | Sell
    maybe: Buy | Sell | int | None
    array: Pair
    tree: Node
    page: Page[int]
    options: Options
    point: Point
    finding: Finding
    side: Side
    grade: Grade
    word: Literal["a", "b", 1] | None
    bounded: Annotated[str, msgspec.Meta(min_length=1, max_length=5, pattern="^[a-z]+$")]
    nothing: None = None
    left_out: int | msgspec.UnsetType = msgspec.UNSET
    default: Sell = msgspec.field(default_factory=lambda: Sell(1))


@tool(idempotent=True, timeout=5)
def prices(ticker: str, start: dt.date, end: dt.date = dt.date(2009, 12, 31)) -> Series:
    """Prices of a ticker, one a year.

    Args:
        ticker: as the exchange has it.
    """
    days = [dt.date(year, 1, 1) for year in range(start.year, end.year + 1)]
    return Series(ticker, tuple(Point(d, float(len(ticker) * (i + 1))) for i, d in enumerate(days)))


@tool(name="echo-all")
async def echo(value: Everything) -> Everything:
    """Gives back what it gets."""
    return value


@agent(max_queue=100)
class StockAnalyst:
    """Studies one stock, with NumPy."""

    async def study(self, series: Series, options: Options | None = None) -> Finding:
        """What a series shows."""
        values = np.array([point.price for point in series.points])
        label = options.get("label", "none") if options else "none"
        return Finding(series.ticker, float(values[-1] - values[0]), Grade.HIGH, {label})

    def trade(self, order: Buy | Sell, *, side: Side = Side.BUY, limits: Limits | None = None) -> int:
        """Runs in a thread."""
        return order.count * (1 if side is Side.BUY else -1) * (limits or Limits()).calls

    @batchable(max_batch=4)
    async def embed(self, texts: list[str]) -> list[list[float]]:
        """A vector for a text; callers give one each."""
        return [[float(len(text))] for text in texts]

    async def fail(self, why: str) -> None:
        """Raises what a driver cannot import."""
        raise MarketClosed(why)


class MarketClosed(Exception):
    """Known to the agents alone."""


@agent
class Analyst:
    """Plans and reports."""

    async def plan(self, question: str, *, most: Annotated[int, msgspec.Meta(ge=1)] = 3) -> list[str]:
        """Tickers in a question."""
        return [word for word in question.split() if word.isupper()][:most]

    async def report(self, findings: Sequence[Finding], by_name: dict[str, Finding]) -> str:
        """A line for each finding."""
        lines = [f"{f.ticker} {f.change:+.1f} {f.grade.name} {sorted(f.tags)}" for f in findings]
        return "\n".join([*lines, *(f"{name}={found.change}" for name, found in sorted(by_name.items()))])

    @method(timeout=5)
    async def page(self, tree: Node) -> Page[Node]:
        """A generic result."""
        return Page([tree], 2)


@workflow
async def nightly(question: str) -> str:
    """No stub is written for a workflow."""
    return question
