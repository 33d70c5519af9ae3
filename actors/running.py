"""From a run that is held to its outcome: its function is run, and what it gives is made to travel."""

from __future__ import annotations

import asyncio
import contextvars
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from callboard.actors import values
from callboard.actors.bodies import unreadable
from callboard.actors.declared import Workflow
from callboard.actors.failures import call_in_thread, code_of, describe
from callboard.actors.node import Node
from callboard.actors.recorded import diverged
from callboard.actors.run import Request, Run
from callboard.actors.scope import Scope, current
from callboard.infra import headers as H
from callboard.infra import log
from callboard.infra.errors import (
    DeadlineExceeded,
    InvalidArguments,
    InvalidResult,
    RunCancelled,
)
from callboard.infra.messages.run import Done

_JSON_PART = 3


class Running:
    """Runs the function of one workflow.

    Args:
        declared: the workflow; node: of this process.
        slots: how many blocking functions may run at once.
    """

    def __init__(self, declared: Workflow[Any, Any], node: Node, slots: int) -> None:
        self._declared = declared
        self._name = declared.name
        self._node = node
        self._slots = slots
        self._threads: ThreadPoolExecutor | None = None
        self._log = log.get("driver").bind(workflow=self._name)

    def close(self) -> None:
        """End threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def outcome(self, run: Run) -> Done:
        """Run the function until it ends or is stopped."""
        run.task = task = asyncio.current_task()
        deadline = run.maker.context.deadline
        limit = asyncio.timeout(max(0.0, deadline - time.time()) if deadline else None)
        try:
            async with limit:
                if 0 < deadline <= time.time() and _is_new(run):
                    await asyncio.sleep(0)  # it ends here
                return await self._completed(run, await self._function(run))
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                if not (run.cancelled or run.diverged or run.fenced):
                    raise  # the process ends: the run goes on with another driver
                task.uncancel()
            return self.failed(run, run.diverged) if run.diverged else self.cancelled(run)
        except BaseException as error:  # noqa: BLE001 - whatever a workflow raises is its outcome
            if limit.expired():
                text = f"run {run.request.run} of {self._name} did not end before its deadline"
                return self.failed(run, DeadlineExceeded(text))
            return self.failed(run, error)
        finally:
            run.task = None

    async def _function(self, run: Run) -> Any:
        method = self._declared.method
        arguments = await self._arguments(run.request)
        scope = Scope(run.maker, f"{run.request.run}:", sync=not method.is_async, seed=run.request.seed)
        if method.is_async:
            token = current.set(scope)
            try:
                return await method.function(**arguments)
            finally:
                current.reset(token)
        context = contextvars.copy_context()
        context.run(current.set, scope)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._slots, thread_name_prefix=f"callboard-{self._name}")
        work = self._threads.submit(context.run, call_in_thread, method.function, arguments)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            scope.cancel("the run was cancelled")
            raise

    async def _arguments(self, request: Request) -> dict[str, Any]:
        if request.problem is not None:
            raise request.problem
        signature = self._declared.method.signature
        body = request.body
        try:
            if request.as_json:
                return signature.decode_arguments(signature.from_json(body))
            if request.blobs:
                body = await values.expand(body, request.blobs, self._node.blobs)
            return signature.decode_arguments(body)
        except InvalidArguments as error:
            said = request.headers.get(H.CONTENT_TYPE, "")
            raise unreadable(self._name, body, as_json=request.as_json, said=said) or error from None

    async def _completed(self, run: Run, value: Any) -> Done:
        left = run.maker.recorded.leftover()
        if left is not None:
            raise diverged(self._name, left, "")
        try:
            encoded = values.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            text = f"workflow {self._name} returned what cannot travel: {error}"
            raise InvalidResult(text, actor=self._name, method="run") from error
        for part in encoded.futures:
            await part
        encoded.join()
        if not encoded.blobs:
            self._declared.method.signature.decode_result(encoded.body)
        node = self._node
        limit = node.settings.inline_limit
        if run.request.as_json:  # who reads JSON cannot put parts in: all of it stands there, or none
            encoded.body, encoded.blobs = await values.expand(encoded.body, encoded.blobs, node.blobs), []
            limit = max(limit, node.connection.max_payload // _JSON_PART)
        if len(encoded.body) > limit:
            await values.shrink(encoded, node.blobs, node.settings)
        done = self._done(run, "completed")
        done.value, done.blobs = msgspec.Raw(encoded.body), encoded.blobs
        return done

    def failed(self, run: Run, error: BaseException) -> Done:
        """The end of a run by an error."""
        done = self._done(run, "failed")
        done.error = describe(error, [self._name])
        self._log.warning("run_failed", run=run.request.run, error=done.error.message, code=code_of(error))
        return done

    def cancelled(self, run: Run) -> Done:
        """The end of a run that was cancelled."""
        done = self._done(run, "cancelled")
        reason = run.cancelled or "a call that it waited for was cancelled"
        text = f"run {run.request.run} was cancelled: {reason}"
        done.error = describe(RunCancelled(text, run=run.request.run, reason=reason))
        return done

    def _done(self, run: Run, status: str) -> Done:
        return Done(
            run=run.request.run,
            workflow=self._name,
            status=status,
            epoch=run.lease.owner.epoch if run.lease else 1,
            calls=run.maker.made,
            took=round(time.time() - run.request.started, 6),
        )


def _is_new(run: Run) -> bool:
    """Whether nobody has begun it before."""
    return run.lease is not None and run.lease.owner.epoch == 1
