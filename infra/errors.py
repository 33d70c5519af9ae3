"""Every error Callboard raises: one base class, one subclass per cause.

An error is data. It has a stable ``code`` (what programs match on), a flag that says whether trying
again can help, and named ``fields``. Its text says what happened, to what, and what to do next.
The same data travels on the wire as :class:`callboard.infra.messages.run.ErrorInfo`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CallboardError(Exception):
    """Base of all errors.

    Args:
        message: what happened, to what, and what to do next.
        fields: the data of the error; msgpack-encodable values only.

    Attributes:
        again_in: seconds after which the host that raises it has the attempt repeated, which is not counted;
            None: by the call's retries. It does not travel.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    again_in: float | None = None

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.fields: dict[str, Any] = fields

    @property
    def message(self) -> str:
        """The text alone."""
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.fields)


def _restore(cls: type[CallboardError], message: str, fields: dict[str, Any]) -> CallboardError:
    """Rebuild an error from its parts (pickle's counterpart of ``__reduce__``)."""
    return cls(message, **fields)


# -- the ground: server, connection, stores --------------------------------------------------------


class SettingsInvalid(CallboardError):
    """A setting has a value that cannot be used."""

    code = "settings_invalid"


class ServerStartFailed(CallboardError):
    """The embedded nats-server did not start."""

    code = "server_start_failed"


class ServerUnsuitable(CallboardError):
    """The server is too old or has no JetStream. Fields: found, needed."""

    code = "server_unsuitable"


class ConnectFailed(CallboardError):
    """No server answers at the given address. Fields: url."""

    code = "connect_failed"
    retryable = True


class ConnectionLost(CallboardError):
    """The connection is closed for good; the process should end and be started again."""

    code = "connection_lost"
    retryable = True


class ClientClosed(CallboardError):
    """A client was used before it was opened, or after it was closed."""

    code = "client_closed"


class StoreRefused(CallboardError):
    """JetStream did not store a message. Fields: subject, err_code, description."""

    code = "store_refused"


class StoreFull(StoreRefused):
    """JetStream is out of room for now. Fields: subject, err_code, description."""

    code = "store_full"
    retryable = True


class Fenced(StoreRefused):
    """A newer owner exists; what this process wanted to write is void. Fields: subject; epoch, if known."""

    code = "fenced"


class RequestTimeout(CallboardError):
    """A server or a host did not answer in time. Fields: subject, timeout (s)."""

    code = "request_timeout"
    retryable = True


# -- declaring and calling -------------------------------------------------------------------------


class DeclarationInvalid(CallboardError):
    """An actor is declared in a way that cannot work."""

    code = "declaration_invalid"


class InvalidArguments(CallboardError):
    """The arguments of a call do not fit the method's annotations.

    Fields: actor, method, called_at (file and line of the code that made the call, where that is known).
    """

    code = "invalid_arguments"


class InvalidResult(CallboardError):
    """A handler returned what its annotation forbids or what cannot travel. Fields: actor, method."""

    code = "invalid_result"


class ValueTooLarge(CallboardError):
    """A value exceeds the largest permitted size. Fields: size, limit (bytes)."""

    code = "value_too_large"


class ValueMissing(CallboardError):
    """A value passed by reference is no longer in the blob store. Fields: digest."""

    code = "value_missing"


class UnknownActor(CallboardError):
    """Nothing is known under this name. Fields: actor."""

    code = "unknown_actor"


class UnknownMethod(CallboardError):
    """The actor has no such method. Fields: actor, method."""

    code = "unknown_method"


class WouldBlock(CallboardError):
    """A value was asked for on the event loop before it was there: ``await`` the future instead."""

    code = "would_block"


class CallMisplaced(CallboardError):
    """A call was made where none can be made: in a ``cpu`` handler, or in a host outside of any run.

    Fields: actor, method.
    """

    code = "call_misplaced"


class NestedTooDeep(CallboardError):
    """A handler's call stands too deep below the workflow: the ids on the way have no room.

    Fields: depth (calls from the workflow down), limit (characters of an id).
    """

    code = "nested_too_deep"


