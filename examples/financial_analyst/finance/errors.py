"""What can be wrong with a question: one class per cause, with its fields.

The fields live in `args`, which is what travels between processes: so an error comes back as
itself, with its fields, from whichever process raised it.
"""


class AnalystError(Exception):
    """The base of everything the analyst refuses."""


class UnknownTickerError(AnalystError):
    """A company was named for which there are no prices.

    Args:
        asked: The name as the question wrote it.
        known: The tickers there are prices for, each with its company: ``"AAPL (Apple)"``.
    """

    def __init__(self, asked: str, known: tuple[str, ...]) -> None:
        super().__init__(asked, known)

    @property
    def asked(self) -> str:
        """The name as the question wrote it."""
        return str(self.args[0])

    @property
    def known(self) -> tuple[str, ...]:
        """The tickers there are prices for."""
        return tuple(self.args[1])

    def __str__(self) -> str:
        return (
            f"There are no prices for {self.asked!r}. Ask about one of: {', '.join(self.known)}. "
            "Other companies need another data source in finance/sources.py."
        )


class PlanRefusedError(AnalystError):
    """Somebody was asked about the plan, and said no.

    Args:
        reason: Why.
    """

    def __str__(self) -> str:
        return f"The plan was refused: {self.args[0]}. Ask another question."


class OutsideDataError(AnalystError):
    """The period asked for has no data at all.

    Args:
        subject: What was asked about, for example ``"GOOG"``.
        asked: The period in words, for example ``"Jan 2015 to Dec 2016"``.
        available: The period there is, in words.
    """

    def __init__(self, subject: str, asked: str, available: str) -> None:
        super().__init__(subject, asked, available)

    @property
    def subject(self) -> str:
        """What was asked about."""
        return str(self.args[0])

    @property
    def asked(self) -> str:
        """The period asked for, in words."""
        return str(self.args[1])

    @property
    def available(self) -> str:
        """The period there is, in words."""
        return str(self.args[2])

    def __str__(self) -> str:
        return (
            f"There is no data for {self.subject} in {self.asked}: it runs from {self.available}. "
            "Ask about a period inside it."
        )


class NotUnderstoodError(AnalystError):
    """The planner found nothing in the question that it can act on.

    Args:
        question: The question as it was asked.
        known: The tickers there are prices for, each with its company.
    """

    def __init__(self, question: str, known: tuple[str, ...]) -> None:
        super().__init__(question, known)

    @property
    def question(self) -> str:
        """The question as it was asked."""
        return str(self.args[0])

    @property
    def known(self) -> tuple[str, ...]:
        """The tickers there are prices for."""
        return tuple(self.args[1])

    def __str__(self) -> str:
        return (
            f"The planner's rules found nothing to analyse in {self.question!r}. "
            f"Name at least one of: {', '.join(self.known)}, or the S&P 500; "
            'for example "Compare AAPL and MSFT between 2004 and 2009".'
        )
