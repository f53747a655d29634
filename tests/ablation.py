"""What each part of the optimisation is worth, on the same teachers, seeds and training.

    python -m tests.ablation --tasks CartPole-v1 MountainCar-v0 --out docs/benchmarks/ablation.json

Variants: pruning only and thresholds only (of the teacher, nothing trained), shrinking only (the
smallest dense student), and ladders of pruning and distillation from a small student: without
events in the loop and thresholds put on afterwards; with events in the loop, thresholds fixed; with
learned ones. Of each, the cheapest that holds on validation episodes plays fresh ones.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from eventsim.errors import InputError
from eventsim.models.arena import Arena
from eventsim.models.bounds import Scale, upper_bound
from eventsim.models.calibration import record, with_spread_thresholds
from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.models.pruning import input_importance, prune
from eventsim.optimize_search import Search as SearchLike
from eventsim.optimize_state import seeds_of
from tests.agents_table import agents_folder
from tests.machine import describe
from tests.optimize_table import ROOT, TASKS, write

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SCALES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
RECORDED = 5
#: By which fields of a training the ladders differ.
LADDERS: dict[str, dict[str, Any]] = {
    "distilled without events": {"events": False, "cost": 0.0},
    "distilled with events": {"learn_thresholds": False},
    "distilled with learned thresholds": {},
}
VARIANTS = ("pruning only", "thresholds only", "shrinking only", *LADDERS)


def ladder(
    teacher: Policy, env_id: str, folder: Path, options: argparse.Namespace, **training: Any
) -> SearchLike:
    """A search of which every event-driven training has some fields changed."""
    from eventsim.models import optimize

    class Changed(optimize.Search):
        def _train(self, student: Any, one: Any, seed: int, kept_steps: int | None = None) -> Any:
            # Dense students are trained alike in all variants.
            changed = replace(one, **training) if one.events else one
            return super()._train(student, changed, seed, kept_steps)

    settings = optimize.Settings(**{"slack": options.max_loss, **options.effort})
    search: SearchLike = Changed(
        teacher,
        env_id,
        teacher.metadata.get("env_kwargs") or {},
        seed=options.seed,
        budget=options.seconds,
        workdir=folder,
        say=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
        settings=settings,
    )
    return search


def candidates(
    variant: str, teacher: Policy, env_id: str, folder: Path, options: argparse.Namespace
) -> Iterator[Policy]:
    """Policies of one variant."""
    if variant in LADDERS:
        search = ladder(teacher, env_id, folder, options, **LADDERS[variant])
        for _ in search.stages():
            pass
        yield from (one.policy for one in search.candidates if one.kind == "events")
    elif variant == "shrinking only":
        # The dense students are the same in every ladder.
        search = ladder(teacher, env_id, folder, options)
        for stage in search.stages():
            if str(stage).startswith("events"):
                break
        yield from (one.policy for one in search.candidates if one.kind == "dense")
    else:
        seeds = seeds_of(options.seed)["samples"][:RECORDED]
        played = record(teacher, env_id, seeds, progress=False)
        inputs = [one.inputs for one in played if one.inputs is not None]
        if variant == "pruning only":
            importance = input_importance(teacher.network, inputs)
            for sparsity in SPARSITIES:
                try:
                    network = prune(teacher.network, sparsity, importance=importance)
                except InputError:
                    break  # a small network: its caps allow no more
                yield teacher.with_network(network)
        else:
            for scale in SCALES:
                network = with_spread_thresholds(teacher.network, inputs, scale)
                yield teacher.with_network(network)


def measure(
    task: str, variant: str, options: argparse.Namespace, load: Callable[[str], Policy]
) -> dict[str, Any]:
    """The cheapest policy of a variant that holds, on fresh episodes; the teacher if none does."""
    teacher = load(task)
    name = variant.replace(" ", "-")
    folder = options.workdir / f"{task}-seed{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    seeds = seeds_of(options.seed)
    with Arena(teacher, log=folder / "episodes.jsonl") as arena:
        baseline = arena.measure(seeds["baseline"][:40], seeds["random"][:100])
        validation = seeds["validation"][: options.episodes]
        # Dense students are trained once, for shrinking and for the ladder with everything.
        shared = "shrinking only" if variant == "distilled with learned thresholds" else variant
        place = folder / shared.replace(" ", "-")
        best: tuple[float, Policy | None] = (float(teacher.dense_macs), None)
        tried = 0
        for policy in candidates(variant, teacher, arena.env_id, place, options):
            tried += 1
            macs = _macs(arena, policy, validation, by_events=variant not in _DENSE)
            if macs < best[0] and arena.pairs(policy, validation).mean_loss <= options.max_loss:
                best = macs, policy
        policy = best[1] or teacher
        fresh = seeds["test"][: 2 * options.episodes]
        pairs = arena.pairs(policy, fresh)
        macs = _macs(arena, policy, fresh, by_events=variant not in _DENSE)
        if best[1] is None:
            macs = float(teacher.dense_macs)
        scale: Scale = baseline.scale
        return {
            "task": task,
            "variant": variant,
            "name": name,
            "tried": tried,
            "held": best[1] is not None,
            "macs": macs,
            "reduction": teacher.dense_macs / macs if macs else None,
            "loss": pairs.mean_loss,
            "upper95": upper_bound(pairs, scale),
            "worst_episode": pairs.worst_loss,
            "episodes": len(pairs),
        }


#: These run without events: every surviving weight counts.
_DENSE = ("pruning only", "shrinking only")


def _macs(arena: Arena, policy: Policy, seeds: range, *, by_events: bool) -> float:
    return arena.work(policy, seeds).synops if by_events else float(policy.network.n_synapses)


def main(arguments: list[str] | None = None, effort: dict[str, Any] | None = None) -> int:
    """Measure every variant on every task; what is in the file already is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["CartPole-v1", "MountainCar-v0", "LunarLander-v3", "Swimmer-v5"],
        choices=list(TASKS),
    )
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--episodes", type=int, default=100, help="to choose; twice to report")
    parser.add_argument("--max-loss", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=900.0, help="for each ladder at most")
    parser.add_argument("--agents", type=Path, default=agents_folder())
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "ablation.json")
    options = parser.parse_args(arguments)
    options.effort = effort or {}
    os.nice(10)
    rows: list[dict[str, Any]] = []
    if options.out.exists():
        rows = json.loads(options.out.read_text("utf-8"))["rows"]
    there = {(row["task"], row["variant"]) for row in rows}
    for task in options.tasks:
        for variant in options.variants:
            if (task, variant) in there:
                continue
            row = measure(
                task, variant, options, lambda name: load_policy(options.agents / TASKS[name].agent)
            )
            rows.append(row)
            print(
                f"{task}, {variant}: {row['macs']:.4g} a step, loss {100 * row['loss']:.2f}%, at "
                f"most {100 * row['upper95']:.2f}%",
                flush=True,
            )
            content = {
                "machine": describe("numpy", "torch", "gymnasium", module="tests.ablation"),
                "max_loss": options.max_loss,
                "seed": options.seed,
                "rows": rows,
            }
            write(options.out, content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