# -- the outcome of a call -------------------------------------------------------------------------


class CallFailed(CallboardError):
    """A call raised on its host.

    Fields: future, actor, method, attempt, host, path (list of ``actor.method`` from the workflow
    down), remote_type, remote_traceback.
    """

    code = "call_failed"


class DependencyFailed(CallFailed):
    """A call was never made since a future among its arguments failed; the cause is chained."""

    code = "dependency_failed"


class CallTimeout(CallFailed, TimeoutError):
    """A handler ran longer than its ``timeout``; a ``TimeoutError``, too. Fields: timeout (s)."""

    code = "call_timeout"
    retryable = True


class DeadlineExceeded(CallFailed):
    """The deadline of the run or the call passed before there was a result."""

    code = "deadline_exceeded"


class CallCancelled(CallFailed):
    """The call was cancelled on its host."""

    code = "call_cancelled"


class Overloaded(CallFailed):
    """A lane, or a workflow, is above its limit. Fields: queue (what waits before it), retry_after (s)."""

    code = "overloaded"
    retryable = True


class Poisoned(CallFailed):
    """The call was moved to the dead letters. Fields: reason, delivered."""

    code = "poisoned"


class OutcomeUnknown(CallFailed):
    """An effect was begun, and whether it has happened is not known: find out, then decide.

    Fields: intent (future and attempt that began it), key, host (where), at (unix seconds).
    """

    code = "outcome_unknown"


class ToolFailed(CallFailed):
    """A tool of an MCP server says that it failed; the text is the tool's own. Fields: actor, method."""

    code = "tool_failed"


class McpServerLost(CallFailed):
    """An MCP server ended, or could not be reached, while it had a call. Fields: actor, method."""

    code = "mcp_server_lost"
    retryable = True


class McpServerUnusable(CallboardError):
    """An MCP server cannot be adopted. Fields: server, reason."""

    code = "mcp_server_unusable"


class SandboxExceeded(CallFailed):
    """A handler took more than its sandbox allows. Fields: allowed (s or bytes)."""

    code = "sandbox_exceeded"


class SandboxCpuExceeded(SandboxExceeded):
    """More processor time. Fields: allowed (s)."""

    code = "sandbox_cpu_exceeded"


class SandboxTimeExceeded(SandboxExceeded):
    """More time on the clock. Fields: allowed (s)."""

    code = "sandbox_time_exceeded"


class SandboxMemoryExceeded(SandboxExceeded):
    """More memory. Fields: allowed (bytes)."""

    code = "sandbox_memory_exceeded"


class SandboxOutputExceeded(SandboxExceeded):
    """More output, or a larger result. Fields: allowed (bytes)."""

    code = "sandbox_output_exceeded"


class SandboxFileExceeded(SandboxExceeded):
    """A larger file. Fields: allowed (bytes)."""

    code = "sandbox_file_exceeded"


class SandboxCrashed(CallFailed):
    """The process of a sandboxed handler ended without an outcome. Fields: exit_code (128 + a signal)."""

    code = "sandbox_crashed"
    retryable = True


class BudgetSpent(CallFailed):
    """Nothing is left of a budget for models. Fields: scope, id, unit, allowed, spent (reserved included)."""

    code = "budget_spent"


class AgentExceeded(CallFailed):
    """The loop of an LlmAgent took more than its limits allow. Fields: agent, allowed, used."""

    code = "agent_exceeded"


class AgentStepsExceeded(AgentExceeded):
    """The model was asked as often as it may be, and has not come to an answer."""

    code = "agent_steps_exceeded"


class AgentTokensExceeded(AgentExceeded):
    """The model's answers took more tokens (prompts included) before there was one without tool calls."""

    code = "agent_tokens_exceeded"


class AgentTimeExceeded(AgentExceeded):
    """The loop took longer. Fields: agent, allowed (s)."""

    code = "agent_time_exceeded"


class NotDone(CallboardError):
    """Raise this in a tool's ``reconcile``: the effect has not happened, so it is to run."""

    code = "not_done"


class NoEffect(CallboardError):
    """The key of an effect was asked for where no effect runs."""

    code = "no_effect"


