"""Write files as Stable-Baselines3 and torch write them, with neither installed."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _number(value: int) -> bytes:
    raw = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + raw


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(_number(v) for v in values) + b"t"


def tensor_code(
    key: str,
    storage: str,
    count: int,
    size: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    offset: int = 0,
) -> bytes:
    """Pickle instructions for one tensor, as torch writes them."""
    if stride is None:
        stride = tuple(int(np.prod(size[i + 1 :])) for i in range(len(size)))
    return b"".join(
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            b"ctorch\n" + storage.encode() + b"\n",
            _text(key) + _text("cpu") + _number(count) + b"tQ",
            _number(offset) + _numbers(size) + _numbers(stride),
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
    )


def state_dict_pickle(entries: Mapping[str, bytes]) -> bytes:
    """An OrderedDict of instructions for its values."""
    items = b"".join(_text(name) + code for name, code in entries.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + b"u."


def torch_zip(members: Mapping[str, bytes], **options: Any) -> bytes:
    """A zip with the members under ``archive/``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as file:
        for name, content in members.items():
            file.writestr(f"archive/{name}", content)
    return out.getvalue()


def torch_file(tensors: Mapping[str, np.ndarray], order: str = "<") -> bytes:
    """What ``torch.save(state_dict)`` writes."""
    entries, members = {}, {}
    for i, (name, tensor) in enumerate(tensors.items()):
        kind = _STORAGES[tensor.dtype.name]
        entries[name] = tensor_code(str(i), kind, tensor.size, tensor.shape)
        members[f"data/{i}"] = tensor.astype(tensor.dtype.newbyteorder(order)).tobytes()
    head = {"data.pkl": state_dict_pickle(entries)}
    if order == ">":
        head["byteorder"] = b"big"
    return torch_zip({**head, **members, "version": b"3\n"})


def class_pickle(path: str) -> bytes:
    """The pickle of a class, by its dotted path."""
    module, _, name = path.rpartition(".")
    return b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n."


def serialized(pickled: bytes, **readable: Any) -> dict[str, Any]:
    """A field of ``data`` that SB3 could not write as JSON."""
    return {":type:": "<class 'x'>", ":serialized:": base64.b64encode(pickled).decode(), **readable}


def linear(
    rng: np.random.Generator, name: str, n_out: int, n_in: int, bias: bool = True
) -> dict[str, np.ndarray]:
    """Weight and bias of one layer."""
    tensors = {f"{name}.weight": rng.normal(size=(n_out, n_in)).astype(np.float32)}
    if bias:
        tensors[f"{name}.bias"] = rng.normal(size=n_out).astype(np.float32)
    return tensors


def actor_critic(
    rng: np.random.Generator, n_in: int = 4, hidden: tuple[int, ...] = (8, 6), n_out: int = 2
) -> dict[str, np.ndarray]:
    """The tensors of a small PPO, A2C or TRPO policy."""
    tensors: dict[str, np.ndarray] = {}
    for net in ("policy_net", "value_net"):
        for i, (a, b) in enumerate(zip((n_in, *hidden), hidden, strict=False)):
            tensors |= linear(rng, f"mlp_extractor.{net}.{2 * i}", b, a)
    last = hidden[-1] if hidden else n_in
    return tensors | linear(rng, "action_net", n_out, last) | linear(rng, "value_net", 1, last)


ACTOR_CRITIC = "stable_baselines3.common.policies.ActorCriticPolicy"
BOX = gym.spaces.Box(-np.ones(4, np.float32), np.ones(4, np.float32))


