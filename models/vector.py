"""A policy in vectorised environments: B copies of its network, one kernel call a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.batch import BatchSimulator
from eventsim.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from eventsim.models.policy import Policy

#: When a vector environment resets one whose episode has ended, by Gymnasium's names.
Autoreset = Literal["NextStep", "SameStep", "Disabled"]


class VectorSession:
    """A policy in B environments at once, each with neurons of its own.

    Every copy gives the actions that a `Session` of its own would give, bit for bit. Made by
    `Policy.vector_session`.

    Parameters
    ----------
    policy : Policy
    batch : int
        Number of environments B, >= 1.
    autoreset : {"NextStep", "SameStep", "Disabled"}, optional
        As ``envs.metadata["autoreset_mode"]`` of Gymnasium >= 1.1 says: with ``"NextStep"`` the
        observation that ends an episode is followed by the next episode's first one, and the
        action between them is ignored; with ``"SameStep"`` the first one comes at once; with
        ``"Disabled"`` the caller resets environments, and copies by `reset`.

    Attributes
    ----------
    simulator : BatchSimulator
    inputs : float64 array of shape (B, n_inputs)
        Encoded observations of the last step; empty before the first.
    outputs : float64 array of shape (B, n_outputs)
    t : int64 array of shape (B,)
        Steps of each copy since its episode began, as the time feature sees them.

    Raises
    ------
    InputError
        If `batch` is below 1.
    UnknownNameError
        If there is no such mode.
    UnsupportedError
        If the network cannot be batched.
    """

    def __init__(self, policy: Policy, batch: int, autoreset: Autoreset = "NextStep") -> None:
        if autoreset not in get_args(Autoreset):
            known = ", ".join(repr(name) for name in get_args(Autoreset))
            raise UnknownNameError(f"autoreset {autoreset!r} is not known; use one of {known}")
        self.policy = policy
        self.simulator = BatchSimulator(policy.network, batch)
        self.autoreset = autoreset
        self.inputs = self.outputs = np.zeros((0, 0))
        self.t = np.zeros(batch, np.int64)
        self._ended = np.zeros(batch, np.bool_)

    def reset(self, which: ArrayLike | None = None) -> None:
        """Start episodes, as the environments did.

        Parameters
        ----------
        which : bool array of shape (B,), optional
            The copies, such as the ``reset_mask`` given to the environments; default all.
        """
        chosen = np.ones(len(self.t), np.bool_) if which is None else self._mask(which, "which")
        self.simulator.reset(chosen)
        self.t[chosen] = 0
        self._ended[chosen] = False

    def act(self, observations: Any, ended: ArrayLike | None = None) -> NDArray[Any]:
        """Return the actions for observations, as ``envs.step`` takes them.

        Parameters
        ----------
        observations : array-like, or mapping of str to array-like, with a leading axis of length B
        ended : bool array of shape (B,), optional
            ``terminated | truncated``, as ``envs.step`` gave them with these observations; copies
            are reset by it when the mode says so. Default none has.

        Returns
        -------
        array of shape (B, ...)

        Raises
        ------
        InputError
            If observations or `ended` do not belong to B environments, or are not finite; no
            simulator has moved then.
        SimulationError
            If the network of a copy overflowed.
        """
        now = np.zeros(len(self.t), np.bool_) if ended is None else self._mask(ended, "ended")
        n = _length(observations)
        if n != len(self.t):
            raise InputError(
                f"belong to {n} environments, expected {len(self.t)}", where="observations"
            )
        first = {"NextStep": self._ended, "SameStep": now}.get(self.autoreset)
        t = self.t if first is None else np.where(first, 0, self.t)
        inputs = self.policy.encoder.encode_batch(observations, t)
        if first is not None and first.any():
            self.simulator.reset(first)
        self.outputs = self.simulator.step(inputs)
        self.inputs = inputs
        self.t = t + 1
        self._ended = now
        return self.policy.decoder.decode_batch(self.outputs)

    def _mask(self, values: ArrayLike, name: str) -> NDArray[np.bool_]:
        mask = np.asarray(values)
        if mask.shape != self.t.shape or mask.dtype != np.bool_:
            raise InputError(
                f"has shape {mask.shape} and dtype {mask.dtype}, expected {len(self.t)} booleans",
                where=name,
            )
        return mask.copy()


def _length(observations: Any) -> int:
    if isinstance(observations, Mapping):
        observations = next(iter(observations.values()), ())
    shape = np.shape(observations)
    return shape[0] if shape else 0
