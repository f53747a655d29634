"""Observation statistics out of VecNormalize files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim.errors import FileFormatError
from eventsim.models.importers.vecnormalize import parse_normalization, read_normalization
from tests.sb3_files import Hostile, class_pickle, vecnormalize_pickle

MEAN, VAR = np.array([1.0, -2.0]), np.array([0.5, 4.0])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_statistics(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "vecnormalize.pkl"
    file.write_bytes(vecnormalize_pickle(MEAN, VAR, clip=5.0, epsilon=1e-3, protocol=protocol))
    got = read_normalization(file)
    assert got is not None
    assert np.array_equal(got.mean, MEAN)
    assert np.array_equal(got.var, VAR)
    assert (got.clip, got.epsilon) == (5.0, 1e-3)


def test_a_dict_observation() -> None:
    data = vecnormalize_pickle(
        {"a": MEAN, "b": MEAN + 1}, {"a": VAR, "b": VAR}, norm_obs_keys=["b"]
    )
    got = parse_normalization(data, "x")
    assert list(got) == ["b"]
    assert np.array_equal(got["b"].mean, MEAN + 1)
    both = vecnormalize_pickle({"a": MEAN, "b": MEAN}, {"a": VAR, "b": VAR}, norm_obs_keys=None)
    assert list(parse_normalization(both, "x")) == ["a", "b"]


def test_observations_left_alone() -> None:
    assert parse_normalization(vecnormalize_pickle(MEAN, VAR, norm_obs=False), "x") is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"obs_rms": None}, r"field 'obs_rms\.mean': holds no array"),
        ({"clip_obs": "10"}, "field 'clip_obs': is not a number"),
        ({"epsilon": None}, "field 'epsilon': is not a number"),
        ({"clip_obs": -1.0}, "clip"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"obs_rms": {}, "norm_obs_keys": ["a"]}, "lacks the statistics"),
        ({"obs_rms": {}, "norm_obs_keys": [[]]}, "lacks the statistics"),
    ],
)
def test_incomplete_files(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FileFormatError, match=rf"^x\.pkl.*{message}"):
        parse_normalization(vecnormalize_pickle(MEAN, VAR, **fields), "x.pkl")


@pytest.mark.parametrize("mean", [MEAN[:1], MEAN * np.nan, "text", MEAN.astype("U")])
def test_statistics_that_are_none(mean: Any) -> None:
    with pytest.raises(FileFormatError, match=r"^x\.pkl"):
        parse_normalization(vecnormalize_pickle(mean, VAR), "x.pkl")


def test_other_pickles() -> None:
    for data in (pickle.dumps({"obs_rms": 1}), class_pickle("a.VecNormalize"), b"no pickle"):
        with pytest.raises(FileFormatError, match=r"^x\.pkl"):
            parse_normalization(data, "x.pkl")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"^no\.pkl: cannot be read.*--normalization"):
        read_normalization(tmp_path / "no.pkl")


def test_a_hostile_file_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    for data in (
        pickle.dumps(Hostile(marker)),
        vecnormalize_pickle(MEAN, VAR, gamma=Hostile(marker)),
        vecnormalize_pickle(Hostile(marker), VAR),
    ):
        with pytest.raises(FileFormatError, match=r"system'.*nothing was run"):
            parse_normalization(data, "x.pkl")
    assert not marker.exists()
