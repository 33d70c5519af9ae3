"""States from outside: look at them as of any kept version, export, import and delete them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.errors import Fenced, ItemInvalid, StateDamaged, StateExists, StateUnknown
from callboard.infra.messages.state import Change, Commit
from callboard.infra.settings import Settings
from callboard.state.kept import Kept
from callboard.state.session import Rules, Session
from callboard.state.shelf import Place, Shelf
from callboard.state.tree import Cell, Entry, cell_of, cells, unread_between

_AT_ONCE = 64
_TRIES = 5
_MARK = "$msgpack"
_encode = msgspec.msgpack.Encoder().encode


class StateInfo(msgspec.Struct):
    """One state at a glance.

    Attributes:
        size: bytes; at: unix seconds of its last commit; call: that made it; holder: who wrote it.
        damaged: why it cannot be read, if it cannot; the version is 0 then.
    """

    actor: str
    session: str
    version: int
    size: int
    at: float
    call: str = ""
    epoch: int = 0
    holder: str = ""
    damaged: str = ""


class CommitInfo(msgspec.Struct):
    """One commit of a state.

    Attributes:
        readable: the state can be read as of it; changed: what it did, by attribute, in words.
        damaged: why it is no commit, if it is none; the version is 0 then.
    """

    version: int
    sequence: int
    at: float
    readable: bool
    call: str = ""
    epoch: int = 0
    holder: str = ""
    size: int = 0
    changed: dict[str, str] = {}
    damaged: str = ""


class StateView(StateInfo):
    """A state as it was after a commit.

    Attributes:
        attributes: lists, dicts and values, as msgpack knows them.
    """

    attributes: dict[str, Any] = {}


class Exported(msgspec.Struct, omit_defaults=True):
    """One attribute of an exported state.

    Attributes:
        kind: ``list``, ``dict``, ``value`` or ``counter``.
        items: its values, as JSON; one that JSON cannot say exactly is ``{"$msgpack": base64}``.
        keys: of a dict, likewise.
    """

    kind: str
    items: list[Raw] = []
    keys: list[Raw] = []


class Export(msgspec.Struct, omit_defaults=True, tag_field="format", tag="callboard-state-1"):
    """A whole state in JSON, to be looked at, changed, and imported.

    Attributes:
        actor, session: whose it is; version: of it.
        ttl: seconds that it is kept after its last commit; 0: for ever.
        attributes: by name.
    """

    actor: str
    session: str
    version: int = 0
    ttl: Annotated[float, Meta(ge=0)] = 0.0
    attributes: dict[str, Exported] = {}


class States:
    """All states on a board.

    Args:
        shelf: where they lie; settings: of this process.
    """

    def __init__(self, shelf: Shelf, settings: Settings) -> None:
        self._shelf = shelf
        self._settings = settings

    async def all(self, actor: str | None = None) -> list[StateInfo]:
        """Whose states there are, by actor and session.

        Args:
            actor: only this one's.
        """
        places = await self._shelf.places(actor)
        found: list[StateInfo] = []
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            lasts = await asyncio.gather(*(self._shelf.last(place) for place in some))
            for place, stored in zip(some, lasts, strict=True):
                if stored is not None:  # else it has gone meanwhile
                    found.append(self._listed(place, stored))
        return found

    async def show(self, actor: str, session: str, version: int | None = None) -> StateView:
        """A state, as of a version or as it is.

        Raises:
            StateUnknown: there is none, or that version is not kept.
            StateDamaged: a part of it is missing.
        """
        place, stored, opened = await self._as_of(actor, session, version)
        info = self._info(place, stored, opened.decoded(stored))
        values = {name: _plain(kept) for name, kept in opened.kept.items()}
        return StateView(**msgspec.structs.asdict(info), attributes=values)

    async def history(self, actor: str, session: str) -> list[CommitInfo]:
        """The kept commits of a state, the oldest first.

        Raises:
            StateUnknown: there is none.
        """
        place, stored = await self._commits(actor, session)
        commits = [(one, self._decoded(place, one)) for one in stored]
        kept = {one.sequence for one, commit in commits if isinstance(commit, Commit)}
        if any(isinstance(commit, Commit) and commit.version == 1 for _, commit in commits):
            kept.add(0)
        return [
            CommitInfo(
                commit.version,
                one.sequence,
                one.at,
                commit.head is not None or commit.base in kept,
                commit.call,
                commit.epoch,
                commit.holder,
                commit.size,
                _changed(commit),
            )
            if isinstance(commit, Commit)
            else CommitInfo(0, one.sequence, one.at, readable=False, damaged=commit.message)
            for one, commit in commits
        ]

    async def export(self, actor: str, session: str, version: int | None = None) -> Export:
        """A state as a document.

        Raises:
            StateUnknown: there is none, or that version is not kept.
            StateDamaged: a part of it is missing.
        """
        _, _, opened = await self._as_of(actor, session, version)
        return Export(
            actor,
            session,
            opened.version,
            opened.ttl,
            {name: _exported(kept) for name, kept in opened.kept.items()},
        )

    async def import_(self, document: Export, *, replace: bool = False) -> int:
        """Store a state from a document; returns its version. Whoever holds the session is fenced.

        Args:
            replace: also where there is one already.

        Raises:
            StateExists: there is one.
            ItemInvalid: the document holds what was never exported.
            NameInvalid: its actor or session cannot be used.
        """
        limit = self._settings.inline_limit
        kept = {name: _imported(name, one, limit) for name, one in document.attributes.items()}
        place = Place(subjects.token("actor", document.actor), subjects.session_id(document.session))
        for _ in range(_TRIES):
            session = await self._session(place, Rules(ttl=document.ttl)).load()
            if session.version and not replace:
                raise StateExists(
                    f"there is a state of session {place.session} at {place.actor}: say that it may be "
                    "replaced (--replace, or replace=True)",
                    actor=place.actor,
                    session=place.session,
                )
            try:
                await session.overwrite(kept)
            except Fenced:
                continue
            return session.version
        raise Fenced(
            f"the state of session {place.session} at {place.actor} changes all the time: try again later",
            subject=subjects.state(place.actor, subjects.session_token(place.session)),
        )

    async def delete(self, actor: str, session: str) -> None:
        """Remove every trace of a state. A holder that still runs a call is fenced.

        Raises:
            StateUnknown: there is none.
        """
        place, _ = await self._commits(actor, session)
        await self._shelf.erase(place)

    # -- reading -----------------------------------------------------------------------------------

    def _session(self, place: Place, rules: Rules | None = None) -> Session:
        return Session(place, self._shelf, rules or Rules(), self._settings, _not_now)

    async def _commits(self, actor: str, session: str) -> tuple[Place, Sequence[Stored]]:
        place = Place(subjects.token("actor", actor), session)
        stored = await self._shelf.commits(place)
        if not stored:
            raise StateUnknown(
                f"{actor} has no state of session {session}; 'callboard state list' shows all",
                actor=actor,
                session=session,
                version=0,
            )
        return place, stored

    async def _as_of(self, actor: str, session: str, version: int | None) -> tuple[Place, Stored, Session]:
        while True:
            place, stored = await self._commits(actor, session)
            try:
                return await self._made(place, stored, version)
            except StateDamaged:  # unless somebody writes meanwhile, and removes what was being read
                if (await self._shelf.commits(place))[-1:] == stored[-1:]:
                    raise

    async def _made(
        self, place: Place, stored: Sequence[Stored], version: int | None
    ) -> tuple[Place, Stored, Session]:
        opened = self._session(place)
        if version is not None:  # what was stored after it may be none
            stored = [one for one in stored if isinstance(self._decoded(place, one), Commit)]
        commits = [opened.decoded(one) for one in stored]
        versions = [commit.version for commit in commits]
        if version is not None and version not in versions:
            raise self._unknown(place, version, versions)
        last = versions.index(version) if version is not None else len(versions) - 1
        base = stored[last].sequence if commits[last].head else commits[last].base
        first = next((at for at, one in enumerate(stored) if one.sequence >= base), 0)
        if commits[first].head is None and commits[first].version != 1:
            raise self._unknown(place, versions[last], versions)
        await opened.replay(stored[first : last + 1])
        for kept in opened.kept.values():
            while missing := unread_between(kept.root, 0, kept.count):
                await opened.read(missing)
        return place, stored[last], opened

    def _unknown(self, place: Place, version: int, versions: Iterable[int]) -> StateUnknown:
        return StateUnknown(
            f"version {version} of the state of session {place.session} at {place.actor} is not kept; "
            f"'callboard state history {place.actor} {place.session}' lists those that are",
            actor=place.actor,
            session=place.session,
            version=version,
        )

    def _decoded(self, place: Place, stored: Stored) -> Commit | StateDamaged:
        try:
            return self._session(place).decoded(stored)
        except StateDamaged as error:
            return error

    def _listed(self, place: Place, stored: Stored) -> StateInfo:
        commit = self._decoded(place, stored)
        if isinstance(commit, Commit):
            return self._info(place, stored, commit)
        return StateInfo(place.actor, place.session, 0, len(stored.body), stored.at, damaged=commit.message)

    def _info(self, place: Place, stored: Stored, commit: Commit) -> StateInfo:
        return StateInfo(
            place.actor,
            place.session,
            commit.version,
            commit.size,
            stored.at,
            commit.call,
            commit.epoch,
            commit.holder,
        )


def _not_now(_: Any) -> None:
    """What is not needed any more is removed by the session's next holder."""


