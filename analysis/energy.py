"""Joules on named hardware: a linear model over the counts of a run.

docs/energy.md explains the model, its rules and the profiles, with an example to redo by hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from eventsim.analysis.profile import LABELS, Price, Profile
from eventsim.analysis.profile_file import parse_profile
from eventsim.analysis.toml_file import load_named, names_in
from eventsim.errors import InputError

#: Devices of the energy table of a run.
DEFAULT_DEVICES = (
    "loihi",
    "spinnaker2",
    "seneca",
    "cmos45-fp32",
    "cmos45-fp32-memory",
    "cpu",
    "gpu",
)

_PACKAGE = "eventsim.analysis.profiles"
_UNPRICED = {
    "mac": "graded synops (MACs)",
    "ac": "binary synops (ACs)",
    "memory": "fetching weights",
    "update": "neuron updates",
    "update_inactive": "updates of inactive neurons",
    "event": "the handling and transport of events",
    "hop": "hops between cores",
    "static": "static power",
}


@dataclass(frozen=True)
class Sensitivity:
    """What one figure of a profile does to the event-driven estimate.

    Parameters
    ----------
    price : str
        Key of the price; prices that borrow its figure are counted with it.
    share : float
        Part of the estimate that the figure makes up: 1 % more of it is `share` % more in all.
    low_joules, high_joules : float or None
        The estimate at the ends of the figure's published range; None without a range.
    sentence : str
    """

    price: str
    share: float
    low_joules: float | None
    high_joules: float | None
    sentence: str


@dataclass(frozen=True)
class EnergyEstimate:
    """Estimated joules per step on one device.

    Parameters
    ----------
    device : str
        Name of the profile.
    dense_joules_per_step : float or None
        The same device doing every dense MAC at every step at the price of a graded synop, and
        updating every neuron; None if a graded synop has no price.
    event_joules_per_step : float or None
        Dynamic energy of the counted work; None if the counted synops have no price.
    static_joules_per_step : float or None
        Static power over the time of a step; None if either is unknown, or the prices contain it.
    assumed : tuple of str
        Sentences: what the figures rest on beside published prices.
    unpriced : tuple of str
        Sentences: what the figures leave out, because nobody published a price.
    sources : tuple of str
        Citations of the prices used.
    dense_joules_range, event_joules_range : (float, float) or None
        The same with every price at the low and at the high end of its published range; None if
        no price used has one.
    parts : mapping of str to float
        Joules of the event-driven estimate that each price makes up; empty if it is None.
    sensitivity : tuple of Sensitivity
        The figures of the profile, the one that moves the event-driven estimate most first.
    """

    device: str
    dense_joules_per_step: float | None
    event_joules_per_step: float | None
    static_joules_per_step: float | None
    assumed: tuple[str, ...]
    unpriced: tuple[str, ...]
    sources: tuple[str, ...]
    dense_joules_range: tuple[float, float] | None = None
    event_joules_range: tuple[float, float] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    sensitivity: tuple[Sensitivity, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The entry of `energy` in run.json."""
        return {
            "device": self.device,
            "dense_joules_per_step": self.dense_joules_per_step,
            "event_joules_per_step": self.event_joules_per_step,
            "static_joules_per_step": self.static_joules_per_step,
            "assumed": list(self.assumed),
            "unpriced": list(self.unpriced),
        }


def list_profiles() -> tuple[str, ...]:
    """Names of the profiles that ship with eventsim, sorted."""
    return names_in(_PACKAGE)


def load_profile(name: str | os.PathLike[str]) -> Profile:
    """Load a device profile.

    Parameters
    ----------
    name : str or path
        A name of `list_profiles`, or a TOML file (anything that ends in ``.toml`` or has a
        folder in it).

    Raises
    ------
    UnknownNameError
        If there is no such profile or file.
    FileFormatError
        If the file is not in order; the message has file, line and key.

    Examples
    --------
    >>> from eventsim.analysis.energy import load_profile
    >>> load_profile("loihi").prices["ac"].quoted
    '23.6 pJ'
    """
    return load_named(name, "energy profile", _PACKAGE, parse_profile)


