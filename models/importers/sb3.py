"""Import a policy from a Stable-Baselines3 zip, without torch or stable-baselines3.

Nothing in the zip is unpickled: tensors come from `torch_zip`, the other fields from
`inert_pickle`. What the zip cannot say (environment, normalisation, wrapper) comes from the files
of an RL Zoo folder beside it, or from the caller.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eventsim.errors import EventsimError, FileFormatError, UnsupportedError
from eventsim.models.decoders import (
    Argmax,
    ClipBox,
    Decoder,
    MultiBinary,
    MultiDiscreteArgmax,
    QuantileArgmax,
    SquashBox,
)
from eventsim.models.encoders import Encoder, Normalization, Pixels, TimeFeature
from eventsim.models.importers import sb3_cnn
from eventsim.models.importers.inert_values import Name
from eventsim.models.importers.rl_zoo import Surroundings, surroundings, todays_name
from eventsim.models.importers.sb3_agent import Agent, find_algorithm, read_agent
from eventsim.models.importers.sb3_network import ACTIVATIONS, FAMILIES, Layers, read_layers
from eventsim.models.importers.vecnormalize import read_normalization
from eventsim.models.policy import Policy
from eventsim.network import Network
from eventsim.neurons import Clip, Identity

_DEFAULT_MAX_STEPS = 1000  # of TimeFeatureWrapper
_DEFAULT_CLIP_MEAN = 2.0  # of SAC's and TQC's actors with gSDE

NormalizationChoice = str | os.PathLike[str] | bool | None


@dataclass
class _Report:
    """What the import found out on the way."""

    defaults: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def is_agent(path: Path) -> bool:
    """Whether the file begins as a zip does (or is called one, for a better error)."""
    if path.suffix == ".zip":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def load(
    path: Path,
    *,
    env: str | None = None,
    normalization: NormalizationChoice = None,
    time_feature: bool | int | None = None,
    algorithm: str | None = None,
) -> Policy:
    """Import the agent that ``model.save()`` wrote to the zip `path`.

    Parameters
    ----------
    path : Path
    env : str, optional
        Environment id; default the one that the files beside the zip name, under its name of
        today.
    normalization : path, bool or None, optional
        A file of ``VecNormalize.save``; False for none; default the one beside the zip.
    time_feature : bool, int or None, optional
        Whether the agent sees the remaining time (``TimeFeatureWrapper``), or the steps of a full
        episode; default what ``config.yml`` beside the zip says.
    algorithm : str, optional
        Default: found from the policy class and the tensors.

    Returns
    -------
    Policy
        ``metadata`` says what was found: ``name``, ``env_id``, ``trained_env_id``, ``algorithm``,
        ``activation``, ``layers``, ``teacher_dense_macs``, ``source``, and the
        ``defaults_taken`` and ``notes`` that the user should know.

    Raises
    ------
    FileFormatError
        If the file is not such a zip, or is damaged or hostile.
    UnsupportedError
        If the policy is neither an MLP nor one behind the NatureCNN, or of an unknown algorithm.
    UnknownNameError
        If `algorithm` is not one of `FAMILIES`.
    """
    report = _Report()
    beside = surroundings(path)
    report.notes.extend(beside.notes)
    agent = read_agent(path)
    name = find_algorithm(agent, beside.algorithm, algorithm)
    layers = read_layers(agent.tensors, name, agent.where)
    activation = _activation(agent, beside, name, layers, report)
    saturation = _saturation(agent, name, report)
    hidden = Identity() if activation is None else ACTIVATIONS[activation]
    pictures = sb3_cnn.find(agent.tensors, FAMILIES[name].parts, agent.where)
    if pictures is None:
        network = Network.from_arrays(
            layers.weights,
            layers.biases,
            hidden,
            output_activation=Identity() if saturation is None else Clip(-saturation, saturation),
            name=path.stem,
        )
    else:
        cnn = sb3_cnn.read(agent.tensors, pictures, agent.keywords, agent.where)
        _check_pictures(agent, name)
        normalize = agent.observation.is_image and agent.keywords.get("normalize_images", True)
        network = sb3_cnn.network(
            cnn,
            layers,
            agent.observation.shape,
            hidden,
            path.stem,
            agent.where,
            normalize=bool(normalize),
        )
        if normalize:
            report.notes.append("the first layer's weights carry the division of bytes by 255")
    trained_env = beside.env
    env_id, renamed = todays_name(trained_env) if trained_env else (None, None)
    if env is not None:
        env_id = env
    elif renamed:
        report.notes.append(renamed)
    time = _time_feature(time_feature, beside, env_id, report)
    chosen, file = _normalization(normalization, beside, path, report)
    encoder = _encoder(agent, chosen, time, pictures is not None)
    if encoder.size != network.n_inputs:
        raise FileFormatError(
            f"its network takes {network.n_inputs} inputs, but its observation space gives "
            f"{encoder.size}; give its features by --time-feature, or save the agent again",
            where=agent.where,
        )
    decoder = _decoder(agent, name, layers)
    metadata = {
        "name": f"{name.lower()}-{trained_env or path.stem}",
        "env_id": env_id,
        "trained_env_id": trained_env,
        "algorithm": name,
        "activation": activation,
        "layers": [p.size for p in network.populations],
        "teacher_dense_macs": network.dense_macs(),
        "source": {
            "format": "stable-baselines3",
            "file": path.name,
            "sha256": _digest(path),
            "sb3_version": agent.version,
            "policy_class": str(agent.policy_class),
            "normalization_file": None if file is None else file.name,
            "normalization_sha256": None if file is None else _digest(file),
        },
        "defaults_taken": report.defaults,
        "notes": report.notes,
    }
    return Policy(encoder, network, decoder, metadata)


def _activation(
    agent: Agent, beside: Surroundings, algorithm: str, layers: Layers, report: _Report
) -> str | None:
    if len(layers.weights) == 1:
        return None  # a linear policy
    named = agent.keywords.get("activation_fn")
    if named is not None:
        name = str(named) if isinstance(named, Name) else "of the agent's own"
        if name.startswith("torch.nn."):
            name = name.rpartition(".")[2]
    elif beside.activation is not None:
        name = beside.activation
        report.notes.append(f"activation {name} taken from config.yml")
    else:
        name = FAMILIES[algorithm].activation
        report.defaults["activation"] = f"{name}, the default of {algorithm}"
    if name not in ACTIVATIONS:
        raise UnsupportedError(
            f"its activation {name} is not supported; eventsim takes {', '.join(ACTIVATIONS)}",
            where=agent.where,
        )
    return name


def _saturation(agent: Agent, algorithm: str, report: _Report) -> float | None:
    """Bound of the Hardtanh that SAC and TQC with gSDE put on the mean before the tanh."""
    if algorithm not in ("SAC", "TQC") or "actor.mu.0.weight" not in agent.tensors:
        return None
    if "clip_mean" not in agent.keywords:
        report.defaults["clip_mean"] = f"{_DEFAULT_CLIP_MEAN:g}, the default of {algorithm}"
    bound = agent.keywords.get("clip_mean", _DEFAULT_CLIP_MEAN)
    if not (isinstance(bound, int | float) and bound > 0.0):
        raise FileFormatError("is not a number > 0", where=agent.where, field="clip_mean")
    return float(bound)


def _time_feature(
    wanted: bool | int | None, beside: Surroundings, env_id: str | None, report: _Report
) -> TimeFeature | None:
    if wanted is False or (wanted is None and not beside.time_feature):
        return None
    if wanted is not None and wanted is not True:
        return TimeFeature(int(wanted))
    steps = beside.max_steps or _episode_steps(env_id)
    if steps is None:
        steps = _DEFAULT_MAX_STEPS
        report.defaults["time_feature"] = f"{steps} steps, the default of TimeFeatureWrapper"
    return TimeFeature(steps, beside.test_mode)


def _episode_steps(env_id: str | None) -> int | None:
    """Time limit of the environment, which TimeFeatureWrapper prefers to its own default."""
    if env_id is None:
        return None
    import gymnasium as gym

    spec = gym.registry.get(env_id)
    return None if spec is None else spec.max_episode_steps


def _normalization(
    wanted: NormalizationChoice, beside: Surroundings, path: Path, report: _Report
) -> tuple[Normalization | Mapping[str, Normalization] | None, Path | None]:
    if wanted is False:
        return None, None
    file = beside.normalization_file
    if wanted is not None and wanted is not True:
        file = Path(wanted)
    elif wanted is None and beside.normalize is False:
        if file is not None:
            report.notes.append(
                f"{file.name} lies beside the agent, but config.yml says that observations were "
                "not normalised; it is not used"
            )
        return None, None
    elif file is None:
        if wanted is None and not beside.normalize:
            return None, None
        raise FileFormatError(
            "was trained on normalised observations, but no vecnormalize.pkl lies beside it; give "
            "its path by --normalization, or go without by --normalization none",
            where=path.name,
        )
    elif beside.normalize is None:
        report.notes.append(f"observations are normalised by {file.name}, found beside the agent")
    return read_normalization(file), file


def _encoder(
    agent: Agent,
    normalization: Normalization | Mapping[str, Normalization] | None,
    time: TimeFeature | None,
    pictures: bool,
) -> Encoder:
    spaces = [agent.observation, *(space for _, space in agent.observation.entries)]
    if not pictures and any(space.is_image for space in spaces):
        raise UnsupportedError(
            "observes images without a convolutional network, which is not supported yet; give an "
            "agent with a CnnPolicy, or one that observes vectors",
            where=agent.where,
        )
    try:
        return Encoder(
            agent.observation.spec(without_last=time is not None),
            normalization,
            time,
            pixels=Pixels() if pictures else None,
        )
    except EventsimError as error:
        raise FileFormatError(
            f"its observation space, normalisation and time feature do not fit: {error}",
            where=agent.where,
        ) from error


def _check_pictures(agent: Agent, algorithm: str) -> None:
    """Refuse what no network of eventsim computes behind convolutions."""
    if algorithm not in ("PPO", "A2C", "TRPO", "DQN", "QR-DQN"):
        raise UnsupportedError(
            f"is a convolutional policy of {algorithm}, which is not supported yet",
            where=agent.where,
        )
    space = agent.observation
    if space.kind != "Box" or len(space.shape) != 3:
        raise FileFormatError(
            "is not one picture (channels, height, width)",
            where=f"{agent.where}, field 'observation_space'",
        )


def _decoder(agent: Agent, algorithm: str, layers: Layers) -> Decoder:
    space, outputs = agent.action, layers.sizes[-1]
    box_only = algorithm in ("SAC", "TQC", "TD3", "DDPG")
    discrete_only = algorithm in ("DQN", "QR-DQN")
    kinds = {
        **({} if discrete_only else {"Box": int(np.prod(space.shape))}),
        **({} if box_only else {"Discrete": sum(space.sizes)}),
    }
    if algorithm in ("PPO", "A2C", "TRPO"):
        kinds |= {"MultiDiscrete": sum(space.sizes), "MultiBinary": int(np.prod(space.shape))}
    if space.kind not in kinds:
        raise FileFormatError(
            f"is a {space.kind} space, which {algorithm} does not have; name the algorithm by "
            "--algorithm",
            where=f"{agent.where}, field 'action_space'",
        )
    size = kinds[space.kind]
    quantiles, rest = divmod(outputs, size) if algorithm == "QR-DQN" else (1, outputs - size)
    if rest or not quantiles:
        raise FileFormatError(
            f"its network has {outputs} outputs, which do not fit its action space of {size}; "
            "save the agent again",
            where=agent.where,
        )
    if algorithm == "QR-DQN":
        return QuantileArgmax(space.sizes[0], quantiles)
    if space.kind == "Discrete":
        return Argmax(space.sizes[0])
    if space.kind == "MultiDiscrete":
        return MultiDiscreteArgmax(space.sizes)
    if space.kind == "MultiBinary":
        return MultiBinary(outputs)
    return _box_decoder(agent, algorithm)


def _box_decoder(agent: Agent, algorithm: str) -> Decoder:
    space = agent.action
    if space.low is None or space.high is None:
        raise FileFormatError("has no bounds", where=f"{agent.where}, field 'action_space'")
    squash = FAMILIES[algorithm].squash
    if algorithm == "ARS":
        linear = agent.policy_class is not None and "Linear" in agent.policy_class.attribute
        squash = bool(agent.keywords.get("squash_output", not linear))
    elif FAMILIES[algorithm] is FAMILIES["PPO"]:
        # Only with gSDE may these squash.
        squash = bool(agent.keywords.get("squash_output", False))
    if not squash:
        return ClipBox(space.low, space.high, space.shape, space.dtype)
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise FileFormatError(
            "has infinite bounds, to which no squashed action can be rescaled",
            where=f"{agent.where}, field 'action_space'",
        )
    return SquashBox(space.low, space.high, space.shape, space.dtype)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