def _changed(commit: Commit) -> dict[str, str]:
    if not commit.changes and commit.head is not None and not commit.call:
        return {name: f"{one.kind} stored anew" for name, one in commit.head.attributes.items()}
    return {name: _words(change) for name, change in commit.changes.items()}


def _words(change: Change) -> str:
    if change.kind == "dict":
        parts = [
            "cleared" if change.cleared else "",
            f"{len(change.removed)} removed" if change.removed else "",
            f"{len(change.keys)} put" if change.keys else "",
        ]
        return ", ".join(part for part in parts if part)
    came = sum(len(one.items) for one in change.splices)
    went = sum(one.removed for one in change.splices)
    if change.kind in {"value", "counter"}:
        return "set" if came else "unset"
    return " ".join(part for part in (f"+{came}" if came else "", f"-{went}" if went else "") if part)


# -- values ----------------------------------------------------------------------------------------


def _cells(kept: Kept) -> list[Cell]:
    """The items of an attribute in their order; all are read."""
    found = list(cells(kept.root, _nothing_unread))
    return sorted(found, key=lambda one: one.order if isinstance(one, Entry) else 0)


def _nothing_unread(_: Any) -> None:
    raise AssertionError("all has been read")


def _plain(kept: Kept) -> Any:
    found = _cells(kept)
    values = [_decoded(one.raw or b"") for one in found]
    if kept.kind == "dict":
        keys = [_decoded(one.key) for one in found if isinstance(one, Entry)]
        return {_hashable(key): value for key, value in zip(keys, values, strict=True)}
    if kept.kind == "list":
        return values
    return values[0] if values else (0 if kept.kind == "counter" else None)


