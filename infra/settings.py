"""All settings in one object: from ``callboard.toml``, then from the environment.

``CALLBOARD_<NAME>`` sets a field, for example ``CALLBOARD_REPLICAS=3``; ``NATS_URL`` sets the
server's address. The file is ``$CALLBOARD_SETTINGS`` or ``callboard.toml`` in the working directory.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from callboard.infra.errors import SettingsInvalid, ValueTooLarge

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
HOUR = 3600.0
DAY = 24 * HOUR

_PREFIX = "CALLBOARD_"
_ALIKE = 0.8
_LONGEST = 100 * 365 * DAY
_Time = Annotated[float, Meta(gt=0, le=_LONGEST)]
_TimeOrNone = Annotated[float, Meta(ge=0, le=_LONGEST)]
_Number = Annotated[int, Meta(ge=1)]
_NumberOrNone = Annotated[int, Meta(ge=0)]
_Bytes = Annotated[int, Meta(ge=-1)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a process; times in seconds, sizes in bytes.

    Attributes:
        nats_url: the server; empty means that a command starts an embedded one.
        nats_creds: path of a credentials file.
        durability: ``development``: acks come before fsync, a power cut may lose what was acked in
            the last two minutes; ``production``: the embedded server syncs every write, and streams
            on a cluster have three replicas. A host that can be sure of neither warns, and
            ``callboard doctor`` calls it a problem.
        replicas: copies of every stream; 0 means 1, or 3 with production durability on a cluster.
            With production durability 1 says that the server syncs every write.
        storage: ``file`` or ``memory``.
        journal_max_age: how long a run's journal is kept; 0: for ever.
        dead_max_age: how long dead letters are kept.
        telemetry_every: between two reports of what a host does; 0: it tells nothing.
        telemetry_max_age: how long telemetry is kept; telemetry_max_bytes: and how much of it.
        blob_max_age: how long a large value is kept after it was last stored; 0: for ever. Not shorter than
            journals, which refer to it.
        max_store_bytes: room for each of the requests' and the runs' streams; -1: what the server has.
        max_consumers: consumers that one stream may have.
        inline_limit: larger values travel by reference.
        value_limit: larger values are refused.
        ack_wait: the last resort for a message that nobody acks.
        max_deliver: a message delivered more often without an outcome goes to the dead letters.
        pulse_every: between two heartbeats of a host.
        dead_after: a host without a heartbeat for so long is taken for dead.
        steal_after: a call that has waited in a host for so long is given to an idle one that asks; 0: never.
        shortest_first: in a mailbox, of calls that are alike those go first that are expected to be short.
        longest_first: of calls that a maker makes together, those leave first on which most is to follow.
        timeout_factor: an attempt of a call without a timeout is stopped after so many times what 99 of 100
            calls like it take, if another one follows; 0: never. timeout_least: and not before so many s.
        timeout_last: an attempt that no other follows is stopped so, too: then the call fails.
        grace: how long a draining host lets running calls finish.
        rtt_every, rtt_timeout: the watchdog of the connection.
        history: results of finished calls that a process remembers for late redeliveries.
        state_history: commits to a session's state that are kept, to look back and to know calls again.
        park_after: a run that only waits (for a time, a signal, an answer) is put aside after so long.
        resources: what a host has, by name, beside ``cpu`` and ``memory_gb`` of its machine.
    """

    nats_url: str = ""
    nats_creds: str = ""
    durability: Literal["development", "production"] = "development"
    replicas: int = 0
    storage: Literal["file", "memory"] = "file"
    journal_max_age: _TimeOrNone = 45 * DAY
    dead_max_age: _TimeOrNone = 30 * DAY
    telemetry_every: _TimeOrNone = 0.25
    telemetry_max_age: _TimeOrNone = HOUR
    telemetry_max_bytes: _Bytes = 256 * MIB
    blob_max_age: _TimeOrNone = 90 * DAY
    max_store_bytes: _Bytes = -1
    max_consumers: _Number = 20_000
    inline_limit: _NumberOrNone = 64 * KIB
    value_limit: _Number = 256 * MIB
    ack_wait: _Time = 30.0
    max_deliver: int = 5
    pulse_every: _Time = 0.4
    dead_after: _Time = 1.3
    steal_after: _TimeOrNone = 0.025
    shortest_first: bool = True
    longest_first: bool = True
    timeout_factor: Annotated[float, Meta(ge=0)] = 10.0
    timeout_least: _Time = 30.0
    timeout_last: bool = False
    grace: _TimeOrNone = 30.0
    rtt_every: _Time = 5.0
    rtt_timeout: _Time = 5.0
    history: _NumberOrNone = 10_000
    state_history: int = 64
    park_after: _TimeOrNone = 5.0
    resources: dict[str, Annotated[float, Meta(ge=0)]] = {}

    @classmethod
    def load(
        cls, env: Mapping[str, str] | None = None, file: Path | None = None, **overrides: Any
    ) -> Settings:
        """Read the file, then the environment, then the overrides that are not None.

        Raises:
            SettingsInvalid: a name is unknown or a value does not fit.
        """
        env = os.environ if env is None else env
        values = _from_file(file or _settings_file(env))
        values |= _from_environment(env, cls.__struct_fields__)
        values |= {name: value for name, value in overrides.items() if value is not None}
        try:
            settings = msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            raise SettingsInvalid(_told(error, values, cls.__struct_fields__)) from error
        return settings.checked()

    @property
    def production(self) -> bool:
        """Whether acked writes must survive a power cut."""
        return self.durability == "production"

    def check_value_size(self, size: int) -> None:
        """Refuse a value of so many bytes if it may not travel.

        Raises:
            ValueTooLarge: it is above ``value_limit``.
        """
        if size > self.value_limit:
            raise ValueTooLarge(
                f"a value of {size:,} bytes is above the limit of {self.value_limit:,} (setting "
                "value_limit): store it elsewhere and pass where it is",
                size=size,
                limit=self.value_limit,
            )

    def checked(self) -> Settings:
        """These settings, if they fit together."""
        if not 0 <= self.replicas <= 5:
            raise SettingsInvalid(f"replicas must be 0 (automatic) to 5, not {self.replicas}")
        if self.dead_after < 2 * self.pulse_every:
            raise SettingsInvalid(
                f"dead_after ({self.dead_after} s) must be at least twice pulse_every "
                f"({self.pulse_every} s), else a host that is merely late is taken for dead"
            )
        if self.max_deliver < 2:
            raise SettingsInvalid("max_deliver must be 2 or more, else no call survives its host")
        if self.state_history < 4:
            raise SettingsInvalid("state_history must be 4 or more: a state is its last commits")
        if 0 < self.blob_max_age < (self.journal_max_age or math.inf):
            kept = f"{self.journal_max_age:.0f} s" if self.journal_max_age else "0: for ever"
            raise SettingsInvalid(
                f"blob_max_age ({self.blob_max_age:.0f} s) is shorter than journal_max_age ({kept}): "
                "journals would refer to values that are gone; raise the one or shorten the other"
            )
        return self


