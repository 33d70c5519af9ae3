"""What hosts of models tell on ``cb.prefix.<actor>``: which prompts their engines hold the beginnings of."""

from __future__ import annotations

import msgspec


class Prefixes(msgspec.Struct, omit_defaults=True):
    """What an engine holds, as far as its host knows. It may be lost: then calls go elsewhere, no more.

    Attributes:
        host: whose engine.
        held: points that it holds from now on, u8: hashes of prompts up to some place, see the protocol.
        gone: points that it holds no more, u8.
        anew: it holds nothing of what was told before.
    """

    host: str
    held: bytes = b""
    gone: bytes = b""
    anew: bool = False
