"""Names, files and folders that `load_policy` takes, and those that it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from eventsim.errors import FileFormatError, InputError, UnknownNameError
from eventsim.models import importers
from eventsim.models.importers import IMPORTERS, Importer, load_policy, zoo_files
from tests.sb3_files import PPO, vecnormalize_pickle, write_agent
from tests.tiny import cartpole_policy


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A policy that eventsim saved."""
    path = tmp_path / "mine.safetensors"
    load_policy(write_agent(tmp_path / "CartPole-v1.zip", PPO)).save(path)
    return path


@pytest.fixture
def zoo(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo of two names."""
    monkeypatch.setattr(importers, "zoo_files", lambda: {"cartpole": saved, "pendulum": saved})


def test_a_saved_policy_by_any_name(saved: Path) -> None:
    assert load_policy(saved).metadata["algorithm"] == "PPO"
    other = saved.rename(saved.with_name("policy"))
    assert load_policy(str(other)).metadata["algorithm"] == "PPO"


def test_a_zip_by_any_name(tmp_path: Path) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO).rename(tmp_path / "agent")
    assert load_policy(file).metadata["algorithm"] == "PPO"


@pytest.mark.usefixtures("zoo")
def test_names_of_the_zoo() -> None:
    assert load_policy("cartpole").metadata == load_policy("CartPole").metadata
    assert load_policy("cartpole", env="Mine-v0").env_id == "Mine-v0"


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    ("name", "hint"),
    [("cartpol", r"did you mean cartpole\?"), ("xyz", "the zoo has cartpole, pendulum")],
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"^there is no policy '{name}'.*{hint}"):
        load_policy(name)


def test_the_zoo_that_ships() -> None:
    for name, path in zoo_files().items():
        assert name == path.stem.lower()
        assert path.suffix == ".safetensors"


@pytest.mark.parametrize("name", ["no/such/agent", "agent.zip", "policy.safetensors"])
def test_files_that_are_not_there(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no file or folder '{name}'"):
        load_policy(name)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises((UnknownNameError, FileFormatError)):
        load_policy("a\0b")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\0\0\0\0\0\0\0["])
def test_an_unknown_format(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.bin").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"^file\.bin: is of no known format.*Stable-Base"):
        load_policy(tmp_path / "file.bin")


def test_options_that_do_not_apply(saved: Path) -> None:
    for options in ({"normalization": False}, {"time_feature": True}, {"algorithm": "PPO"}):
        with pytest.raises(InputError, match=rf"'{next(iter(options))}': does not apply"):
            load_policy(saved, **options)


def test_another_importer(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = load_policy(saved)
    mine = Importer("mine", lambda path: path.suffix == ".mine", lambda path: policy)
    monkeypatch.setattr(importers, "IMPORTERS", [*IMPORTERS, mine])
    (tmp_path / "a.mine").touch()
    assert load_policy(tmp_path / "a.mine") is policy


def test_neither_torch_nor_pickle_reads_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO)
    (tmp_path / "vecnormalize.pkl").write_bytes(vecnormalize_pickle(np.zeros(4), np.ones(4)))
    load_policy(file)  # so that eventsim's own modules are there: dataclasses call exec

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("something was run")

    with monkeypatch.context() as patch:
        for name in ("torch", "stable_baselines3", "sb3_contrib", "cloudpickle", "yaml", "gym"):
            patch.setitem(sys.modules, name, None)  # importing it raises
        for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "builtins.eval"):
            patch.setattr(name, refuse)
        policy = load_policy(file)
    assert policy.encoder.normalization is not None


def test_another_environment_does_not_get_the_arguments_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "saved.safetensors"
    arguments = {"continuous": True}
    policy = cartpole_policy().with_metadata(env_id="CartPole-v1", env_kwargs=arguments)
    policy.save(file)
    assert load_policy(file).metadata["env_kwargs"] == arguments
    assert load_policy(file, env="CartPole-v1").metadata["env_kwargs"] == arguments
    assert load_policy(file, env="CartPole-v0").metadata["env_kwargs"] == {}