def agent_members(
    tensors: Mapping[str, np.ndarray] | bytes,
    *,
    policy_class: str | bytes | None = ACTOR_CRITIC,
    observation: Any = BOX,
    action: Any = None,
    policy_kwargs: Any = None,
    data: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The members of the zip that ``model.save()`` writes."""
    fields: dict[str, Any] = {"policy_kwargs": policy_kwargs or {}, "clip_range": 0.2}
    if policy_class is not None:
        pickled = policy_class if isinstance(policy_class, bytes) else class_pickle(policy_class)
        fields["policy_class"] = serialized(pickled)
    for name, space in (
        ("observation_space", observation),
        ("action_space", gym.spaces.Discrete(2) if action is None else action),
    ):
        if isinstance(space, gym.Space):
            space = serialized(pickle.dumps(space, protocol=4))
        elif isinstance(space, bytes):
            space = serialized(space)
        fields[name] = space
    fields |= data or {}
    return {
        "data": json.dumps(fields).encode(),
        "policy.pth": tensors if isinstance(tensors, bytes) else torch_file(tensors),
        "_stable_baselines3_version": b"2.4.0",
    }


def write_zip(path: Path, members: Mapping[str, bytes], **options: Any) -> Path:
    """Write the members into a zip file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def write_agent(path: Path, tensors: Mapping[str, np.ndarray] | bytes, **options: Any) -> Path:
    """Write a zip as ``model.save()`` does; options are those of `agent_members`."""
    return write_zip(path, agent_members(tensors, **options))


@contextlib.contextmanager
def classes_at(*paths: str) -> Iterator[list[type]]:
    """Plain classes that pickle finds at the dotted paths, as long as the context lasts."""
    before: dict[str, types.ModuleType | None] = {}
    made = []
    try:
        for path in paths:
            module_name, _, name = path.rpartition(".")
            # pickle imports the packages above it too, which may not be installed.
            parts = module_name.split(".")
            for depth in range(1, len(parts) + 1):
                package = ".".join(parts[:depth])
                if package not in before:
                    before[package] = sys.modules.get(package)
                    sys.modules[package] = types.ModuleType(package)
            cls = type(name, (), {"__module__": module_name})
            setattr(sys.modules[module_name], name, cls)
            made.append(cls)
        yield made
    finally:
        for module_name, module_before in before.items():
            if module_before is None:
                del sys.modules[module_name]
            else:
                sys.modules[module_name] = module_before


def vecnormalize_pickle(
    mean: Any,
    var: Any,
    *,
    clip: float = 10.0,
    epsilon: float = 1e-8,
    protocol: int = 4,
    **fields: Any,
) -> bytes:
    """What ``VecNormalize.save`` writes; dicts of arrays for a dict observation."""
    with classes_at(
        "stable_baselines3.common.vec_env.vec_normalize.VecNormalize",
        "stable_baselines3.common.running_mean_std.RunningMeanStd",
    ) as (vec_normalize, running):

        def statistics(m: Any, v: Any) -> Any:
            value = running()
            value.mean, value.var, value.count = m, v, 12.5
            return value

        wrapper = vec_normalize()
        wrapper.observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
        wrapper.norm_obs = True
        wrapper.norm_obs_keys = None
        wrapper.clip_obs, wrapper.epsilon = clip, epsilon
        wrapper.ret_rms = statistics(np.float64(1.0), np.array(2.0))
        if isinstance(mean, dict):
            wrapper.obs_rms = {key: statistics(mean[key], var[key]) for key in mean}
            wrapper.norm_obs_keys = list(mean)
        else:
            wrapper.obs_rms = statistics(mean, var)
        for name, value in fields.items():
            setattr(wrapper, name, value)
        return pickle.dumps(wrapper, protocol=protocol)


class Hostile:
    """Unpickled by pickle itself, it would make a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch '{self.marker}'",)


# Small agents.

ACTIONS = gym.spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 3.0], np.float32))
_RNG = np.random.default_rng(5)
PPO = actor_critic(_RNG)
DQN = {
    name: tensor
    for net in ("q_net", "q_net_target")
    for i, (n_out, n_in) in enumerate(((8, 4), (6, 8), (2, 6)))
    for name, tensor in linear(_RNG, f"{net}.q_net.{2 * i}", n_out, n_in).items()
}
QRDQN = {name.replace("q_net", "quantile_net"): tensor for name, tensor in DQN.items()} | {
    **linear(_RNG, "quantile_net.quantile_net.4", 10, 6),
    **linear(_RNG, "quantile_net_target.quantile_net.4", 10, 6),
}
SAC = {
    **linear(_RNG, "actor.latent_pi.0", 8, 4),
    **linear(_RNG, "actor.latent_pi.2", 6, 8),
    **linear(_RNG, "actor.mu", 2, 6),
    **linear(_RNG, "actor.log_std", 2, 6),
    **linear(_RNG, "critic.qf0.0", 8, 6),
}
TD3 = {
    **linear(_RNG, "actor.mu.0", 8, 4),
    **linear(_RNG, "actor.mu.2", 2, 8),
    **linear(_RNG, "critic.qf0.0", 8, 6),
}
ARS = linear(_RNG, "action_net", 2, 4, bias=False)
SB3 = "stable_baselines3.{}.policies.{}".format
CONTRIB = "sb3_contrib.{}.policies.{}".format
GSDE = {name.replace("actor.mu.", "actor.mu.0."): tensor for name, tensor in SAC.items()}
ARS_MLP = {
    **linear(_RNG, "action_net.0", 8, 4),
    **linear(_RNG, "action_net.2", 2, 8),
}
