"""MinAtar's training script: names, a short training that goes on where it stopped, its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eventsim.errors import InputError, UnknownNameError
from eventsim.models.rollout import make_env
from eventsim.models.zoo import minatar


def test_names_of_the_games() -> None:
    assert minatar.env_id("space_invaders") == "MinAtar/SpaceInvaders-v1"
    with pytest.raises(InputError, match="use one of asterix, breakout"):
        minatar.env_id("pong")


def test_a_game_is_made_by_its_name() -> None:
    pytest.importorskip("minatar", reason="needs the extra 'minatar'")
    with make_env("MinAtar/Freeway-v1") as env:
        assert env.reset(seed=0)[0].shape == (10, 10, 7)
    with pytest.raises(UnknownNameError, match="MinAtar/Pong"):
        make_env("MinAtar/Pong-v1")


@pytest.mark.slow
def test_a_short_training_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minatar", reason="needs the extra 'minatar'")
    pytest.importorskip("stable_baselines3", reason="needs the extra 'train'")
    from safetensors.numpy import load_file

    monkeypatch.setattr(minatar, "CHUNK", 4096)
    monkeypatch.setattr(minatar, "EVALUATION_EPISODES", 2)
    lines: list[str] = []
    minatar.train("breakout", 1, tmp_path, 4096, lines.append)
    record = minatar.train("breakout", 1, tmp_path, 8192, lines.append)
    assert [steps for steps, _ in record["curve"]] == [4096, 8192]
    assert record == json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert len(record["returns"]) == 2
    layers = load_file(tmp_path / "actor.safetensors")
    assert layers["conv.weight"].shape == (16, 4, 3, 3)
    assert layers["output.weight"].shape == (3, 128)
    assert all(np.isfinite(values).all() for values in layers.values())
    with pytest.raises(InputError, match="another game or seed"):
        minatar.train("breakout", 2, tmp_path, 8192)