def _decoded(raw: bytes) -> Any:
    return msgspec.msgpack.decode(raw, strict=False)


def _hashable(key: Any) -> Any:
    return tuple(_hashable(one) for one in key) if isinstance(key, list) else key


def _exported(kept: Kept) -> Exported:
    found = _cells(kept)
    keys = [_as_json(one.key) for one in found if isinstance(one, Entry)]
    return Exported(kept.kind, [_as_json(one.raw or b"") for one in found], keys)


def _imported(name: str, one: Exported, inline_limit: int) -> Kept:
    known = one.kind in {"list", "dict"} or (one.kind in {"value", "counter"} and len(one.items) <= 1)
    if not known or len(one.keys) != (len(one.items) if one.kind == "dict" else 0):
        raise ItemInvalid(f"{name} in the document is no attribute of a state", attribute=name)
    kept = Kept(one.kind)
    items = [cell_of(_as_msgpack(name, item), inline_limit) for item in one.items]
    for key, item in zip(one.keys, items if one.keys else (), strict=True):
        kept, _, _ = kept.put(_as_msgpack(name, key), item, _nothing_unread)
    return kept if one.kind == "dict" else kept.spliced(0, 0, items, _nothing_unread)


def _as_json(raw: bytes) -> Raw:
    """A value as JSON from which the same msgpack can be made."""
    try:
        text = msgspec.json.encode(msgspec.msgpack.decode(raw))
        value = msgspec.json.decode(text)
        if _encode(value) == raw and not (isinstance(value, dict) and _MARK in value):
            return Raw(text)
    except (msgspec.MsgspecError, TypeError, ValueError):
        pass  # JSON does not know it: its msgpack follows
    return Raw(msgspec.json.encode({_MARK: base64.b64encode(raw).decode()}))


def _as_msgpack(name: str, item: Raw) -> bytes:
    try:
        value = msgspec.json.decode(item)
        if isinstance(value, dict) and list(value) == [_MARK]:
            raw = base64.b64decode(value[_MARK], validate=True)
            msgspec.msgpack.decode(raw)
            return raw
        return _encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise ItemInvalid(
            f"an item of {name} in the document is no value: {error}", attribute=name
        ) from error