def estimate(
    profile: Profile,
    *,
    dense_macs: ArrayLike,
    neurons: ArrayLike,
    macs: ArrayLike,
    acs: ArrayLike,
    events: ArrayLike,
    evaluations: ArrayLike,
    is_input: ArrayLike,
    step_seconds: float | None = None,
    hops: ArrayLike | None = None,
) -> EnergyEstimate:
    """Estimate the energy of a step on a device.

    Parameters
    ----------
    profile : Profile
    dense_macs, neurons : array of shape (P,)
        Of every population: dense MACs of its incoming synapses, and its size.
    macs, acs, events, evaluations : array of shape (P,)
        Means per step, as in run.json.
    is_input : array of bool, shape (P,)
        Populations set by the encoder; their neurons are not charged as updates.
    step_seconds : float, optional
        Time that a step takes, for static power; None if unknown.
    hops : float or array, optional
        Mean hops between cores per step, such as `eventsim.analysis.mapping.Mapping` counts; an
        array is summed. By default they stay unpriced.

    Raises
    ------
    InputError
        If shapes differ, a count is negative or not finite, or `step_seconds` is not above 0.
    """
    if step_seconds is not None and not (np.isfinite(step_seconds) and step_seconds > 0.0):
        raise InputError(f"is {step_seconds}; give seconds above 0, or None", field="step_seconds")
    crossed = 0.0 if hops is None else float(np.sum(hops))
    if not (np.isfinite(crossed) and crossed >= 0.0):
        raise InputError(f"is {crossed:g}; give a count >= 0, or None", field="hops")
    none = np.zeros_like(np.asarray(neurons, dtype=np.float64))
    full = np.asarray(neurons, dtype=np.float64)
    work = (evaluations, events, macs, acs, neurons, is_input)
    dense_work = (full, none, dense_macs, none, neurons, is_input)

    def event_joules(at: Profile) -> float:
        total = float(at.joules(*work).sum())
        return total if not crossed else total + crossed * _hop(at)

    total = event_joules(profile)
    event_total = None if np.isnan(total) else total
    # An unknown price of a MAC leaves no dense baseline, even of a network without dense MACs.
    known_mac = profile.prices["mac"].known
    dense_total = float(profile.joules(*dense_work).sum()) if known_mac else None
    has_acs = bool(np.any(np.asarray(acs, dtype=np.float64) > 0.0))
    used = {k: p for k, p in profile.prices.items() if k != "static" and (k != "ac" or has_acs)}
    assumed, unpriced = list(profile.assumptions), []
    for key, price in used.items():
        if not price.known:
            unpriced.append(f"{_UNPRICED[key]}: {price.note or 'no published price'}")
        elif key == "hop" and price.value is not None and hops is None:
            unpriced.append(f"hops between cores ({price.quoted} each): it is not known how many")
        elif price.borrowed_from is not None:
            assumed.append(
                f"{LABELS[key]} is priced as {LABELS[price.borrowed_from]}, {price.quoted}: "
                f"{price.note}"
            )
        elif price.basis == "assumed":
            assumed.append(f"{LABELS[key]} is assumed to cost {price.quoted}: {price.includes}")
    static = _static(profile.prices["static"], step_seconds, assumed, unpriced)
    sources = [p.source for p in (*used.values(), profile.prices["static"]) if p.source]
    parts = {} if event_total is None else _parts(profile, *work, hops=crossed)
    ends = (profile.at("low"), profile.at("high"))
    ranged = {k for k, p in used.items() if p.low is not None}
    in_dense = ranged - {"ac", "event", "hop", "update_inactive"}
    return EnergyEstimate(
        device=profile.name,
        dense_joules_per_step=dense_total,
        event_joules_per_step=event_total,
        static_joules_per_step=static,
        assumed=tuple(assumed),
        unpriced=(*unpriced, *profile.unpriced),
        sources=tuple(dict.fromkeys(sources)),
        dense_joules_range=None
        if dense_total is None or not in_dense
        else (float(ends[0].joules(*dense_work).sum()), float(ends[1].joules(*dense_work).sum())),
        event_joules_range=None
        if not any(parts.get(key, 0.0) for key in ranged)
        else (event_joules(ends[0]), event_joules(ends[1])),
        parts=parts,
        sensitivity=_sensitivity(profile, parts),
    )


