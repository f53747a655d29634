"""Make the shipped policies from their teachers: prune, refit, calibrate, measure.

``models/zoo/train.py`` leaves one folder a teacher; one call here makes all policies of them, and
writes their table into the documentation::

    python -m eventsim.models.zoo.build --teachers teachers --out models/zoo --table docs/zoo.md

Five disjoint sets of environment seeds are used: the teacher's own, then one each to record
inputs, to screen candidates, to choose among them, and to report. The return that is reported was
seen by no choice.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eventsim import __version__, summary
from eventsim.errors import EventsimError, FileFormatError, InputError, OutputError
from eventsim.models import zoo
from eventsim.models.activity import Float
from eventsim.models.calibration import SPREAD, with_spread_thresholds
from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.models.pruning import connection_sparsity
from eventsim.models.refit import prune_and_refit, refit
from eventsim.models.rollout import RandomActor, episode, make_env
from eventsim.network import Network

RECORD_SEED = 30_000
SCREEN_SEED = 40_000
VALIDATION_SEED = 50_000
TEST_SEED = 60_000

_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


@dataclass(frozen=True)
class Settings:
    """How the search is done.

    Parameters
    ----------
    sparsities : tuple of float
        Ascending; each stage goes on from the one before.
    scales : tuple of float
        Threshold scales, ascending.
    input_ratios : tuple of float
        Threshold scales of the inputs, relative to those of the other neurons.
    rounds : int
        Of pruning and refitting, a stage.
    recorded : int
        Steps recorded of the teacher.
    visits, visited : int
        How often a stage's student plays and is refitted on what it saw, and the steps that are
        recorded of it each time; the best of these students is kept.
    kept : int
        Steps of students that are kept at most, the latest ones.
    stages : int
        So many are given thresholds, from the sparsest back, once one of them held the return.
    screened, screened_steps : int
        Episodes to screen a candidate: so many, or more, until they have so many steps.
    validated, tested : int
        Episodes to choose a candidate, and to report.
    max_loss : float
        Largest loss of return, relative to the teacher's advantage over random actions, that a
        candidate may have: its mean over the validation episodes plus one standard error.
    give_up : float
        A search goes no further in a direction where the loss is so many times larger.
    """

    sparsities: tuple[float, ...] = (0.6, 0.75, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98)
    scales: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
    input_ratios: tuple[float, ...] = (0.3, 1.0)
    rounds: int = 4
    recorded: int = 10_000
    visits: int = 4
    visited: int = 5_000
    kept: int = 40_000
    stages: int = 2
    screened: int = 20
    screened_steps: int = 6_000
    validated: int = 200
    tested: int = 200
    max_loss: float = 0.01
    give_up: float = 4.0


@dataclass(frozen=True)
class Played:
    """What came of some episodes.

    Attributes
    ----------
    returns : list of float
    steps, synops : int
        Over all episodes, the first step of each included.
    """

    returns: list[float]
    steps: int
    synops: int


@dataclass(frozen=True)
class Candidate:
    """A point of the search; ``loss`` and ``reduction`` are those of the screening."""

    network: Network
    scale: float
    input_scale: float
    loss: float
    reduction: float

    def __str__(self) -> str:
        sparsity = connection_sparsity(self.network)
        return (
            f"sparsity {sparsity:.3f} scale {self.scale:g} ({self.input_scale:g} of inputs): "
            f"{self.reduction:.1f}x"
        )


class _Bench:
    """One teacher in its environment, and the returns to compare with."""

    def __init__(self, teacher: Policy, env_id: str) -> None:
        self.teacher = teacher
        self.env = make_env(env_id)
        self._dense: dict[range, list[float]] = {}
        self._advantage = 0.0
        self.mean_length = 1.0

    def play(self, policy: Policy, seeds: range) -> Played:
        """Play the episodes by events."""
        session = policy.session()
        returns: list[float] = []
        steps = synops = 0
        for seed in seeds:
            one = episode(session, self.env, seed)
            returns.append(one.total)
            steps += one.steps
            synops += session.simulator.totals.synops  # type: ignore[union-attr]
        return Played(returns, steps, synops)

    def record(self, network: Network, first: int, steps: int) -> tuple[list[float], list[Float]]:
        """Returns and inputs of dense episodes from seed `first` on, until there are `steps`."""
        session = self.teacher.with_network(network).dense_session()
        returns: list[float] = []
        inputs: list[Float] = []
        while sum(map(len, inputs)) < steps:
            one = episode(session, self.env, first + len(returns), record=True)
            returns.append(one.total)
            if one.inputs is not None:
                inputs.append(one.inputs)
        return returns, inputs

    def dense(self, seeds: range) -> list[float]:
        """Returns of the teacher."""
        if seeds not in self._dense:
            session = self.teacher.dense_session()
            self._dense[seeds] = [episode(session, self.env, seed).total for seed in seeds]
        return self._dense[seeds]

    def random(self, seeds: range) -> list[float]:
        """Returns of uniformly random actions."""
        actor = RandomActor(self.env.action_space)
        returns = []
        for seed in seeds:
            actor.seed(seed)
            returns.append(episode(actor, self.env, seed).total)
        return returns

    def measure_advantage(self, seeds: range) -> None:
        """Find what the teacher's mean return is above that of random actions."""
        dense, random = self.dense(seeds), self.random(seeds)
        self._advantage = (math.fsum(dense) - math.fsum(random)) / len(seeds)
        if self._advantage <= 0.0:
            raise InputError(
                "the teacher is not better than random actions; train it for longer",
                where=f"teacher of '{self.teacher.env_id}'",
            )

    def loss(self, returns: Sequence[float], seeds: range) -> tuple[float, float]:
        """Mean loss against the teacher on the same seeds, over its advantage; standard error."""
        dense = self.dense(seeds)
        lost = [(d - r) / self._advantage for d, r in zip(dense, returns, strict=True)]
        mean = math.fsum(lost) / len(lost)
        variance = math.fsum((x - mean) ** 2 for x in lost) / max(len(lost) - 1, 1)
        return mean, math.sqrt(variance / len(lost))