class Terminal(CallboardError):
    """Raise this (or a subclass) in a handler for a failure that no retry can help."""

    code = "terminal"


# -- models ----------------------------------------------------------------------------------------


class EngineDown(CallFailed):
    """A model's engine does not answer, or broke off. Fields: engine, status (HTTP; 0: none)."""

    code = "engine_down"
    retryable = True


class RateLimited(CallFailed):
    """A model's engine takes no more for now. Fields: engine, retry_after (s; no retry comes before)."""

    code = "rate_limited"
    retryable = True


class AnswerUnusable(CallFailed):
    """A model's engine has answered what the protocol does not allow. Fields: engine."""

    code = "answer_unusable"
    retryable = True


class EngineRefused(CallFailed):
    """A model's engine refuses a request for good: its key, model or options. Fields: engine, status."""

    code = "engine_refused"


class ContextOverflow(CallFailed):
    """A prompt, with the answer's room, is longer than a model takes.

    Fields: engine, limit (tokens; 0: the engine does not say), asked (tokens; 0 likewise).
    """

    code = "context_overflow"


class OutputInvalid(CallFailed):
    """A model's answer does not fit the schema, however often it was told. Fields: problem, text, tries."""

    code = "output_invalid"


# -- managed state ---------------------------------------------------------------------------------


class BatchMisused(CallboardError):
    """``each`` or ``item`` outside of a batchable handler, or for what is no item of its batch."""

    code = "batch_misused"


class NoSession(CallboardError):
    """Managed state was touched where no call of a session runs, or after it ended. Fields: attribute."""

    code = "no_session"


class ItemInvalid(CallboardError, TypeError):
    """What is put into managed state does not fit its annotation. Fields: attribute."""

    code = "item_invalid"


class StateUnset(CallboardError, AttributeError):
    """A managed value is read that nobody has set, and its type has no default. Fields: attribute."""

    code = "state_unset"


class SessionHeld(CallboardError):
    """A call would enter a session that the call which made it holds. Fields: actor, session."""

    code = "session_held"


class StateTooLarge(CallboardError):
    """A session's state is above its actor's ``max_bytes``. Fields: actor, session, size, limit (bytes)."""

    code = "state_too_large"


class StateIncompatible(CallboardError):
    """A stored state does not fit the code's annotations. Fields: actor, session, attribute."""

    code = "state_incompatible"


class StateDamaged(CallboardError):
    """A part of a stored state is not there or cannot be read. Fields: actor, session, key."""

    code = "state_damaged"


class StateUnknown(CallboardError):
    """No state is kept for a session, or not this version of it. Fields: actor, session, version."""

    code = "state_unknown"


class StateExists(CallboardError):
    """A state would be replaced, and nobody said that it may be. Fields: actor, session."""

    code = "state_exists"


class SessionUnmovable(CallboardError):
    """What an agent keeps for a session stands in its process, and it does not say how to take it along.

    Fields: actor.
    """

    code = "session_unmovable"


class NoDestination(CallboardError):
    """No other host can take a session. Fields: actor, host (the one that was named)."""

    code = "no_destination"


class MigrationFailed(CallboardError):
    """A session was not moved: it is where it was, or where somebody else has brought it.

    Fields: actor, session, host (that holds it).
    """

    code = "migration_failed"


# -- runs ------------------------------------------------------------------------------------------


class RequestUndecodable(CallboardError):
    """The body of a request is neither JSON nor msgpack. Fields: looks (like what)."""

    code = "request_undecodable"


class HeaderInvalid(CallboardError):
    """A header of a request cannot be used. Fields: header, value."""

    code = "header_invalid"


class RunIdTaken(CallboardError):
    """Another request has made a run under this id. Fields: run, workflow (of that run)."""

    code = "run_id_taken"


class RunFailed(CallboardError):
    """The workflow raised. Fields: run, workflow."""

    code = "run_failed"


class RunCancelled(CallboardError):
    """The run was cancelled. Fields: run, reason."""

    code = "run_cancelled"


class RunUnknown(CallboardError):
    """No such run. Fields: run."""

    code = "run_unknown"


