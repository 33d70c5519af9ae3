"""What all commands share: their options, and what is made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from callboard.cli.output import Output

if TYPE_CHECKING:
    from callboard.actors.client import Client
    from callboard.infra.settings import Settings

Level = Literal["debug", "info", "warning", "error"]

Port = Annotated[int, Parameter(validator=Number(gte=0, lt=65536))]
"""A TCP port; 0 is a free one."""

Count = Annotated[int, Parameter(validator=Number(gte=1))]
"""How many of something that must be there."""

Seconds = Annotated[float, Parameter(validator=Number(gte=0))]
"""A time that may be none."""

DEFAULT_URL = "nats://127.0.0.1:4222"
"""Where a server is looked for when nobody says otherwise: the address every NATS tool takes."""

_NATS = f"Address of the server. By default NATS_URL, else callboard.toml, else {DEFAULT_URL}."


@Parameter(name="*", group=Group("Everywhere", sort_key=9))
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    nats: Annotated[str | None, Parameter(help=_NATS)] = None
    json: Annotated[bool, Parameter(help="Print JSON and nothing else.", negative=())] = False
    log_level: Annotated[Level | None, Parameter(help="What to log on stderr.")] = None

    @property
    def output(self) -> Output:
        """Where to print."""
        return Output(as_json=self.json)

    def settings(self, default_url: str = DEFAULT_URL, **overrides: Any) -> Settings:
        """The settings of this process.

        Raises:
            SettingsInvalid: one of them cannot be used.
        """
        import msgspec

        from callboard.infra.settings import Settings

        found = Settings.load(**{"nats_url": self.nats, **overrides})
        return found if found.nats_url else msgspec.structs.replace(found, nats_url=default_url)

    def client(self) -> Client:
        """A client, to be used with ``async with``."""
        from callboard.actors.client import connect

        self.log("error")
        return connect(settings=self.settings())

    def log(self, level: Level) -> None:
        """Set logging up on stderr.

        Args:
            level: where none was asked for.
        """
        from callboard.infra import log

        log.configure(self.log_level or level, json=True if self.json else None)


DEFAULTS = Common()
