"""A short training of a zoo teacher goes through, and leaves what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eventsim.errors import InputError, OutputError, UnknownNameError
from eventsim.models.zoo import train

STEPS = 2_000


def _train(folder: Path) -> dict:
    return train.train(
        "CartPole-v1", 3, folder, steps=STEPS, checkpoint_episodes=2, evaluation_episodes=4
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    folder = tmp_path_factory.mktemp("teacher") / "cartpole"
    return folder, _train(folder)


def test_leaves_an_agent_and_its_record(trained: tuple[Path, dict]) -> None:
    folder, record = trained
    assert sorted(f.name for f in folder.iterdir()) == ["CartPole-v1.zip", "training.json"]
    assert json.loads((folder / "training.json").read_text()) == record
    assert (record["env"], record["seed"]) == ("CartPole-v1", 3)
    assert record["agent"] == "CartPole-v1.zip"
    assert STEPS <= record["steps"] < STEPS + 1024  # whole rollouts
    assert record["hyperparameters"]["steps"] == STEPS
    assert record["hyperparameters"]["arguments"]["learning_rate"] == {"linear": [1e-3, 0.0]}
    assert set(record["versions"]) == {"python", "numpy", "torch", "stable_baselines3", "gymnasium"}
    assert record["wall_seconds"] > 0.0


def test_reported_returns_are_those_of_the_saved_agent(trained: tuple[Path, dict]) -> None:
    from stable_baselines3 import PPO

    folder, record = trained
    evaluation = record["evaluation"]
    first, last = evaluation["seeds"]
    agent = PPO.load(folder / record["agent"], device="cpu")
    returns = train.episode_returns(agent, "CartPole-v1", range(first, last + 1))
    assert returns == evaluation["per_episode"]
    assert evaluation["episodes"] == len(returns) == 4
    assert evaluation["mean"] == np.mean(returns)
    assert evaluation["sd"] == np.std(returns, ddof=1)


def test_same_seed_gives_the_same_weights(trained: tuple[Path, dict], tmp_path: Path) -> None:
    from stable_baselines3 import PPO

    folder, record = trained
    again = _train(tmp_path)
    assert again["evaluation"] == record["evaluation"]
    first, second = (
        PPO.load(f / "CartPole-v1.zip", device="cpu").policy.state_dict()
        for f in (folder, tmp_path)
    )
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values.numpy(), second[name].numpy(), err_msg=name)


def test_agent_has_two_hidden_layers_of_64(trained: tuple[Path, dict]) -> None:
    from stable_baselines3 import PPO

    folder, _ = trained
    policy = PPO.load(folder / "CartPole-v1.zip", device="cpu").policy
    shapes = [tuple(p.shape) for p in policy.mlp_extractor.policy_net.parameters()]
    assert shapes == [(64, 4), (64,), (64, 64), (64,)]


def test_seeds_of_checkpoints_and_report_are_disjoint(trained: tuple[Path, dict]) -> None:
    _, record = trained
    assert record["checkpoint"]["seeds"][1] < record["evaluation"]["seeds"][0]
    assert train.CHECKPOINT_SEED + train.CHECKPOINT_EPISODES <= train.EVALUATION_SEED


@pytest.mark.parametrize("env_id", list(train.RECIPES))
def test_rollouts_divide_into_whole_batches(env_id: str) -> None:
    recipe = train.RECIPES[env_id]
    assert recipe.arguments["n_steps"] * recipe.n_envs % recipe.arguments["batch_size"] == 0
    assert recipe.actor == (64, 64)


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no recipe for 'MountainCar-v0'.*CartPole-v1"):
        train.train("MountainCar-v0", 0, tmp_path)
    with pytest.raises(InputError, match=r"'steps': must be at least 1, not 0"):
        train.train("CartPole-v1", 0, tmp_path, steps=0)
    with pytest.raises(InputError, match="evaluation_episodes"):
        train.train("CartPole-v1", 0, tmp_path, evaluation_episodes=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another"):
        train.train("CartPole-v1", 0, tmp_path / "file")


def test_command_line_reports_a_mistake_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        train.main(["--env", "CartPole-v1", "--steps", "-1", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "field 'steps': must be at least 1, not -1\n"
