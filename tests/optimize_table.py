"""Optimise trained agents, task by task, and keep what came out as data.

    python -m tests.optimize_table --tasks all --seeds 0 --budget 20m

Every task and seed leaves one JSON file in docs/benchmarks/optimize; one that is there is not done
again, so a run that was cut short continues with the same command, and so does the optimisation
that was under way. `python -m tests.results_table` makes docs/results.md of the files. The agents
are those of EVENTSIM_AGENTS, by default ../shared/policies.

A task that is not in the table, with the same settings:

    python -m tests.optimize_table --agent teachers/Some-v0.zip --env Some-v0 --budget 10m
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventsim.errors import EventsimError
from eventsim.models.importers import load_policy
from eventsim.models.quantization import size_bytes
from eventsim.optimize_run import optimize
from eventsim.optimize_state import Settings, seconds_of
from tests.agents_table import agents_folder
from tests.machine import describe

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "benchmarks" / "optimize"


@dataclass(frozen=True)
class Task:
    """An agent to optimise.

    Attributes
    ----------
    agent : str
        Its folder.
    most_macs, least_reduction : float or None
        What was aimed at: multiplications per step at most, reduction at least.
    """

    agent: str
    most_macs: float | None
    least_reduction: float


TASKS = {
    "LunarLander-v3": Task("ppo/LunarLander-v2", 2.0, 2400.0),
    "Swimmer-v5": Task("tqc/Swimmer-v3", 4.0, 17_000.0),
    "CartPole-v1": Task("dqn/CartPole-v1", 15.0, 4500.0),
    "MountainCar-v0": Task("dqn/MountainCar-v0", 45.0, 1500.0),
    "BipedalWalker-v3": Task("a2c/BipedalWalker-v3", 45.0, 130.0),
    "Hopper-v5": Task("ppo/Hopper-v3", 70.0, 1000.0),
    "Acrobot-v1": Task("dqn/Acrobot-v1", 180.0, 375.0),
    "HalfCheetah-v5": Task("sac/HalfCheetah-v3", 3500.0, 20.0),
    "Pendulum-v1": Task("a2c/Pendulum-v1", None, 100.0),
    "MountainCarContinuous-v0": Task("ppo/MountainCarContinuous-v0", None, 100.0),
    "LunarLanderContinuous-v3": Task("ddpg/LunarLanderContinuous-v2", None, 100.0),
}


def result_file(folder: Path, task: str, seed: int, bits: int) -> Path:
    """Where the outcome of a task is kept."""
    return folder / f"{task}-seed{seed}{'' if bits == 32 else f'-int{bits}'}.json"


def measure(
    task: str, seed: int, options: argparse.Namespace, effort: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Optimise one agent; the content of its file."""
    settings = Settings(options.max_loss, seconds_of(options.budget), options.weight_bits, seed)
    name = result_file(Path(), task, seed, options.weight_bits).stem
    if options.agent is None:
        agent = TASKS[task].agent
        teacher = load_policy(options.agents / agent)
    else:
        agent = options.agent.name
        teacher = load_policy(options.agent, env=task)
    target = options.policies / f"{name}.safetensors"
    work = target.with_suffix(".work")
    full = options.policies / f"{result_file(Path(), task, seed, 32).stem}.work"
    if options.weight_bits < 32 and full.exists() and not work.exists():
        # The search is the same whatever the bits; only what is tried is rounded.
        work.mkdir(parents=True)
        shutil.copy(full / "episodes.jsonl", work)
        if (full / "search").exists():
            shutil.copytree(full / "search", work / "search")
    began = time.perf_counter()
    try:
        outcome = optimize(
            teacher,
            out=target,
            settings=settings,
            name=agent,
            effort=effort,
            say=lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True),
        )
    except EventsimError as error:
        return {"task": task, "agent": agent, "seed": seed, "error": str(error)}
    data = outcome.to_dict()
    data["policy"] = Path(data["policy"]).name  # the place says nothing
    return {
        "task": task,
        "agent": agent,
        "command": f"eventsim optimize {agent} --env {data['env']} --max-loss {options.max_loss:g} "
        f"--budget {options.budget} --weight-bits {options.weight_bits} --seed {seed} "
        f"-o {data['policy']}",
        "max_loss": options.max_loss,
        "budget_seconds": settings.budget,
        "worst_possible_loss": outcome.policy.metadata["optimize"]["worst_possible_loss"],
        "teacher_bytes": size_bytes(teacher, 32).dense,
        "outcome": data,
        "notes": list(outcome.notes),
        "seconds_of_this_run": round(time.perf_counter() - began, 1),
        "machine": describe("numpy", "numba", "gymnasium", "torch", module="tests.optimize_table"),
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a result so that it is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def main(arguments: list[str] | None = None, effort: dict[str, Any] | None = None) -> int:
    """Optimise all that is asked for and not yet there; 1 if one ended in an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["all"], choices=["all", *TASKS])
    parser.add_argument("--agent", type=Path, help="teacher of a task outside of the table")
    parser.add_argument("--env", help="its environment")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--budget", default="20m")
    parser.add_argument("--max-loss", type=float, default=0.01)
    parser.add_argument("--weight-bits", type=int, default=32, choices=[32, 8, 4])
    parser.add_argument("--agents", type=Path, default=agents_folder())
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--policies", type=Path, default=ROOT / "runs" / "optimize")
    parser.add_argument("--again", action="store_true", help="also what is already there")
    options = parser.parse_args(arguments)
    if (options.agent is None) != (options.env is None):
        parser.error("--agent and --env go together")
    tasks = list(TASKS) if "all" in options.tasks else options.tasks
    if options.env is not None:
        if options.env in TASKS:
            parser.error(f"{options.env} is in the table; give --tasks {options.env}")
        tasks = [options.env]
    os.nice(10)
    failed = 0
    for seed in options.seeds:
        for task in tasks:
            path = result_file(options.out, task, seed, options.weight_bits)
            if path.exists() and not options.again:
                continue
            content = measure(task, seed, options, effort)
            if "error" in content:
                # No file: the same command tries again.
                print(f"{path.stem}: error: {content['error']}", file=sys.stderr, flush=True)
                failed += 1
                continue
            write(path, content)
            data = content["outcome"]
            print(
                f"{path.stem}: {data['macs'] + data['acs']:.3g} a step, "
                f"{data['reduction'] or float('inf'):.4g}x, "
                f"loss at most {100 * data['relative_loss']['upper95']:.2f}%, "
                f"{data['seconds']:.0f} s",
                flush=True,
            )
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
