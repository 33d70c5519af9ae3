"""Reading requests and writing answers, in JSON or msgpack; nothing a client can send raises here unasked."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET
from nats.micro.request import ERROR_CODE_HEADER, ERROR_HEADER
from pydantic import InstanceOf, WithJsonSchema

from callboard.actors.bodies import unreadable
from callboard.actors.failures import code_of, text_of
from callboard.actors.gateway.messages import (
    STATUS_OF,
    Answer,
    Error,
    Failure,
    Internal,
    Outcome,
)
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    DeadlineExceeded,
    HeaderInvalid,
    InvalidArguments,
    InvalidResult,
    ValueTooLarge,
)
from callboard.infra.messages.run import ErrorInfo

_MAPS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
_MSGPACK = {H.MSGPACK, "application/x-msgpack", "application/vnd.msgpack"}
_PRIORITY = re.compile(r"[+-]?[0-9]{1,9}")
_ROOM_FOR_HEADERS = 1024
_SHOWN = 120


class Request:
    """A request as it came; reading it raises nothing.

    Args:
        name: last token of the subject: a workflow, a run, or ``all``.
        headers: as they came; their names' case does not matter.
        body: as it came.
        answered: somebody waits for an answer.

    Attributes:
        as_json: its encoding, which is that of the answer too.
        run: the run it is about, as soon as that is known.
    """

    __slots__ = ("answered", "as_json", "body", "headers", "name", "run")

    def __init__(self, name: str, headers: Mapping[str, str], body: bytes, *, answered: bool) -> None:
        self.name = name
        self.headers = {key.lower(): value for key, value in headers.items()}
        self.body = body
        self.answered = answered
        self.run = ""
        kind = self.header(H.CONTENT_TYPE).partition(";")[0].strip().lower()
        # JSON unless said or seen otherwise: no JSON object begins like a msgpack map.
        self.as_json = kind not in _MSGPACK and (kind == H.JSON or body[:1] not in _FIRST)

    def header(self, name: str) -> str:
        """One header; empty if it is not there."""
        return self.headers.get(name.lower(), "")

    def object(self) -> dict[str, Any]:
        """The body, decoded.

        Raises:
            RequestUndecodable: it is not what it should be.
            InvalidArguments: it is something else than an object with names.
        """
        if not self.body.strip():
            return {}
        try:
            decode = msgspec.json.decode if self.as_json else msgspec.msgpack.decode
            found: dict[str, Any] = decode(self.body, type=dict[str, Any])
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            said = self.header(H.CONTENT_TYPE)
            problem = unreadable(self.name, self.body, as_json=self.as_json, said=said)
            raise problem or InvalidArguments(str(error), actor=self.name, method="run") from error
        return found


_FIRST = {bytes([first]) for first in _MAPS}

Arguments = Annotated[
    Request,
    InstanceOf(),
    WithJsonSchema({"type": "object", "description": "The workflow's arguments by name; empty for none"}),
]
"""A request with arguments. Here and below: a request, and what AsyncAPI is told of its body."""

Reason = Annotated[
    Request,
    InstanceOf(),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"reason": {"type": "string", "description": "Told to whoever waits for the run"}},
            "description": "May be empty",
        }
    ),
]
Nothing = Annotated[Request, InstanceOf(), WithJsonSchema({"description": "Not looked at; may be empty"})]


class Options:
    """What the headers of a request ask for; the same headers as those of ``cb.request.<workflow>``.

    Attributes:
        run: the run's id; chosen: the request says so; session: whose it is; trace: W3C trace context.
        deadline: unix seconds, 0 for none; priority: of all its calls.

    Raises:
        NameInvalid, HeaderInvalid: one cannot be used.
        DeadlineExceeded: it is too late already.
    """

    __slots__ = ("budget", "chosen", "deadline", "priority", "run", "session", "trace")

    def __init__(self, request: Request) -> None:
        given = request.header(H.RUN) or request.header(H.MESSAGE_ID)
        self.chosen = bool(given)
        self.run = subjects.token(f"run id (header {H.RUN})", given) if given else subjects.new_id()
        self.session = request.header(H.SESSION)
        self.trace = request.header(H.TRACEPARENT)
        self.budget = self._budget(request.header(H.BUDGET))
        self.priority = self._priority(request.header(H.PRIORITY))
        self.deadline = self._deadline(request.header(H.DEADLINE))

    def _budget(self, text: str) -> str:
        try:
            return H.charged({H.BUDGET: text})
        except ValueError:
            raise _invalid(H.BUDGET, text, "'run' or 'key.NAME'") from None

    def _priority(self, text: str) -> int:
        if text and not _PRIORITY.fullmatch(text):
            raise _invalid(H.PRIORITY, text, "a whole number")
        return int(text or "0")

    def _deadline(self, text: str) -> float:
        if not text:
            return 0.0
        try:
            deadline = float(text)
        except ValueError:
            deadline = math.nan
        if not (math.isfinite(deadline) and deadline > 0):
            raise _invalid(H.DEADLINE, text, "unix seconds")
        late = time.time() - deadline
        if late >= 0:
            raise DeadlineExceeded(f"the deadline has passed {late:.3f} s ago: nothing was done")
        return deadline

    def headers(self, *, as_json: bool) -> bytes:
        """The headers of the request to be stored."""
        items = [(H.RUN, self.run), (H.MESSAGE_ID, self.run)]
        items.append((H.CONTENT_TYPE, H.JSON if as_json else H.MSGPACK))
        optional = (
            (H.SESSION, self.session),
            (H.DEADLINE, f"{self.deadline:.3f}" if self.deadline else ""),
            (H.PRIORITY, str(self.priority) if self.priority else ""),
            (H.TRACEPARENT, self.trace),
            (H.BUDGET, self.budget),
        )
        return H.encode(items + [(name, value) for name, value in optional if value])


def _invalid(header: str, value: str, wanted: str) -> HeaderInvalid:
    shown = value[:_SHOWN]
    return HeaderInvalid(f"header {header} is {shown!r}: it must be {wanted}", header=header, value=shown)


# -- answers -----------------------------------------------------------------------------------------


def failure(error: BaseException, run: str = "") -> Failure:
    """An exception as an answer."""
    if not isinstance(error, CallboardError):
        error = Internal(f"the gateway could not answer ({text_of(error)}); its log says why")
    info = Error(code_of(error), error.message, dict(error.fields), error.retryable)
    return Failure(info, run or error.fields.get("run") or UNSET)


def error_of(info: ErrorInfo) -> Error:
    """Why a run has no value: the code, text and data of its error, and where in the run it happened."""
    fields = dict(info.fields)
    if info.path:
        fields["path"] = info.path
    if info.type:
        fields["type"] = info.type
    causes = []
    cause = info.cause
    while cause is not None:
        causes.append(cause.message)
        cause = cause.cause
    if causes:
        fields["causes"] = causes
    return Error(info.code, info.message, fields, info.retryable)


def encode(answer: Answer, request: Request, limit: int) -> tuple[bytes, dict[str, str], Error | None]:
    """Body and headers of an answer, and the error that it tells.

    Args:
        answer: a value in it is msgpack.
        request: what it answers.
        limit: bytes that a message may have.
    """
    try:
        body = _body(answer, as_json=request.as_json)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        answer = failure(
            InvalidResult(f"the answer cannot be told in JSON ({error}): ask in msgpack"), request.run
        )
        body = _body(answer, as_json=request.as_json)
    if len(body) > limit - _ROOM_FOR_HEADERS:
        text = f"the answer has {len(body):,} bytes, more than a message may have: read it from the journal"
        answer = failure(ValueTooLarge(text, size=len(body), limit=limit - _ROOM_FOR_HEADERS), request.run)
        body = _body(answer, as_json=request.as_json)
    kind = H.JSON if request.as_json else H.MSGPACK
    # Twice, since names of headers are told apart by case: the protocol's, and the one FastStream reads.
    headers = {H.CONTENT_TYPE: kind, H.CONTENT_TYPE.lower(): kind}
    problem = answer.error if isinstance(answer, Failure | Outcome) else UNSET
    if not isinstance(problem, Error):
        return body, headers, None
    headers[ERROR_HEADER] = problem.message[:_SHOWN]
    headers[ERROR_CODE_HEADER] = str(STATUS_OF.get(problem.code, 500))
    return body, headers, problem


def _body(answer: Answer, *, as_json: bool) -> bytes:
    if not as_json:
        return msgspec.msgpack.encode(answer)
    if isinstance(answer, Outcome) and isinstance(answer.value, msgspec.Raw):
        answer = msgspec.structs.replace(answer, value=msgspec.msgpack.decode(answer.value))
    return msgspec.json.encode(answer)
