"""The vocabulary of the rules: companies, figures, parts of the report, and fillers."""

from types import MappingProxyType

from finance.model import Metric, Section

COMPANY_NAMES = MappingProxyType(
    {
        "AAPL": (r"apple(?: computer)?(?:,? inc\.?)?",),
        "AMZN": (r"amazon(?:\.com)?(?:,? inc\.?)?",),
        "GOOG": (r"google(?:,? inc\.?)?", "alphabet", "googl"),
        "IBM": ("international business machines", "big blue"),
        "MSFT": (r"microsoft(?: corp(?:oration|\.)?)?",),
    }
)
ALL_STOCKS = (
    r"\b(?:all|every)(?: of)?(?: the| these| your)?(?: five)? "
    r"(?:stocks?|companies|company|tickers?|shares)\b"
)
WHICH_STOCK = r"\bwhich (?:of (?:the|these|your) )?(?:stocks?|company|companies|tickers?|shares?)\b"

BENCHMARK = (
    r"(?:the )?s ?(?:&|and|\+)? ?p[ -]?500(?: index)?",
    r"(?:the )?s ?& ?p(?: index)?",
    r"(?:the )?\^?gspc",
    r"(?:the |a )?benchmark(?: index)?",
    r"the (?:american )?market",
    r"(?:the )?(?:us |u\.s\. |american )?stock market",
    "the index",
)

ALL_METRICS = (
    r"\b(?:(?:all|every)(?: of)?(?: the)? (?:figures?|metrics?|numbers?|statistics|measures?)"
    r"|everything)\b"
)
METRICS: MappingProxyType[Metric, tuple[str, ...]] = MappingProxyType(
    {
        "return": (
            r"(?:total |annual(?:i[sz]ed)? |yearly )?returns?",
            "performances?",
            "(?:out|under)?perform(?:ed)?",
            "beat(?:en)?",
            "growth",
            "grew",
            "gains?",
            "cagr",
        ),
        "volatility": ("volatility", "volatile", "vol", "standard deviation", "risks?", "risky"),
        "drawdown": (
            r"(?:(?:worst|max(?:imum)?|deepest|biggest|largest) )?draw-?downs?",
            r"(?:worst|max(?:imum)?|deepest|biggest|largest) (?:loss|fall|decline)",
        ),
        "sharpe": (r"sharpe(?:'s)?(?: ratios?)?", "risk[- ]adjusted(?: returns?)?"),
        "extremes": (r"(?:best|worst)(?: and (?:best|worst))? months?",),
        "beta": ("betas?", "alpha", "sensitivity"),
        "correlation": ("correlations?", "correlated?", "co-?movements?"),
    }
)

SECTIONS: MappingProxyType[Section, tuple[str, ...]] = MappingProxyType(
    {
        "chart": ("charts?", "graphs?", "plots?", "pictures?"),
        "headlines": ("news", "headlines?", "events?"),
        "rates": (
            r"(?:interest |risk[- ]free )?rates?",
            "bonds?",
            "yields?",
            r"t-?bills?",
            r"treasur(?:y|ies)(?: bills?)?",
            "cash",
        ),
        "economy": (
            r"(?:us |u\.s\. |american )?economy",
            "unemployment",
            "employment",
            "inflation",
            "recessions?",
            "gdp",
            "cpi",
            "macro",
        ),
    }
)

NEGATION = r"\b(?:without|exclud(?:e|ing)|except(?: for)?|drop|remove|leave out|skip|minus|not|no)\s+"
ADDING = (
    r"\b(?:add|also|include|including|as well|too|plus|additionally|together with|along with)\b"
    r"|\bcompare(?:d)?\s+(?:it|them|that|this|those|these)?\s*(?:with|to|against)\b"
)
SAME = r"\b(?:same|again|repeat)\b"

_FILLERS = """
a about across add additionally again against ago all along also an analyse analysis analyze and
answer any are as at average be became become been before best better between bought briefly bring
but buy by calculate calm can case check companies company compare compared comparing comparison
compute continue could data define describe did do does during each either evaluate every examine
explain fall far fell figures find first five for from full get give go goes had happen happened
has have held hello help hey hi higher highest hold how i if in include including index individual
inform instead into invest invested investigate investment investments investor is it its just
kindly know last latest least less let list look lose loss losses lost lower lowest make many
market markets me mean month months more most much my need no not now numbers of off on once one
only or other our out over overview own per period periods plan please plot plus present price
prices provide question quick relation relationship relative report research respectively rise
rose run same say see sell shall share shares should show since so sold some stock stocks strong
study sum summarise summarize summary take tell than thank thanks that the their them then there
these they thing this those through throughout till time to together too total under until up us
use v value values versus very vs want was we weak well went were what when where which while who
whole whose why will with within without words worse worst worth would write year yearly years yes
yet you your
"""
FILLERS = frozenset(_FILLERS.split())
"""Words that carry nothing the rules need. A capitalised word that is not among them is a name."""

ACRONYMS = frozenset({"US", "USA", "USD", "UK", "EU", "NBER", "ETF", "Q", "OK", "PLEASE"})

_CALENDAR = """
january february march april may june july august september october november december jan feb mar
apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday saturday sunday
spring summer autumn fall winter
"""
CALENDAR = frozenset(_CALENDAR.split())
"""Words that may be capitalised without being a company's name."""
