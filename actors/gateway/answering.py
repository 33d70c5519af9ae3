"""The one place where requests become answers: timed, counted, and errors told as data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any, cast

import nats.errors
from faststream import BaseMiddleware, ContextRepo, StreamMessage
from faststream.nats import NatsMessage, NatsResponse
from faststream.nats.response import NatsPublishCommand
from nats.aio.msg import Msg

from callboard.actors.gateway.exchange import Request, encode, failure
from callboard.infra import log
from callboard.infra.errors import CallboardError

_log = log.get("gateway")


class Tally:
    """What one verb has done.

    Attributes:
        taken, answered, errors: requests; nanoseconds: spent on those answered.
        last_error: its text.
    """

    __slots__ = ("answered", "errors", "last_error", "nanoseconds", "on_taken", "taken")

    def __init__(self, on_taken: Callable[[], None]) -> None:
        self.on_taken = on_taken
        self.taken = 0
        self.answered = 0
        self.errors = 0
        self.nanoseconds = 0
        self.last_error = ""


async def read(message: NatsMessage) -> Request:
    """FastStream's decoder: a request, whatever the message holds."""
    name = message.raw_message.subject.rpartition(".")[2]
    return Request(name, message.headers, message.body, answered=bool(message.reply_to))


class Answering(BaseMiddleware[NatsPublishCommand, Msg]):
    """Around every handler.

    Args:
        tallies: by verb.
        limit: bytes that a message may have now.
    """

    def __init__(
        self, tallies: dict[str, Tally], limit: Callable[[], int], msg: Msg, /, *, context: ContextRepo
    ) -> None:
        super().__init__(msg, context=context)
        self._tally = tallies[msg.subject.split(".")[2]]
        self._limit = limit

    async def on_receive(self) -> None:
        """Count it."""
        self._tally.taken += 1
        self._tally.on_taken()

    async def consume_scope(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> NatsResponse:
        """Call the handler; whatever it raises is an answer too."""
        begun = perf_counter_ns()
        request = cast("Request", await msg.decode())
        try:
            answer = await call_next(msg)
        except CallboardError as error:
            answer = failure(error, request.run)
        except Exception as error:  # noqa: BLE001 - whoever asked must hear of it
            _log.exception("request_failed", subject=msg.raw_message.subject, run=request.run)
            answer = failure(error, request.run)
        body, headers, problem = encode(answer, request, self._limit())
        tally = self._tally
        tally.answered += 1
        tally.nanoseconds += perf_counter_ns() - begun
        if problem is not None:
            tally.errors += 1
            tally.last_error = f"{problem.code}: {problem.message}"
        return NatsResponse(body, headers=headers)

    async def publish_scope(
        self, call_next: Callable[[NatsPublishCommand], Awaitable[Any]], cmd: NatsPublishCommand
    ) -> Any:
        """Send the answer; where it cannot be sent, nobody waits for it."""
        try:
            return await call_next(cmd)
        except (nats.errors.Error, ValueError) as error:
            _log.warning("answer_not_sent", to=cmd.destination, error=str(error) or type(error).__name__)
            return None
