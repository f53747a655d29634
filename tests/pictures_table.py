"""Optimise teachers that see pictures, and keep what came out as data.

    python -m tests.pictures_table --teacher runs/atari/pong --max-loss 0.05 --budget 30m

The folder is one of `eventsim.models.zoo.atari` (evaluated by ``--episodes``) or
`eventsim.models.zoo.minatar`. Each leaves a JSON file in docs/benchmarks/pictures, and in the
folder of the policies one for the zoo, which tells where it comes from; the tables in
docs/convolution.md are made of the files by `python -m tests.results_table`. The same command
continues what was cut short.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import eventsim
from eventsim import summary
from eventsim.errors import EventsimError
from eventsim.models.policy import Policy
from eventsim.optimize_run import optimize
from eventsim.optimize_state import Settings, seconds_of
from tests.machine import describe
from tests.optimize_table import ROOT, write

RESULTS = ROOT / "docs" / "benchmarks" / "pictures"
#: Seed of the first episode of which returns and work a layer are told.
SEED = 30_000


def teacher_of(folder: Path) -> dict[str, Any]:
    """How a teacher was trained, and what it returns."""
    training = json.loads((folder / "training.json").read_text("utf-8"))
    facts = {
        key: training[key]
        for key in ("game", "env_id", "seed", "steps", "seconds", "algorithm", "versions")
        if key in training
    }
    if training.get("imitation"):
        facts["imitation_steps"] = training["imitation"][-1]["steps"]
    evaluated = folder / "evaluation.json"
    if evaluated.exists():
        found = json.loads(evaluated.read_text("utf-8"))
        facts["protocol"] = found["protocol"]
        for name in ("sticky", "not_sticky"):
            facts[name] = _returns(found[name].pop("returns")) | {
                "human_normalised": found[name]["human_normalised"]
            }
    else:
        facts["sticky"] = _returns(training["returns"])
    return facts


def effort_of(words: Sequence[str]) -> dict[str, float]:
    """Settings of the search, from words such as ``own_after=0``."""
    effort: dict[str, float] = {}
    for word in words:
        key, _, value = word.partition("=")
        effort[key] = float(value) if "." in value else int(value)
    return effort


def zoo_name(facts: dict[str, Any]) -> str:
    """Name of a policy that ships: Atari's games by their own, MinAtar's by both."""
    library = facts["env_id"].partition("/")[0].lower()
    game = str(facts["game"]).replace("_", "-")
    return game if library == "ale" else f"{library}-{game}"


def _returns(values: list[float]) -> dict[str, Any]:
    figures = summary.returns(values)
    figures.pop("per_episode")
    return {**figures, "episodes": len(values)}


def layers_of(teacher: Policy, policy: Policy, played: eventsim.Run) -> list[dict[str, Any]]:
    """Work of each layer of a policy, beside the layer of the teacher in the same place.

    Where the policy has other layers than its teacher, the first are beside nothing.
    """
    theirs = [p.name for p in teacher.network.populations][1:]
    mine = [layer for layer in played.layers if layer["name"] not in policy.network.inputs]
    rows = []
    for k, layer in enumerate(mine):
        name = theirs[k] if len(theirs) == len(mine) else None
        synops = layer["macs"] + layer["acs"]
        dense = None if name is None else teacher.network.dense_macs(name)
        rows.append(
            {
                "name": layer["name"],
                "neurons": layer["neurons"],
                "teacher_dense_macs": dense,
                "synops": synops,
                "reduction": dense / synops if dense is not None and synops else None,
                "connection_sparsity": layer["connection_sparsity"],
                "activity_sparsity": layer["activity_sparsity"],
            }
        )
    return rows


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Optimise one teacher; the content of its file."""
    facts = teacher_of(options.teacher)
    teacher = Policy.load(options.teacher / "policy.safetensors")
    stem = f"{facts['game']}-{facts['env_id'].split('/')[0].lower()}-{options.max_loss:g}"
    target = options.policies / f"{stem}.safetensors"
    (options.policies / "zoo").mkdir(parents=True, exist_ok=True)
    outcome = optimize(
        teacher,
        facts["env_id"],
        out=target,
        settings=Settings(
            options.max_loss, seconds_of(options.budget), 32, options.seed, options.jobs
        ),
        effort=effort_of(options.effort),
        name=facts["game"],
        say=lambda text: print(f"{stem}: {text}", file=sys.stderr, flush=True),
    )
    played = eventsim.run(
        outcome.policy,
        facts["env_id"],
        episodes=options.episodes,
        seed=SEED,
        dense=False,
        record_events=False,
        progress=False,
    )
    data = outcome.to_dict()
    data["policy"] = target.name
    name = zoo_name(facts)
    training = {k: facts[k] for k in ("seed", "steps", "seconds", "versions") if k in facts}
    returns = _returns(played.returns.tolist())
    outcome.policy.with_metadata(
        name=name,
        returns=returns | {"seeds": [SEED, SEED + options.episodes - 1]},
        teacher_returns=facts["sticky"],
        training=training,
    ).save(options.policies / "zoo" / f"{name}.safetensors")
    return {
        "stem": stem,
        "teacher": facts,
        "max_loss": options.max_loss,
        "budget_seconds": seconds_of(options.budget),
        "outcome": data,
        "returns": returns | {"first_seed": SEED},
        "layers": layers_of(teacher, outcome.policy, played),
        "file_bytes": target.stat().st_size,
        "notes": list(outcome.notes),
        "machine": describe("numpy", "numba", "gymnasium", "torch", module="tests.pictures_table"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Optimise a teacher and write its file; 1 if that ended in an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", type=Path, required=True, help="folder of its training")
    parser.add_argument("--max-loss", type=float, default=0.05)
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--effort",
        nargs="*",
        default=[],
        metavar="NAME=NUMBER",
        help="settings of the search other than its own, see eventsim.models.candidate.Settings",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that play episodes")
    parser.add_argument("--episodes", type=int, default=30, help="of which work is told by layer")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--policies", type=Path, default=ROOT / "runs" / "pictures")
    options = parser.parse_args(arguments)
    os.nice(10)
    try:
        content = measure(options)
    except EventsimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write(options.out / f"{content['stem']}.json", content)
    data = content["outcome"]
    print(
        f"{content['stem']}: {data['macs'] + data['acs']:.4g} a step, {data['reduction']:.4g}x, "
        f"loss at most {100 * data['relative_loss']['upper95']:.2f}%, {data['seconds']:.0f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
