"""Forking a run: a new one of the same workflow that begins with the first outcomes of the old one.

They are stored in the new run's journal before its request is accepted. So its driver finds what any driver
finds that takes a run over, and goes on from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import values
from callboard.actors.record import Record
from callboard.infra import subjects
from callboard.infra.errors import CallboardError, Fenced, ForkRefused, OutcomeUnknown, RunIdTaken
from callboard.infra.messages.run import NIL, ErrorInfo, Intent, Result
from callboard.state.journal import read_entries, read_results

if TYPE_CHECKING:
    from callboard.actors.node import Node

_ATTEMPT = re.compile(r"~.*")
_decode_intent = msgspec.msgpack.Decoder(Intent).decode


class Fork:
    """What a fork takes over from a run.

    Args:
        node: of this process; record: of the run.
        at: how many of its outcomes.

    Raises:
        ForkRefused: it has not so many.
    """

    def __init__(self, node: Node, record: Record, at: int) -> None:
        self._node = node
        self._record = record
        self._at = at
        number = len(record.outcomes)
        if not 0 <= at <= number:
            raise self._refused(
                "step",
                f"it has {number}; 'callboard replay' shows them, 0 begins anew with the same request",
            )
        self._taken = record.outcomes[:at]
        self._futures = {outcome.result.future for outcome in self._taken}

    @property
    def stateful(self) -> list[str]:
        """The calls taken over that have worked on managed state, ``actor.method``: that stays as it is."""
        return sorted({one.result.call for one in self._taken if one.result.sticky})

    async def arguments(self) -> dict[str, Any]:
        """The arguments of the run, as plain values.

        Raises:
            ForkRefused: they cannot be read.
        """
        request = self._record.request
        try:
            body = await values.expand(request.body, request.blobs, self._node.blobs)
            given = msgspec.json.decode(body or b"{}") if request.as_json else msgspec.msgpack.decode(body)
            return msgspec.convert(given, dict[str, Any])
        except (CallboardError, ValueError) as error:
            raise self._refused("arguments", f"its arguments cannot be read: {error}") from error

    async def begin(self, run: str, *, effects: bool) -> None:
        """Give a new run its journal.

        Args:
            run: its id; effects: those that the old run has begun after that may happen again.

        Raises:
            ForkRefused: an outcome is not stored any more; or effects would happen again.
            RunIdTaken: there is a run of this id.
        """
        intents = await self._intents()
        again = sorted({intent.call for intent in intents if not self._has(intent.future)})
        if again and not effects:
            text = f"{', '.join(again)} had begun after it, and would happen again"
            advice = "fork at a later step, or say that they may: --effects, effects=True"
            raise self._refused("effects", f"{text}: {advice}", calls=again)
        kept = [intent for intent in intents if self._has(intent.future)]
        nested = [one for intent in kept for one in await self._nested(intent)]
        results = [
            await self._own(outcome.result, number, run) for number, outcome in enumerate(self._taken, 1)
        ]
        below = [await self._own(one, self._at, run) for one in nested]
        try:
            await self._node.journal.begin_with(run, results)
        except Fenced as error:
            raise RunIdTaken(
                f"there is a run {run} already: nothing was run", run=run, workflow=""
            ) from error
        for result in below:
            await self._node.journal.add(run, result)
        for intent in kept:
            own = msgspec.structs.replace(intent, future=self._named(intent.future, run))
            await self._node.intents.put(run, own)

    def _has(self, future: str) -> bool:
        """Whether a call, or the call of the workflow's own that it was made for, is taken over."""
        own, _, path = future.partition(":")
        return f"{own}:{_ATTEMPT.sub('', path.partition('.')[0])}" in self._futures

    async def _intents(self) -> list[Intent]:
        """The newest intent of each effect that is taken over, and of later ones that may have happened."""
        entries = await self._node.journal.read(self._record.run, "intent.>")
        every = [(entry.subject, intent) for entry, intent in read_entries(_decode_intent, entries)]
        newest = {subject: intent for subject, intent in every if not self._has(intent.future)}
        after = [intent for intent in newest.values() if await self._may_have_happened(intent)]
        return [*{subject: intent for subject, intent in every if self._has(intent.future)}.values(), *after]

    async def _may_have_happened(self, intent: Intent) -> bool:
        final, failed = await self._node.intents.outcomes(self._record.run, intent)
        ends = [*final, *([failed] if failed is not None else [])]
        return not ends or any(end.error is None or end.error.code == OutcomeUnknown.code for end in ends)

    async def _nested(self, intent: Intent) -> list[Result]:
        """The outcome of an effect that a handler has called: who asks for its key again is given that."""
        kind = subjects.result_kind(intent.future)
        if kind == "result":
            return []
        entries = await self._node.journal.read(self._record.run, kind)
        found = (one for entry in entries for one in read_results(entry.body) if one.future == intent.future)
        return list(found)[:1]

    async def _own(self, result: Result, number: int, run: str) -> Result:
        """An outcome as one of the new run: whole, since what it may refer to is the old one's."""
        node = self._node
        encoded = values.Encoded(bytes(result.value), (), ())
        encoded.blobs = list(result.blobs)
        try:
            if result.woven:
                encoded.body = await node.weaver.whole(self._record.run, encoded.body)
            for digest in encoded.blobs:  # they are kept from now on for as long as the new run may need them
                await node.blobs.put(await node.blobs.get(digest))
            await values.shrink(encoded, node.blobs, node.settings)
        except CallboardError as error:
            path = result.future.partition(":")[2]
            text = f"what {result.call} at {path} gave is not stored any more ({error.message})"
            advice = f"fork before that, at step {max(0, number - 1)} or earlier"
            raise self._refused("value", f"{text}: {advice}") from error
        return msgspec.structs.replace(
            result,
            future=self._named(result.future, run),
            value=msgspec.Raw(encoded.body) if result.error is None else NIL,
            blobs=encoded.blobs,
            woven=False,
            error=self._renamed(result.error, run),
            sticky=False,
            signal=0,
            policy=0,
            ranked=0,
            placed="",
        )

    def _named(self, future: str, run: str) -> str:
        return f"{run}:{future.partition(':')[2]}"

    def _renamed(self, error: ErrorInfo | None, run: str) -> ErrorInfo | None:
        """An error that names futures of the new run where it named those of the old one."""
        if error is None:
            return None
        return msgspec.structs.replace(
            error,
            fields=dict(self._fields(error.fields, run)),
            cause=self._renamed(error.cause, run),
            group=[one for part in error.group if (one := self._renamed(part, run)) is not None],
        )

    def _fields(self, fields: Mapping[str, Any], run: str) -> Iterator[tuple[str, Any]]:
        for name, value in fields.items():
            is_future = isinstance(value, str) and value.startswith(f"{self._record.run}:")
            yield name, self._named(value, run) if is_future else value

    def _refused(self, reason: str, text: str, **fields: Any) -> ForkRefused:
        run = self._record.run
        told = f"run {run} cannot be forked at step {self._at}: {text}"
        return ForkRefused(told, run=run, at=self._at, reason=reason, **fields)


def session_of(record: Record, session: str | None) -> str | None:
    """Whose run a fork is: of the same session, or a session by itself as the old run was, if nobody says."""
    return session or (None if record.session == record.run else record.session)
