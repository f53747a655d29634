"""Trained agents, imported: dense and event-driven at threshold 0 on the same observations.

    python -m tests.agents_table --episodes 20 --out docs/benchmarks/agents.json

For every agent that the README of the agents' folder lists: import its folder, run deterministic
episodes from seed 0 on, event-driven at threshold 0, and compare

- the actions with those of the dense forward pass on the recorded observations of the first five
  episodes: the same, in a Box to the rounding of its float32;
- the mean return with the README's: within 3 sd sqrt(1/n + 1/20), n episodes here and 20 there,
  and half a unit of the last digit printed there.

Every episode has an environment of its own: a Box2D world that is reset remembers, in the order
of its contacts, what was in it before, so an episode in it depends on more than its seed. (In one
BipedalWalker-v3 for all 20 episodes the agent fell once, 290.3 +- 49.3 in the mean, event-driven
and dense alike; with one each it never does.)
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.models.rollout import episode, make_env
from tests.machine import describe

ROOT = Path(__file__).resolve().parent.parent
TAPES = 5
README_EPISODES = 20


@dataclass(frozen=True)
class Reference:
    """What the README says about an agent: mean return, its sd, and the last digit's unit."""

    mean: float
    sd: float
    unit: float

    def tolerance(self, episodes: int) -> float:
        """By how much the mean over so many episodes may differ."""
        return 3.0 * self.sd * math.sqrt(1 / episodes + 1 / README_EPISODES) + self.unit / 2


@dataclass(frozen=True)
class Result:
    """What was measured on one agent."""

    agent: str
    env: str
    algorithm: str
    layers: list[int]
    episodes: int
    mean: float
    sd: float
    reference_mean: float
    reference_sd: float
    tolerance: float
    within: bool
    taped_steps: int
    same_actions: bool
    largest_action_difference: float
    largest_output_difference: float
    seconds: float


def agents_folder() -> Path:
    """EVENTSIM_AGENTS, or a folder beside the checkout."""
    return Path(os.environ.get("EVENTSIM_AGENTS", ROOT.parent / "shared" / "policies"))


def references(folder: Path) -> dict[str, Reference]:
    """Read the returns from the table in the folder's README.md, by agent."""
    lines = (folder / "README.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    column = next(row for row in rows if row[0] == "agent").index("return")
    found = {}
    for row in rows:
        value = re.fullmatch(r"(-?\d+(?:\.(\d+))?)(?: \+- (\d+(?:\.\d+)?))?", row[column])
        if value and "/" in row[0]:
            unit = 10.0 ** -len(value[2] or "")
            found[row[0]] = Reference(float(value[1]), float(value[3] or 0.0), unit)
    return found


def replay(policy: Policy, tapes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Actions and outputs, differences of event-driven and dense ones over recorded inputs."""
    event, dense = policy.session().simulator, policy.dense_session().simulator
    actions, outputs = [], []
    for tape in tapes:
        event.reset()
        dense.reset()
        both = [event.run(tape), dense.run(tape)]
        outputs.append(np.abs(both[0] - both[1]))
        decoded = [policy.decoder.decode_batch(y).astype(np.float64) for y in both]
        actions.append(np.abs(decoded[0] - decoded[1]))
    return np.concatenate(actions), np.concatenate(outputs)


def _rounding(policy: Policy) -> float:
    """A unit in the last place of the largest action; 0 where actions are whole numbers."""
    high = getattr(policy.decoder, "high", None)
    return 0.0 if high is None else float(np.spacing(np.abs(high).max().astype(np.float32)))


def measure(folder: Path, agent: str, reference: Reference, episodes: int) -> Result:
    """Import one agent, run it, and compare."""
    begin = time.perf_counter()
    policy = load_policy(folder / agent)
    env_id = str(policy.metadata["env_id"])
    session = policy.session()
    played = []
    for seed in range(episodes):
        env = make_env(env_id)
        played.append(episode(session, env, seed, record=seed < TAPES))
        env.close()
    actions, outputs = replay(policy, [e.inputs for e in played if e.inputs is not None])
    returns = np.array([e.total for e in played])
    tolerance = reference.tolerance(episodes)
    return Result(
        agent=agent,
        env=env_id,
        algorithm=policy.metadata["algorithm"],
        layers=list(policy.metadata["layers"]),
        episodes=episodes,
        mean=float(returns.mean()),
        sd=float(returns.std(ddof=1)) if episodes > 1 else 0.0,
        reference_mean=reference.mean,
        reference_sd=reference.sd,
        tolerance=tolerance,
        within=abs(float(returns.mean()) - reference.mean) <= tolerance,
        taped_steps=len(actions),
        same_actions=float(actions.max()) <= _rounding(policy),
        largest_action_difference=float(actions.max()),
        largest_output_difference=float(outputs.max()),
        seconds=round(time.perf_counter() - begin, 1),
    )


HEAD = (
    "| agent | env | layers | return | reference | within | taped steps "
    "| same actions (largest difference) | largest difference of outputs |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def row(r: Result) -> str:
    """One line of the Markdown table."""
    cells = [
        r.agent,
        r.env,
        "-".join(map(str, r.layers)),
        f"{r.mean:.1f} +- {r.sd:.1f}",
        f"{r.reference_mean:g} +- {r.reference_sd:g}",
        f"{'yes' if r.within else 'NO'} (off {abs(r.mean - r.reference_mean):.1f} of "
        f"{r.tolerance:.1f})",
        f"{r.taped_steps}",
        f"{'yes' if r.same_actions else 'NO'} ({r.largest_action_difference:.1e})",
        f"{r.largest_output_difference:.1e}",
    ]
    return f"| {' | '.join(cells)} |"


def write(path: Path, results: list[Result]) -> None:
    """Write the results and what they were measured on."""
    content: dict[str, Any] = {
        "machine": describe("numpy", "numba", "gymnasium", "mujoco", module="tests.agents_table"),
        "results": [asdict(r) for r in results],
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def main() -> int:
    """Measure all agents, print the table; 1 if any of them is off."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=README_EPISODES)
    parser.add_argument("--agents", type=Path, default=agents_folder())
    parser.add_argument("--only", nargs="*", help="agents, such as ppo/CartPole-v1")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(HEAD)
    results = []
    for agent, reference in references(options.agents).items():
        if options.only and agent not in options.only:
            continue
        results.append(measure(options.agents, agent, reference, options.episodes))
        print(row(results[-1]), flush=True)
    if options.out:
        write(options.out, results)
    return 0 if all(r.within and r.same_actions for r in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
