"""The figures of a run: from its counters, and after a kill from what was recorded until then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim import summary
from eventsim.analysis import energy, sparsity
from eventsim.errors import FileFormatError, InputError
from eventsim.recording import STARTED
from eventsim.run_json import check_run

if TYPE_CHECKING:
    from eventsim.network import Network
    from eventsim.records import Trace

_COUNTS = ("evaluations", "events", "macs", "acs")


def figures(
    network: Network,
    evaluations: ArrayLike,
    events: ArrayLike,
    macs: ArrayLike,
    acs: ArrayLike,
    *,
    first_steps: ArrayLike | None = None,
    synops_at_zero: int | None = None,
    profiles: Sequence[energy.Profile] = (),
    step_seconds: float | None = None,
) -> dict[str, Any]:
    """Return `projections`, `layers`, `total` and `energy` of run.json.

    Parameters
    ----------
    network : Network
    evaluations, events, macs, acs : int array of shape (T, P)
        Counters of T steps.
    first_steps : bool array of shape (T,), optional
        Steps that began from a reset; default the first one only.
    synops_at_zero : int, optional
        Synops of the same steps with every threshold at 0; the figure is null without.
    profiles : sequence of Profile
    step_seconds : float, optional

    Raises
    ------
    InputError
        If a shape does not fit the network, or a count is negative.
    """
    layers = sparsity.layer_rows(network, evaluations, events, macs, acs)
    total = sparsity.total_row(network, events, macs, acs, first_steps)
    dense, steps = network.dense_macs(), len(np.asarray(events))
    means = {
        "dense_macs": np.array([row["dense_macs"] for row in layers], np.float64),
        "macs": np.array([row["macs"] for row in layers], np.float64),
        "acs": np.array([row["acs"] for row in layers], np.float64),
        "events": np.array([row["events"] for row in layers], np.float64),
        "evaluations": np.array([row["evaluations"] for row in layers], np.float64),
    }
    return {
        "projections": [{"source": p.source, "target": p.target} for p in network.projections],
        "layers": layers,
        "total": {
            **total,
            "reduction_weights_only": dense / network.n_synapses if network.n_synapses else None,
            "reduction_at_zero_threshold": dense * steps / synops_at_zero
            if synops_at_zero
            else None,
        },
        "energy": [
            energy.estimate(
                profile,
                **means,
                neurons=np.array([p.size for p in network.populations]),
                is_input=np.array([p.is_input for p in network.populations]),
                step_seconds=step_seconds,
            ).to_dict()
            for profile in profiles
        ],
    }


def run_data(trace: Trace) -> dict[str, Any]:
    """Return run.json, or, after a kill, the same figures of the steps that were recorded.

    The returns are those of whole episodes; what the dense and the random policy earned, and the
    work at threshold 0, are not known then. `trace.notes` say that the run was cut short.

    Raises
    ------
    InputError
        If there is neither run.json nor what stands in for it, or no step was recorded.
    FileFormatError
        If a file is damaged or foreign; the message names it.
    """
    if trace.data is not None:
        return trace.data
    network = trace.network
    if trace.started is None or network is None:
        raise InputError(
            f"the run in '{trace.folder}' has no run.json, nor what a run leaves until then; its "
            "events and counters open with eventsim.records.Trace"
        )
    n = len(trace.populations)
    whole = len(trace.counters) // n * n
    if not whole:
        raise InputError(
            f"the run in '{trace.folder}' was cut short before its first part was on disk; "
            "there is nothing to show"
        )
    columns = trace.counters.to_numpy(["episode", "population", *_COUNTS, "reward"])
    table = {name: column[:whole].reshape(-1, n) for name, column in columns.items()}
    if (table["population"] != np.arange(n)).any():
        raise FileFormatError(
            "does not hold a row for each population and step, in order",
            where=str(trace.folder / "counters"),
        )
    episode, reward = table["episode"][:, 0], table["reward"][:, 0]
    started = {**trace.started}
    devices = started.pop("devices", None)
    profiles, unknown = _profiles(devices if isinstance(devices, list) else [])
    first = np.diff(episode, prepend=-1) != 0
    if started.get("carry_state"):
        first[1:] = False
    returns = _whole_returns(episode, reward)
    data: dict[str, Any] = {
        **started,
        "schema": "eventsim-run/1",
        "episodes": len(returns),
        "steps": len(episode),
        "interrupted": True,
        "return": summary.returns(returns),
        "dense_return": None,
        "random_return": None,
        "relative_loss": None,
    }
    # The figures of a damaged file are not asked for before it has been looked at.
    seconds = started.get("step_seconds")
    known = isinstance(seconds, int | float) and seconds > 0
    data |= figures(
        network,
        *(table[name] for name in _COUNTS),
        first_steps=first,
        profiles=profiles,
        step_seconds=seconds if known else None,
    )
    check_run(data, str(trace.folder / STARTED), "restore it from a copy, or run again")
    if unknown:
        trace.notes += (f"not priced again, since no profile ships: {', '.join(unknown)}",)
    return data


def _profiles(names: list[Any]) -> tuple[list[energy.Profile], list[str]]:
    """Profiles that ship, by name, and the names of the others."""
    shipped = energy.list_profiles()
    found = [energy.load_profile(name) for name in names if name in shipped]
    return found, [str(name) for name in names if name not in shipped]


def _whole_returns(episode: NDArray[np.int64], reward: NDArray[np.float64]) -> list[float]:
    """Sums of the rewards of all episodes but the last, of which the end is not known."""
    ends = np.flatnonzero(np.diff(episode)) + 1
    return [float(part.sum()) for part in np.split(reward, ends)[:-1]]
