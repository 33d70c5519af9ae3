"""Client libraries that are loaded when a provisioner needs them."""

from __future__ import annotations

import importlib
from typing import Any

from callboard.infra.errors import ProvisionerUnusable


def package(provisioner: str, name: str) -> Any:
    """A module of an optional package.

    Args:
        provisioner: who needs it, which is also the name of the extra.

    Raises:
        ProvisionerUnusable: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise unusable(
            provisioner, f"{error}: install it with pip install 'callboard[{provisioner}]'"
        ) from error


def unusable(provisioner: str, problem: object) -> ProvisionerUnusable:
    """The error for a provisioner that cannot work."""
    return ProvisionerUnusable(
        f"hosts cannot be started by {provisioner}: {problem}", provisioner=provisioner, problem=str(problem)
    )
