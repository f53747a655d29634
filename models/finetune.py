"""Fine-tune a pruned, event-driven policy by reinforcement learning, under its own algorithm.

For tasks where imitation is not enough. The actor of a Stable-Baselines3 agent becomes the policy's
network: masked weights stay zero (the masks are applied after every step of an optimiser), more of
them may be pruned while it learns (Zhu and Gupta 2017, arXiv 1710.01878; Obando-Ceron et al. 2024,
arXiv 2402.12479), and the thresholds are in the loop.

How thresholds get there: a neuron with a threshold sends ``s = f(u) + e``, its activation and what
it holds back. The environment's wrapper runs the network by events and appends the errors e of all
hidden neurons to the observation, and gives the inputs as they were last sent. Then a stored
observation is all that a training step needs to compute what was sent, and the gradient passes
straight through the hold, in on-policy and off-policy algorithms alike.

A network with convolutions holds back too much for that: it is trained on windows of steps, see
`eventsim.models.reinforce`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, MissingDependencyError, SimulationError, UnsupportedError
from eventsim.models.decoders import Argmax, ClipBox, SquashBox
from eventsim.models.finetune_pictures import check_asked, sees_pictures, train_on_rewards
from eventsim.models.importers.sb3_critic import Critic, read_critic
from eventsim.models.policy import Policy
from eventsim.models.pruning import connection_sparsity, prune
from eventsim.models.rollout import check_spaces, episode, make_env, make_for
from eventsim.network import Network, Population
from eventsim.neurons import Delta

Float32 = NDArray[np.float32]

#: The algorithm that continues what another has trained.
ALGORITHMS = {
    "PPO": "PPO",
    "A2C": "PPO",
    "TRPO": "PPO",
    "ARS": "PPO",
    "SAC": "SAC",
    "TQC": "SAC",
    "TD3": "TD3",
    "DDPG": "TD3",
    "DQN": "DQN",
}
_DECODERS: dict[str, tuple[type, ...]] = {
    "PPO": (Argmax, ClipBox),
    "SAC": (SquashBox,),
    "TD3": (SquashBox,),
    "DQN": (Argmax,),
}
#: Environment seeds of training and of looking; other modules use others.
TRAINING_SEED, LOOK_SEED = 900_000_000, 910_000_000


@dataclass(frozen=True)
class Settings:
    """How the training goes on.

    Parameters
    ----------
    steps : int
        Environment steps.
    learning_rate : float
        Of the actor, constant; where there are convolutions it falls to a tenth.
    sparsity : float, optional
        Share of the weights that is zero at the end; default what it is.
    prune_begin, prune_end : float
        Parts of the training between which the sparsity grows, by the cubic law of Zhu and Gupta.
    prunings : int
        Times that weights are cut on the way.
    warmup : float
        Part of the training in which off-policy critics learn and the actor waits, if they are
        new.
    looks : int
        Times that the policy is played, by events; the best is kept.
    look_episodes : int
    noise : float
        Standard deviation of exploration, in units of the action's half range.
    n_envs : int, optional
        Copies of the environment, for PPO; default 4, and where there are convolutions as many as
        make sense of the steps, up to 64.
    critic : path, optional
        Zip or folder of a Stable-Baselines3 agent that saw the same observations and rewards, the
        teacher mostly, whose critic SAC or TD3 starts from; default a new one.
    arguments : mapping, optional
        Further arguments of the algorithm in Stable-Baselines3.
    teacher : Policy, optional
        For a policy with convolutions: one that plays the same from the same pictures, such as
        what it was distilled from. The critic goes by its last hidden layer, and the policy keeps
        to its choices at first.
    last_layer : bool
        For a policy with convolutions: only the last layer learns, and there is no teacher; see
        `eventsim.models.last_layer`.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    steps: int = 100_000
    learning_rate: float = 1e-4
    sparsity: float | None = None
    prune_begin: float = 0.1
    prune_end: float = 0.7
    prunings: int = 20
    warmup: float = 0.1
    looks: int = 10
    look_episodes: int = 10
    noise: float = 0.1
    n_envs: int | None = None
    critic: str | os.PathLike[str] | None = None
    arguments: Mapping[str, Any] | None = None
    teacher: Policy | None = None
    last_layer: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "looks", "look_episodes", "prunings", "n_envs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"is {value}; give at least 1", field=name)
        for name in ("learning_rate", "noise"):
            value = getattr(self, name)
            if not (value > 0.0 and math.isfinite(value)):
                raise InputError(f"is {value}; give a number above 0", field=name)
        if self.sparsity is not None and not 0.0 <= self.sparsity < 1.0:
            raise InputError(f"is {self.sparsity}; give a share in [0, 1)", field="sparsity")
        if not 0.0 <= self.prune_begin <= self.prune_end <= 1.0:
            raise InputError(
                f"is {self.prune_begin}, after prune_end or outside [0, 1]", field="prune_begin"
            )
        if not 0.0 <= self.warmup < 1.0:
            raise InputError(f"is {self.warmup}; give a share in [0, 1)", field="warmup")


