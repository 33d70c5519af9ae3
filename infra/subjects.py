"""All subjects, stream names, bucket names and ids, and what a token may look like."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time

from callboard.infra.errors import CallboardError

REQUESTS = "REQUESTS"
CALLS = "CALLS"
RUNS = "RUNS"
TELEMETRY = "TELEMETRY"
DEAD = "DEAD"

STATE_BUCKET = "cb_state"
REGISTRY_BUCKET = "cb_registry"
REGISTRY = f"KV_{REGISTRY_BUCKET}"
POLICY_BUCKET = "cb_policy"
BUDGET_BUCKET = "cb_budget"
RUNTIMES_BUCKET = "cb_runtimes"
CURVE = "curve"
RUNS_BUCKET = "cb_runs"
INBOX_BUCKET = "cb_inbox"
BLOBS_BUCKET = "cb_blobs"

ANY = "any"
"""The shared lane: whoever has a free slot."""

WAKER = "callboard"
"""In the place of an actor: to whose lane timers fire that end waits; no actor can be called so."""

BANDS = (0, 1, 2)
"""Urgency classes of a lane, the most urgent first; each is a subject."""
MIDDLE_BAND = 1

EVERY_HOST = "all"
MINDERS = "minders"
"""Those controllers that mind the processes of hosts: the place of a host's name in :func:`control`."""