def build(teacher: Policy, training: dict[str, Any], settings: Settings) -> Policy:
    """Make the event-driven policy of one teacher.

    Parameters
    ----------
    teacher : Policy
    training : dict
        Its ``training.json``.
    settings : Settings

    Returns
    -------
    Policy
        Its metadata hold all that docs/zoo.md lists.

    Raises
    ------
    InputError
        If the teacher is not better than random actions, or no candidate holds the return.
    """
    began = time.perf_counter()
    env_id = str(training["env"])
    bench = _Bench(teacher, env_id)
    try:
        bench.measure_advantage(_seeds(SCREEN_SEED, settings.screened))
        chosen, found = _search(bench, settings)
        policy = teacher.with_network(chosen.network)
        seeds = _seeds(TEST_SEED, settings.tested)
        played = bench.play(policy, seeds)
        dense, random = bench.dense(seeds), bench.random(seeds)
    finally:
        bench.env.close()
    synops = played.synops / played.steps
    loss, error = bench.loss(played.returns, seeds)
    _say(f"{env_id}: {policy.dense_macs / synops:.1f}x, loss {loss:.4f} +- {error:.4f}")
    return policy.with_metadata(
        name=_name(env_id),
        env_id=env_id,
        returns=_returns(played.returns, seeds),
        teacher_returns=_returns(dense, seeds),
        random_returns=_returns(random, seeds),
        relative_loss=summary.relative_loss(played.returns, dense, random),
        reduction=policy.dense_macs / synops,
        synops_per_step=synops,
        calibration={
            "env_id": env_id,
            "threshold_scale": chosen.scale,
            "input_threshold_scale": chosen.input_scale,
            "spread": SPREAD,
            "sparsity": connection_sparsity(policy.network),
            "scope": "global",
            "refit": True,
            "seed": RECORD_SEED,
            "steps": found["recorded_steps"],
        },
        search={
            "settings": asdict(settings),
            "seeds": {
                "record": RECORD_SEED,
                "screen": SCREEN_SEED,
                "validation": VALIDATION_SEED,
                "test": TEST_SEED,
            },
            **found,
        },
        training=_without_episodes(training),
        build_versions=_versions(),
        build_seconds=round(time.perf_counter() - began, 1),
    )


