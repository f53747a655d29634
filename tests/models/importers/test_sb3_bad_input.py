"""Agents that must be refused, each with one clear sentence, and files that are no agents."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.errors import EventsimError, FileFormatError, UnknownNameError, UnsupportedError
from eventsim.models.importers import load_policy
from tests.sb3_files import (
    ACTIONS,
    BOX,
    DQN,
    PPO,
    SAC,
    SB3,
    Hostile,
    actor_critic,
    agent_members,
    class_pickle,
    linear,
    serialized,
    state_dict_pickle,
    tensor_code,
    torch_file,
    torch_zip,
    write_agent,
    write_zip,
)

RNG = np.random.default_rng(7)


PICTURE = gym.spaces.Box(0, 255, (3, 36, 40), np.uint8)


def nature(**changed: np.ndarray | None) -> dict[str, np.ndarray]:
    """The tensors of a small PPO policy behind a NatureCNN, some of them replaced or left out."""
    shapes = {"cnn.0": (32, 3, 8, 8), "cnn.2": (64, 32, 4, 4), "cnn.4": (64, 64, 3, 3),
              "linear.0": (8, 64)}  # fmt: skip
    tensors = {}
    for name, shape in shapes.items():
        tensors[f"features_extractor.{name}.weight"] = RNG.normal(size=shape).astype(np.float32)
        tensors[f"features_extractor.{name}.bias"] = RNG.normal(size=shape[0]).astype(np.float32)
    tensors |= linear(RNG, "action_net", 2, 8) | linear(RNG, "value_net", 1, 8)
    for name, tensor in changed.items():
        key = f"features_extractor.{name.replace('_', '.')}"
        if tensor is None:
            del tensors[key]
        else:
            tensors[key] = tensor
    return tensors


def test_a_cnn_policy_is_read(tmp_path: Path) -> None:
    policy = load_policy(
        write_agent(
            tmp_path / "agent.zip", nature(), policy_class=SB3("ppo", "CnnPolicy"),
            observation=PICTURE,
        )
    )  # fmt: skip
    assert [p.shape for p in policy.network.populations] == [
        (36, 40, 3), (8, 9, 32), (3, 3, 64), (1, 1, 64), (8,), (2,)
    ]  # fmt: skip
    assert policy.session().act(PICTURE.sample()) in (0, 1)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"cnn_0_weight": np.zeros((32, 3, 5, 5), np.float32)}, UnsupportedError, "strides"),
        ({"cnn_4_bias": None}, UnsupportedError, "strides"),
        ({"cnn_6_weight": np.zeros((4, 4), np.float32)}, UnsupportedError, "strides"),
        ({"cnn_2_weight": np.zeros((64, 31, 4, 4), np.float32)}, FileFormatError, "do not fit"),
        ({"linear_0_weight": np.zeros((8, 63), np.float32)}, FileFormatError, "do not fit"),
        ({"cnn_0_bias": np.full(32, np.nan, np.float32)}, FileFormatError, "NaN"),
    ],
)
def test_a_cnn_that_does_not_fit(
    tmp_path: Path, changed: dict[str, np.ndarray | None], error: type[Exception], message: str
) -> None:
    file = write_agent(tmp_path / "agent.zip", nature(**changed), observation=PICTURE)
    with pytest.raises(error, match=message):
        load_policy(file)


def test_a_cnn_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="not one picture"):
        load_policy(write_agent(tmp_path / "agent.zip", nature()))


def test_a_small_picture(tmp_path: Path) -> None:
    small = gym.spaces.Box(0, 255, (3, 20, 20), np.uint8)
    with pytest.raises(FileFormatError, match="do not fit"):
        load_policy(write_agent(tmp_path / "agent.zip", nature(), observation=small))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("features_extractor.cnn.0.weight", (1, 1, 2, 2), "strides"),
        ("q_net.features_extractor.cnn.0.weight", (1, 1, 2, 2), "outside its features"),
        ("q_net.features_extractor.extractors.image.cnn.0.bias", (3,), "each entry"),
        ("lstm_actor.weight_ih_l0", (4, 4), "LSTM"),
        ("features_extractor.linear.weight", (4, 4), "features extractor of its own"),
        ("mlp_extractor.policy_net.1.weight", (8,), "normalisation"),
        ("mlp_extractor.policy_net.0.running_mean", (8,), "unknown layer"),
    ],
)
def test_other_networks(tmp_path: Path, name: str, shape: tuple[int, ...], message: str) -> None:
    file = write_agent(tmp_path / "agent.zip", {**PPO, name: np.zeros(shape, np.float32)})
    with pytest.raises(UnsupportedError, match=message):
        load_policy(file)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("sb3_contrib.common.recurrent.policies.RecurrentActorCriticPolicy", "LSTM"),
        ("sb3_contrib.common.maskable.policies.MaskableActorCriticPolicy", "action masks"),
        ("sb3_contrib.crossq.policies.CrossQPolicy", "CrossQ"),
        ("mine.policies.Custom", r"unknown algorithm.*mine\.policies\.Custom.*PPO.*--algorithm"),
        (None, "unknown algorithm"),
    ],
)
def test_other_algorithms(tmp_path: Path, kind: str | None, message: str) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO, policy_class=kind)
    with pytest.raises(UnsupportedError, match=message):
        load_policy(file)
    if "mine" in (kind or "mine"):
        assert load_policy(file, algorithm="PPO").metadata["algorithm"] == "PPO"


def test_an_unknown_algorithm_by_name(tmp_path: Path) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO)
    with pytest.raises(UnknownNameError, match=r"'foo' is not known; use one of PPO"):
        load_policy(file, algorithm="foo")


def test_image_observations(tmp_path: Path) -> None:
    image = gym.spaces.Box(0, 255, (3, 8, 8), np.uint8)
    for space in (image, gym.spaces.Dict({"image": image, "x": BOX})):
        file = write_agent(tmp_path / "agent.zip", PPO, observation=space)
        with pytest.raises(UnsupportedError, match="observes images"):
            load_policy(file)


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Tuple([BOX]),
        gym.spaces.Text(3),
        gym.spaces.Dict({"a": gym.spaces.Dict({"b": BOX})}),
        gym.spaces.MultiDiscrete([[2, 3], [4, 5]]),
    ],
)
def test_other_spaces(tmp_path: Path, space: gym.Space[Any]) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO, observation=space)
    with pytest.raises(UnsupportedError, match=r"^agent\.zip, field 'observation_space'"):
        load_policy(file)


def with_values(name: str, value: float) -> dict[str, np.ndarray]:
    tensor = PPO[name].copy()
    tensor.reshape(-1)[-1] = value
    return {**PPO, name: tensor}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["mlp_extractor.policy_net.2.weight", "action_net.bias"])
def test_weights_that_are_not_finite(tmp_path: Path, name: str, value: float) -> None:
    file = write_agent(tmp_path / "agent.zip", with_values(name, value))
    with pytest.raises(
        FileFormatError, match=rf"^agent\.zip: its tensor '{name}' holds NaN or inf"
    ):
        load_policy(file)


def test_nan_in_the_critic_does_not_matter(tmp_path: Path) -> None:
    load_policy(write_agent(tmp_path / "agent.zip", with_values("value_net.weight", np.nan)))


def without(*names: str) -> dict[str, np.ndarray]:
    return {name: tensor for name, tensor in PPO.items() if name not in names}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "holds no tensor 'action_net"),
        (without("action_net.weight", "action_net.bias"), "holds no tensor 'action_net"),
        (without("mlp_extractor.policy_net.2.weight"), r"no weight matrix 'mlp_ext.*2\.weight'"),
        ({**PPO, "action_net.weight": np.zeros((2, 5), np.float32)}, "does not fit the layer"),
        ({**PPO, "action_net.bias": np.zeros(3, np.float32)}, "does not fit the layer"),
        ({**PPO, "action_net.weight": np.zeros((2, 6), np.int64)}, "not of real numbers"),
        ({**PPO, "action_net.weight": np.zeros(6, np.float32)}, "no weight matrix"),
        (actor_critic(RNG, n_out=3), "3 outputs, which do not fit its action space of 2"),
        (actor_critic(RNG, n_in=5), "takes 5 inputs, but its observation space gives 4"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, tensors: Any, message: str) -> None:
    with pytest.raises(FileFormatError, match=rf"^agent\.zip.*{message}"):
        load_policy(write_agent(tmp_path / "agent.zip", tensors))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": ACTIONS, "policy_class": SB3("dqn", "DQNPolicy")}, "Box space, which DQN does"),
        ({"policy_class": SB3("sac", "SACPolicy")}, "Discrete space, which SAC does not have"),
    ],
)
def test_actions_that_do_not_fit(tmp_path: Path, options: Any, message: str) -> None:
    tensors = {**PPO, **DQN, **SAC}
    with pytest.raises(FileFormatError, match=message):
        load_policy(write_agent(tmp_path / "agent.zip", tensors, **options))


def test_squashing_into_an_unbounded_box(tmp_path: Path) -> None:
    action = gym.spaces.Box(-np.inf, np.inf, (2,))
    file = write_agent(
        tmp_path / "agent.zip", SAC, action=action, policy_class=SB3("sac", "SACPolicy")
    )
    with pytest.raises(FileFormatError, match="infinite bounds"):
        load_policy(file)


MEMBERS = agent_members(PPO)


def changed(**fields: Any) -> dict[str, bytes]:
    return {**MEMBERS, "data": json.dumps({**json.loads(MEMBERS["data"]), **fields}).encode()}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"readme.txt": b""}, "holds no 'data'"),
        ({"data": MEMBERS["data"]}, "holds no 'policy.pth'"),
        ({**MEMBERS, "data": b"{"}, "not JSON"),
        ({**MEMBERS, "data": b"[" * 100_000}, "not JSON"),
        ({**MEMBERS, "data": b"[]"}, "not a JSON object"),
        ({**MEMBERS, "data": b"\xff\xfe"}, "not JSON"),
        (changed(observation_space=None), "field 'observation_space': is missing"),
        (changed(observation_space={":serialized:": "?"}), "base64"),
        (changed(observation_space={":serialized:": 3}), "base64"),
        (changed(observation_space=serialized(b"N.")), "does not describe a space"),
        (changed(action_space=serialized(class_pickle("a.Box"))), "does not describe a space"),
        (changed(action_space={":type:": "Box"}), "does not describe a space"),
        (changed(action_space={":type:": "x.Discrete'>", "n": -1}), "does not describe a space"),
        (changed(action_space={":type:": "x.Discrete'>", "n": 10**30}), "does not describe"),
        (changed(policy_kwargs=[1]), "field 'policy_kwargs': is not a dict"),
        (changed(policy_kwargs=serialized(b"K\x01.")), "field 'policy_kwargs': is not a dict"),
    ],
)
def test_incomplete_zips(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(FileFormatError, match=rf"(?s)^agent\.zip.*{message}"):
        load_policy(write_zip(tmp_path / "agent.zip", members))


def test_a_file_of_torch_save(tmp_path: Path) -> None:
    (tmp_path / "policy.pth").write_bytes(torch_file(PPO))
    with pytest.raises(FileFormatError, match=r"^policy\.pth: is a file of torch\.save\(\), not"):
        load_policy(tmp_path / "policy.pth")


def test_not_a_zip(tmp_path: Path) -> None:
    file = tmp_path / "agent.zip"
    file.write_bytes(b"not a zip")
    with pytest.raises(FileFormatError, match=r"^agent\.zip: is not a complete zip file"):
        load_policy(file)


def test_truncated_zips(tmp_path: Path) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO)
    content = file.read_bytes()
    for end in range(0, len(content), 97):
        file.write_bytes(content[:end])
        with pytest.raises(FileFormatError, match=r"^agent\.zip"):
            load_policy(file)


def test_a_cut_that_leaves_a_whole_zip_inside(tmp_path: Path) -> None:
    """Members are zips themselves: one of them must not be taken for the file."""
    inner = torch_zip({"data.pkl": b"\x80\x02}."})
    members = {"pytorch_variables.pth": inner, **agent_members(PPO)}
    file = write_zip(tmp_path / "agent.zip", members)
    content = file.read_bytes()
    for end in range(content.index(inner) + len(inner), len(content), 41):
        file.write_bytes(content[:end])
        with pytest.raises(FileFormatError, match=r"^agent\.zip: is not a complete zip file"):
            load_policy(file)


def hostile_zips(marker: Path) -> dict[str, dict[str, bytes]]:
    pickled = pickle.dumps(Hostile(marker), 2)
    call = (
        b"cposix\nsystem\n(U" + bytes([len(f"touch {marker}")]) + f"touch {marker}".encode() + b"tR"
    )
    return {
        "policy.pth": agent_members(torch_zip({"data.pkl": pickled})),
        "a tensor": agent_members(
            torch_zip(
                {
                    "data.pkl": state_dict_pickle(
                        {"w": call, "v": tensor_code("0", "FloatStorage", 1, (1,))}
                    ),
                    "data/0": bytes(4),
                }
            )
        ),
        "old policy.pth": agent_members(pickled),
        "policy_class": agent_members(PPO, policy_class=pickled),
        "observation_space": agent_members(PPO, observation=pickled),
        "action_space": agent_members(PPO, action=pickled),
        "policy_kwargs": agent_members(PPO, policy_kwargs=serialized(pickled)),
    }


@pytest.mark.parametrize("place", hostile_zips(Path("x")))
def test_a_hostile_zip_is_refused_and_not_run(tmp_path: Path, place: str) -> None:
    marker = tmp_path / "made"
    file = write_zip(tmp_path / "agent.zip", hostile_zips(marker)[place])
    with pytest.raises(FileFormatError, match=r"^agent\.zip.*(posix|nt)\.system'.*nothing was run"):
        load_policy(file)
    assert not marker.exists()


def test_a_hostile_field_that_nobody_reads(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    field = serialized(pickle.dumps(Hostile(marker)))
    load_policy(write_agent(tmp_path / "agent.zip", PPO, data={"lr_schedule": field}))
    assert not marker.exists()


def test_a_hostile_normalization(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    (tmp_path / "vecnormalize.pkl").write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(FileFormatError, match=r"^vecnormalize\.pkl: .*nothing was run"):
        load_policy(write_agent(tmp_path / "agent.zip", PPO))
    assert not marker.exists()


def test_a_zip_bomb(tmp_path: Path) -> None:
    members = {**MEMBERS, "data": b" " * 2**23 + MEMBERS["data"]}
    file = write_zip(tmp_path / "agent.zip", members, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FileFormatError, match="no saved agent needs"):
        load_policy(file)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "agent.zip"


def loads_or_says_why(file: Path) -> None:
    with contextlib.suppress(EventsimError):
        load_policy(file)


@given(content=st.binary(max_size=300))
def test_random_files(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    loads_or_says_why(scratch)


def flip(data: st.DataObject, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(changed)


SMALL = agent_members(
    {**linear(RNG, "actor.mu.0", 2, 4)}, policy_class=SB3("td3", "TD3Policy"), action=ACTIONS
)


@given(data=st.data())
def test_flipped_bits(scratch: Path, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in SMALL.items():
            file.writestr(name, content)
    scratch.write_bytes(flip(data, buffer.getvalue()))
    loads_or_says_why(scratch)


@given(data=st.data())
def test_flipped_bits_in_sound_zips(scratch: Path, data: st.DataObject) -> None:
    # The zip's own checksums would catch most of the flips above; these reach the readers.
    name = data.draw(st.sampled_from(["data", "policy.pth"]))
    if name == "data":
        content = flip(data, SMALL["data"])
    else:
        with zipfile.ZipFile(io.BytesIO(SMALL["policy.pth"])) as file:
            inner = {n.removeprefix("archive/"): file.read(n) for n in file.namelist()}
        content = torch_zip({**inner, "data.pkl": flip(data, inner["data.pkl"])})
    write_zip(scratch, {**SMALL, name: content})
    loads_or_says_why(scratch)


@given(data=st.data())
def test_flipped_bits_in_serialised_fields(scratch: Path, data: st.DataObject) -> None:
    spaces = [pickle.dumps(s, 2) for s in (BOX, ACTIONS, gym.spaces.Dict({"a": BOX}))]
    observation, action = (flip(data, data.draw(st.sampled_from(spaces))) for _ in range(2))
    tensors = {**linear(RNG, "actor.mu.0", 2, 4)}
    write_agent(
        scratch,
        tensors,
        policy_class=SB3("td3", "TD3Policy"),
        observation=observation,
        action=action,
    )
    loads_or_says_why(scratch)
