"""Decoders: actions as Gymnasium takes them and as Stable-Baselines3 gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from eventsim.errors import InputError, UnsupportedError
from eventsim.models.decoders import (
    Argmax,
    ClipBox,
    Decoder,
    MultiBinary,
    MultiDiscreteArgmax,
    QuantileArgmax,
    SquashBox,
    decoder_for,
)

TRAIN = "needs the extra 'train'"
LOW, HIGH = np.array([-1.0, 0.5], np.float32), np.array([2.0, 0.75], np.float32)
DECODERS: dict[str, tuple[spaces.Space[Any], Decoder]] = {
    "argmax": (spaces.Discrete(3, start=2), Argmax(3, 2)),
    "quantiles": (spaces.Discrete(3), QuantileArgmax(3, 4)),
    "clip": (spaces.Box(LOW, HIGH), ClipBox(LOW, HIGH)),
    "clip float64": (spaces.Box(-1.0, 1.0, (2, 2), np.float64), ClipBox(-1, 1, (2, 2), "float64")),
    "clip unbounded": (spaces.Box(-np.inf, 1.0, (2,)), ClipBox(-np.inf, 1.0, (2,))),
    "squash": (spaces.Box(LOW, HIGH), SquashBox(LOW, HIGH)),
    "multi discrete": (
        spaces.MultiDiscrete([2, 3], start=[4, 0]),
        MultiDiscreteArgmax((2, 3), (4, 0)),
    ),
    "multi binary": (spaces.MultiBinary(3), MultiBinary(3)),
}


def outputs(decoder: Decoder, batch: int = 7) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(batch, decoder.size)) * 3.0


@pytest.mark.parametrize("name", DECODERS)
def test_actions_belong_to_the_space(name: str) -> None:
    space, decoder = DECODERS[name]
    for y in outputs(decoder, 20):
        action = decoder.decode(y)
        assert space.contains(action)
        assert action.dtype == space.dtype


@pytest.mark.parametrize("name", DECODERS)
def test_a_batch_is_its_steps_one_by_one(name: str) -> None:
    space, decoder = DECODERS[name]
    y = outputs(decoder)
    actions = decoder.decode_batch(y)
    assert actions.shape == (7, *space.shape)
    assert actions.dtype == space.dtype
    for row, action in zip(y, actions, strict=True):
        np.testing.assert_array_equal(decoder.decode(row), action)


@pytest.mark.parametrize("name", DECODERS)
def test_round_trip_through_plain_data(name: str) -> None:
    _, decoder = DECODERS[name]
    again = Decoder.from_dict(decoder.to_dict(), decoder.arrays())
    assert type(again) is type(decoder)
    y = outputs(decoder)
    np.testing.assert_array_equal(again.decode_batch(y), decoder.decode_batch(y))


def test_the_decoder_of_a_space() -> None:
    for name, (space, decoder) in DECODERS.items():
        quantiles = 4 if name == "quantiles" else None
        built = decoder_for(space, squash=name == "squash", n_quantiles=quantiles)
        assert type(built) is type(decoder)
        y = outputs(decoder)
        np.testing.assert_array_equal(built.decode_batch(y), decoder.decode_batch(y))
    for space in (spaces.Text(3), spaces.MultiBinary((2, 2)), spaces.Box(0, 5, (2,), np.int32)):
        with pytest.raises(UnsupportedError):
            decoder_for(space)


def test_a_discrete_action_is_a_number() -> None:
    action = Argmax(3).decode(np.array([0.0, 2.0, 1.0]))
    assert isinstance(action, np.int64)
    assert {1: "usable as a key"}[action]


def test_quantiles_are_averaged_over_the_first_axis() -> None:
    # action 0: mean 1, action 1: mean 1.5 though its first quantile is the lowest of all
    y = np.array([[1.0, -1.0], [1.0, 4.0]])
    assert QuantileArgmax(2, 2, start=10).decode(y.reshape(-1)) == 11


def test_squash_reaches_but_never_leaves_the_box() -> None:
    low, high = np.float64(0.1), np.float64(0.7)
    decoder = SquashBox(low, high, (1,), "float64")
    assert decoder.decode(np.array([1e3]))[0] == high
    assert decoder.decode(np.array([-1e3]))[0] == low
    assert decoder.decode(np.zeros(1))[0] == pytest.approx(0.4)


@given(st.floats(-50, 50), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_squash_equals_the_rescaled_tanh(y: float, low: float, width: float) -> None:
    decoder = SquashBox(low, low + width, (1,), "float64")
    expected = low + 0.5 * (np.tanh(y) + 1.0) * width
    result = decoder.decode(np.array([y]))[0]
    assert result == pytest.approx(expected, rel=1e-9, abs=1e-9 * (width + abs(low)))
    assert low <= result <= low + width


def test_actions_do_not_alias() -> None:
    decoder = ClipBox([-1.0, -1.0], [1.0, 1.0], dtype="float64")
    y = np.zeros(2)
    action = decoder.decode(y)
    action += 1.0
    assert y.tolist() == [0, 0]
    assert decoder.decode(y).tolist() == [0, 0]


@pytest.mark.parametrize("name", DECODERS)
def test_wrong_outputs_are_refused(name: str) -> None:
    _, decoder = DECODERS[name]
    with pytest.raises(InputError, match=rf"expected \({decoder.size},\)"):
        decoder.decode(np.zeros(decoder.size + 1))
    with pytest.raises(InputError, match=rf"expected \(B, {decoder.size}\)"):
        decoder.decode_batch(np.zeros(decoder.size))
    bad = np.zeros(decoder.size)
    bad[-1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        decoder.decode(bad)
    with pytest.raises(InputError, match="NaN"):
        decoder.decode_batch(np.tile(bad, (100, 1)))


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: Argmax(0), ["argmax", ">= 1"]),
        (lambda: Argmax(2, 0.5), ["argmax", "whole"]),  # type: ignore[arg-type]
        (lambda: ClipBox([0.0, 1.0], [1.0, 0.0]), ["clip_box", "low"]),
        (lambda: ClipBox([0.0, 1.0], [1.0, 2.0], (3,)), ["clip_box", "(3,)"]),
        (lambda: ClipBox(np.nan, 1.0, (1,)), ["low", "NaN"]),
        (lambda: SquashBox(-np.inf, 1.0, (1,)), ["low", "bounded"]),
        (lambda: MultiDiscreteArgmax((2, 2), (1,)), ["start"]),
        (lambda: MultiDiscreteArgmax(()), ["start"]),
        (lambda: MultiBinary(-1), ["multi_binary"]),
        (lambda: Decoder.from_dict({"kind": "dice"}, {}), ["kind", "dice", "argmax"]),
        (lambda: Decoder.from_dict({"kind": []}, {}), ["kind"]),
        (lambda: Decoder.from_dict({"kind": "argmax"}, {}), ["argmax", "n"]),
        (lambda: Decoder.from_dict({"kind": "argmax", "n": "2"}, {}), ["argmax", "whole"]),
        (lambda: Decoder.from_dict({"kind": "clip_box", "dtype": "x"}, {}), ["clip_box"]),
    ],
)
def test_decoders_that_contradict_themselves(build: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_sub_actions_equal_the_distributions_of_stable_baselines3() -> None:
    pytest.importorskip("stable_baselines3", reason=TRAIN)
    import torch
    from stable_baselines3.common.distributions import (
        BernoulliDistribution,
        MultiCategoricalDistribution,
    )

    logits = outputs(MultiBinary(7), 50)
    tensor = torch.as_tensor(logits)
    modes = {
        "discrete": MultiCategoricalDistribution([2, 4, 1]).proba_distribution(tensor).mode(),
        "binary": BernoulliDistribution(7).proba_distribution(tensor).mode(),
    }
    np.testing.assert_array_equal(
        MultiDiscreteArgmax((2, 4, 1)).decode_batch(logits), modes["discrete"].numpy()
    )
    np.testing.assert_array_equal(MultiBinary(7).decode_batch(logits), modes["binary"].numpy())