def _search(bench: _Bench, settings: Settings) -> tuple[Candidate, dict[str, Any]]:
    """Prune ever further; then, from the sparsest stage back, find thresholds that hold.

    Returns
    -------
    Candidate
        The largest reduction of which the validation episodes say that it holds the return.
    dict
        What was recorded and tried on the way.
    """
    stages, inputs = _stages(bench, settings)
    validation = _seeds(VALIDATION_SEED, settings.validated)
    best: tuple[Candidate, float, float] | None = None
    screened = validated = examined = 0
    for network in reversed(stages):
        candidates = _screen(bench, network, inputs, settings)
        screened += len(candidates)
        for one in sorted(candidates, key=lambda c: -c.reduction):
            if one.loss > 2 * settings.max_loss or (best and one.reduction <= best[0].reduction):
                continue
            validated += 1
            played = bench.play(bench.teacher.with_network(one.network), validation)
            loss, error = bench.loss(played.returns, validation)
            _say(f"  validation of {one}, loss {loss:.4f} +- {error:.4f}")
            if loss + error <= settings.max_loss:
                best = one, loss, error
                break
        # Denser stages seldom do better: the first that holds, and as many as wanted after it.
        examined += best is not None
        if examined == settings.stages:
            break
    if best is None:
        raise InputError(
            f"no candidate holds the return within {settings.max_loss:g}; allow lower thresholds "
            "or sparsities",
            where=f"teacher of '{bench.teacher.env_id}'",
        )
    return best[0], {
        "recorded_steps": sum(map(len, inputs)),
        "screened_candidates": screened,
        "validated_candidates": validated,
        "validation_loss": best[1],
        "validation_standard_error": best[2],
    }


def _screen(
    bench: _Bench, network: Network, inputs: list[Float], settings: Settings
) -> list[Candidate]:
    """Raise the thresholds of one stage until the return goes."""
    # As many episodes as it takes: some tasks end within a few dozen steps.
    length = bench.mean_length
    seeds = _seeds(SCREEN_SEED, max(settings.screened, math.ceil(settings.screened_steps / length)))
    candidates = []
    for ratio in settings.input_ratios:
        for scale in settings.scales:
            event = with_spread_thresholds(network, inputs, scale, input_scale=ratio * scale)
            played = bench.play(bench.teacher.with_network(event), seeds)
            loss, _ = bench.loss(played.returns, seeds)
            reduction = event.dense_macs() * played.steps / max(played.synops, 1)
            candidates.append(Candidate(event, scale, ratio * scale, loss, reduction))
            _say(f"  {candidates[-1]}, loss {loss:.4f}")
            if loss > settings.give_up * settings.max_loss:
                break  # higher thresholds lose more
    return candidates


def _stages(bench: _Bench, settings: Settings) -> tuple[list[Network], list[Float]]:
    """Networks of growing sparsity that hold the return, dense; and the inputs recorded.

    The inputs are those that the teacher saw, and those that its students saw (Ross et al. 2011,
    "DAgger"): a pruned policy comes into states that its teacher never visits, and it is there
    that it must do as the teacher would.
    """
    teacher = bench.teacher.network
    returns, taught = bench.record(teacher, RECORD_SEED, settings.recorded)
    bench.mean_length = sum(map(len, taught)) / len(taught)
    first = RECORD_SEED + len(returns)
    visited: list[Float] = []
    network, inputs, stages = teacher, taught, []
    for sparsity in settings.sparsities:
        network = prune_and_refit(
            network, sparsity, inputs, teacher=teacher, rounds=settings.rounds
        )
        best = (math.inf, network)
        for _ in range(settings.visits):
            returns, seen = bench.record(network, first, settings.visited)
            loss, _ = bench.loss(returns, _seeds(first, len(returns)))
            first += len(returns)
            best = min(best, (loss, network), key=lambda one: one[0])
            # The students seen longest ago are the least like this one.
            visited = [*visited, *seen]
            while sum(map(len, visited)) > settings.kept:
                visited = visited[1:]
            inputs = taught + visited
            network = refit(network, teacher, inputs)
        loss, network = best
        _say(f"  sparsity {sparsity:.3f} without thresholds: loss {loss:.4f}")
        if loss > settings.give_up * settings.max_loss:
            break
        stages.append(network)
    return stages, inputs


