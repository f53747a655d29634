"""Make the shipped policies from their teachers: prune, refit, calibrate, measure.

``models/zoo/train.py`` leaves one folder a teacher; one call here makes all policies of them, and
writes their table into the documentation::

    python -m eventsim.models.zoo.build --teachers teachers --out models/zoo --table docs/zoo.md

Disjoint sets of environment seeds are used: the teacher's own, then one each to record inputs, to
screen candidates, to choose among them (twice), and to report. The return that is reported was
seen by no choice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eventsim import __version__, summary
from eventsim.errors import EventsimError, FileFormatError, OutputError
from eventsim.models import zoo
from eventsim.models.calibration import SPREAD
from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.models.pruning import connection_sparsity
from eventsim.models.zoo.search import SEEDS, Bench, Settings, say, search, seeds

_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


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
    bench = Bench(teacher, env_id)
    try:
        chosen, found = search(bench, settings)
        policy = teacher.with_network(chosen.network)
        episodes = seeds("test", settings.tested)
        played = bench.play(policy, episodes)
        dense, random = bench.dense(episodes), bench.random(episodes)
    finally:
        bench.env.close()
    synops = played.synops / played.steps
    loss, error = bench.loss(played.returns, episodes)
    say(f"{env_id}: {policy.dense_macs / synops:.1f}x, loss {loss:.4f} +- {error:.4f}")
    return policy.with_metadata(
        name=_name(env_id),
        env_id=env_id,
        notes=[],  # the import guessed what the training's record states
        returns=_returns(played.returns, episodes),
        teacher_returns=_returns(dense, episodes),
        random_returns=_returns(random, episodes),
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
            "seed": SEEDS["record"],
            "steps": found["recorded_steps"],
        },
        search={
            "settings": asdict(settings),
            "seeds": SEEDS,
            **found,
        },
        training=_without_episodes(training),
        build_versions=_versions(),
        build_seconds=round(time.perf_counter() - began, 1),
    )


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
        # Rounded first: adding 0.0 turns -0.0 into 0.0.
        mean, low, high = (round(100.0 * x, 2) + 0.0 for x in (loss["mean"], *loss["ci95"]))
        made = m["calibration"]
        dense = m["reduction"] * m["synops_per_step"]
        cells = (
            f"`{name}`",
            m["env_id"],
            _interval(m["teacher_returns"]),
            _interval(m["returns"]),
            f"{mean:.2f} [{low:.2f}, {high:.2f}]",
            f"{dense:,.0f}",
            f"{m['synops_per_step']:.1f}",
            f"{m['reduction']:.1f}",
            f"{made['sparsity']:.1%}",
            f"{made['threshold_scale']:g}, inputs {made['input_threshold_scale']:.3g}",
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


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "numba", "gymnasium")
    return {
        "eventsim": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


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
