"""Fine-tune a pruned, event-driven policy by reinforcement learning, and see what it gave.

    python -m tests.finetune_table --policy start.safetensors --agent sac/HalfCheetah-v3 --critic \\
        --steps 200000 --out docs/benchmarks/finetune.json --tuned tuned.safetensors

The policy before and after, by events, and its teacher play the same fresh episodes:
multiplications a step, loss relative to the teacher's advantage over random actions, and its
one-sided 95 % bound by betting. Each call adds a row to the file. The agents are those of
EVENTSIM_AGENTS, by default ../shared/policies.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from eventsim.models.arena import Arena
from eventsim.models.bounds import upper_bound
from eventsim.models.finetune import Look, Settings, finetune
from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.optimize_run import BASELINE_EPISODES, RANDOM_EPISODES
from eventsim.optimize_state import seeds_of
from tests.agents_table import agents_folder
from tests.machine import describe
from tests.optimize_table import write


def measure(arena: Arena, policy: Policy, seeds: Any, scale: Any) -> dict[str, Any]:
    """Work and loss of a policy on fresh episodes."""
    pairs = arena.pairs(policy, seeds)
    macs = arena.work(policy, seeds).synops
    return {
        "return": arena.mean_return(policy, seeds),
        "synapses": policy.network.n_synapses,
        "macs": macs,
        "reduction": arena.teacher.dense_macs / macs,
        "loss": pairs.mean_loss,
        "upper95": upper_bound(pairs, scale),
        "worst_episode": pairs.worst_loss,
    }


def main(arguments: list[str] | None = None) -> int:
    """Fine-tune one policy and add a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--agent", required=True, help="the teacher's folder")
    parser.add_argument("--critic", action="store_true", help="start from the teacher's critic")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--sparsity", type=float)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agents", type=Path, default=agents_folder())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, required=True, help="where the policy is written")
    options = parser.parse_args(arguments)
    teacher = load_policy(options.agents / options.agent)
    start = load_policy(options.policy)
    settings = Settings(
        steps=options.steps,
        learning_rate=options.learning_rate,
        sparsity=options.sparsity,
        noise=options.noise,
        looks=options.looks,
        critic=options.agents / options.agent if options.critic else None,
    )

    def say(look: Look, policy: Policy) -> None:
        print(f"{look.steps:,} steps: return {look.mean:.5g}", file=sys.stderr, flush=True)
        if look.kept:
            policy.save(options.tuned)  # what there is, if the training is cut short

    began = time.perf_counter()
    tuned = finetune(start, settings=settings, seed=options.seed, on_look=say)
    seconds = time.perf_counter() - began
    tuned.save(options.tuned)
    seeds = seeds_of(options.seed)
    with Arena(teacher) as arena:
        baseline = arena.measure(
            seeds["baseline"][:BASELINE_EPISODES], seeds["random"][:RANDOM_EPISODES]
        )
        fresh = seeds["test"][: options.episodes]
        row = {
            "agent": options.agent,
            "env": arena.env_id,
            "teacher": {"return": baseline.teacher, "dense_macs": teacher.dense_macs},
            "random": baseline.random,
            "episodes": options.episodes,
            "test_seeds": [fresh[0], fresh[-1]],
            "before": measure(arena, start, fresh, baseline.scale),
            "after": measure(arena, tuned, fresh, baseline.scale),
            "training": tuned.metadata["finetune"],
            "training_seconds": round(seconds, 1),
            "command": "python -m tests.finetune_table "
            + " ".join(arguments if arguments is not None else sys.argv[1:]),
            "machine": describe(
                "numpy", "torch", "stable-baselines3", "gymnasium", module="tests.finetune_table"
            ),
        }
    rows = json.loads(options.out.read_text("utf-8"))["rows"] if options.out.exists() else []
    write(options.out, {"rows": [*rows, row]})
    print(json.dumps({key: row[key] for key in ("before", "after")}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
