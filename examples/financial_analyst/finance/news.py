"""Headlines without a news feed: dated sentences derived from the data themselves.

What counts as news: the largest monthly moves, falls of a fifth or more from a high with their
trough and recovery, and turns of unemployment of half a point or more. A real feed would be one
more tool, its headlines joined to these by the NewsAgent.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

from finance.figures import monthly_returns
from finance.model import Headline, Macro, Quarter, Series
from finance.months import month_label, quarter_label

BEAR = 0.20  # a fall from a high that counts as news, a fraction
TURN = 0.5  # a change of unemployment that confirms a turn, percentage points
MOVES = 2  # monthly moves told in each direction


class Fall(NamedTuple):
    """A fall from a high, by positions in the series; `recovered` is None if it never was."""

    peak: int
    trough: int
    recovered: int | None
    depth: float


class Turn(NamedTuple):
    """A quarter at which unemployment turned; `up` if it rose from there."""

    quarter: Quarter
    up: bool


def series_headlines(series: Series) -> tuple[Headline, ...]:
    """The headlines of one series, oldest first."""
    found = [*_moves(series), *_fall_headlines(series)]
    return tuple(sorted(found, key=lambda headline: (headline.day, headline.text)))


def economy_headlines(macro: Macro) -> tuple[Headline, ...]:
    """The turns of unemployment, oldest first."""
    turns = unemployment_turns(macro.quarters)
    return tuple(_turn_headline(turn, macro.quarters) for turn in turns)


def most_important(headlines: Iterable[Headline], count: int) -> tuple[Headline, ...]:
    """The `count` headlines of greatest weight, oldest first."""
    chosen = sorted(headlines, key=lambda h: (-h.weight, h.day, h.subject, h.text))[:count]
    return tuple(sorted(chosen, key=lambda h: (h.day, h.subject, h.text)))


def falls(closes: Sequence[float], least: float = BEAR) -> list[Fall]:
    """Every fall of at least `least` (a fraction) from a high, each up to its recovery."""
    found: list[Fall] = []
    peak = trough = 0
    for at, close in enumerate(closes):
        if close < closes[peak]:
            trough = at if trough == peak or close < closes[trough] else trough
            continue
        found += _fall(closes, peak, trough, at, least)
        peak = trough = at
    return found + _fall(closes, peak, trough, None, least)


def _fall(closes: Sequence[float], peak: int, trough: int, recovered: int | None, least: float) -> list[Fall]:
    depth = 1 - closes[trough] / closes[peak]
    return [Fall(peak, trough, recovered, depth)] if trough > peak and depth >= least else []


def unemployment_turns(quarters: Sequence[Quarter], least: float = TURN) -> list[Turn]:
    """The lows and highs of unemployment, each confirmed by a change of `least` points after it.

    An extreme at the first quarter is no turn: what was before is unknown. Compare the rule of
    Sahm (2019), which dates recessions by a rise of half a point.
    """
    turns: list[Turn] = []
    low = high = 0
    rising: bool | None = None
    for at, quarter in enumerate(quarters):
        low = at if quarter.unemployment < quarters[low].unemployment else low
        high = at if quarter.unemployment > quarters[high].unemployment else high
        if rising is not True and quarter.unemployment >= quarters[low].unemployment + least:
            turns += [Turn(quarters[low], up=True)] if low else []
            rising, high = True, at
        elif rising is not False and quarter.unemployment <= quarters[high].unemployment - least:
            turns += [Turn(quarters[high], up=False)] if high else []
            rising, low = False, at
        if rising:
            low = at
        elif rising is False:
            high = at
    return turns


def _moves(series: Series) -> list[Headline]:
    """The largest rises and falls of a single month."""
    ordered = sorted(monthly_returns(series).items(), key=lambda item: item[1])
    worst = [item for item in ordered[:MOVES] if item[1] < 0]
    best = [item for item in reversed(ordered[-MOVES:]) if item[1] > 0]
    found = [_move(series, *item, "worst" if not i else "second worst") for i, item in enumerate(worst)]
    return found + [_move(series, *item, "best" if not i else "second best") for i, item in enumerate(best)]


def _move(series: Series, month: date, value: float, rank: str) -> Headline:
    verb = "gains" if value > 0 else "loses"
    moved = f"{series.name} {verb} {abs(value):.1%} in {month_label(month)}"
    text = f"{moved}, its {rank} month of the period"
    return Headline(month, series.name, "move", text, min(abs(value), 1.0))


def _fall_headlines(series: Series) -> list[Headline]:
    """Where a fall began, where it ended, and when it was made good."""
    found: list[Headline] = []
    name, months, closes = series.name, series.months, series.closes
    for fall in falls(closes):
        peak, trough = months[fall.peak], months[fall.trough]
        high = month_label(peak)
        began = f"{name} begins to fall from its high of {closes[fall.peak]:,.2f} ({high})"
        ended = f"{name} bottoms at {closes[fall.trough]:,.2f}, {fall.depth:.1%} below {high}"
        if fall.recovered is None:
            ended += "; not made good by the end of the period"
        found.append(Headline(peak, name, "fall", began, fall.depth * 0.8))
        found.append(Headline(trough, name, "trough", ended, fall.depth))
        if fall.recovered is not None:
            again = months[fall.recovered]
            back = f"{name} is back at its high of {high}, after a fall of {fall.depth:.1%}"
            found.append(Headline(again, name, "recovery", back, fall.depth * 0.9))
    return found


def _turn_headline(turn: Turn, quarters: Sequence[Quarter]) -> Headline:
    """One turn, with how far unemployment went before it turned back or the data ended."""
    start, later = turn.quarter, [q for q in quarters if q.end > turn.quarter.end]
    reached = start
    for quarter in later:
        step = quarter.unemployment - reached.unemployment
        if (step > 0) == turn.up and step:
            reached = quarter
        elif abs(step) >= TURN:
            break
    direction = "up" if turn.up else "down"
    text = (
        f"US unemployment turns {direction} from {start.unemployment:.1f}% "
        f"({quarter_label(start.end)}) and reaches {reached.unemployment:.1f}% "
        f"in {quarter_label(reached.end)}"
    )
    weight = min(abs(reached.unemployment - start.unemployment) / 5, 1.0)
    return Headline(start.end, "US economy", "economy", text, weight)