class JournalIncomplete(CallboardError):
    """What a run has done cannot be told any more, as a replay needs it.

    Fields: run, reason (``expired``: entries are gone; ``request``: its request was not kept).
    """

    code = "journal_incomplete"


class ForkRefused(CallboardError):
    """A run cannot be forked there.

    Fields: run, at, reason (``step``: it has not so many; ``value``: an outcome is not stored any more;
    ``arguments``: they cannot be read; ``effects``: some would happen again), calls (those of the effects).
    """

    code = "fork_refused"


class Diverged(CallboardError):
    """The workflow's code changed under a run.

    Fields: future, journal (the call on record), code (the call the code makes now, or nothing).
    """

    code = "diverged"


class JournalExpired(CallboardError):
    """A run has lasted longer than its journal is kept; or nearly so long, and a wait without timeout ended.

    Fields: run, kept (s).
    """

    code = "journal_expired"


class ResultTimeout(CallboardError, TimeoutError):
    """No result yet; a ``TimeoutError``, too. Fields: run or future, timeout (s)."""

    code = "result_timeout"
    retryable = True


# -- waits -----------------------------------------------------------------------------------------


class WaitMisplaced(CallboardError):
    """A wait was asked for where there is none. Fields: wait."""

    code = "wait_misplaced"


class WaitInvalid(CallboardError):
    """A wait cannot be: for no time or too long a time, for what is no type, or under a name that is taken.

    Fields: wait.
    """

    code = "wait_invalid"


class WaitTimeout(CallboardError, TimeoutError):
    """A signal or an answer did not come in time; a ``TimeoutError``, too.

    Fields: wait, future, timeout (s).
    """

    code = "wait_timeout"


class QuestionUnknown(CallboardError):
    """No such question is open. Fields: question."""

    code = "question_unknown"


class AnswerInvalid(CallboardError):
    """An answer does not fit its question's schema. Fields: question, problem."""

    code = "answer_invalid"


# -- decisions -------------------------------------------------------------------------------------


class HostNameTaken(CallboardError):
    """A host that lives has the name that another one is to have. Fields: name, host."""

    code = "host_name_taken"


class RouteInvalid(CallboardError):
    """A route names no host, or a weight is none. Fields: actor."""

    code = "route_invalid"


class AdmissionInvalid(CallboardError):
    """A limit of requests is no rate. Fields: workflow."""

    code = "admission_invalid"


class BudgetInvalid(CallboardError):
    """A budget cannot be used. Fields: budget (field)."""

    code = "budget_invalid"


class FutureUnknown(CallboardError):
    """Nothing is known of a call. Fields: future."""

    code = "future_unknown"


class PolicyUnusable(CallboardError):
    """There is no such policy, or it cannot be loaded. Fields: policy, problem."""

    code = "policy_unusable"


class PolicyTooSlow(CallboardError):
    """A policy has not decided in time. Fields: limit."""

    code = "policy_too_slow"


class ProvisionerUnusable(CallboardError):
    """Instances cannot be started and ended as asked for. Fields: provisioner, problem."""

    code = "provisioner_unusable"


class ProvisionFailed(CallboardError):
    """An instance was not started, or not ended. Fields: what (actor or host), where, problem."""

    code = "provision_failed"
    retryable = True


class RouteOutdated(CallboardError):
    """A route was decided before the one that is there. Fields: epoch, known."""

    code = "route_outdated"


# -- trying out ------------------------------------------------------------------------------------


class LoadInvalid(CallboardError):
    """A load cannot be made as asked for. Fields: problem."""

    code = "load_invalid"


class RecordingInvalid(CallboardError):
    """What was told cannot be played: it cannot be read, or too little was told. Fields: source."""

    code = "recording_invalid"


def by_code() -> dict[str, type[CallboardError]]:
    """All error classes by their stable code."""
    found: dict[str, type[CallboardError]] = {}
    pending: list[type[CallboardError]] = [CallboardError]
    while pending:
        cls = pending.pop()
        if cls.__module__ == __name__:
            found.setdefault(cls.code, cls)
        pending.extend(cls.__subclasses__())
    return found