@dataclass(frozen=True)
class Look:
    """The policy at one moment of the training.

    Attributes
    ----------
    steps : int
        Environment steps so far.
    sparsity : float
    mean : float
        Return, by events.
    kept : bool
        Whether it is the best so far at the final sparsity, or the latest on the way there.
    """

    steps: int
    sparsity: float
    mean: float
    kept: bool


def finetune(
    policy: Policy,
    env_id: str | None = None,
    *,
    settings: Settings | None = None,
    algorithm: str | None = None,
    seed: int = 0,
    on_look: Callable[[Look, Policy], None] = lambda look, policy: None,
) -> Policy:
    """Let a policy learn on in its environment, masks and thresholds in the loop.

    Parameters
    ----------
    policy : Policy
        Its zero weights stay zero; its thresholds are kept.
    env_id : str, optional
        Default: the policy's own.
    settings : Settings, optional
    algorithm : str, optional
        PPO, SAC, TD3 or DQN, or one that these continue; default what the metadata say. A network
        with convolutions learns by PPO, whatever trained it.
    seed : int, optional
    on_look : callable, optional
        Told of every look, with the policy as it is then.

    Returns
    -------
    Policy
        The best that was seen by events at the final sparsity; its metadata's ``finetune`` says
        how it was made. The policy as given counts as seen if nothing more is to be pruned.

    Raises
    ------
    InputError
        If no environment or algorithm is known, or they do not fit the policy.
    UnsupportedError
        If the network is no chain of layers, nor a plain stack with convolutions, or the algorithm
        cannot train it.
    MissingDependencyError
        If Stable-Baselines3 is not installed, or PyTorch for a network with convolutions.
    SimulationError
        If the training diverged.
    """
    settings = settings or Settings()
    if seed < 0:
        raise InputError(f"is {seed}; give 0 or more", field="seed")
    env_id = env_id or policy.env_id
    if env_id is None:
        raise InputError(
            "the policy does not say in which environment it acts; name one by env (--env)"
        )
    final = connection_sparsity(policy.network)
    best: tuple[float, Policy] | None = None
    looks: list[Look] = []

    def seen(steps: int, now: Policy, mean: float) -> None:
        nonlocal best
        sparsity = connection_sparsity(now.network)
        kept = sparsity >= final - 1e-9 and (best is None or mean >= best[0])
        if kept:
            best = mean, now
        looks.append(Look(steps, sparsity, mean, kept))
        on_look(looks[-1], now)

    critic: Critic | None = None
    if sees_pictures(policy.network):
        kind = "PPO"
        asked = None if algorithm is None else ALGORITHMS.get(algorithm.upper(), algorithm)
        check_asked(asked, settings.sparsity, final, settings.critic, settings.arguments)
        train_on_rewards(
            policy,
            env_id,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            looks=settings.looks,
            most_envs=settings.n_envs,
            first_seed=TRAINING_SEED + 1000 * (seed % 1000),
            seed=seed,
            teacher=settings.teacher,
            last_layer=settings.last_layer,
            returned=partial(
                _mean_return, partial(make_for, policy, env_id), settings.look_episodes
            ),
            look=seen,
        )
    else:
        if settings.teacher is not None:
            raise InputError(
                "is given, but the policy has no convolutions: leave it out, or give its critic",
                field="teacher",
            )
        if settings.last_layer:
            raise InputError(
                "is asked for, but the policy has no convolutions: leave it out",
                field="last_layer",
            )
        arguments = (policy.metadata.get("env_kwargs") or {}) if env_id == policy.env_id else {}
        kind = _algorithm(policy, algorithm)
        layers(policy.network)
        make = partial(make_env, env_id, **arguments)
        env = make()
        try:
            check_spaces(policy, env)
        finally:
            env.close()
        positions = sum(q.weights.n_positions for q in policy.network.projections)
        # A whole number of weights, as `prune` cuts them.
        final = max(round((settings.sparsity or 0.0) * positions) / positions, final)
        critic = _critic(settings.critic, kind, policy)
        # A sparsity that the caps do not allow is refused before the training, not after it.
        masks_of(policy.network, final, final)
        try:
            import stable_baselines3  # noqa: F401
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "fine-tuning needs Stable-Baselines3; run: pip install 'eventsim[train]'"
            ) from error
        from eventsim.models.finetune_sb3 import train

        def look(steps: int, network: Network) -> None:
            now = policy.with_network(network)
            seen(steps, now, _mean_return(make, settings.look_episodes, now))

        look(0, policy.network)
        train(kind, policy, make, settings, final, seed, look, critic)
    if best is None:
        raise SimulationError(
            f"the training ended below the sparsity of {final:.3g}; give more steps, or a smaller "
            "prune_end"
        )
    provenance = {
        "algorithm": kind,
        "env_id": env_id,
        "seed": seed,
        "steps": settings.steps,
        "sparsity": final,
        "learning_rate": settings.learning_rate,
        "critic": None if critic is None else critic.where,
        "teacher": _named(settings.teacher),
        "last_layer": settings.last_layer,
        "looks": [[one.steps, one.sparsity, one.mean] for one in looks],
    }
    return best[1].with_metadata(finetune=provenance)


