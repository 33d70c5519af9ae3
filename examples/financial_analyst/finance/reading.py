"""What a question says, found by rules: companies, period, figures, parts, and how to follow up."""

import re
from dataclasses import dataclass, field
from typing import Literal

from finance import words
from finance.data import known_names
from finance.errors import UnknownTickerError
from finance.model import Catalog, Metric, Section
from finance.periods import Period, find_period
from finance.sentence import Sentence, any_of

Follow = Literal["replace", "add"]


@dataclass
class Reading:
    """The findings of the rules, before they become a plan; empty where nothing is said."""

    tickers: list[str] = field(default_factory=list)
    dropped_tickers: list[str] = field(default_factory=list)
    period: Period | None = None
    metrics: list[Metric] = field(default_factory=list)
    dropped_metrics: list[Metric] = field(default_factory=list)
    benchmark: bool | None = None
    dropped_sections: list[Section] = field(default_factory=list)
    asked_sections: list[Section] = field(default_factory=list)
    follow: Follow = "replace"
    same: bool = False
    which: bool = False
    ignored: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether nothing at all was understood."""
        lists = (self.tickers, self.dropped_tickers, self.metrics, self.dropped_metrics)
        parts = (self.dropped_sections, self.asked_sections)
        found = any(lists) or any(parts) or self.period or self.benchmark is not None
        return not found and not self.same and not self.which


def read(question: str, known: Catalog) -> Reading:
    """Read a question.

    Raises:
        UnknownTickerError: It names a company there are no prices for.
    """
    sentence = Sentence(question)
    reading = Reading(
        period=find_period(sentence),
        follow="add" if sentence.says(words.ADDING) else "replace",
        same=sentence.says(words.SAME),
        which=sentence.says(words.WHICH_STOCK),
    )
    _read_benchmark(sentence, reading)
    _read_metrics(sentence, reading)
    _read_sections(sentence, reading)
    _read_companies(sentence, known, reading)
    _read_rest(sentence, known, reading)
    return reading


def _read_benchmark(sentence: Sentence, reading: Reading) -> None:
    if sentence.take(words.NEGATION + any_of(words.BENCHMARK)):
        reading.benchmark = False
    elif sentence.take_all(any_of(words.BENCHMARK)):
        reading.benchmark = True


def _read_metrics(sentence: Sentence, reading: Reading) -> None:
    # Longer wordings first: "risk-adjusted return" is Sharpe's, not a return and a risk.
    order: tuple[Metric, ...] = (
        "sharpe",
        "extremes",
        "drawdown",
        "beta",
        "correlation",
        "return",
        "volatility",
    )
    found: set[Metric] = set(order) if sentence.take(words.ALL_METRICS) else set()
    for metric in order:
        pattern = any_of(words.METRICS[metric])
        if sentence.take(words.NEGATION + r"(?:the )?" + pattern):
            reading.dropped_metrics.append(metric)
        if sentence.take_all(pattern):
            found.add(metric)
    reading.metrics = [metric for metric in words.METRICS if metric in found]


def _read_sections(sentence: Sentence, reading: Reading) -> None:
    for section, phrases in words.SECTIONS.items():
        pattern = any_of(phrases)
        if sentence.take(words.NEGATION + r"(?:the |a |any )?" + pattern):
            reading.dropped_sections.append(section)
        if sentence.take_all(pattern):
            reading.asked_sections.append(section)


def _read_companies(sentence: Sentence, known: Catalog, reading: Reading) -> None:
    by_pattern = {any_of(_phrases(ticker)): ticker for ticker in known.stocks}
    name = "(?:" + "|".join(by_pattern) + ")"
    dropped = sentence.take(words.NEGATION + rf"{name}(?:(?:\s*,\s*|\s+and\s+|\s+or\s+){name})*")
    places: dict[str, int] = {}
    for pattern, ticker in by_pattern.items():
        if dropped and re.search(pattern, dropped.group(), re.IGNORECASE):
            reading.dropped_tickers.append(ticker)
        elif found := re.search(pattern, sentence.rest, re.IGNORECASE):
            places[ticker] = found.start()
    for pattern in by_pattern:
        sentence.take_all(pattern)
    reading.tickers = sorted(places, key=lambda ticker: places[ticker])
    if sentence.take(words.ALL_STOCKS):
        reading.tickers += [ticker for ticker in known.stocks if ticker not in reading.tickers]


def _phrases(ticker: str) -> tuple[str, ...]:
    """The patterns that mean a ticker: itself, with or without a dollar sign, and its names."""
    return (rf"\$?{re.escape(ticker)}", *words.COMPANY_NAMES.get(ticker, ()))


def _read_rest(sentence: Sentence, known: Catalog, reading: Reading) -> None:
    """Look at the words no rule took: names are errors, other words are told to the reader."""
    shouting = not re.search(r"[a-z]", sentence.original)
    for match in re.finditer(r"\$?[^\W_][\w&.'-]*", sentence.rest):
        word = re.sub(r"(?:'s|[.'-]+)$", "", match.group())
        low = word.lower()
        if low in words.FILLERS or low.replace("'", "") in words.FILLERS:
            continue
        opening = re.search(r"(?:^|[.?!:;])[\s\"'(]*$", sentence.rest[: match.start()])
        before, after = sentence.rest[: match.start()], sentence.rest[match.end() :]
        if _is_name(word, opening=bool(opening), shouting=shouting) or _in_slot(before, after, word):
            more = re.match(r"(?:\s+[A-Z][\w&'-]*)*", after)  # "General Motors"
            name = word.lstrip("$") + (more.group() if more and not shouting else "")
            raise UnknownTickerError(" ".join(name.split()), known_names(known))
        reading.ignored.append(word)


def _is_name(word: str, *, opening: bool, shouting: bool) -> bool:
    """Whether a word looks like a ticker or a company's name by its letters."""
    if word.startswith("$"):
        return word[1:].isalpha()
    if word.upper() in words.ACRONYMS or word.lower() in words.CALENDAR or not word[0].isalpha():
        return False
    if shouting:
        return False
    ticker = re.fullmatch(r"[A-Z]{2,5}(?:\.[A-Z])?", word) is not None
    return ticker or (word[0].isupper() and not opening)


def _in_slot(before: str, after: str, word: str) -> bool:
    """Whether a word stands where a company's name stands: "what about tesla", "tesla vs Apple"."""
    if not word.isalpha() or word.lower() in words.CALENDAR or word.upper() in words.ACRONYMS:
        return False
    asked = re.search(r"\b(?:what about|how about|vs\.?|versus|add|compare)\s+$", before, re.IGNORECASE)
    compared = re.match(r"\s+(?:vs\.?|versus)\b", after, re.IGNORECASE)
    return bool(asked or compared)