def estimate_run(
    data: Mapping[str, Any],
    device: str | os.PathLike[str] | Profile,
    *,
    step_seconds: float | None = None,
    hops: float | None = None,
) -> EnergyEstimate:
    """Estimate the energy of a step of a finished run.

    Parameters
    ----------
    data : mapping
        A run.json, as `Run.to_dict` returns it.
    device : str, path or Profile
    step_seconds : float, optional
        Default: that of the run.
    hops : float, optional
        As for `estimate`.

    Raises
    ------
    InputError
        If `data` is not a run.json, or the run has no steps.
    """
    profile = device if isinstance(device, Profile) else load_profile(device)
    try:
        layers = data["layers"]
        counts = {
            key: [layer[key] for layer in layers]
            for key in ("dense_macs", "neurons", "macs", "acs", "events", "evaluations")
        }
        # Only an input population has no incoming weights.
        is_input = [layer["weights"] == 0 and layer["dense_macs"] == 0 for layer in layers]
        seconds = data["step_seconds"] if step_seconds is None else step_seconds
    except (KeyError, TypeError) as error:
        raise InputError(
            f"is not a run.json of schema eventsim-run/1: {error} is missing", field="data"
        ) from error
    if any(value is None for column in counts.values() for value in column):
        raise InputError("has no steps, so there is nothing to price", field="data")
    return estimate(profile, **counts, is_input=is_input, step_seconds=seconds, hops=hops)


def _hop(profile: Profile) -> float:
    price = profile.prices.get("hop")
    return 0.0 if price is None or not price.known else price.coefficient


def _parts(
    profile: Profile,
    evaluations: ArrayLike,
    events: ArrayLike,
    macs: ArrayLike,
    acs: ArrayLike,
    neurons: ArrayLike,
    is_input: ArrayLike,
    *,
    hops: float,
) -> dict[str, float]:
    """Joules of each price; they add up to what `Profile.joules` says."""
    e, v, m, a, n = (
        np.asarray(x, dtype=np.float64) for x in (evaluations, events, macs, acs, neurons)
    )
    own = ~np.asarray(is_input, dtype=bool)
    counts = {
        "mac": m.sum(),
        "ac": a.sum(),
        "memory": (m + a).sum(),
        "update": e[own].sum(),
        "event": v.sum(),
        "hop": hops,
    }
    if profile.updates == "every_step":
        idle = np.maximum(n - e, 0.0)[own].sum()
        if "update_inactive" in profile.prices:
            counts["update_inactive"] = idle
        else:
            counts["update"] += idle
    return {
        key: float(count * price.value)
        for key, count in counts.items()
        if (price := profile.prices.get(key)) is not None and price.value is not None and count
    }


def _sensitivity(profile: Profile, parts: Mapping[str, float]) -> tuple[Sensitivity, ...]:
    total = sum(parts.values())
    if total <= 0.0:
        return ()
    figures: dict[str, float] = {}
    for key, joules in parts.items():
        figure = profile.prices[key].borrowed_from or key
        figures[figure] = figures.get(figure, 0.0) + joules
    found = []
    for figure, joules in sorted(figures.items(), key=lambda item: -item[1]):
        price, share = profile.prices[figure], joules / total
        sentence = (
            f"the price of {LABELS[figure]}, {price.quoted}, makes up {100 * share:.0f} %: 10 % "
            f"more of it is {10 * share:.1f} % more in all"
        )
        low = high = None
        if price.low is not None and price.high is not None and price.value:
            low, high = (
                total + joules * (end / price.value - 1.0) for end in (price.low, price.high)
            )
            sentence += (
                f"; over its published range, {price.range_quoted}, the result goes from "
                f"{low / total:.2g} to {high / total:.2g} of itself"
            )
        found.append(Sensitivity(figure, share, low, high, sentence))
    return tuple(found)


def _static(
    price: Price, step_seconds: float | None, assumed: list[str], unpriced: list[str]
) -> float | None:
    if price.included_in is not None:
        # Adding it would count it twice.
        inside = LABELS[price.included_in]
        assumed.append(f"static power is contained in the price of {inside} and is not added")
        return None
    if price.value is None:
        unpriced.append(f"{_UNPRICED['static']}: {price.note or 'no published figure'}")
        return None
    if step_seconds is None:
        unpriced.append(f"static power ({price.quoted}): the time of a step is not known")
        return None
    assumed.append(
        f"static power is that of one {price.per}, {price.quoted}, over {step_seconds:g} s a step"
    )
    return price.value * float(step_seconds)


__all__ = [
    "DEFAULT_DEVICES",
    "EnergyEstimate",
    "Profile",
    "Sensitivity",
    "estimate",
    "estimate_run",
    "list_profiles",
    "load_profile",
]
