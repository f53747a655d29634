"""Joules on named hardware: a linear model over the counts of a run.

docs/energy.md explains the model, its rules and the profiles, with an example to redo by hand.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from eventsim.analysis.profile import LABELS, Price, Profile
from eventsim.analysis.profile_file import parse_profile
from eventsim.errors import FileFormatError, InputError, UnknownNameError

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

_UNPRICED = {
    "mac": "graded synops (MACs)",
    "ac": "binary synops (ACs)",
    "update": "neuron updates",
    "update_inactive": "updates of inactive neurons",
    "event": "the handling and transport of events",
    "hop": "hops between cores",
    "static": "static power",
}


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
    """

    device: str
    dense_joules_per_step: float | None
    event_joules_per_step: float | None
    static_joules_per_step: float | None
    assumed: tuple[str, ...]
    unpriced: tuple[str, ...]
    sources: tuple[str, ...]

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
    folder = resources.files("eventsim.analysis.profiles")
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


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
    text = os.fspath(name)
    if not isinstance(name, str) or text.endswith(".toml") or Path(text).name != text:
        return _load_file(Path(text))
    names = list_profiles()
    if text not in names:
        near = difflib.get_close_matches(text.lower(), names, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}."
        raise UnknownNameError(
            f"energy profile '{text}' is not known; {hint} Your own is given as a path to a "
            ".toml file."
        )
    entry = resources.files("eventsim.analysis.profiles") / f"{text}.toml"
    return parse_profile(entry.read_text(encoding="utf-8"), f"profile '{text}'")


def _load_file(path: Path) -> Profile:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UnknownNameError(f"energy profile '{path}' does not exist; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(
            f"cannot be read as a text file ({error})", where=str(path)
        ) from error
    return parse_profile(text, str(path))


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

    Raises
    ------
    InputError
        If shapes differ, a count is negative or not finite, or `step_seconds` is not above 0.
    """
    if step_seconds is not None and not (np.isfinite(step_seconds) and step_seconds > 0.0):
        raise InputError(f"is {step_seconds}; give seconds above 0, or None", field="step_seconds")
    none = np.zeros_like(np.asarray(neurons, dtype=np.float64))
    full = np.asarray(neurons, dtype=np.float64)
    dynamic = profile.joules(evaluations, events, macs, acs, neurons, is_input)
    dense = profile.joules(full, none, dense_macs, none, neurons, is_input)
    # An unknown price of a MAC leaves no dense baseline, even of a network without dense MACs.
    dense_total = float(dense.sum()) if profile.prices["mac"].known else None
    total = float(dynamic.sum())
    event_total = None if np.isnan(total) else total
    has_acs = bool(np.any(np.asarray(acs, dtype=np.float64) > 0.0))
    used = {k: p for k, p in profile.prices.items() if k != "static" and (k != "ac" or has_acs)}
    assumed, unpriced = list(profile.assumptions), []
    for key, price in used.items():
        if not price.known:
            unpriced.append(f"{_UNPRICED[key]}: {price.note or 'no published price'}")
        elif key == "hop" and price.value is not None:
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
    return EnergyEstimate(
        device=profile.name,
        dense_joules_per_step=dense_total,
        event_joules_per_step=event_total,
        static_joules_per_step=static,
        assumed=tuple(assumed),
        unpriced=(*unpriced, *profile.unpriced),
        sources=tuple(dict.fromkeys(sources)),
    )


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
    "estimate",
    "list_profiles",
    "load_profile",
]
