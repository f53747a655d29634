"""MinAtar's training script: names, a short training that goes on where it stopped, its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import eventsim
from eventsim.errors import FileFormatError, InputError, UnknownNameError
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


def actor(path: Path, game: str = "breakout", channels: int = 4) -> dict[str, np.ndarray]:
    """Random layers of an actor, written to a file."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    sizes = {"conv": (16, channels, 3, 3), "hidden": (128, 1024), "output": (3, 128)}
    tensors = {}
    for name, size in sizes.items():
        tensors[f"{name}.weight"] = rng.normal(size=size).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(size=size[0]).astype(np.float32)
    save_file(tensors, path, metadata={"game": game})
    return tensors


def test_the_policy_of_an_actor_acts_as_torch_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    pytest.importorskip("minatar", reason="needs the extra 'minatar'")
    layers = {
        name: torch.from_numpy(values).double()
        for name, values in actor(tmp_path / "actor.safetensors").items()
    }
    policy = minatar.policy_from(tmp_path / "actor.safetensors", seed=3)
    assert policy.metadata["seed"] == 3
    assert policy.metadata["env_kwargs"] == {"max_episode_steps": minatar.MAX_STEPS}
    policy.save(tmp_path / "policy.safetensors")
    session = eventsim.load(tmp_path / "policy.safetensors").session()
    f = torch.nn.functional
    rng = np.random.default_rng(0)
    with make_env(str(policy.env_id)) as env:
        for episode in range(3):
            observation, _ = env.reset(seed=episode)
            session.reset()
            over = False
            while not over:
                x = torch.from_numpy(observation).double().permute(2, 0, 1)[np.newaxis]
                x = torch.relu(f.conv2d(x, layers["conv.weight"], layers["conv.bias"])).flatten(1)
                x = torch.relu(f.linear(x, layers["hidden.weight"], layers["hidden.bias"]))
                outputs = f.linear(x, layers["output.weight"], layers["output.bias"])[0]
                assert session.act(observation) == int(outputs.argmax())
                np.testing.assert_allclose(session.outputs, outputs.numpy(), rtol=1e-9)
                observation, _, over, _, _ = env.step(int(rng.integers(3)))


def test_what_is_no_actor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "actor.safetensors"
    with pytest.raises(FileFormatError, match=r"actor\.safetensors.*no file of tensors"):
        minatar.policy_from(path)
    actor(path, "pong")
    with pytest.raises(FileFormatError, match="not the actor of a MinAtar game"):
        minatar.policy_from(path)


@pytest.mark.parametrize("game", minatar.GAMES)
def test_an_episode_is_a_function_of_its_seed(game: str) -> None:
    pytest.importorskip("minatar", reason="needs the extra 'minatar'")
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 3, 400)
    played = []
    for _ in range(2):
        with make_env(minatar.env_id(game), max_episode_steps=400) as env:
            env.reset(seed=7)
            rows = []
            for action in actions:
                observation, reward, over, cut, _ = env.step(int(action))
                rows.append((observation.tobytes(), reward))
                if over or cut:
                    break
            played.append(rows)
    assert played[0] == played[1]


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
    policy = eventsim.load(tmp_path / "policy.safetensors")
    assert policy.env_id == "MinAtar/Breakout-v1"
    run = eventsim.run(
        policy, episodes=2, seed=minatar.EVALUATION_SEED, progress=False, record_events=False
    )
    assert run.returns.tolist() == record["returns"]
    with pytest.raises(InputError, match="another game or seed"):
        minatar.train("breakout", 2, tmp_path, 8192)
    # Time that is over ends it like steps that are done.
    again = minatar.train("breakout", 1, tmp_path, 99_999, lines.append, seconds=1e-3)
    assert again["steps"] == 8192
