"""Read the critic of a Stable-Baselines3 agent, by which its training can go on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import FileFormatError, UnsupportedError
from eventsim.models.importers.archive import Archive
from eventsim.models.importers.inert_values import Name
from eventsim.models.importers.rl_zoo import find_agent, surroundings
from eventsim.models.importers.sb3_agent import find_algorithm, read_agent
from eventsim.models.importers.sb3_network import read_parts
from eventsim.models.importers.torch_zip import MAX_BYTES, read_tensors

#: Algorithms whose critics tell the value of an action in a box.
CRITICS = ("SAC", "TQC", "TD3", "DDPG")


@dataclass(frozen=True, eq=False)
class Critic:
    """Networks that map an observation and an action in [-1, 1] to the return to come.

    Attributes
    ----------
    networks : list of (weights, biases)
        Weights of shape (n_out, n_in), float32; the inputs of the first are the observation's,
        then the action's; rectified units between the layers; one output.
    gamma : float or None
        Discount by which it was trained.
    entropy : float or None
        Weight of the entropy in the return (of SAC and TQC), if the file tells it.
    where : str
        The file, for error messages.
    """

    networks: list[tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]]
    gamma: float | None
    entropy: float | None
    where: str

    @property
    def n_inputs(self) -> int:
        """Numbers of an observation and an action together."""
        return int(self.networks[0][0][0].shape[1])

    @property
    def hidden(self) -> list[int]:
        """Sizes of the hidden layers."""
        return [len(w) for w in self.networks[0][0][:-1]]


def read_critic(source: str | os.PathLike[str]) -> Critic:
    """Read the critic of an agent's zip or RL Zoo folder, without unpickling.

    The quantiles of a TQC critic become their mean, which is its value.

    Parameters
    ----------
    source : path

    Raises
    ------
    FileFormatError
        If there is no such file, or it is damaged.
    UnsupportedError
        If its algorithm has no critic of actions in a box, or its layers are of another kind.
    """
    path = Path(source)
    if not path.exists():
        raise FileFormatError(
            "does not exist; give an agent's zip or its folder", where=f"critic '{path.name}'"
        )
    if path.is_dir():
        path = find_agent(path)
    agent = read_agent(path)
    name = find_algorithm(agent, surroundings(path).algorithm, None)
    if name not in CRITICS:
        raise UnsupportedError(
            f"is of {name}, whose agents hold no value of actions in a box; critics come from "
            f"{', '.join(CRITICS)}",
            where=agent.where,
        )
    activation = agent.keywords.get("activation_fn")
    if activation is not None and not str(activation).endswith(".ReLU"):
        kind = str(activation) if isinstance(activation, Name) else "of the agent's own"
        raise UnsupportedError(
            f"has a critic with the activation {kind}; only rectified units can be taken over",
            where=agent.where,
        )
    networks = []
    for part in _parts(agent.tensors, agent.where):
        layers = read_parts(agent.tensors, (part,), agent.where)
        weights = [np.array(w, np.float32) for w in layers.weights]
        biases = [
            np.zeros(len(w), np.float32) if b is None else np.array(b, np.float32)
            for w, b in zip(weights, layers.biases, strict=True)
        ]
        # Quantiles, if there are several outputs; their mean is one of their layer too.
        weights[-1] = weights[-1].mean(axis=0, keepdims=True)
        biases[-1] = biases[-1].mean(keepdims=True)
        networks.append((weights, biases))
    gamma = agent.data.get("gamma")
    return Critic(
        networks,
        float(gamma) if isinstance(gamma, int | float) and 0.0 < gamma <= 1.0 else None,
        _entropy(path, agent.where),
        agent.where,
    )


def _parts(tensors: Any, where: str) -> list[str]:
    """Prefixes of the critic's networks, in order."""
    found = {m[1] for name in tensors if (m := re.match(r"(critic\.qf\d{1,3})\.", name))}
    if not found:
        raise FileFormatError(
            "holds no tensor 'critic.qf0...'; save the agent again, critic included", where=where
        )
    return sorted(found, key=lambda part: int(part.removeprefix("critic.qf")))


def _entropy(path: Path, where: str) -> float | None:
    member = "pytorch_variables.pth"
    with Archive(path, where) as archive:
        if member not in archive:
            return None
        tensors = read_tensors(archive.read(member, MAX_BYTES), f"{where}, {member}")
    for name, log in (("log_ent_coef", True), ("ent_coef_tensor", False)):
        value = tensors.get(name)
        if value is not None and value.size == 1 and np.isfinite(value).all():
            return float(np.exp(value.item()) if log else value.item())
    return None