@dataclass(frozen=True)
class Layer:
    """A layer of a chain: weights of shape (n_out, n_in), bias, activation and threshold."""

    name: str
    weights: Float32
    bias: Float32
    activation: Any
    threshold: Float32


def layers(network: Network) -> list[Layer]:
    """Return the layers of a network that is a chain, in order, its input not among them.

    Raises
    ------
    UnsupportedError
        If it is none, of branches, delays or other neurons, or its outputs have an activation.
    """
    order = sorted(network.populations, key=lambda p: network.ranks[p.name])
    found = []
    for before, population in pairwise(order):
        incoming = network.incoming(population.name)
        neuron = population.neuron
        if (
            len(incoming) != 1
            or incoming[0].source != before.name
            or incoming[0].delay
            or not isinstance(neuron, Delta)
        ):
            raise UnsupportedError(
                "is not fed by the layer before it alone; only chains of dense or sparse layers "
                "without delays can be trained",
                where=f"population '{population.name}'",
            )
        found.append(
            Layer(
                population.name,
                np.array(incoming[0].weights.to_dense(), np.float32),
                population.parameter("bias").astype(np.float32),
                neuron.activation,
                population.parameter("threshold").astype(np.float32),
            )
        )
    if not found or found[-1].activation.name != "identity":
        raise UnsupportedError(
            "the network has no layer, or its outputs an activation; only plain outputs can be "
            "trained"
        )
    return found


def with_layers(network: Network, weights: list[Float32], biases: list[Float32]) -> Network:
    """Return a chain with other weights and biases; thresholds and dense MACs stay.

    Raises
    ------
    SimulationError
        If one is no longer finite.
    """
    order = sorted(network.populations, key=lambda p: network.ranks[p.name])[1:]
    changed: dict[str, Population] = {}
    for population, w, b in zip(order, weights, biases, strict=True):
        if not (np.isfinite(w).all() and np.isfinite(b).all()):
            raise SimulationError(
                f"the weights of layer '{population.name}' are no longer finite: the training "
                "diverged; give a smaller learning rate"
            )
        neuron = population.neuron
        if isinstance(neuron, Delta):
            made = Delta(neuron.activation, b.astype(np.float64), neuron.threshold)
            changed[population.name] = Population(
                population.name, population.size, made, population.shape
            )
    populations = tuple(changed.get(p.name, p) for p in network.populations)
    pruned = {
        network.incoming(p.name)[0].name: w.copy() for p, w in zip(order, weights, strict=True)
    }
    return replace(network, populations=populations).with_weights(pruned)


