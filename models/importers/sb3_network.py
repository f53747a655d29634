"""The policy network inside the tensors of a Stable-Baselines3 agent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import FileFormatError, UnsupportedError
from eventsim.neurons import (
    ELU,
    GELU,
    Activation,
    Clip,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)


@dataclass(frozen=True)
class Family:
    """Algorithms whose policies have the same tensors.

    Attributes
    ----------
    modules : tuple of str
        Where their policy classes live.
    parts : tuple of str
        Prefixes of the tensors from the observation to the output, in order; the activation
        follows every layer but the last.
    activation : str
        Class name of the default hidden activation.
    squash : bool
        Whether a Box action is squashed by tanh and rescaled (else it is clipped), by default.
    """

    modules: tuple[str, ...]
    parts: tuple[str, ...]
    activation: str
    squash: bool = False


_ACTOR_CRITIC = Family(
    (
        "stable_baselines3.common.policies",
        "stable_baselines3.ppo.policies",
        "stable_baselines3.a2c.policies",
        "sb3_contrib.trpo.policies",
    ),
    # shared_net: only before Stable-Baselines3 1.8
    ("mlp_extractor.shared_net", "mlp_extractor.policy_net", "action_net"),
    "Tanh",
)
_SOFT = Family(("stable_baselines3.sac.policies",), ("actor.latent_pi", "actor.mu"), "ReLU", True)
_DETERMINISTIC = Family(
    ("stable_baselines3.td3.policies", "stable_baselines3.ddpg.policies"),
    ("actor.mu",),
    "ReLU",
    True,
)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "PPO": _ACTOR_CRITIC,
        "A2C": _ACTOR_CRITIC,
        "TRPO": _ACTOR_CRITIC,
        "DQN": Family(("stable_baselines3.dqn.policies",), ("q_net.q_net",), "ReLU"),
        "QR-DQN": Family(("sb3_contrib.qrdqn.policies",), ("quantile_net.quantile_net",), "ReLU"),
        "SAC": _SOFT,
        "TQC": Family(("sb3_contrib.tqc.policies",), _SOFT.parts, "ReLU", True),
        "TD3": _DETERMINISTIC,
        "DDPG": _DETERMINISTIC,
        "ARS": Family(("sb3_contrib.ars.policies",), ("action_net",), "ReLU", True),
    }
)

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "ReLU": ReLU(),
        "Tanh": Tanh(),
        "ELU": ELU(),
        "LeakyReLU": LeakyReLU(),
        "Sigmoid": Sigmoid(),
        "Softplus": Softplus(),
        "SiLU": SiLU(),
        "GELU": GELU(),
        "Identity": Identity(),
        "Hardtanh": Clip(-1.0, 1.0),
        "ReLU6": Clip(0.0, 6.0),
    }
)
"""Activations of torch.nn, each with its default parameters, by class name."""


@dataclass(frozen=True, eq=False)
class Layers:
    """Weights of shape (n_out, n_in) and biases of shape (n_out,) or None, in order."""

    weights: list[NDArray[Any]]
    biases: list[NDArray[Any] | None]

    @property
    def sizes(self) -> list[int]:
        """Numbers of inputs, hidden neurons and outputs."""
        return [self.weights[0].shape[1], *(w.shape[0] for w in self.weights)]


def read_layers(tensors: Mapping[str, NDArray[Any]], algorithm: str, where: str) -> Layers:
    """Pick the layers from observation to output.

    Parameters
    ----------
    tensors : mapping of str to array
        The state dict of the policy.
    algorithm : str
        A key of `FAMILIES`.
    where : str
        The file, for error messages.

    Raises
    ------
    UnsupportedError
        If the policy is recurrent, normalises inside or extracts features by other than the
        NatureCNN.
    FileFormatError
        If tensors are missing, do not fit each other, or are not finite.
    """
    refuse_other_networks(tensors, where)
    parts = FAMILIES[algorithm].parts
    if not any(name.startswith(f"{parts[-1]}.") for name in tensors):
        raise FileFormatError(
            f"holds no tensor '{parts[-1]}...', which a policy of {algorithm} has; name the "
            "algorithm by --algorithm, or save the agent again",
            where=where,
        )
    return read_parts(tensors, parts, where)


def read_parts(tensors: Mapping[str, NDArray[Any]], parts: Sequence[str], where: str) -> Layers:
    """Pick the layers of some parts of a state dict, in order.

    Parameters
    ----------
    tensors : mapping of str to array
    parts : sequence of str
        Prefixes of names: of a layer, or of a sequence of layers and activations.
    where : str
        The file, for error messages.

    Raises
    ------
    UnsupportedError
        If a part has other than linear layers with activations.
    FileFormatError
        If tensors are missing, do not fit each other, or are not finite.
    """
    found = [layer for part in parts for layer in _sequence(tensors, part, where)]
    weights = [finite(tensors[f"{layer}.weight"], f"{layer}.weight", where) for layer in found]
    biases = [
        finite(tensors[f"{layer}.bias"], f"{layer}.bias", where)
        if f"{layer}.bias" in tensors
        else None
        for layer in found
    ]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        fits = i == 0 or weight.shape[1] == weights[i - 1].shape[0]
        if not fits or (bias is not None and bias.shape != weight.shape[:1]):
            raise FileFormatError(
                f"its tensor '{found[i]}' does not fit the layer before it; save the agent again",
                where=where,
            )
    return Layers(weights, biases)


def refuse_other_networks(tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    """Raise UnsupportedError if the tensors are those of a network that eventsim does not run."""
    for name in tensors:
        if "lstm" in name.lower():
            raise UnsupportedError(
                "is a recurrent (LSTM) policy, which is not supported yet; give an agent with an "
                "MLP policy",
                where=where,
            )
        if ".extractors." in name:
            raise UnsupportedError(
                f"has a network for each entry of its observation (tensor '{name}'), which is not "
                "supported yet; give an agent that flattens its observation",
                where=where,
            )
        if "features_extractor" in name and not _of_cnn(name):
            raise UnsupportedError(
                f"has a features extractor of its own (tensor '{name}'), which is not supported "
                "yet; give an agent that flattens its observation",
                where=where,
            )


def _of_cnn(name: str) -> bool:
    """Whether a tensor is called as one of the NatureCNN."""
    return re.search(r"features_extractor\.(cnn\.\d+|linear\.0)\.(weight|bias)$", name) is not None


def _sequence(tensors: Mapping[str, NDArray[Any]], part: str, where: str) -> list[str]:
    """Names of the linear layers of one part: a bare layer or the even entries of a sequence."""
    found: set[int] = set()
    for name in tensors:
        if not name.startswith(f"{part}."):
            continue
        rest = name.removeprefix(f"{part}.")
        if rest in ("weight", "bias"):
            return _checked(tensors, [part], where)
        index = re.fullmatch(r"(\d{1,4})\.(weight|bias)", rest)
        if index is None:
            raise UnsupportedError(
                f"has an unknown layer (tensor '{name}'); only linear layers with activations "
                "are supported",
                where=where,
            )
        found.add(int(index[1]))
    # An activation stands between any two layers. Normalisation and the like leave other gaps.
    if sorted(found) != list(range(0, 2 * len(found), 2)):
        raise UnsupportedError(
            f"has layers inside '{part}' other than linear ones with activations; normalisation "
            "and dropout are not supported yet",
            where=where,
        )
    return _checked(tensors, [f"{part}.{i}" for i in sorted(found)], where)


def _checked(tensors: Mapping[str, NDArray[Any]], layers: list[str], where: str) -> list[str]:
    for layer in layers:
        weight = tensors.get(f"{layer}.weight")
        if weight is None or weight.ndim != 2 or 0 in weight.shape:
            raise FileFormatError(
                f"holds no weight matrix '{layer}.weight'; save the agent again", where=where
            )
    return layers


def finite(tensor: NDArray[Any], name: str, where: str) -> NDArray[Any]:
    """Return a tensor as float32 or float64; FileFormatError if it is not of finite numbers."""
    if tensor.dtype.kind != "f":
        raise FileFormatError(f"its tensor '{name}' is not of real numbers", where=where)
    if not np.isfinite(tensor).all():
        raise FileFormatError(
            f"its tensor '{name}' holds NaN or infinity; the training has diverged, give an "
            "earlier checkpoint",
            where=where,
        )
    return tensor if tensor.dtype == np.float64 else tensor.astype(np.float32)
