"""Which errors of a tool's call end the loop that has made it, instead of being told to the model."""

from __future__ import annotations

from typing import Final

from callboard.infra.errors import DeadlineExceeded, Diverged, OutcomeUnknown

PASSED_ON: Final = (OutcomeUnknown, DeadlineExceeded, Diverged)
"""An effect that has perhaps happened must not be asked for again by a model that only hears of a failure;
with the others the run as a whole is at its end."""
