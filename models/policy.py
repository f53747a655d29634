"""A policy: encoder -> network -> decoder, run event-driven or dense."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim import files, tables
from eventsim.errors import FileFormatError, InputError, NetworkError, UnsupportedError
from eventsim.models.decoders import Decoder
from eventsim.models.encoders import Encoder
from eventsim.network import Network

if TYPE_CHECKING:
    from eventsim.dense import DenseForward
    from eventsim.models.vector import Autoreset, VectorSession
    from eventsim.simulator import Simulator, SimulatorState
    from eventsim.trace import Hook

#: Consecutive cold calls of `Policy.predict` after which it warns.
COLD_CALLS = 10


class ColdStartWarning(UserWarning):
    """Every call of `Policy.predict` started from a reset simulator."""


@dataclass(frozen=True, eq=False)
class PolicyState:
    """What `Policy.predict` returns to be passed back: one simulator's state an environment.

    A snapshot: predicting from it does not change it, so the same state gives the same result.

    Parameters
    ----------
    simulators : tuple of SimulatorState
    """

    simulators: tuple[SimulatorState, ...]

    def __len__(self) -> int:
        return len(self.simulators)


class Session:
    """A policy in one environment, step after step, without a state to be passed.

    Made by `Policy.session` and `Policy.dense_session`. With an event-driven simulator, hooks see
    every step.

    Attributes
    ----------
    policy : Policy
    simulator : Simulator or DenseForward
    inputs : float64 array of shape (n_inputs,)
        Encoded observation of the last step; empty before the first.
    outputs : float64 array of shape (n_outputs,)
        The network's outputs of the last step.
    t : int
        Steps since the environment was reset, as the time feature sees it.
    """

    __slots__ = ("_decode", "_encode", "_step", "inputs", "outputs", "policy", "simulator", "t")

    def __init__(self, policy: Policy, simulator: Simulator | DenseForward) -> None:
        self.policy = policy
        self.simulator = simulator
        self._encode = policy.encoder.encode
        self._step = simulator.step
        self._decode = policy.decoder.decode
        self.inputs = self.outputs = np.zeros(0)
        self.t = 0

    def reset(self, *, carry_state: bool = False) -> None:
        """Start an episode.

        Parameters
        ----------
        carry_state : bool, optional
            Keep the simulator's state and restart only the clock of the time feature.
        """
        if not carry_state:
            self.simulator.reset()
        self.t = 0

    def act(self, observation: Any) -> Any:
        """Return the action for an observation, as ``env.step`` takes it.

        Raises
        ------
        InputError
            If the observation does not belong to the policy's space or is not finite; nothing has
            changed then.
        SimulationError
            If the network overflowed.
        """
        inputs = self._encode(observation, self.t)
        self.outputs = self._step(inputs)
        self.inputs = inputs
        self.t += 1
        return self._decode(self.outputs)


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """A trained network with what turns observations into its inputs and outputs into actions.

    Parameters
    ----------
    encoder : Encoder
    network : Network
    decoder : Decoder
    metadata : mapping, optional
        Plain data about the policy, stored with it. Usual keys are ``name``, ``env_id``,
        ``env_kwargs``, ``algorithm``, ``source`` (the teacher's file), ``defaults_taken`` (what
        an import assumed) and ``returns``.

    Raises
    ------
    NetworkError
        If the network's inputs or outputs do not fit the encoder or decoder.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network, Policy
    >>> from eventsim.models.decoders import Argmax
    >>> from eventsim.models.encoders import BoxSpec, Encoder
    >>> network = Network.from_arrays([np.array([[1.0, 0.0], [0.0, 1.0]])], thresholds=0.1)
    >>> policy = Policy(Encoder(BoxSpec((2,))), network, Argmax(2))
    >>> action, state = policy.predict([0.5, 0.7])
    >>> int(action)
    1
    >>> action, state = policy.predict([0.75, 0.7], state)
    >>> int(action)
    0
    """

    encoder: Encoder
    network: Network
    decoder: Decoder
    metadata: Mapping[str, Any] = field(default_factory=dict)
    _predictor: _Predictor = field(init=False)

    def __post_init__(self) -> None:
        for what, size, side, expected in (
            ("encoder gives", self.encoder.size, "inputs", self.network.n_inputs),
            ("decoder takes", self.decoder.size, "outputs", self.network.n_outputs),
        ):
            if size != expected:
                raise NetworkError(
                    f"the {what} {size} values, but the network has {expected} {side}",
                    where="policy",
                )
        object.__setattr__(self, "metadata", copy.deepcopy(dict(self.metadata)))
        object.__setattr__(self, "_predictor", _Predictor(self))

    def predict(
        self,
        observation: Any,
        state: PolicyState | None = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], PolicyState]:
        """Return the action for one observation or a batch of B, as Stable-Baselines3's models do.

        A network that sends changes remembers what it has sent: pass the state returned back in,
        with the next observation of the same environments. ``state=None`` is a cold start, from
        a reset simulator. At threshold 0 and without delays, state and cold start give the same
        actions; only the work differs.

        Parameters
        ----------
        observation : array-like, or mapping of str to array-like
            Of the encoder's space, or with a leading axis of length B.
        state : PolicyState, optional
            What the last call returned, for as many environments.
        episode_start : bool or bool array of shape (B,), optional
            These environments start from a reset simulator.
        deterministic : bool, optional
            Must be True.

        Returns
        -------
        action : array
            Of the action space, with a leading axis of length B for a batch.
        state : PolicyState
            To be passed to the next call.

        Raises
        ------
        InputError
            If the observation does not belong to the space or is not finite, or the number of
            environments differs from that of `state` or `episode_start`.
        UnsupportedError
            If `deterministic` is False.

        Warns
        -----
        ColdStartWarning
            Once, if all of several consecutive calls were cold without saying so by
            `episode_start`.
        """
        if not deterministic:
            raise UnsupportedError(
                "eventsim runs a policy's deterministic actions; call predict with "
                "deterministic=True"
            )
        if (
            isinstance(observation, tuple)
            and len(observation) == 2
            and isinstance(observation[1], dict)
        ):
            raise InputError(
                "is a pair (observation, info), as env.reset() returns it; pass its first part",
                where="observation",
            )
        return self._predictor(observation, state, episode_start)

    def session(self, hooks: Sequence[Hook] = (), engine: str = "auto", dt: float = 1.0) -> Session:
        """Return an event-driven session; the parameters are those of `Simulator`."""
        from eventsim.simulator import Simulator

        return Session(self, Simulator(self.network, hooks, engine=engine, dt=dt))

    def vector_session(self, batch: int, autoreset: Autoreset = "NextStep") -> VectorSession:
        """Return a session for B environments at once; the parameters are `VectorSession`'s."""
        from eventsim.models.vector import VectorSession

        return VectorSession(self, batch, autoreset)

    def dense_session(self) -> Session:
        """Return a session that computes every neuron at every step, thresholds ignored."""
        from eventsim.dense import DenseForward

        return Session(self, DenseForward(self.network))

    @property
    def env_id(self) -> str | None:
        """Environment that the policy was made for, if known."""
        value = self.metadata.get("env_id")
        return value if isinstance(value, str) else None

    @property
    def dense_macs(self) -> int:
        """Multiplications per step of the teacher's layers."""
        return self.network.dense_macs()

    def with_network(self, network: Network) -> Policy:
        """Return the policy with another network."""
        return replace(self, network=network)

    def with_metadata(self, **fields: Any) -> Policy:
        """Return the policy with metadata added or replaced."""
        return replace(self, metadata={**self.metadata, **fields})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy to one safetensors file (see `eventsim.files`).

        Raises
        ------
        InputError
            If the metadata are not plain data.
        OutputError
            If the file cannot be written.
        """
        extra, arrays = self._beside_the_network()
        files.save(path, self.network, {**extra, "metadata": self.metadata}, arrays)

    def fingerprint(self) -> str:
        """Return a SHA-256 of what the policy does: of all that it holds but its metadata."""
        extra, arrays = self._beside_the_network()
        return files.fingerprint(self.network, {**extra, "metadata": {}}, arrays)

    def _beside_the_network(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Encoder and decoder, as JSON fields and arrays."""
        parts: dict[str, Encoder | Decoder] = {"encoder": self.encoder, "decoder": self.decoder}
        extra = {name: part.to_dict() for name, part in parts.items()}
        arrays = {
            f"{name}/{key}": array
            for name, part in parts.items()
            for key, array in part.arrays().items()
        }
        return extra, arrays

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """Read a policy that `save` wrote.

        Raises
        ------
        FileFormatError
            If there is no such file, or it is damaged, foreign or contradicts itself.
        """
        where = f"'{os.fspath(path)}'"
        stored = files.load(path)
        for name in ("encoder", "decoder", "metadata"):
            if not isinstance(stored.extra.get(name), dict):
                raise FileFormatError(
                    "is missing, so the file holds no policy", where=where, field=name
                )
        try:
            encoder = Encoder.from_dict(stored.extra["encoder"], _below("encoder", stored.arrays))
        except (InputError, UnsupportedError) as error:
            raise FileFormatError(str(error), where=where, field="encoder") from error
        try:
            decoder = Decoder.from_dict(stored.extra["decoder"], _below("decoder", stored.arrays))
        except (InputError, UnsupportedError) as error:
            raise FileFormatError(str(error), where=where, field="decoder") from error
        unused = set(stored.arrays) - {f"encoder/{key}" for key in encoder.arrays()}
        unused -= {f"decoder/{key}" for key in decoder.arrays()}
        if unused:
            raise FileFormatError(
                "belongs to nothing in the policy", where=where, field=f"data/{min(unused)}"
            )
        try:
            return cls(encoder, stored.network, decoder, stored.extra["metadata"])
        except NetworkError as error:
            raise FileFormatError(str(error), where=where, field="populations") from error

    def __repr__(self) -> str:
        """One line: environment, algorithm, sizes, pruning."""
        network = self.network
        about = [str(self.metadata[k]) for k in ("env_id", "algorithm") if self.metadata.get(k)]
        sizes = "-".join(str(p.size) for p in network.populations)
        positions = sum(q.weights.n_positions for q in network.projections)
        sparsity = 1.0 - network.n_synapses / positions if positions else 0.0
        parts = [
            " ".join([*about, sizes]),
            f"{self.dense_macs:,} dense MACs",
            f"{network.n_synapses:,} synapses ({sparsity:.0%} pruned)",
            type(self.decoder).__name__,
        ]
        return f"Policy({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """What it is made of, and what its metadata say in a word."""
        rows = [
            {"what": "encoder", "is": f"{self.encoder.operations} operations per step"},
            {"what": "decoder", "is": type(self.decoder).__name__},
        ]
        rows += [
            {"what": key, "is": str(value)}
            for key, value in self.metadata.items()
            if isinstance(value, str | int | float)
        ]
        headings = {"what": "part", "is": "value"}
        about = tables.plain_table(repr(self), headings, rows, left=("what", "is"))
        return f"<div>{about.to_html()}{self.network._repr_html_()}</div>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and send to other processes without the simulator, which is built on demand."""
        return (Policy, (self.encoder, self.network, self.decoder, dict(self.metadata)))


