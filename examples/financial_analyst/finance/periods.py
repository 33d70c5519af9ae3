"""Periods in a question: "between 2004 and 2009", "since March 2005", "the last five years"."""

import re
from dataclasses import dataclass
from datetime import date

from finance.months import month_end, month_start, shift
from finance.sentence import Sentence

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_YEAR = r"(?:19|20)\d\d"
_POINT = (
    rf"(?<![\w$])(?:{_MONTH}\.?,?\s+(?:of\s+)?{_YEAR}|q[1-4]\s+(?:of\s+)?{_YEAR}|{_YEAR}\s?q[1-4]"
    rf"|{_YEAR}-(?:0[1-9]|1[0-2])(?:-[0-3]\d)?(?!\d)|{_YEAR}|'\d\d)(?![\w])"
)
_TO = r"\s*(?:-|\u2013|\u2014|/|\.\.\.?|\bto\b|\bthrough\b|\bthru\b|\buntil\b|\btill\b|\bup to\b)\s*"
_OPENING = r"\b(?:(?:in|over|during|for|of)\s+)?(?:the\s+)?"
_NUMBERS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_COUNT = rf"(?P<count>\d{{1,3}}|{'|'.join(_NUMBERS)}|couple of)?"
_UNITS = {"month": 1, "quarter": 3, "year": 12, "decade": 120}

_TWO_POINTS = (
    rf"\b(?:between|from|since)\s+(?:the\s+)?(?P<a>{_POINT})(?:\s+and\s+|{_TO})(?P<b>{_POINT})",
    rf"(?:\b(?:in|over|during|for)\s+)?(?P<a>{_POINT}){_TO}(?P<b>{_POINT})",
    rf"(?:\b(?:between|from|in|over|during|for)\s+)?\b(?P<a>{_MONTH})(?:\s+and\s+|{_TO})(?P<b>{_MONTH}\s+{_YEAR})\b",
)
_SHORT_RANGE = rf"\b(?P<a>{_YEAR})\u2013(?P<b>\d\d)\b(?!-)"
_DECADE = rf"{_OPENING}(?P<a>(?:19|20)\d0)'?s\b"
_BACK = (
    rf"{_OPENING}(?P<side>last|past|latest|recent|first)\s+{_COUNT}\s*"
    rf"(?P<unit>{'|'.join(_UNITS)})s?\b"
)
_SINCE = (
    r"\b(?P<word>since|after|from|starting(?:\s+in|\s+from)?|beginning(?:\s+in)?)\s+"
    rf"(?P<a>{_POINT})(?:\s+on(?:wards?)?|\s+forward)?"
)
_UNTIL = rf"\b(?P<word>until|till|through|thru|up to|before|ending(?:\s+in)?)\s+(?P<a>{_POINT})"
_SINGLE = rf"(?:\b(?:in|during|for|over|throughout|of)\s+)?(?:the\s+)?(?:year\s+)?(?P<a>{_POINT})"
_WHOLE = (
    r"\b(?:over |for |in |during )?"
    r"(?:the (?:whole|entire|full)(?: available)? (?:period|time|history|data|range)"
    r"|all (?:the )?(?:data|years|time)|since the beginning|ever)\b"
)


@dataclass(frozen=True)
class Period:
    """A period as asked for; what is open is filled from the data.

    Args:
        words: How the question put it.
        start: First day, or None for as early as the data.
        end: Last day, or None for as late as the data.
        months: Counted from the end of the data, or, negative, from its start; 0 for neither.
        swapped: The question named the later end first.
    """

    words: str
    start: date | None = None
    end: date | None = None
    months: int = 0
    swapped: bool = False

    def within(self, first: date, last: date) -> tuple[date, date]:
        """First and last day, given the first and the last month of the data."""
        if self.months > 0:
            return month_start(shift(last, 1 - self.months)), last
        if self.months < 0:
            return month_start(first), shift(first, -self.months - 1)
        return self.start or month_start(first), self.end or last


def find_period(sentence: Sentence) -> Period | None:
    """The period a question names, taken out of it; None if it names none."""
    for read in (_read_range, _read_decade, _read_back, _read_open, _read_single):
        if period := read(sentence):
            return period
    whole = sentence.take(_WHOLE)
    return Period(_tidy(whole.group())) if whole else None


