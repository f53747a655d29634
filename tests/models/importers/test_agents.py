"""Real agents of the RL Zoo: imported, exact on tapes, and as good as their README says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from eventsim.models.importers import load_policy
from tests.agents_table import measure, references

EPISODES = 2
# Names only: their figures are read from the folder.
AGENTS = {
    "a2c/BipedalWalker-v3": "Box2D",
    "a2c/Pendulum-v1": "",
    "ars/HalfCheetah-v3": "mujoco",
    "ddpg/LunarLanderContinuous-v2": "Box2D",
    "dqn/Acrobot-v1": "",
    "dqn/CartPole-v1": "",
    "dqn/MountainCar-v0": "",
    "ppo/CartPole-v1": "",
    "ppo/Hopper-v3": "mujoco",
    "ppo/LunarLander-v2": "Box2D",
    "ppo/MountainCarContinuous-v0": "",
    "ppo/Swimmer-v3": "mujoco",
    "qrdqn/CartPole-v1": "",
    "sac/HalfCheetah-v3": "mujoco",
    "tqc/Swimmer-v3": "mujoco",
}


@pytest.fixture
def agent(agents_dir: Path, request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not (agents_dir / name).is_dir():
        pytest.skip(f"no trained agents '{name}'")
    return name


@pytest.mark.parametrize("agent", AGENTS, indirect=True)
def test_folder_and_zip_import_alike(agents_dir: Path, agent: str) -> None:
    folder = agents_dir / agent
    policy = load_policy(folder)
    assert policy.metadata == load_policy(folder / f"{folder.name}.zip").metadata
    assert policy.metadata["trained_env_id"] == folder.name
    assert policy.metadata["algorithm"].replace("-", "").lower() == agent.split("/")[0]
    assert (policy.encoder.normalization is not None) == (folder / "vecnormalize.pkl").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("agent", AGENTS, indirect=True)
def test_exact_and_as_good_as_published(agents_dir: Path, agent: str) -> None:
    module = AGENTS[agent]
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"needs the extra '{module.lower()}'")
    result = measure(agents_dir, agent, references(agents_dir)[agent], EPISODES)
    assert result.same_actions, result
    assert result.largest_output_difference < 1e-10, result
    assert result.within, result