def _settings_file(env: Mapping[str, str]) -> Path | None:
    named = env.get("CALLBOARD_SETTINGS")
    if named:
        return Path(named)
    default = Path("callboard.toml")
    return default if default.is_file() else None


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"the settings file {file} cannot be read: {error}") from error


def _told(error: msgspec.ValidationError, values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """What is wrong with the settings."""
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            return f"there is no setting {name}{f'; did you mean {close[0]}?' if close else ''}"
    named = re.search(r"`\$\.(\w+)", str(error))
    what = f"setting {named[1]} is {values.get(named[1])!r}, and" if named else "a setting"
    return f"{what} cannot be used: {error}"


def _from_environment(env: Mapping[str, str], names: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if env.get("NATS_URL"):
        found["nats_url"] = env["NATS_URL"]
    for name in names:
        value = env.get(f"{_PREFIX}{name.upper()}")
        if value is not None:
            found[name] = amounts(value.split(",")) if name == "resources" else value
    _check_spelling(env, names)
    return found


def _check_spelling(env: Mapping[str, str], names: tuple[str, ...]) -> None:
    """Refuse variables that are nearly settings; others are somebody else's, as those of Kubernetes."""
    known = [name.upper() for name in ("settings", *names)]
    for variable in env:
        name = variable.removeprefix(_PREFIX)
        if name == variable or name in known:
            continue
        if close := difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE):
            raise SettingsInvalid(f"there is no setting {variable}; did you mean {_PREFIX}{close[0]}?")


def amounts(given: Iterable[str]) -> dict[str, float]:
    """Resources given as ``gpu=2``.

    Raises:
        SettingsInvalid: one is not.
    """
    found: dict[str, float] = {}
    for one in given:
        name, _, number = one.strip().partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            raise SettingsInvalid(f"{one!r} is no resource: give a name and a number, as gpu=2") from None
    return found