def _read_range(sentence: Sentence) -> Period | None:
    short = sentence.take(_SHORT_RANGE)
    if short:
        first = int(short["a"])
        last = first - first % 100 + int(short["b"])
        return _ordered(short.group(), (_year(first), _year(last)))
    for pattern in _TWO_POINTS:
        if match := sentence.take(pattern):
            a, b = match["a"], match["b"]
            if not re.search(r"\d", a):  # "March to June 2008": the year stands once
                a += b[-5:]
            return _ordered(match.group(), (_point(a), _point(b)))
    return None


def _read_decade(sentence: Sentence) -> Period | None:
    match = sentence.take(_DECADE)
    if not match:
        return None
    first = int(match["a"])
    return Period(_tidy(match.group()), date(first, 1, 1), date(first + 9, 12, 31))


def _read_back(sentence: Sentence) -> Period | None:
    match = sentence.take(_BACK)
    if not match:
        return None
    months = _count(match["count"]) * _UNITS[match["unit"].lower()]
    side = -1 if match["side"].lower() == "first" else 1
    return Period(_tidy(match.group()), months=side * max(months, 1))


def _read_open(sentence: Sentence) -> Period | None:
    """Periods open on one side, or both sides named apart: "since 2005, before 2008"."""
    since, until = sentence.take(_SINCE), sentence.take(_UNTIL)
    if not since and not until:
        return None
    words = " ".join(_tidy(match.group()) for match in (since, until) if match)
    start = end = None
    if since:
        first, last = _point(since["a"])
        start = month_start(shift(last, 1)) if since["word"].lower() == "after" else first
    if until:
        first, last = _point(until["a"])
        end = shift(first, -1) if until["word"].lower() == "before" else last
    if start and end and start > end:
        return Period(words, month_start(end), month_end(start.year, start.month), swapped=True)
    return Period(words, start, end)


def _read_single(sentence: Sentence) -> Period | None:
    """One point, or several as in "in 2005 and 2007", which are read as the span they cover."""
    first = sentence.take(_SINGLE)
    if not first:
        return None
    spans, words = [_point(first["a"])], [_tidy(first.group())]
    while more := sentence.take(rf"(?<=\x00)\s*(?:,|and|&|or|,\s*and)?\s*(?P<a>{_POINT})"):
        spans.append(_point(more["a"]))
        words.append(_tidy(more.group()))
    start, end = min(span[0] for span in spans), max(span[1] for span in spans)
    return Period(" ".join(words), start, end)


def _ordered(words: str, ends: tuple[tuple[date, date], tuple[date, date]]) -> Period:
    """The span from the earlier to the later of two points."""
    (a_start, a_end), (b_start, b_end) = ends
    swapped = a_start > b_start
    start, end = min(a_start, b_start), max(a_end, b_end)
    return Period(_tidy(words), start, end, swapped=swapped)


def _point(text: str) -> tuple[date, date]:
    """First and last day of a year, a quarter or a month as `_POINT` matches it."""
    low = text.lower()
    if low.startswith("'"):
        century = 1900 if int(low[1:]) > 50 else 2000
        return _year(century + int(low[1:]))
    year = int(re.search(_YEAR, low).group())  # type: ignore[union-attr] # _POINT has a year in it
    if quarter := re.search(r"q([1-4])", low):
        last = int(quarter.group(1)) * 3
        return date(year, last - 2, 1), month_end(year, last)
    if iso := re.match(rf"{_YEAR}-(\d\d)", low):
        month = int(iso.group(1))
    elif low[:3] in _MONTHS:
        month = _MONTHS.index(low[:3]) + 1
    else:
        return _year(year)
    return date(year, month, 1), month_end(year, month)


def _year(year: int) -> tuple[date, date]:
    return date(year, 1, 1), date(year, 12, 31)


def _count(text: str | None) -> int:
    """A number in digits or words; none is one, as in "the last year"."""
    if not text:
        return 1
    if text.isdecimal():
        return int(text)
    low = text.lower()
    return _NUMBERS.index(low) + 1 if low in _NUMBERS else 2


def _tidy(words: str) -> str:
    return " ".join(words.split())
