"""What a Stable-Baselines3 zip says about its agent, and by which algorithm it was trained."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eventsim.errors import FileFormatError, UnknownNameError, UnsupportedError
from eventsim.models.importers.archive import Archive
from eventsim.models.importers.inert_values import Name
from eventsim.models.importers.sb3_network import FAMILIES, refuse_other_networks
from eventsim.models.importers.sb3_spaces import SpaceData, parse_class, parse_keywords, parse_space
from eventsim.models.importers.torch_zip import MAX_BYTES, read_tensors

MAX_DATA_BYTES = 2**28


@dataclass(frozen=True, eq=False)
class Agent:
    """What the zip says.

    Attributes
    ----------
    where : str
        The file, for error messages.
    data : mapping
        The JSON ``data``.
    tensors : mapping of str to array
        State dict of the policy.
    policy_class : Name or None
        Class of the policy.
    keywords : mapping
        Its ``policy_kwargs``.
    observation, action : SpaceData
        Its spaces.
    version : str
        Of stable-baselines3.
    """

    where: str
    data: Mapping[str, Any]
    tensors: Mapping[str, NDArray[Any]]
    policy_class: Name | None
    keywords: Mapping[str, Any]
    observation: SpaceData
    action: SpaceData
    version: str


def read_agent(path: Path) -> Agent:
    """Read the zip that ``model.save()`` wrote, without unpickling.

    Raises
    ------
    FileFormatError
        If it is not such a zip, or is damaged or hostile.
    UnsupportedError
        If its policy is of a kind that eventsim does not run.
    """
    where = path.name
    with Archive(path, where) as archive:
        if "data" not in archive and any(n.endswith("data.pkl") for n in archive.names):
            raise FileFormatError(
                "is a file of torch.save(), not an agent; give the zip that model.save() wrote",
                where=where,
            )
        content = archive.read("data", MAX_DATA_BYTES)
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(
                "its member 'data' is not JSON; save or download the agent again", where=where
            ) from error
        if not isinstance(data, dict):
            raise FileFormatError("its member 'data' is not a JSON object", where=where)
        policy_class = parse_class(data.get("policy_class"), f"{where}, field 'policy_class'")
        _refuse_other_policies(policy_class, where)
        tensors = read_tensors(archive.read("policy.pth", MAX_BYTES), f"{where}, policy.pth")
        refuse_other_networks(tensors, where)
        version = "unknown"
        if "_stable_baselines3_version" in archive:
            raw = archive.read("_stable_baselines3_version", 256)
            version = raw.decode("ascii", "replace").strip()
        return Agent(
            where,
            data,
            tensors,
            policy_class,
            parse_keywords(data.get("policy_kwargs"), f"{where}, field 'policy_kwargs'"),
            parse_space(data.get("observation_space"), f"{where}, field 'observation_space'"),
            parse_space(data.get("action_space"), f"{where}, field 'action_space'"),
            version,
        )


def _refuse_other_policies(policy_class: Name | None, where: str) -> None:
    if policy_class is None:
        return
    kind = policy_class.attribute
    for mark, what in (
        ("Recurrent", "a recurrent (LSTM) policy"),
        ("Lstm", "a recurrent (LSTM) policy"),
        ("Maskable", "a policy with action masks"),
        ("CrossQ", "a CrossQ policy, which normalises batches inside"),
    ):
        if mark in kind:
            raise UnsupportedError(
                f"is {what}, which is not supported yet; give an agent with an MLP policy",
                where=where,
            )


def find_algorithm(agent: Agent, said: str | None, wanted: str | None) -> str:
    """Return the key of `FAMILIES` for the agent.

    Parameters
    ----------
    agent : Agent
    said : str or None
        What the files beside the zip say.
    wanted : str or None
        What the user says; taken without looking.

    Raises
    ------
    UnknownNameError
        If `wanted` is not a known algorithm.
    UnsupportedError
        If the policy class belongs to no known algorithm.
    """
    if wanted is not None:
        name = _canonical(wanted)
        if name is None:
            raise UnknownNameError(
                f"algorithm '{wanted}' is not known; use one of {', '.join(FAMILIES)}"
            )
        return name
    module = agent.policy_class.module if agent.policy_class else None
    candidates = [name for name, family in FAMILIES.items() if module in family.modules]
    if not candidates:
        raise UnsupportedError(
            f"is of an unknown algorithm: its policy class is {agent.policy_class}; eventsim takes "
            f"{', '.join(FAMILIES)} (name one by --algorithm if the policy computes the same)",
            where=agent.where,
        )
    named = _canonical(said or "")
    if named in candidates:
        return str(named)
    data = agent.data
    if "PPO" in candidates:
        if "clip_range" in data:
            return "PPO"
        return "TRPO" if "cg_max_steps" in data else "A2C"
    if "TD3" in candidates:
        # DDPG is TD3 with one critic and without delay.
        single = agent.keywords.get("n_critics") == 1 and data.get("policy_delay") == 1
        return "DDPG" if single else "TD3"
    return candidates[0]


def _canonical(name: str) -> str | None:
    key = re.sub(r"[^A-Z0-9]", "", name.upper())
    return next((known for known in FAMILIES if known.replace("-", "") == key), None)