_TOKEN = re.compile(r"[A-Za-z0-9_\-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_SESSION = 1024
_WORKFLOW = "-"
"""In the place of a handler: the workflow itself has made the call."""
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class NameInvalid(CallboardError):
    """A name or an id cannot be a subject token. Fields: what, value."""

    code = "name_invalid"


def token(what: str, value: str) -> str:
    """Return value if it can be one token of a subject.

    Raises:
        NameInvalid: it has other characters than letters, digits, ``_`` and ``-``, or over 128.
    """
    if not _TOKEN.fullmatch(value):
        raise NameInvalid(
            f"{what} {value[:140]!r} cannot be used: give 1 to 128 letters, digits, '_' or '-'",
            what=what,
            value=value[:140],
        )
    return value


def is_token(value: str) -> bool:
    """Tell whether value can be one token of a subject."""
    return _TOKEN.fullmatch(value) is not None


def request(workflow: str) -> str:
    """Where requests for a workflow go."""
    return f"cb.request.{workflow}"


def call(actor: str, lane: str = ANY, band: int = MIDDLE_BAND) -> str:
    """Where calls of an actor go; lane is ``any`` or a host id."""
    return f"cb.call.{actor}.{lane}.{band}"


def timer(name: str) -> str:
    """A schedule of its own in the calls' stream; it is gone once it has fired."""
    return f"cb.timer.{name}"


def run_timer(run_id: str, name: str) -> str:
    """The schedule of something that a run waits for: a path of its code, or its ``deadline``."""
    return f"cb.timer.{run_id}.{name}"


def run(run_id: str, kind: str) -> str:
    """Where the journal of a run is written."""
    return f"cb.run.{run_id}.{kind}"


def journal(run_id: str, kind: str) -> str:
    """Where the server repeats what it has stored in the journal, in stream order."""
    return f"cb.journal.{run_id}.{kind}"


def result_kind(future_id: str) -> str:
    """The kind under which a call's result stands: ``result``, or ``result.<parent>`` when nested.

    Calls made by a handler are kept apart from the workflow's own, so that whoever made a call hears
    of its siblings only.
    """
    path = future_id.partition(":")[2]
    parent, dot, _ = path.rpartition(".")
    return f"result.{_flat(parent)}" if dot else "result"


def commit_kind(result: str, name: str) -> str:
    """The kind under which the server's ack of a state's commit stands, which an outcome is held for.

    Args:
        result: the outcome's own kind; name: see :func:`commit_name`; ``>`` for those of all names.
    """
    return f"commit.{result.partition('.')[2] or _WORKFLOW}.{name}"


def commit_name(maker: str, host: str, number: str) -> str:
    """What tells such an ack from others: the process that waits for it, who commits, which commit of it."""
    return f"{maker}.{host}.{number}"


def children_kind(future_id: str) -> str:
    """The kind under which the results of the calls made by this call stand."""
    return f"result.{_flat(future_id.partition(':')[2])}"


def intent_kind(future_id: str, call: str = "", key: str = "") -> str:
    """The kind under which the intents of an effect stand: of a call, or of a key that several may share."""
    if not key:
        return f"intent.{_flat(future_id.partition(':')[2])}"
    return f"intent.key-{hashlib.sha256(f'{call}:{key}'.encode()).hexdigest()[:32]}"


def _flat(path: str) -> str:
    return path.replace(".", "-").replace("/", "_").replace("~", "+")


def telemetry(source: str) -> str:
    """Where a host or driver reports."""
    return f"cb.telemetry.{source}"


def tokens(run_id: str, path: str = "*") -> str:
    """Where a model says what it answers to a call; path is the future's, or ``*`` for all of a run."""
    return f"cb.token.{run_id}.{_flat(path)}"


def control(host: str = EVERY_HOST) -> str:
    """Where a host, or every host, is told what to do."""
    return f"cb.control.{host}"


def prefixes(actor: str) -> str:
    """Where hosts of a model tell which prompts their engines hold the beginnings of."""
    return f"cb.prefix.{actor}"


def steal(host: str) -> str:
    """Where a host is asked for calls that wait in it."""
    return f"cb.steal.{host}"


def dead(actor: str) -> str:
    """Where messages for an actor go that nobody could handle."""
    return f"cb.dead.{actor}"


def registry(key: str) -> str:
    """The subject of a key in the registry bucket."""
    return f"$KV.{REGISTRY_BUCKET}.{key}"


def run_summary(run_id: str) -> str:
    """The subject of a run's summary in its bucket."""
    return f"$KV.{RUNS_BUCKET}.{run_id}"


def runtime(actor: str, method: str, size: str) -> str:
    """Where it is written how long a method takes with arguments of a size."""
    return f"$KV.{RUNTIMES_BUCKET}.{actor}.{method}.{size}"


def runtime_curve(actor: str, method: str) -> str:
    """Where it is written how long a method is expected to take, by the size of its arguments."""
    return f"$KV.{RUNTIMES_BUCKET}.{actor}.{method}.{CURVE}"


def question(run_id: str, path: str) -> str:
    """The subject of an open question in its bucket; path is the future's, or ``>`` for all of a run."""
    return f"$KV.{INBOX_BUCKET}.{run_id}.{_flat(path)}"


def route(actor: str) -> str:
    """The subject of an actor's route in its bucket."""
    return f"$KV.{POLICY_BUCKET}.route.{actor}"


def session_route(actor: str, session: str) -> str:
    """The same for one session at it; session is a token."""
    return f"{route(actor)}.{session}"


def priority(session: str) -> str:
    """The subject of a session's priority in its bucket; session is a token."""
    return f"$KV.{POLICY_BUCKET}.priority.{session}"


def actor_priority(session: str, actor: str) -> str:
    """The same at one actor only."""
    return f"{priority(session)}.{actor}"


def admission(workflow: str) -> str:
    """The subject of the limit of a workflow's requests."""
    return f"$KV.{POLICY_BUCKET}.admit.{workflow}"


def budget(name: str) -> str:
    """The subject of a budget's account in its bucket; name is the scope, a dot, and a token."""
    return f"$KV.{BUDGET_BUCKET}.{name}"


def decided(epoch: str) -> str:
    """The subject of what was decided at one time."""
    return f"$KV.{POLICY_BUCKET}.decided.{epoch}"


def policy_leader() -> str:
    """The subject of who may write decisions."""
    return f"$KV.{POLICY_BUCKET}.leader"


def policies() -> str:
    """The subject of the set of policies that controllers follow."""
    return f"$KV.{POLICY_BUCKET}.policies"


def policies_running() -> str:
    """The subject of how these policies stand."""
    return f"$KV.{POLICY_BUCKET}.running"


def policy(key: str) -> str:
    """Where the server repeats what it has stored in the bucket of decisions, in stream order."""
    return f"cb.policy.{key}"


def state(actor: str, session: str) -> str:
    """Where the commits to a session's state at an actor are written; session is a token."""
    return f"$KV.{STATE_BUCKET}.{actor}.{session}"


def state_part(actor: str, session: str, key: str) -> str:
    """Where a part of that state is, or a piece of a large value."""
    return f"{state(actor, session)}.{key}"


def session_id(value: str) -> str:
    """Return value if it can be the id of a session: it travels as a header, which must keep all of it.

    Raises:
        NameInvalid: it is empty, or has control characters or blanks at its ends.
    """
    if not value or _CONTROL.search(value) or value != value.strip() or not _is_text(value):
        raise NameInvalid(
            f"session {value[:140]!r} cannot be used: give an id without control characters (line breaks, "
            "tabs), and without blanks at its ends",
            what="session",
            value=value[:140],
        )
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def session_token(session: str) -> str:
    """A session's id as one token: itself if it is one, else ``=`` and its base64url.

    Raises:
        NameInvalid: it is too long.
    """
    if is_token(session):
        return session
    encoded = base64.urlsafe_b64encode(session.encode()).decode().rstrip("=")
    if not 0 < len(encoded) <= _LONGEST_SESSION:
        raise NameInvalid(
            f"session {session[:140]!r} can have no state: its id must have 1 to "
            f"{_LONGEST_SESSION * 3 // 4} bytes",
            what="session",
            value=session[:140],
        )
    return f"={encoded}"


def session_of(token: str) -> str:
    """The session's id that a token stands for."""
    if not token.startswith("="):
        return token
    return base64.urlsafe_b64decode(token[1:] + "=" * (-(len(token) - 1) % 4)).decode("utf-8", "replace")


def ack(stream: str, consumer: str, stream_sequence: int, consumer_sequence: int) -> str:
    """The ack subject of a delivered message, as the server itself would have made it.

    The server looks at the two sequences only, so that a message can be acked or nak'd on behalf of
    a host whose reply subject nobody else has seen.
    """
    return f"$JS.ACK.{stream}.{consumer}.1.{stream_sequence}.{consumer_sequence}.0.0"


def new_id() -> str:
    """A new id of 26 characters that sorts by time (the layout of a ULID)."""
    return _crockford(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"))


def derived_id(timestamp_ns: int, *parts: str) -> str:
    """The same kind of id, always the same for the same time and parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return _crockford(timestamp_ns // 1_000_000, int.from_bytes(digest[:10], "big"))


def _crockford(milliseconds: int, entropy: int) -> str:
    number = (milliseconds & (1 << 48) - 1) << 80 | entropy
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
