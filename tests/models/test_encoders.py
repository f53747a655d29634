"""Encoders, against Stable-Baselines3's own preprocessing and against what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from eventsim.errors import InputError, UnsupportedError
from eventsim.models.encoders import (
    BoxSpec,
    DictSpec,
    DiscreteSpec,
    Encoder,
    MultiBinarySpec,
    MultiDiscreteSpec,
    Normalization,
    SpaceSpec,
    TimeFeature,
)

TRAIN = "needs the extra 'train'"
SPACES: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-10.0, 10.0, (5,)),
    "float64 matrix": spaces.Box(-10.0, 10.0, (2, 3), np.float64),
    "number": spaces.Box(-10.0, 10.0, ()),
    "bytes": spaces.Box(0, 255, (7,), np.uint8),
    "image": spaces.Box(0, 255, (1, 4, 5), np.uint8),
    "discrete": spaces.Discrete(4),
    "multi discrete": spaces.MultiDiscrete([3, 2, 5]),
    "multi binary": spaces.MultiBinary(6),
    "multi binary with axes": spaces.MultiBinary((2, 3)),
    "dict": spaces.Dict(
        {
            "z": spaces.Box(-1.0, 1.0, (2, 2)),
            "b": spaces.Discrete(3),
            "a": spaces.MultiBinary(2),
            "m": spaces.MultiDiscrete([2, 3]),
        }
    ),
}


def stack(samples: list[Any]) -> Any:
    if isinstance(samples[0], dict):
        return {key: np.stack([s[key] for s in samples]) for key in samples[0]}
    return np.stack(samples)


def spec(name: str) -> SpaceSpec:
    return SpaceSpec.from_gymnasium(SPACES[name])


# SB3 cannot flatten a Box without axes.
@pytest.mark.parametrize("name", sorted(set(SPACES) - {"number"}))
def test_equals_the_features_of_stable_baselines3(name: str) -> None:
    pytest.importorskip("stable_baselines3", reason=TRAIN)
    from stable_baselines3.common.preprocessing import preprocess_obs
    from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
    from stable_baselines3.common.utils import obs_as_tensor

    space = SPACES[name]
    space.seed(3)
    batch = stack([space.sample() for _ in range(6)])
    if isinstance(space, spaces.Dict):
        # SB3 makes the batches of its own policies in this shape.
        tensors = obs_as_tensor(batch, "cpu")
        features = CombinedExtractor(space)(preprocess_obs(tensors, space)).numpy()
    else:
        tensor = preprocess_obs(obs_as_tensor(batch, "cpu"), space)
        features = FlattenExtractor(space)(tensor).numpy()
    encoder = Encoder(space)
    assert encoder.size == features.shape[1]
    result = encoder.encode_batch(batch)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result.astype(np.float32), features)


@pytest.mark.parametrize("name", SPACES)
def test_a_batch_is_its_observations_one_by_one(name: str) -> None:
    space = SPACES[name]
    space.seed(5)
    samples = [space.sample() for _ in range(4)]
    encoder = Encoder(space)
    batch = stack(samples)
    assert not encoder.is_batched(samples[0])
    assert encoder.is_batched(batch)
    rows = np.stack([encoder.encode(sample) for sample in samples])
    np.testing.assert_array_equal(encoder.encode_batch(batch), rows)
    spec = encoder.space
    np.testing.assert_array_equal(spec.flatten(batch, batched=True).shape, rows.shape)
    assert spec.flatten(samples[0]).shape == (encoder.size,)


@pytest.mark.parametrize("name", SPACES)
def test_batches_are_told_apart_as_stable_baselines3_does(name: str) -> None:
    pytest.importorskip("stable_baselines3", reason=TRAIN)
    from stable_baselines3.common.utils import is_vectorized_observation

    space = SPACES[name]
    space.seed(7)
    # SB3 asks for the shape, which Python's own numbers lack.
    sample = space.sample()
    if isinstance(sample, dict):
        sample = {key: np.asarray(value) for key, value in sample.items()}
    for observation in (sample, stack([sample, sample])):
        expected = is_vectorized_observation(observation, space)
        assert Encoder(space).is_batched(observation) == expected


def test_normalisation_equals_vecnormalize_once_rounded(rng: np.random.Generator) -> None:
    pytest.importorskip("stable_baselines3", reason=TRAIN)
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    venv = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    normalize = VecNormalize(venv, clip_obs=1.5, epsilon=1e-3)
    normalize.obs_rms.update(rng.normal([1.0, -2.0, 30.0], [1.0, 0.0, 5.0], (50, 3)))
    observations = rng.normal([1.0, -2.0, 30.0], [2.0, 1.0, 9.0], (40, 3)).astype(np.float32)
    rms = normalize.obs_rms
    encoder = Encoder(venv.observation_space, Normalization(rms.mean, rms.var, 1.5, 1e-3))
    expected = normalize.normalize_obs(observations)
    result = encoder.encode_batch(observations)
    assert (np.abs(expected) == 1.5).any()
    np.testing.assert_array_equal(result.astype(np.float32), expected)
    assert encoder.operations == 12
    venv.close()


class Goal(gym.Env[Any, Any]):
    """A dict observation with one key that VecNormalize leaves alone."""

    def __init__(self, length: int = 20) -> None:
        self.observation_space = spaces.Dict(
            {
                "achieved_goal": spaces.Box(-9.0, 9.0, (2,)),
                "observation": spaces.Box(-9.0, 9.0, (3,), np.float64),
                "kind": spaces.Discrete(3),
            }
        )
        self.action_space = spaces.Discrete(2)
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self._observe(), 0.0, False, False, {}

    def _observe(self) -> dict[str, Any]:
        return {
            "achieved_goal": self.np_random.normal(size=2).astype(np.float32),
            "observation": self.np_random.normal(size=3),
            "kind": np.int64(self.np_random.integers(3)),
        }


def test_time_then_normalisation_per_key_equals_the_wrapped_environment() -> None:
    pytest.importorskip("sb3_contrib", reason=TRAIN)
    from sb3_contrib.common.wrappers import TimeFeatureWrapper
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = TimeFeatureWrapper(Goal(), max_steps=20)
    keys = ["observation", "achieved_goal"]
    venv = DummyVecEnv([lambda: env])
    wrapped = VecNormalize(venv, norm_obs_keys=keys, clip_obs=2.0, training=False)
    for key in keys:
        rms = wrapped.obs_rms[key]
        rms.mean, rms.var = np.linspace(-1, 1, rms.mean.size), np.linspace(0.1, 2, rms.mean.size)
    normalizations = {
        key: Normalization(wrapped.obs_rms[key].mean, wrapped.obs_rms[key].var, 2.0) for key in keys
    }
    encoder = Encoder(Goal().observation_space, normalizations, TimeFeature(20))
    assert encoder.operations == 4 * (4 + 2) + 2
    wrapped.seed(11)
    raw = Goal()
    seen, (plain, _) = wrapped.reset(), raw.reset(seed=11)
    for t in range(25):
        expected = np.concatenate(
            [seen["achieved_goal"][0], np.eye(3)[seen["kind"][0]], seen["observation"][0]]
        )
        np.testing.assert_array_equal(encoder.encode(plain, t).astype(np.float32), expected)
        batch = stack([plain, plain])
        np.testing.assert_array_equal(
            encoder.encode_batch(batch, [t, 0])[0], encoder.encode(plain, t)
        )
        seen, *_ = wrapped.step(np.array([0]))
        plain, *_ = raw.step(0)


@pytest.mark.parametrize("test_mode", [False, True])
def test_time_feature_equals_the_wrapper(test_mode: bool) -> None:
    pytest.importorskip("sb3_contrib", reason=TRAIN)
    from sb3_contrib.common.wrappers import TimeFeatureWrapper

    env = TimeFeatureWrapper(gym.make("Pendulum-v1"), test_mode=test_mode)
    encoder = Encoder(spaces.Box(-8.0, 8.0, (3,)), None, TimeFeature(200, test_mode))
    observation, _ = env.reset(seed=1)
    for t in range(4):
        encoded = encoder.encode(observation[:3], t)
        np.testing.assert_array_equal(encoded, observation.astype(np.float64))
        np.testing.assert_array_equal(encoder.encode_batch(observation[None, :3], [t])[0], encoded)
        observation, *_ = env.step(np.zeros(1, np.float32))
    env.close()


def test_discrete_start_is_subtracted() -> None:
    assert Encoder(spaces.Discrete(3, start=-1)).encode(1).tolist() == [0, 0, 1]
    multi = spaces.MultiDiscrete([2, 3], start=[5, 1])
    assert Encoder(multi).encode(np.array([6, 1])).tolist() == [0, 1, 1, 0, 0]


def test_dict_observations_follow_the_order_of_the_space() -> None:
    space = DictSpec((("z", BoxSpec((1,))), ("a", BoxSpec((2,)))))
    assert Encoder(space).encode({"a": [1, 2], "z": [3]}).tolist() == [3, 1, 2]


def test_an_encoded_vector_is_a_new_float64_array() -> None:
    observation = np.ones(3)
    encoder = Encoder(BoxSpec((3,), "float64"), Normalization(np.ones(3), np.ones(3)))
    encoded = encoder.encode(observation)
    assert not np.shares_memory(encoded, observation)
    assert encoded is not encoder.encode(observation)
    assert observation.tolist() == [1, 1, 1]
    # float32 would have rounded this away.
    assert Encoder(BoxSpec((1,), "float64")).encode([1 + 1e-12])[0] == 1 + 1e-12


@pytest.mark.parametrize(
    "space, observation, words",
    [
        (BoxSpec((3,)), np.zeros(4), ["(4,)", "(3,)"]),
        (BoxSpec((3,)), np.zeros((1, 1, 3)), ["(1, 1, 3)", "(3,)"]),
        (BoxSpec((2,)), [1.0, np.nan], ["NaN", "(2,)"]),
        (BoxSpec((2,)), np.array([1.0, -np.inf], np.float32), ["infinity", "(2,)"]),
        (BoxSpec((100,)), np.full(100, np.inf), ["infinity", "(100,)"]),
        (BoxSpec((2,)), ["a", "b"], ["dtype", "(2,)"]),
        (BoxSpec((2,)), [1j, 2], ["complex", "(2,)"]),
        (BoxSpec((2,)), [None, {}], ["object", "(2,)"]),
        (BoxSpec((2,)), [[1.0], [1.0, 2.0]], ["not an array"]),
        (DiscreteSpec(3), 3, ["holds 3", "0 to 2"]),
        (DiscreteSpec(3), np.int64(-1), ["holds -1", "0 to 2"]),
        (DiscreteSpec(3, 2), 1, ["holds 1", "2 to 4"]),
        (DiscreteSpec(3), 1.0, ["float64", "integers"]),
        (DiscreteSpec(3), True, ["bool", "integers"]),
        (DiscreteSpec(3), np.array([[1]]), ["(1, 1)", "()"]),
        (DiscreteSpec(3), np.uint64(2**64 - 1), ["64 bits"]),
        (MultiDiscreteSpec((2, 3)), [1, 3], ["holds 3", "0 to 2"]),
        (MultiDiscreteSpec((2, 3)), [1], ["(1,)", "(2,)"]),
        (MultiBinarySpec((2,)), [0, 2], ["holds 2", "0 to 1"]),
        (MultiBinarySpec((2,)), [0.0, 1.0], ["float64", "(2,)"]),
    ],
)
def test_what_does_not_fit_is_refused(space: SpaceSpec, observation: Any, words: list[str]) -> None:
    encoder = Encoder(space)
    with pytest.raises(InputError, match=r"^observation: ") as caught:
        encoder.encode(observation)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "observation, words",
    [
        ({"a": np.zeros(2)}, ["observation 'b'", "missing", "()"]),
        ({"a": np.zeros(3), "b": 1}, ["observation 'a'", "(3,)", "(2,)"]),
        ({"a": np.zeros(2), "b": 5}, ["observation 'b'", "0 to 2"]),
        ({"a": np.zeros(2), "b": 1, "c": 0}, ["'c'", "'a', 'b'"]),
        (np.zeros(2), ["ndarray", "'a', 'b'"]),
    ],
)
def test_errors_of_dict_observations_name_the_key(observation: Any, words: list[str]) -> None:
    encoder = Encoder(DictSpec((("a", BoxSpec((2,))), ("b", DiscreteSpec(3)))))
    for call in (encoder.encode, encoder.space.flatten):
        with pytest.raises(InputError) as caught:
            call(observation)
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_batches_must_agree() -> None:
    space = DictSpec((("a", BoxSpec((2,))), ("b", DiscreteSpec(3))))
    encoder = Encoder(space)
    with pytest.raises(InputError, match="'b': has shape \\(\\) where others are batches"):
        encoder.is_batched({"a": np.zeros((4, 2)), "b": 1})
    unequal = {"a": np.zeros((4, 2)), "b": np.zeros(3, int)}
    with pytest.raises(InputError, match="different length \\('a': 4, 'b': 3\\)"):
        encoder.encode_batch(unequal)
    with pytest.raises(InputError, match="different length"):
        space.flatten(unequal, batched=True)
    with pytest.raises(InputError, match=r"has shape \(2,\), expected \(B, 2\)"):
        Encoder(BoxSpec((2,))).encode_batch(np.zeros(2))
    with pytest.raises(InputError, match=r"expected \(\) or a batch \(B,\)"):
        Encoder(DiscreteSpec(2)).is_batched(np.zeros((2, 2), int))


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: Normalization([0.0], [-1.0]), ["var"]),
        (lambda: Normalization([0.0], [0.0], epsilon=0.0), ["var", "epsilon"]),
        (lambda: Normalization([np.nan], [1.0]), ["mean", "NaN"]),
        (lambda: Normalization([0.0], [1.0, 1.0]), ["var", "(2,)"]),
        (lambda: Normalization([0.0], [1.0], clip=0.0), ["clip"]),
        (lambda: Normalization([0.0], [1.0], clip=np.nan), ["clip"]),
        (lambda: Normalization([0.0], [1.0], epsilon=-1.0), ["epsilon"]),
        (lambda: TimeFeature(0), ["max_steps", "0"]),
        (lambda: TimeFeature(10, 1), ["test_mode"]),  # type: ignore[arg-type]
        (lambda: Encoder(DiscreteSpec(2), None, TimeFeature(5)), ["time_feature", "Box"]),
        (lambda: Encoder(BoxSpec((2, 2)), None, TimeFeature(5)), ["time_feature", "one axis"]),
        (
            lambda: Encoder(DictSpec((("a", BoxSpec((2,))),)), None, TimeFeature(5)),
            ["time_feature", "'observation'"],
        ),
        (lambda: Encoder(DiscreteSpec(2), Normalization([0, 0], [1, 1])), ["discrete"]),
        (lambda: Encoder(BoxSpec((3,)), Normalization([0], [1])), ["1 values", "3"]),
        (lambda: Encoder(BoxSpec((1,)), {"a": Normalization([0], [1])}), ["normalization"]),
        (
            lambda: Encoder(DictSpec((("a", BoxSpec((1,))),)), Normalization([0], [1])),
            ["normalization"],
        ),
        (lambda: DictSpec(()), ["at least one key"]),
        (lambda: BoxSpec((0,)), ["box", ">= 1"]),
        (lambda: BoxSpec((1,), "str"), ["real numbers"]),
        (lambda: BoxSpec((1,), "nonsense"), ["nonsense"]),
        (lambda: DiscreteSpec(1.5), ["whole number"]),  # type: ignore[arg-type]
        (lambda: DiscreteSpec(2, 2**62), ["discrete", "62 bits"]),
        (lambda: MultiDiscreteSpec((2, 2), (0,)), ["2 nvec", "1 start"]),
    ],
)
def test_parts_that_do_not_fit_each_other(build: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple((spaces.Discrete(2),)),
        spaces.Text(4),
        spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}),
        spaces.MultiDiscrete(np.array([[2, 3], [2, 2]])),
    ],
)
def test_unsupported_spaces_are_named(space: spaces.Space[Any]) -> None:
    with pytest.raises(UnsupportedError, match="wrap"):
        Encoder(space)


def test_an_image_in_a_dict_is_not_supported_yet() -> None:
    with pytest.raises(UnsupportedError, match=r"observation 'eye'.*convolutional"):
        Encoder(spaces.Dict({"eye": SPACES["image"]}))


def test_a_normalised_image_is_not_divided_by_255() -> None:
    image = SPACES["image"]
    observation = np.full((1, 4, 5), 51, np.uint8)
    assert Encoder(image).encode(observation)[0] == 51 / 255
    assert Encoder(image).operations == 20
    plain = Normalization(np.zeros((1, 4, 5)), np.ones((1, 4, 5)), 100.0, 0.0)
    assert Encoder(image, plain).encode(observation)[0] == 51


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=6),
    st.one_of(st.just(np.inf), st.floats(1e-3, 1e3)),
    st.one_of(st.none(), st.integers(1, 2000)),
)
def test_round_trip_through_plain_data(
    values: list[float], clip: float, max_steps: int | None
) -> None:
    n = len(values) + (max_steps is not None)
    normalization = Normalization(np.linspace(-1, 1, n), np.linspace(0, 2, n), clip)
    time = None if max_steps is None else TimeFeature(max_steps)
    for encoder, observation in (
        (Encoder(BoxSpec((len(values),), "float64"), normalization, time), values),
        (
            Encoder(
                DictSpec((("q", MultiBinarySpec((2,))), ("observation", BoxSpec((len(values),))))),
                {"observation": normalization},
                time,
            ),
            {"q": [0, 1], "observation": values},
        ),
    ):
        again = Encoder.from_dict(encoder.to_dict(), encoder.arrays())
        assert again.space == encoder.space
        assert again.time_feature == encoder.time_feature
        np.testing.assert_array_equal(again.encode(observation, 3), encoder.encode(observation, 3))


@pytest.mark.parametrize("name", SPACES)
def test_space_descriptions_round_trip(name: str) -> None:
    assert SpaceSpec.from_dict(spec(name).to_dict()) == spec(name)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"kind": "torus"},
        {"kind": []},
        {"kind": "box"},
        {"kind": "box", "shape": ["a"]},
        {"kind": "box", "shape": 3},
        {"kind": "box", "shape": [2], "image": 1},
        {"kind": "discrete", "n": 2, "end": 5},
        {"kind": "dict", "spaces": [["a"]]},
        {"kind": "dict", "spaces": {}},
    ],
)
def test_broken_space_descriptions_are_refused(data: Any) -> None:
    with pytest.raises(InputError):
        SpaceSpec.from_dict(data)
    with pytest.raises(InputError):
        Encoder.from_dict({"space": data, "normalized": [], "time_feature": None}, {})


def test_broken_encoder_data_are_refused() -> None:
    encoder = Encoder(BoxSpec((1,)), Normalization([0.0], [1.0]), None)
    data, arrays = encoder.to_dict(), encoder.arrays()
    for changed in (
        {"normalized": None},
        {"normalized": ["other"]},
        {"time_feature": {"steps": 3}},
        {"time_feature": 3},
    ):
        with pytest.raises(InputError):
            Encoder.from_dict({**data, **changed}, arrays)
    with pytest.raises(InputError, match="normalization/var"):
        Encoder.from_dict(data, {k: v for k, v in arrays.items() if not k.endswith("var")})
    with pytest.raises(InputError):
        Encoder.from_dict(data, {**arrays, "normalization/clip": np.ones(2)})
