"""How much work the calls of an instance are, by how long each is expected to take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from callboard.controller.reading import State

if TYPE_CHECKING:
    from callboard.controller.view import View


def heaviness(view: View) -> NDArray[np.float64]:
    """By row of the instances: how much longer the calls there are expected to take than the actor's usually.

    It is the mean of those that run or wait there, divided by that of all of the actor on all hosts; 1 where
    nobody knows, or nothing is.
    """
    futures, told = view.futures, view.instances
    found = np.ones(len(told["actor"]))
    here = np.isin(futures["state"], (State.RUNNING, State.WAITING)) & (futures["executor"] >= 0)
    rows = np.flatnonzero(futures["alive"] & here)
    if not len(rows) or not len(view.runtimes):
        return found
    calls, which = np.unique(futures["call"][rows], return_inverse=True)
    names = [view.names.keys[call].rpartition(".") for call in calls.tolist()]
    seconds = np.array([view.runtimes.expect(actor, method) for actor, _, method in names])[which]
    rows, seconds = rows[seconds > 0], seconds[seconds > 0]
    hosts, actors = len(view.hosts.keys), len(view.actors.keys)
    place = futures["actor"][rows].astype(np.int64) * hosts + futures["executor"][rows]
    usual = _means(futures["actor"][rows], seconds, actors)
    mine = np.flatnonzero(told["alive"])
    at = told["actor"][mine].astype(np.int64) * hosts + told["host"][mine]
    known, which = np.unique(place, return_inverse=True)
    if not len(known):
        return found
    means = _means(which, seconds, len(known))
    spot = np.minimum(np.searchsorted(known, at), len(known) - 1)
    there = known[spot] == at
    mine, spot = mine[there], spot[there]
    found[mine] = means[spot] / usual[told["actor"][mine]]
    return found


def _means(groups: NDArray[np.integer], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    counts = np.bincount(groups, minlength=size)
    return np.bincount(groups, values, minlength=size) / np.maximum(counts, 1)
