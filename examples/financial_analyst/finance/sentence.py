"""A question as the rules read it: what is understood is taken out, what is left was not."""

import re
from collections.abc import Iterable

_GAP = "\x00"  # stands where something was taken, so that the words around it do not become neighbours


class Sentence:
    """A question that gets shorter as the rules take from it.

    Args:
        text: The question. Typographic quotes and dashes are read as plain ones.
    """

    def __init__(self, text: str) -> None:
        plain = text.replace("\u2019", "'").replace("\u2018", "'").replace("\u2212", "-")
        self.original = plain.replace(_GAP, " ")
        self.rest = self.original

    def take(self, pattern: str) -> re.Match[str] | None:
        """The first match of `pattern` in what is left, which is thereby taken."""
        match = re.search(pattern, self.rest, re.IGNORECASE)
        if match and match.group():
            self.rest = self.rest[: match.start()] + _GAP + self.rest[match.end() :]
            return match
        return None

    def take_all(self, pattern: str) -> list[str]:
        """All matches of `pattern`, in the order in which they stand."""
        found: list[str] = []
        while match := self.take(pattern):
            found.append(match.group())
        return found

    def says(self, pattern: str) -> bool:
        """Whether the question as it was asked matches."""
        return re.search(pattern, self.original, re.IGNORECASE) is not None


def any_of(phrases: Iterable[str]) -> str:
    """A pattern for whole words: the longest of `phrases` that fits, a possessive included."""
    ordered = sorted(phrases, key=len, reverse=True)
    return r"(?<![\w$])(?:" + "|".join(ordered) + r")(?:'s)?(?!\w)"
