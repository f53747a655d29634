"""What the files beside an agent say."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from eventsim.errors import FileFormatError, UnknownNameError, UnsupportedError
from eventsim.models.importers.rl_zoo import RENAMED, find_agent, surroundings, todays_name

HEAD = "!!python/object/apply:collections.OrderedDict\n"


def config(**values: str) -> str:
    """A config.yml as the RL Zoo writes it: a list of pairs."""
    lines = [f"  - - {key}\n    - {value}\n" for key, value in values.items()]
    return HEAD + "- -" + "".join(lines)[3:] if lines else HEAD


def folder(tmp_path: Path, name: str = "ppo/Hopper-v3", **files: str) -> Path:
    """A folder of the RL Zoo with an (empty) zip; returns the zip."""
    place = tmp_path / name
    place.mkdir(parents=True)
    for file, text in files.items():
        (place / file.replace("_yml", ".yml").replace("_pkl", ".pkl")).write_text(text)
    agent = place / f"{place.name}.zip"
    agent.touch()
    return agent


def test_a_whole_folder(tmp_path: Path) -> None:
    said = surroundings(
        folder(
            tmp_path,
            config_yml=HEAD
            + "- - - env_wrapper\n    - sb3_contrib.common.wrappers.TimeFeatureWrapper\n"
            "  - - normalize\n    - true\n"
            "  - - policy_kwargs\n    - dict( log_std_init=-2, activation_fn=nn.ReLU, "
            "net_arch=[dict(pi=[256,\n      256], vf=[256, 256])] )\n"
            "  - - vf_coef\n    - 0.5\n",
            args_yml=HEAD + "- - - algo\n    - ppo\n  - - env\n    - Hopper-v3\n"
            "  - - env_kwargs\n    - null\n  - - hyperparams\n    - n_envs: 16\n",
            vecnormalize_pkl="",
        )
    )
    assert said.env == "Hopper-v3"
    assert said.algorithm == "ppo"
    assert said.activation == "ReLU"
    assert said.normalize is True
    assert said.normalization_file is not None
    assert said.time_feature
    assert said.max_steps is None
    assert said.notes == ()


def test_a_bare_zip(tmp_path: Path) -> None:
    agent = tmp_path / "some where" / "agent.zip"
    agent.parent.mkdir()
    agent.touch()
    said = surroundings(agent)
    assert (said.env, said.algorithm, said.normalize, said.activation) == (None, None, None, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", True),
        ("false", False),
        ("null", False),
        ("dict(norm_obs=True, norm_reward=False)", True),
        ("dict(norm_obs=False, norm_reward=True)", False),
        ("\"{'norm_obs': False, 'norm_reward': True}\"", False),
    ],
)
def test_normalize(tmp_path: Path, value: str, expected: bool) -> None:
    assert surroundings(folder(tmp_path, config_yml=config(normalize=value))).normalize is expected


def test_normalize_kwargs(tmp_path: Path) -> None:
    text = config(normalize="true", normalize_kwargs="norm_obs: false\n      norm_reward: true")
    assert surroundings(folder(tmp_path, config_yml=text)).normalize is False


def test_a_config_without_normalize_means_none(tmp_path: Path) -> None:
    assert surroundings(folder(tmp_path, config_yml=config(gamma="0.9"))).normalize is False


@pytest.mark.parametrize(
    ("value", "steps", "test_mode"),
    [
        ("sb3_contrib.common.wrappers.TimeFeatureWrapper", None, False),
        ("- sb3_contrib.common.wrappers.TimeFeatureWrapper:\n        max_steps: 50", 50, False),
        ("rl_zoo3.wrappers.TimeFeatureWrapper:\n        test_mode: true", None, True),
    ],
)
def test_time_feature(tmp_path: Path, value: str, steps: int | None, test_mode: bool) -> None:
    said = surroundings(folder(tmp_path, config_yml=config(env_wrapper=value)))
    assert said.time_feature
    assert (said.max_steps, said.test_mode) == (steps, test_mode)
    assert not any("wrapper" in note for note in said.notes)


def test_another_wrapper_is_noted(tmp_path: Path) -> None:
    text = config(env_wrapper="gym_minigrid.wrappers.FlatObsWrapper")
    note, _ = surroundings(folder(tmp_path, config_yml=text)).notes
    assert "gym_minigrid.wrappers.FlatObsWrapper, which is not applied" in note


def test_env_kwargs_are_noted(tmp_path: Path) -> None:
    text = config(env="Hopper-v3", env_kwargs="continuous: true")
    (note,) = surroundings(folder(tmp_path, args_yml=text)).notes
    assert "continuous: true" in note


def test_stacked_frames(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="4 stacked frames"):
        surroundings(folder(tmp_path, config_yml=config(frame_stack="4")))


@pytest.mark.parametrize("torch", ["nn.Tanh", "th.nn.Tanh", "torch.nn.Tanh", "Tanh"])
def test_activation(tmp_path: Path, torch: str) -> None:
    text = config(policy_kwargs=f"dict(activation_fn={torch})")
    assert surroundings(folder(tmp_path, config_yml=text)).activation == "Tanh"


def test_plain_mappings_are_read_too(tmp_path: Path) -> None:
    said = surroundings(
        folder(
            tmp_path, config_yml="normalize: true\npolicy_kwargs: 'dict(activation_fn=nn.ELU)'\n"
        )
    )
    assert said.normalize is True
    assert said.activation == "ELU"


def test_settings_that_are_no_text(tmp_path: Path) -> None:
    agent = folder(tmp_path)
    (agent.parent / "config.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match=r"^config\.yml: cannot be read as text"):
        surroundings(agent)
    (agent.parent / "config.yml").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(FileFormatError, match="too large"):
        surroundings(agent)


@pytest.mark.parametrize(
    ("name", "stem", "env"),
    [
        ("ppo/CartPole-v1", "CartPole-v1", "CartPole-v1"),
        ("ppo/CartPole-v1_2", "best_model", "CartPole-v1"),
        ("downloads", "Acrobot-v1", "Acrobot-v1"),
        ("downloads", "dqn-MountainCar-v0", "MountainCar-v0"),
        ("downloads", "agent", None),
    ],
)
def test_environment_by_name(tmp_path: Path, name: str, stem: str, env: str | None) -> None:
    agent = folder(tmp_path, name).with_name(f"{stem}.zip")
    said = surroundings(agent)
    assert said.env == env
    assert (len(said.notes) == 1) is (env is not None)


def test_settings_one_folder_below(tmp_path: Path) -> None:
    agent = folder(tmp_path, "ppo/CartPole-v1_1")
    below = agent.parent / "CartPole-v1"
    below.mkdir()
    (below / "config.yml").write_text(config(normalize="true"))
    (below / "vecnormalize.pkl").touch()
    said = surroundings(agent)
    assert said.normalize is True
    assert said.normalization_file == below.resolve() / "vecnormalize.pkl"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["Hopper-v3.zip", "other.zip"], "Hopper-v3.zip"),
        (["final.zip", "best_model.zip", "rl_model_1000_steps.zip"], "final.zip"),
        (["best_model.zip", "rl_model_1_steps.zip", "rl_model_2_steps.zip"], "best_model.zip"),
        (["rl_model_1000_steps.zip"], "rl_model_1000_steps.zip"),
    ],
)
def test_the_agent_of_a_folder(tmp_path: Path, files: list[str], found: str) -> None:
    place = tmp_path / "Hopper-v3"
    place.mkdir()
    for name in files:
        (place / name).touch()
    assert find_agent(place).name == found


def test_folders_without_one_agent(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="holds no zip file"):
        find_agent(tmp_path)
    (tmp_path / "a.zip").touch()
    (tmp_path / "b.zip").touch()
    with pytest.raises(UnknownNameError, match=r"several agents \(a\.zip, b\.zip\)"):
        find_agent(tmp_path)


def test_names_of_today_exist() -> None:
    assert todays_name("CartPole-v1") == ("CartPole-v1", None)
    assert todays_name("LunarLander-v2") == (
        "LunarLander-v3",
        "trained on LunarLander-v2, which is LunarLander-v3 today",
    )
    assert set(RENAMED.values()) <= set(gym.registry)