class HeldInputs:
    """Runs a chain by events in float32 and tells what each layer holds back.

    Parameters
    ----------
    layers : list of Layer
        Their arrays are read at every step, so they may be those that are being trained.
    threshold : float32 array of shape (n_inputs,)
        Of the inputs.
    """

    def __init__(self, layers: list[Layer], threshold: Float32) -> None:
        self._layers = layers
        self._threshold = threshold
        self._sent: list[Float32] | None = None

    @property
    def size(self) -> int:
        """Inputs and hidden neurons together."""
        return self._threshold.size + sum(layer.bias.size for layer in self._layers[:-1])

    def reset(self) -> None:
        """Start an episode: nothing has been sent."""
        self._sent = None

    def observe(self, inputs: NDArray[np.float64]) -> Float32:
        """Return the inputs as they were last sent, and the hidden layers' errors."""
        x = inputs.astype(np.float32)
        first = self._sent is None
        before = [np.zeros_like(x)] if self._sent is None else [self._sent[0]]
        a = _held(x, before[0], self._threshold)
        sent, parts = [a], [a]
        for k, layer in enumerate(self._layers[:-1]):
            value = layer.activation(layer.weights @ a + layer.bias).astype(np.float32)
            old = np.zeros_like(value) if first else self._sent[k + 1]  # type: ignore[index]
            a = _held(value, old, layer.threshold)
            sent.append(a)
            parts.append(a - value)
        self._sent = sent
        return np.concatenate(parts)


def polynomial(start: float, final: float, progress: float) -> float:
    """Sparsity at a part of the way, ``final + (start - final) (1 - progress)^3``."""
    return final + (start - final) * (1.0 - min(max(progress, 0.0), 1.0)) ** 3


def masks_of(network: Network, sparsity: float, final: float) -> list[NDArray[np.bool_]]:
    """Prune a chain to a sparsity, and return which weights of each layer survive.

    The caps are those of the final sparsity, so that the way there is open if its end is.

    Raises
    ------
    InputError
        If the caps of `eventsim.models.pruning.prune` do not allow it.
    """
    if sparsity > connection_sparsity(network):
        cap = (1.0 + final) / 2.0
        network = prune(
            network,
            sparsity,
            max_column_sparsity=cap,
            max_row_sparsity=cap,
            max_layer_sparsity=cap,
        )
    return [layer.weights != 0.0 for layer in layers(network)]


def _held(value: Float32, sent: Float32, threshold: Float32) -> Float32:
    return np.where(np.abs(value - sent) > threshold, value, sent)


def _algorithm(policy: Policy, asked: str | None) -> str:
    name = asked or policy.metadata.get("algorithm")
    if not isinstance(name, str):
        raise InputError(
            f"is not known of this policy; give one of {', '.join(sorted(_DECODERS))}",
            field="algorithm",
        )
    kind = ALGORITHMS.get(name.upper().replace("-", ""))
    if kind is None:
        raise UnsupportedError(
            f"is {name}; fine-tuning goes by {', '.join(sorted(_DECODERS))}", field="algorithm"
        )
    if not isinstance(policy.decoder, _DECODERS[kind]) or (
        kind == "PPO" and isinstance(policy.decoder, SquashBox)
    ):
        raise UnsupportedError(
            f"is {kind}, which has no actor for actions by {policy.decoder.kind}; choose another",
            field="algorithm",
        )
    return kind


def _named(teacher: Policy | None) -> str | None:
    """How the metadata speak of a teacher."""
    return None if teacher is None else str(teacher.metadata.get("name") or "unnamed")


def _critic(source: str | os.PathLike[str] | None, kind: str, policy: Policy) -> Critic | None:
    """Read the critic to start from, and see that it fits."""
    if source is None:
        return None
    if kind not in ("SAC", "TD3"):
        raise InputError(
            f"is given, but {kind} has no critic of actions; leave it out, or train by SAC or TD3",
            field="critic",
        )
    critic = read_critic(source)
    wanted = policy.network.n_inputs + policy.decoder.size
    if critic.n_inputs != wanted:
        raise InputError(
            f"takes {critic.n_inputs} numbers, of an observation and an action, and the policy "
            f"has {wanted}; give the agent that the policy was made from",
            where=critic.where,
            field="critic",
        )
    return critic


def _mean_return(make: Callable[[], Any], episodes: int, policy: Policy) -> float:
    session = policy.session()
    total = 0.0
    for k in range(episodes):
        env = make()
        try:
            total += episode(session, env, LOOK_SEED + k).total
        finally:
            env.close()
    return total / episodes
