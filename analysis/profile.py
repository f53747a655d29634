"""A device profile: published prices of operations, and the linear energy model over counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError

#: What each price is paid for; the keys are the tables of a profile file.
LABELS: Mapping[str, str] = MappingProxyType(
    {
        "mac": "a graded synop (MAC)",
        "ac": "a binary synop (AC)",
        "memory": "the fetch of a weight",
        "update": "a neuron update",
        "update_inactive": "an update of an inactive neuron",
        "event": "an event",
        "hop": "a hop between cores",
        "static": "static power",
    }
)


@dataclass(frozen=True)
class Price:
    """One figure of a profile.

    Parameters
    ----------
    value : float or None
        In joules (`static`: watts); None where no figure is published, and where the price is
        contained in another one.
    quoted : str
        The figure as the file gives it, such as ``"23.6 pJ"``; empty without a value.
    low, high : float or None
        Ends of the range that the source gives, in the unit of `value`; None without a range.
    range_quoted : str
        The range as the file gives it, such as ``"2.8 to 12.7 pJ"``.
    basis : str
        ``measured``, ``simulated``, ``derived``, ``average`` or ``assumed``.
    includes : str
        What the figure contains.
    source : str
        Citation.
    confidence : str
        ``H``: the source's text was seen; ``M``: secondary copies agree; ``L``: one secondary
        source.
    borrowed_from : str or None
        The price whose figure stands in for this one; the basis is then ``assumed``.
    included_in : str or None
        The price that contains this one, which then costs nothing more.
    per : str
        Of `static`: what draws the power, such as ``"chip"``.
    note : str
    """

    value: float | None = None
    quoted: str = ""
    basis: str = ""
    includes: str = ""
    source: str = ""
    confidence: str = ""
    borrowed_from: str | None = None
    included_in: str | None = None
    per: str = ""
    note: str = ""
    low: float | None = None
    high: float | None = None
    range_quoted: str = ""

    @property
    def known(self) -> bool:
        """Whether the price has a figure, of its own or contained in another one."""
        return self.value is not None or self.included_in is not None

    @property
    def coefficient(self) -> float:
        """Joules that one more operation adds; NaN if unknown."""
        if self.value is not None:
            return self.value
        return 0.0 if self.included_in is not None else math.nan


@dataclass(frozen=True, eq=False)
class Profile:
    """A device: prices, how it takes graded events, and when it updates its neurons.

    Read one with `eventsim.analysis.energy.load_profile`.

    Parameters
    ----------
    name, title, process, precision : str
    graded : str
        ``native``: events carry values; ``assumed``: they do not, and the price of a graded
        synop is an assumption; ``none``: they do not, and graded synops stay unpriced.
    updates : str
        ``every_step``: every neuron is updated at every step; ``on_event``: only those evaluated.
    prices : mapping of str to Price
        Keys as in `LABELS`.
    assumptions, unpriced : tuple of str
        Sentences that hold for every estimate with this profile.
    """

    name: str
    title: str
    process: str
    precision: str
    graded: str
    updates: str
    prices: Mapping[str, Price]
    assumptions: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()

    def joules(
        self,
        evaluations: ArrayLike,
        events: ArrayLike,
        macs: ArrayLike,
        acs: ArrayLike,
        sizes: ArrayLike,
        is_input: ArrayLike,
    ) -> NDArray[np.float64]:
        """Dynamic joules of counted work.

        For a population with n neurons, of which E were evaluated, and V events of its own,

            J = MACs j_mac + ACs j_ac + (MACs + ACs) j_memory
                + V j_event + E j_update + (n - E) j_inactive

        where the last term is there only if the device updates every neuron at every step, and
        the last two not for input populations, whose values the encoder computes. The term of
        memory is there if the profile prices the fetch of a weight apart. An unknown price of a
        neuron update, an event or a fetch leaves its term out (`estimate` lists it). Where the
        synops cannot be priced the result is NaN, never 0.

        Parameters
        ----------
        evaluations, events, macs, acs : array of shape (P,) or (T, P)
            Counts, or mean counts, per population; synops are the incoming ones.
        sizes : array of int, shape (P,)
        is_input : array of bool, shape (P,)

        Returns
        -------
        float64 array of the shape of the counts

        Raises
        ------
        InputError
            If shapes differ, or a count is negative or not finite.
        """
        counts = {"evaluations": evaluations, "events": events, "macs": macs, "acs": acs}
        e, v, m, a = (_counts(name, value) for name, value in counts.items())
        n, inputs = _counts("sizes", sizes), np.asarray(is_input, dtype=bool)
        if not (e.shape == v.shape == m.shape == a.shape and e.ndim in (1, 2)):
            raise InputError(
                "have shapes "
                + ", ".join(f"{x.shape}" for x in (e, v, m, a))
                + "; give all four the same shape, (P,) or (T, P)",
                field="evaluations, events, macs, acs",
            )
        if n.shape != e.shape[-1:] or inputs.shape != n.shape:
            raise InputError(
                f"have shapes {n.shape} and {inputs.shape}; give one entry for each of the "
                f"{e.shape[-1]} populations",
                field="sizes, is_input",
            )
        price = {key: p.coefficient for key, p in self.prices.items()}
        total: NDArray[np.float64] = _synops(m, price["mac"]) + _synops(a, price["ac"])
        if math.isnan(price["mac"]) and math.isnan(price["ac"]):
            total = np.full(e.shape, np.nan)
        total = total + (m + a) * _or_zero(price.get("memory", 0.0))
        total = total + v * _or_zero(price["event"])
        total = total + np.where(inputs, 0.0, e) * _or_zero(price["update"])
        if self.updates == "every_step":
            # A neuron evaluated twice in a step was still updated only once as an active one.
            idle = np.where(inputs, 0.0, np.maximum(n - e, 0.0))
            total = total + idle * _or_zero(price.get("update_inactive", price["update"]))
        return total

    def at(self, end: Literal["low", "high"]) -> Profile:
        """Return the profile with every price at one end of its published range."""
        prices = {key: _at(price, end) for key, price in self.prices.items()}
        return replace(self, prices=MappingProxyType(prices))


def _at(price: Price, end: Literal["low", "high"]) -> Price:
    value = price.low if end == "low" else price.high
    return price if value is None else replace(price, value=value)


def _counts(name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("are not numbers; give counts", field=name) from error
    if not np.isfinite(array).all() or (array < 0.0).any():
        raise InputError("hold a negative or infinite number or NaN; give counts", field=name)
    return array


def _synops(count: NDArray[np.float64], price: float) -> NDArray[np.float64]:
    if math.isnan(price):
        return np.where(count > 0.0, np.nan, 0.0)
    return count * price


def _or_zero(price: float) -> float:
    return 0.0 if math.isnan(price) else price
