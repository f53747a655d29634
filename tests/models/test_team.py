"""Episodes that several processes play are those that one would have played."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from eventsim.errors import InputError
from eventsim.models.arena import Arena
from tests.fake_search import ENV, linear, teacher

ROOT = Path(__file__).resolve().parents[2]
FALLS = [0.0, 0.0, 1.0, 0.0]
#: An environment that ends the process of whoever plays in it, but for the tests' own.
LEAVING = """
import os
from multiprocessing import parent_process

import gymnasium as gym
from gymnasium.envs.classic_control import CartPoleEnv


class Leaving(CartPoleEnv):
    def step(self, action):
        if parent_process() is not None:
            os._exit(1)
        return super().step(action)


gym.register("Leaving-v0", Leaving, max_episode_steps=60)
"""


def measured(log: Path, **options: Any) -> Arena:
    """An arena that knows what random actions return, on seeds of their own."""
    arena = Arena(teacher(), ENV, log=log, **options)
    arena.measure(range(100, 105), range(100, 105))
    return arena


def test_processes_play_what_one_would(tmp_path: Path) -> None:
    policy, seeds, more = linear(FALLS, 0.1), range(7, 12), range(10, 14)
    alone, together = tmp_path / "alone.jsonl", tmp_path / "together.jsonl"
    played: list[int] = []
    with (
        measured(alone) as one,
        measured(together, on_episode=lambda: played.append(1), jobs=2) as two,
    ):
        expected, found = (arena.pairs(policy, seeds) for arena in (one, two))
        assert found.policy.tolist() == expected.policy.tolist()
        assert found.teacher.tolist() == expected.teacher.tolist()
        assert two.work(policy, seeds) == one.work(policy, seeds)
        # Another policy of the same processes, on seeds of which the teacher knows some.
        other = linear(FALLS)
        found, expected = (arena.pairs(other, more) for arena in (two, one))
        assert found.policy.tolist() == expected.policy.tolist()
    # The same rows, in whatever order they ended, and no more.
    lines = together.read_text().splitlines()
    assert sorted(lines) == sorted(alone.read_text().splitlines())
    assert len(lines) == len(played) == 2 * 5 + (5 + 5) + (4 + 2)
    with measured(together, jobs=2) as arena:
        arena.pairs(policy, seeds)  # all of it known: no process is begun for it
        assert arena._team is None


def test_an_environment_that_only_this_process_knows_is_said() -> None:
    gym.register("OnlyHere-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=9)
    try:
        with (
            Arena(teacher(), "OnlyHere-v0", jobs=2) as arena,
            pytest.raises(InputError, match=r"'jobs'.*OnlyHere-v0.*try jobs=1"),
        ):
            arena.pairs(teacher(), range(2))
    finally:
        del gym.registry["OnlyHere-v0"]


def test_processes_end_with_the_one_that_began_them() -> None:
    begin = """
from eventsim.models.arena import Arena
from tests.fake_search import ENV, teacher
arena = Arena(teacher(), ENV, jobs=2)
arena.measure(range(3), range(3))
arena.pairs(teacher(), range(5, 9))
print("played", flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", begin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"played\n"
        one.kill()
        # They write to the same pipe, which ends when the last of them has.
        one.communicate(timeout=60.0)


def test_a_process_that_ends_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING)
    monkeypatch.syspath_prepend(tmp_path)
    with (
        Arena(teacher(), "leaving:Leaving-v0", jobs=2) as arena,
        pytest.raises(InputError, match=r"'jobs'.*ended.*__main__.*jobs=1"),
    ):
        arena.pairs(teacher(), range(2))