def teachers(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Find the teachers that ``train.py`` left below `folder`.

    Returns
    -------
    dict of str to (Path, dict)
        By name in the zoo: the agent's zip and its record.

    Raises
    ------
    FileFormatError
        If there is none, a record is damaged, or there are two of one environment.
    """
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in sorted(folder.rglob("training.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            name, agent = _name(record["env"]), file.with_name(record["agent"])
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError("is no record of a training; train again", where=str(file)) from (
                error
            )
        if name in found:
            raise FileFormatError(
                f"is a second teacher of {record['env']}; leave one in the folder", where=str(file)
            )
        found[name] = (agent, record)
    if not found:
        raise FileFormatError(
            "holds no training.json; run python -m eventsim.models.zoo.train", where=str(folder)
        )
    return found


def table() -> str:
    """Return the shipped policies as a Markdown table, from their metadata."""
    lines = [
        "| policy | environment | return of the teacher | event-driven | relative loss, % | "
        "dense MACs | MACs a step | reduction | weights pruned | threshold scale | file |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in zoo.names():
        m = zoo.metadata(name)
        loss = m["relative_loss"]
        low, high = (100.0 * x for x in loss["ci95"])
        dense = m["reduction"] * m["synops_per_step"]
        cells = (
            f"`{name}`",
            m["env_id"],
            _interval(m["teacher_returns"]),
            _interval(m["returns"]),
            f"{100.0 * loss['mean']:.2f} [{low:.2f}, {high:.2f}]",
            f"{dense:,.0f}",
            f"{m['synops_per_step']:.1f}",
            f"{m['reduction']:.1f}",
            f"{m['calibration']['sparsity']:.1%}",
            f"{m['calibration']['threshold_scale']:g}",
            f"{zoo.path(name).stat().st_size / 1000:.1f} kB",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_table(file: Path) -> None:
    """Replace the table between the marks in a Markdown file.

    Raises
    ------
    FileFormatError
        If the file or its marks are missing.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise FileFormatError(f"cannot be read ({error.strerror})", where=str(file)) from error
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise FileFormatError(f"lacks the marks {_BEGIN} and {_END}", where=str(file))
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(f"{before}{begin}\n{table()}{end}{after}", encoding="utf-8")
        os.replace(partial, file)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror})", where=str(file)) from error


def _interval(returns: dict[str, Any]) -> str:
    low, high = returns["ci95"]
    return f"{returns['mean']:.1f} [{low:.1f}, {high:.1f}]"


def _returns(values: Sequence[float], seeds: range) -> dict[str, Any]:
    figures = summary.returns(values)
    figures.pop("per_episode")
    return {**figures, "episodes": len(values), "seeds": [seeds.start, seeds.stop - 1]}


def _without_episodes(training: dict[str, Any]) -> dict[str, Any]:
    """The record of the training, without the single returns."""
    evaluation = {k: v for k, v in training["evaluation"].items() if k != "per_episode"}
    return {**training, "evaluation": evaluation}


def _name(env_id: str) -> str:
    return env_id.rpartition("-v")[0].lower()


def _seeds(first: int, count: int) -> range:
    return range(first, first + count)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "numba", "gymnasium")
    return {
        "eventsim": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m eventsim.models.zoo.build", description="Make the policies of the zoo."
    )
    parser.add_argument("--teachers", type=Path, help="folder of what train.py left")
    parser.add_argument("--out", type=Path, help="folder for the policies")
    parser.add_argument("--only", action="append", metavar="NAME", help="such as cartpole")
    parser.add_argument("--table", type=Path, help="Markdown file to write the table into")
    options = parser.parse_args(argv)
    try:
        if options.teachers is not None:
            if options.out is None:
                parser.error("--teachers needs --out")
            for name, (agent, training) in teachers(options.teachers).items():
                if options.only is None or name in options.only:
                    policy = build(load_policy(agent, env=training["env"]), training, Settings())
                    policy.save(options.out / f"{name}.safetensors")
        if options.table is not None:
            write_table(options.table)
    except EventsimError as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