class _Predictor:
    """Runs `Policy.predict` on one simulator that takes every environment's state in turn."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._simulator: Simulator | None = None
        self._cold: SimulatorState | None = None
        self._cold_calls = 0
        self._warned = False

    def __call__(
        self, observation: Any, state: PolicyState | None, episode_start: ArrayLike | None
    ) -> tuple[NDArray[Any], PolicyState]:
        encoder, decoder = self._policy.encoder, self._policy.decoder
        batched = encoder.is_batched(observation)
        simulator, cold = self._built()
        n = _length(observation) if batched else 1
        starts = _starts(episode_start, n)
        before = self._before(state, starts, n, cold)
        if batched:
            inputs = encoder.encode_batch(observation, np.array([s.step for s in before], np.int64))
        else:
            inputs = encoder.encode(observation, before[0].step)[np.newaxis]
        outputs = np.empty((n, self._policy.network.n_outputs))
        after = []
        for k in range(n):
            simulator.set_state(before[k])
            outputs[k] = simulator.step(inputs[k])
            after.append(_frozen(simulator.get_state()))
        self._warn(state is None and not (starts is not None and starts.all()))
        action = decoder.decode_batch(outputs) if batched else decoder.decode(outputs[0])
        return action, PolicyState(tuple(after))

    def _built(self) -> tuple[Simulator, SimulatorState]:
        if self._simulator is None or self._cold is None:
            from eventsim.simulator import Simulator

            self._simulator = Simulator(self._policy.network)
            self._cold = _frozen(self._simulator.get_state())
        return self._simulator, self._cold

    def _before(
        self,
        state: PolicyState | None,
        starts: NDArray[np.bool_] | None,
        n: int,
        cold: SimulatorState,
    ) -> list[SimulatorState]:
        if state is None:
            return [cold] * n
        if not isinstance(state, PolicyState):
            raise InputError(
                f"is a {type(state).__name__}; pass what predict returned, or None", where="state"
            )
        if len(state) != n:
            raise InputError(
                f"belongs to {len(state)} environments, but {n} observations were given",
                where="state",
            )
        if starts is None:
            return list(state.simulators)
        return [cold if s else old for s, old in zip(starts, state.simulators, strict=True)]

    def _warn(self, cold: bool) -> None:
        self._cold_calls = self._cold_calls + 1 if cold else 0
        if self._cold_calls == COLD_CALLS and not self._warned:
            self._warned = True
            warnings.warn(
                f"the last {COLD_CALLS} calls of predict all had state=None, so each computed the "
                "whole network afresh; pass the state that predict returns back with the next "
                "observation",
                ColdStartWarning,
                stacklevel=4,
            )


def _length(observation: Any) -> int:
    if isinstance(observation, Mapping):
        return len(next(iter(observation.values())))
    return len(observation)


def _starts(episode_start: ArrayLike | None, n: int) -> NDArray[np.bool_] | None:
    if episode_start is None:
        return None
    starts = np.asarray(episode_start)
    if starts.dtype.kind not in "biuf" or starts.reshape(-1).shape != (n,):
        raise InputError(
            f"has shape {starts.shape} and dtype {starts.dtype}, expected {n} booleans",
            where="episode_start",
        )
    return starts.reshape(-1).astype(np.bool_)


def _frozen(state: SimulatorState) -> SimulatorState:
    for array in state.arrays:
        array.flags.writeable = False
    return state


def _below(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays of which the name begins with `prefix` and a slash, without these."""
    start = f"{prefix}/"
    return {k.removeprefix(start): a for k, a in arrays.items() if k.startswith(start)}
