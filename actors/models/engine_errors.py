"""What can be wrong with an engine, from what the ``openai`` client raises."""

from __future__ import annotations

import email.utils
import math
import re
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from callboard.infra.errors import (
    AnswerUnusable,
    CallboardError,
    ContextOverflow,
    EngineDown,
    EngineRefused,
    RateLimited,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

GONE: Final = frozenset({0, 502, 503, 504})
"""Statuses (0: none) of failures after which an engine may not be there."""
_TOLD: Final = 500
_WAIT: Final = 1.0
"""Seconds before a retry where the engine says none."""
_LONGEST: Final = 3600.0
_OVERFLOW: Final = re.compile(
    r"context.?(?:length|size|window)|too many tokens|prompt is too long|input is too long|"
    r"maximum prompt length|"
    r"input tokens? (?:count .{0,20})?exceeds? the (?:configured limit|maximum number of tokens)|"
    r"tokens=\d+ cannot be greater than max_model_len",
    re.IGNORECASE,
)
_LIMITS: Final = (
    re.compile(r"(?:maximum )?context (?:length|window|size)(?: is| of)?(?: only)? \(?(\d+)", re.IGNORECASE),
    re.compile(
        r"max(?:imum)?(?: model)?[ _](?:context |prompt |model_? ?)?len(?:gth)?\D{0,20}(\d+)", re.IGNORECASE
    ),
    re.compile(r"(?:configured limit of|tokens allowed) \(?(\d+)", re.IGNORECASE),
    re.compile(r"(?:>|with) (\d+) maximum", re.IGNORECASE),
)
_ASKED: Final = (
    re.compile(
        r"(?:resulted in|requested(?: a total of)?|contains(?: at least)?|request has|too long:) (\d+) "
        r"(?:\w+ )?tokens",
        re.IGNORECASE,
    ),
    re.compile(r"(?:(?:request|input) \((\d+) tokens|token count \((\d+))\)", re.IGNORECASE),
    re.compile(r"max_(?:completion_)?tokens=(\d+) cannot be greater", re.IGNORECASE),
)


class EngineFailed(Exception):
    """What an engine tells in the place of a chunk: that it has failed, as it puts it."""

    def __init__(self, told: Any) -> None:
        message = told.get("message") if isinstance(told, dict) else None
        super().__init__(str(message or told))


class Faults:
    """Within this block the client's errors become Callboard's; the key stands in none of them.

    Args:
        name: of the model; url: of the engine; key: to be hidden wherever an engine repeats it.
    """

    def __init__(self, name: str, url: str, key: str) -> None:
        self._name = name
        self._url = url
        self._key = key

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told = self._told(error)
        if told is not None:
            raise told from None  # the client's own holds the request, and with it the key

    def _told(self, error: BaseException | None) -> CallboardError | None:
        import httpx2
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._by_status(error.status_code, self._text(error), error.response.headers, error.code)
        if isinstance(error, openai.APIConnectionError):  # time-outs are among them
            return self._down(f"does not answer ({self._text(error)})", 0)
        if isinstance(error, httpx2.RequestError):  # while an answer was read: there the client wraps nothing
            return self._down(f"broke off: {self._text(error)}", 0)
        if isinstance(error, EngineFailed):
            return self._overflow(self._text(error)) or self._down(f"broke off: {self._text(error)}", 0)
        if isinstance(error, openai.APIError | msgspec.DecodeError | ValueError | AttributeError | TypeError):
            return unusable(self._name, self._text(error))
        return None

    def _by_status(
        self, status: int, text: str, headers: Mapping[str, str], code: str | None
    ) -> CallboardError:
        if status == 429 and code != "insufficient_quota":
            wait = retry_after(headers)
            return RateLimited(
                f"the engine of model {self._name} takes no more for {wait:g} s: {text}",
                engine=self._url,
                retry_after=wait,
            )
        if status >= 500 or status in {408, 409}:
            return self._down(f"answers with status {status}: {text}", status)
        hint = ""
        if status == 404 and "/v1" not in self._url:
            hint = f". Is {self._url} the address of its API? Most end with /v1"
        return self._overflow(text, code) or EngineRefused(
            f"the engine of model {self._name} refuses this, with status {status}: {text}{hint}",
            engine=self._url,
            status=status,
        )

    def _overflow(self, text: str, code: str | None = None) -> ContextOverflow | None:
        if code != "context_length_exceeded" and not _OVERFLOW.search(text):
            return None
        limit, asked = _number(_LIMITS, text), _number(_ASKED, text)
        told = f"{limit:,} tokens" if limit else "what it does not tell"
        wanted = f"; {asked:,} were asked for" if asked else ""
        return ContextOverflow(
            f"the prompt is too long for model {self._name}: its limit is {told}{wanted}. Shorten the "
            f"conversation, or lower max_tokens ({text})",
            engine=self._url,
            limit=limit,
            asked=asked,
        )

    def _down(self, how: str, status: int) -> EngineDown:
        text = f"the engine of model {self._name} at {self._url} {how}"
        return EngineDown(text, engine=self._url, status=status)

    def _text(self, error: Any) -> str:
        text = str(getattr(error, "message", "") or error) or type(error).__name__
        if len(self._key) > 4:  # before it is cut, which may leave a part of the key
            text = text.replace(self._key, "***")
        return text[:_TOLD]


def unusable(name: str, what: str) -> AnswerUnusable:
    """The error for an answer that the protocol does not allow."""
    return AnswerUnusable(f"the engine of model {name} answers rubbish: {what}", engine=name)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that an answer's headers say to wait: ``Retry-After`` in seconds or as a date (RFC 9110)."""
    given = headers.get("retry-after-ms")
    if given is not None:
        return _seconds(given, 1000.0)
    given = headers.get("retry-after")
    if given is None:
        return _WAIT
    try:
        at = email.utils.parsedate_to_datetime(given)
    except ValueError:
        return _seconds(given, 1.0)
    return min(_LONGEST, max(0.0, at.timestamp() - time.time()))


def _seconds(given: str, unit: float) -> float:
    try:
        seconds = float(given) / unit
    except ValueError:
        return _WAIT
    return min(_LONGEST, max(0.0, seconds)) if math.isfinite(seconds) else _WAIT


def _number(patterns: tuple[re.Pattern[str], ...], text: str) -> int:
    for pattern in patterns:
        found = pattern.search(text)
        if found:
            return int(found[found.lastindex or 1])
    return 0
