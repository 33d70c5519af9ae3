"""Intents of effects in a run's journal: written before the handler runs, by one host only.

Those of one effect share a subject, and each is accepted only if the one before it is still the last.
So of any number of hosts that want to run an effect one does.
"""

from __future__ import annotations

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import DirectReader
from callboard.infra.errors import Fenced
from callboard.infra.messages.run import Intent, Result
from callboard.infra.store import Store
from callboard.state.journal import encode, read_entry, read_results

_decode = msgspec.msgpack.Decoder(Intent).decode


class Intents:
    """Reads and writes intents.

    Args:
        store, reader: of this process.
    """

    def __init__(self, store: Store, reader: DirectReader) -> None:
        self._store = store
        self._reader = reader

    async def put(self, run: str, intent: Intent, after: int = 0) -> int:
        """Announce an effect; returns the entry's sequence.

        Args:
            after: sequence of the intent before it; 0: it is the first.

        Raises:
            Fenced: somebody else was faster.
        """
        kind = subjects.intent_kind(intent.future, intent.call, intent.key)
        head = H.encode([(H.EXPECTED_SEQUENCE, str(after))])
        try:
            return await self._store.stored(subjects.run(run, kind), encode(intent), head)
        except Fenced:
            # An entry whose ack was lost is sent again, and the second is fenced by the first.
            known, sequence = await self.last(run, kind)
            if known != intent:
                raise
            return sequence

    async def last(self, run: str, kind: str) -> tuple[Intent | None, int]:
        """The newest intent of an effect and its sequence; None and 0 if there is none."""
        stored = await self._reader.last(subjects.RUNS, subjects.run(run, kind))
        if stored is None:
            return None, 0
        return read_entry(_decode, stored.body), stored.sequence

    async def outcomes(self, run: str, intent: Intent) -> tuple[list[Result], Result | None]:
        """The outcomes of the call that announced an effect, and how this attempt failed if it did."""
        final = await self._results(run, subjects.result_kind(intent.future), intent)
        attempts = [] if final else await self._results(run, "attempt", intent)
        return final, next((one for one in attempts if one.attempt == intent.attempt), None)

    async def _results(self, run: str, kind: str, intent: Intent) -> list[Result]:
        entries = await self._reader.read(subjects.RUNS, subjects.run(run, kind))
        return [one for entry in entries for one in read_results(entry.body) if one.future == intent.future]
